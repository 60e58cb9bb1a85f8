// MathML from small pieces, and numbers as people read them.
const formulas = (() => {
  const SPACE = "http://www.w3.org/1998/Math/MathML";

  function element(name, ...children) {
    const made = document.createElementNS(SPACE, name);
    for (const child of children) made.append(child.parentNode ? child.cloneNode(true) : child);  // twice in a formula: drawn twice
    return made;
  }
  const mi = (text) => element("mi", text);
  const mo = (text) => element("mo", text);
  const mn = (value) => {
    const text = typeof value === "string" ? value : number(value);
    return text.startsWith("−") ? element("mrow", mo("−"), element("mn", text.slice(1))) : element("mn", text);
  };
  const row = (...children) => element("mrow", ...children);
  const fraction = (above, below) => element("mfrac", above, below);
  const sup = (base, above) => element("msup", base, above);
  const sub = (base, below) => element("msub", base, below);
  const exp = (power) => sup(mi("e"), power);
  const paren = (...inside) => row(mo("("), ...inside, mo(")"));
  const ln = (...inside) => row(mi("ln"), space(), ...inside);
  const space = () => {
    const made = element("mspace");
    made.setAttribute("width", "0.17em");
    return made;
  };
  const signed = (value) => (value < 0 ? paren(mn(value)) : mn(value));

  function math(...children) {
    const made = element("math", row(...children));
    made.setAttribute("display", "block");
    return made;
  }

  // Six digits where they fit, a power of ten where they do not.
  function number(value, digits = 6) {
    if (Number.isNaN(value)) return "not a number";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    let text;
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) text = power(size, Math.min(digits, 4));
    else text = trimmed(size.toFixed(digits));
    return value < 0 && text !== "0" ? `−${text}` : text;
  }

  // A probability; one that six digits would round to 1 is shown by what it lacks, so that formulas of it stay true.
  const lacks = (value, complement) => complement > 0 && value.toFixed(6) === "1.000000";
  const share = (value, complement) => (lacks(value, complement) ? `1 − ${number(complement)}` : number(value));
  const shareOf = (value, complement) => (lacks(value, complement) ? paren(mn("1"), mo("−"), mn(complement)) : mn(value));

  // Always so many digits after the point: columns stay in line.
  function fixed(value, digits = 3) {
    if (!Number.isFinite(value)) return number(value);
    if (value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits) return (value < 0 ? "−" : "") + power(Math.abs(value), 0);
    return value.toFixed(digits).replace("-", "−");
  }

  const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  function power(size, digits = 4) {
    const [head, exponent] = size.toExponential(digits).split("e");
    return `${trimmed(head)}·10${[...String(Number(exponent))].map((each) => RAISED[each]).join("")}`;
  }
  function trimmed(text) {
    return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
  }

  return Object.freeze({ element, math, mi, mo, mn, row, fraction, sup, sub, exp, ln, paren, signed, number, fixed, share, shareOf });
})();
