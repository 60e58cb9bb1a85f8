// MathML elements, and numbers as text.
const formulas = (() => {
  const SPACE = "http://www.w3.org/1998/Math/MathML";

  function element(name, ...children) {
    const node = document.createElementNS(SPACE, name);
    for (const child of children) node.append(child.parentNode ? child.cloneNode(true) : child);  // an element that occurs twice in a formula is copied
    return node;
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
    const node = element("mspace");
    node.setAttribute("width", "0.17em");
    return node;
  };
  const signed = (value) => (value < 0 ? paren(mn(value)) : mn(value));

  function math(...children) {
    const node = element("math", row(...children));
    node.setAttribute("display", "block");
    return node;
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

  // A probability; one that six digits would round to 1 is shown as 1 minus its complement, so that formulas of it stay exact.
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
