// Room one: scores become probabilities, a loss and its gradient; a press on a number shows where it comes from.
const roomScores = (() => {
  const { html, svg, byId, scale, slider, setSlider } = drawing;
  const { math, mi, mo, mn, row, fraction, sub, exp, ln, paren, signed, number, fixed, share, shareOf } = formulas;
  const M = mathematics;
  const PRESETS = {
    "The three images": { scores: state.START.scores, targets: state.START.targets, row: 0 },
    "A tie": { scores: [[4, 4, 1], [4, 2, 8], [4, 4, 1]], targets: [0, 2, 1], row: 2 },
    "Confident": { scores: [[9, 1, 0], [0, 1, 9], [1, 9, 0]], targets: [0, 2, 1], row: 0 },
    "Confidently wrong": { scores: [[1, 9, 0], [4, 2, 8], [4, 4, 1]], targets: [0, 2, 1], row: 0 },
    "17 ahead": { scores: [[17, 0, 0], [0, 0, 17], [0, 17, 0]], targets: [0, 2, 1], row: 0 },
  };
  const tau = () => state.current.temperature;
  const scoresOf = (n) => state.current.scores[n];
  const targetOf = (n) => state.current.targets[n];

  function build(room) {
    const presets = html("div", { class: "buttons", role: "group", "aria-label": "Examples" });
    for (const [name, given] of Object.entries(PRESETS)) {
      presets.append(html("button", { type: "button", onclick: () => preset(given) }, name));
    }
    const cards = html("div", { class: "cards" }, ...state.IMAGES.map((name, n) => card(name, n)));
    const temperature = slider({
      id: "temperature", label: "Temperature τ", min: -1, max: 1, step: 0.01, value: Math.log10(tau()),
      shown: (value) => fixed(10 ** value, 2), input: (value) => state.set({ temperature: rounded(10 ** value) }),
    });
    const total = html("p", { class: "total" }, "Mean loss of the three: ",
      html("button", { type: "button", class: "number", id: "mean", onclick: () => explain({ kind: "mean" }) }));
    room.append(presets, cards, html("div", { class: "under" }, temperature, total), detail());
    state.onChange(update);
    update();
  }

  const rounded = (value) => Number(value.toPrecision(3));

  function preset({ scores, targets, row: chosen }) {
    state.set({ scores: structuredClone(scores), targets: [...targets], row: chosen, temperature: 1, formula: { kind: "loss" } });
  }

  function card(name, n) {
    const choose = () => state.current.row !== n && state.set({ row: n });
    const lines = state.CLASSES.map((label, c) => {
      const id = `score-${n}-${c}`;
      return html("div", { class: "line" },
        html("label", { for: id }, label),
        html("input", { id, type: "number", step: "any", inputmode: "decimal", "aria-label": `Score of ${label} for image ${n + 1}`,
          onfocus: choose, oninput: (event) => typed(n, c, event.target) }),
        html("span", { class: "bar", "aria-hidden": "true" }, html("span", { class: `c${c}`, id: `bar-${n}-${c}` })),
        html("button", { type: "button", class: "number", id: `p-${n}-${c}`,
          onclick: () => { choose(); explain({ kind: "p", i: c }); } }));
    });
    const options = state.CLASSES.map((label, c) => html("option", { value: c }, label));
    const truth = html("select", { id: `truth-${n}`, onfocus: choose,
      onchange: (event) => state.set({ targets: state.current.targets.map((y, k) => (k === n ? Number(event.target.value) : y)) }) }, ...options);
    return html("section", { class: "card", id: `card-${n}`, "aria-label": `Image ${n + 1}, a ${name}` },
      html("button", { type: "button", class: "picture", id: `picture-${n}`, "aria-label": `Show the details of image ${n + 1}, a ${name}`, onclick: choose },
        svg("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }, svg("use", { href: `#image-${name}` }))),
      html("div", { class: "heads", "aria-hidden": "true" }, html("span", {}, "class"), html("span", {}, "score"), html("span", {}, "probability")),
      ...lines,
      html("div", { class: "foot" }, html("label", { for: `truth-${n}` }, "true class "), truth,
        html("span", {}, "loss ", html("button", { type: "button", class: "number", id: `loss-${n}`,
          onclick: () => { choose(); explain({ kind: "loss" }); } }))));
  }

  // Typed text counts once it is a number; until then the last number is kept and the field is marked.
  function typed(n, c, field) {
    const value = field.value.trim() === "" ? NaN : Number(field.value);
    field.setAttribute("aria-invalid", String(!Number.isFinite(value)));
    if (!Number.isFinite(value)) return;
    const scores = structuredClone(state.current.scores);
    scores[n][c] = state.clamp(value, state.LARGEST.score);
    state.set({ scores, row: n });
  }

  function detail() {
    const figure = (id, title, ...inside) =>
      html("figure", { id }, html("figcaption", {}, title), ...inside);
    return html("div", { class: "detail" },
      html("h3", { id: "detail-title" }),
      html("div", { class: "figures" },
        figure("curve", "The loss −ln p of the true class"),
        figure("arrows", "The gradient: where each score is pushed"),
        figure("jacobian", "The Jacobian ∂pᵢ/∂xⱼ")),
      html("div", { class: "two" },
        html("section", { class: "formula", "aria-labelledby": "formula-title" },
          html("h4", { id: "formula-title" }, "Where a number comes from"),
          html("div", { id: "formula", class: "explanation", "aria-live": "polite" })),
        html("section", { class: "formula", "aria-labelledby": "rounding-title" },
          html("h4", { id: "rounding-title" }, "In 32-bit arithmetic"),
          html("div", { id: "rounding" }))));
  }

  function update() {
    state.IMAGES.forEach((name, n) => {
      const p = M.softmax(scoresOf(n), tau());
      state.CLASSES.forEach((label, c) => {
        const field = byId(`score-${n}-${c}`);
        if (Number(field.value) !== scoresOf(n)[c] || field.value === "") field.value = scoresOf(n)[c];
        field.setAttribute("aria-invalid", "false");
        byId(`bar-${n}-${c}`).style.width = `${100 * p[c]}%`;
        const button = byId(`p-${n}-${c}`);
        button.textContent = fixed(p[c], 3);
        button.setAttribute("aria-label", `Probability of ${label}, ${share(p[c], M.complement(p, c))}: show the formula`);
      });
      byId(`truth-${n}`).value = targetOf(n);
      const loss = M.loss(scoresOf(n), targetOf(n), tau());
      byId(`loss-${n}`).textContent = fixed(loss, 3);
      byId(`loss-${n}`).setAttribute("aria-label", `Loss ${number(loss)} nats: show the formula`);
      byId(`card-${n}`).classList.toggle("chosen", state.current.row === n);
      byId(`picture-${n}`).setAttribute("aria-pressed", String(state.current.row === n));
    });
    setSlider("temperature", Math.log10(tau()), fixed(tau(), 2));
    byId("mean").textContent = fixed(meanLoss(), 4);
    byId("mean").setAttribute("aria-label", `Mean loss ${number(meanLoss())} nats: show the formula`);
    const n = state.current.row;
    const ties = scoresOf(n).filter((x) => x === Math.max(...scoresOf(n))).length > 1;
    byId("detail-title").textContent =
      `Image ${n + 1}, in truth a ${state.CLASSES[targetOf(n)]}${ties ? ": the highest scores tie" : ""}`;
    drawCurve(n);
    drawArrows(n);
    drawJacobian(n);
    drawRounding(n);
    explain(state.current.formula);
  }

  const meanLoss = () => state.IMAGES.reduce((sum, _, n) => sum + M.loss(scoresOf(n), targetOf(n), tau()), 0) / 3;

  function redraw(id, picture) {
    byId(id).querySelectorAll(":scope > :not(figcaption)").forEach((each) => each.remove());
    byId(id).append(picture);
  }

  function drawCurve(n) {
    const all = M.softmax(scoresOf(n), tau());
    const p = all[targetOf(n)];
    const loss = M.loss(scoresOf(n), targetOf(n), tau());
    const x = scale([0, 1], [40, 300]);
    const y = scale([0, 5], [190, 16]);
    const points = Array.from({ length: 160 }, (_, k) => Math.exp(-5 * (1 - k / 159)))
      .map((each) => `${x(each).toFixed(1)},${y(-Math.log(each)).toFixed(1)}`).join(" ");
    const at = { cx: x(p), cy: Math.max(8, y(loss)) };
    redraw("curve", svg("svg", { viewBox: "0 0 320 220", role: "img", "aria-label": `−ln (${share(p, M.complement(all, targetOf(n)))}) is ${number(loss, 4)}` },
      ...[0, 1, 2, 3, 4, 5].map((each) => svg("g", { class: "axis" },
        svg("line", { x1: 40, x2: 300, y1: y(each), y2: y(each) }), svg("text", { x: 32, y: y(each) + 4, "text-anchor": "end" }, each))),
      ...[0, 0.25, 0.5, 0.75, 1].map((each) => svg("text", { x: x(each), y: 208, "text-anchor": "middle" }, each)),
      svg("polyline", { points, class: "curve" }),
      svg("line", { x1: at.cx, x2: at.cx, y1: at.cy, y2: 190, class: "drop" }),
      svg("circle", { ...at, r: 6, class: `c${targetOf(n)} point` }),
      svg("text", { x: Math.min(at.cx + 10, 226), y: Math.max(at.cy - 10, 14), class: "strong" }, `loss ${fixed(loss, 3)}`)));
  }

  function drawArrows(n) {
    const g = M.gradient(scoresOf(n), targetOf(n), tau());
    const most = Math.max(1, ...g.map(Math.abs));
    const x = scale([-most, most], [48, 272]);
    const lines = state.CLASSES.map((label, c) => {
      const y = 36 + 62 * c;
      const to = x(-g[c]); // a step of descent goes against the gradient
      const head = Math.abs(to - 160) > 7 ? Math.sign(to - 160) * 7 : 0;
      const button = svg("g", { class: "cell", role: "button", tabindex: 0, "data-entry": c,
        "aria-label": `Gradient of ${label}, ${number(g[c])}: show the formula`,
        onclick: () => explain({ kind: "g", i: c }), onkeydown: (event) => pressed(event, { kind: "g", i: c }) },
        svg("rect", { x: 4, y: y - 26, width: 312, height: 54, rx: 8, class: "hit" }),
        svg("text", { x: 12, y: y + 5, class: "strong" }, label),
        svg("line", { x1: 160, x2: to - head, y1: y + 4, y2: y + 4, class: `c${c} arrow` }),
        head ? svg("polygon", { points: `${to},${y + 4} ${to - head},${y - 3} ${to - head},${y + 11}`, class: `c${c}` }) : null,
        svg("text", { x: 312, y: y + 22, "text-anchor": "end" }, `∂L/∂x = ${fixed(g[c], 4)}`));
      return button;
    });
    redraw("arrows", svg("svg", { viewBox: "0 0 320 220", role: "group", "aria-label": "Gradient by each score" },
      svg("line", { x1: 160, x2: 160, y1: 12, y2: 192, class: "zero" }),
      svg("text", { x: 150, y: 210, "text-anchor": "end" }, "← descent lowers"), svg("text", { x: 170, y: 210 }, "raises →"), ...lines));
  }

  function drawJacobian(n) {
    const J = M.jacobian(scoresOf(n), tau());
    const most = Math.max(1e-300, ...J.flat().map(Math.abs));
    const table = html("table", { class: "heat" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, ""),
      ...state.CLASSES.map((label) => html("th", { scope: "col" }, `x ${label}`)))));
    const body = html("tbody");
    J.forEach((line, i) => body.append(html("tr", {}, html("th", { scope: "row" }, `p ${state.CLASSES[i]}`),
      ...line.map((value, j) => {
        const cell = html("button", { type: "button", class: value < 0 ? "minus" : "plus", id: `j-${i}-${j}`,
          "aria-label": `Derivative of p ${state.CLASSES[i]} by the score of ${state.CLASSES[j]}, ${number(value)}: show the formula`,
          onclick: () => explain({ kind: "j", i, j }) }, fixed(value, 3));
        cell.style.setProperty("--strength", (0.08 + 0.42 * Math.sqrt(Math.abs(value) / most)).toFixed(3));
        return html("td", {}, cell);
      }))));
    table.append(body);
    redraw("jacobian", html("div", {}, table, html("p", { class: "hint" }, "Each row and each column sums to 0: probabilities only move from one class to another.")));
  }

  function drawRounding(n) {
    const u = scoresOf(n).map((x) => x / tau()); // of these, so that a temperature is no further rounding
    const single = M.conventional32(u, targetOf(n));
    const g = M.gradient(u, targetOf(n));
    const lines = [["loss", single.loss, M.loss(u, targetOf(n))],
      ...state.CLASSES.map((label, c) => [`gradient, ${label}`, single.gradient[c], g[c]])];
    const lost = single.loss === 0 && lines[0][2] > 0;
    byId("rounding").replaceChildren(
      html("table", { class: "plain" },
        html("thead", {}, html("tr", {}, html("th", { scope: "col" }, ""), html("th", { scope: "col" }, "as usual"), html("th", { scope: "col" }, "exact"))),
        html("tbody", {}, ...lines.map(([name, usual, right]) => html("tr", { class: usual === 0 && right !== 0 ? "lost" : "" },
          html("th", { scope: "row" }, name), html("td", {}, number(usual)), html("td", {}, number(right)))))),
      html("p", { class: "hint" }, lost
        ? "1 + r rounds to 1 in float32, so the usual loss and the target's gradient are exactly 0: this example no longer teaches. softnll keeps the rest r by itself."
        : "As usual: exp, sum, log, each rounded to float32. With a score 17 ahead it returns 0; try it above."));
  }

  function pressed(event, what) {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    explain(what);
  }

  const over = (x) => (tau() === 1 ? mn(x) : fraction(mn(x), mn(tau())));
  const sumOfExponentials = (x) => row(...x.flatMap((each, k) => (k ? [mo("+"), exp(over(each))] : [exp(over(each))])));
  const half = (value) => (tau() === 1 ? value : fraction(value, mn(tau())));

  function explain(what) {
    state.note({ formula: what });
    const n = state.current.row;
    const x = scoresOf(n);
    const y = targetOf(n);
    const p = M.softmax(x, tau());
    const name = (c) => mi(state.CLASSES[c]);
    const { d, top, r, shifted } = M.parts(x, tau());
    const of = (i) => shareOf(p[i], M.complement(p, i)); // p_i, as a number that formulas of it may use
    const largest = mn(x[top]);
    const found = {
      p: ({ i }) => ["The share of one exponential in the sum of all:",
        math(sub(mi("p"), name(i)), mo("="), fraction(exp(over(x[i])), sumOfExponentials(x))),
        "The largest score taken from each changes nothing, and no exponential is infinite:",
        math(mo("="), fraction(exp(half(row(mn(x[i]), mo("−"), signed(x[top])))), row(mn("1"), mo("+"), mi("r"))), mo("="),
          fraction(mn(shifted[i]), row(mn("1"), mo("+"), mn(r))), mo("="), of(i)),
        r === 0 ? "The others' exponentials are 0: too small for a number." : null],
      loss: () => ["How unlikely the classifier thought the truth, in nats:",
        math(mi("L"), mo("="), mo("−"), ln(sub(mi("p"), name(y))), mo("="), mo("−"), ln(of(y)), mo("="), mn(M.loss(x, y, tau()))),
        "Computed from the largest score m and the rest r, so that nothing is rounded away:",
        math(mi("L"), mo("="), half(paren(mi("m"), mo("−"), sub(mi("x"), name(y)))), mo("+"), ln(paren(mn("1"), mo("+"), mi("r"))), mo(","), mi("m"), mo("="), largest),
        math(mo("="), mn(0 - d[y]), mo("+"), ln(paren(mn("1"), mo("+"), mn(r))), mo("="), mn(M.loss(x, y, tau())))],
      g: ({ i }) => [i === y ? "Of the true class: its probability less 1. Descent raises this score." : "Of any other class: its probability. Descent lowers this score.",
        math(fraction(row(mo("∂"), mi("L")), row(mo("∂"), sub(mi("x"), name(i)))), mo("="),
          half(i === y ? row(sub(mi("p"), name(i)), mo("−"), mn("1")) : sub(mi("p"), name(i))), mo("="), mn(M.gradient(x, y, tau())[i])),
        "By the chain rule over all probabilities; only that of the true class is in the loss:",
        math(row(mo("−"), fraction(mn("1"), sub(mi("p"), name(y)))), mo("·"),
          fraction(row(mo("∂"), sub(mi("p"), name(y))), row(mo("∂"), sub(mi("x"), name(i))))),
        math(mo("="), row(mo("−"), fraction(mn("1"), of(y))), mo("·"), signed(M.jacobian(x, tau())[y][i]), mo("="), mn(M.gradient(x, y, tau())[i]))],
      j: ({ i, j }) => [i === j ? "On the diagonal: a score raises its own probability." : "Off the diagonal: a score takes from every other probability.",
        math(fraction(row(mo("∂"), sub(mi("p"), name(i))), row(mo("∂"), sub(mi("x"), name(j)))), mo("="),
          half(i === j ? row(sub(mi("p"), name(i)), paren(mn("1"), mo("−"), sub(mi("p"), name(i)))) : row(mo("−"), sub(mi("p"), name(i)), sub(mi("p"), name(j))))),
        math(mo("="), half(i === j ? row(of(i), mo("·"), mn(M.complement(p, i))) : row(mo("−"), of(i), mo("·"), of(j))),
          mo("="), mn(M.jacobian(x, tau())[i][j]))],
      mean: () => ["The sum of the three losses, divided by three:",
        math(fraction(row(...state.IMAGES.flatMap((_, k) => {
          const each = mn(M.loss(scoresOf(k), targetOf(k), tau()));
          return k ? [mo("+"), each] : [each];
        })), mn("3")), mo("="), mn(meanLoss()))],
    }[what.kind](what);
    byId("formula").replaceChildren(...found.filter(Boolean).map((each) => (typeof each === "string" ? html("p", {}, each) : each)));
    document.querySelectorAll("[aria-current='true']").forEach((each) => each.removeAttribute("aria-current"));
    const target = { p: () => byId(`p-${n}-${what.i}`), loss: () => byId(`loss-${n}`), mean: () => byId("mean"),
      j: () => byId(`j-${what.i}-${what.j}`), g: () => document.querySelector(`#arrows [data-entry='${what.i}']`) }[what.kind]();
    target?.setAttribute("aria-current", "true");
  }

  return Object.freeze({ build });
})();
