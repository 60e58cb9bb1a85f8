// The free play: scores become probabilities, a loss and its gradient; a press on a number shows where it comes from.
const roomScores = (() => {
  const { html, svg, byId, scale, slider, setSlider, setNumber, numberButton } = drawing;
  const { number, fixed, share } = formulas;
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
  let curve;
  let jacobian;
  let arrows;

  function build(room) {
    const presets = html("div", { class: "buttons", role: "group", "aria-label": "Examples" });
    for (const [name, given] of Object.entries(PRESETS)) {
      presets.append(html("button", { type: "button", onclick: () => preset(given) }, name));
    }
    const cards = html("div", { class: "cards" }, ...state.IMAGES.map((name, n) => card(name, n)));
    const temperature = slider({
      id: "temperature", label: "Temperature τ", min: -1, max: 1, step: 0.01, value: Math.log10(tau()),
      shown: (value) => fixed(10 ** value, 2), input: (value) => state.set({ temperature: Number((10 ** value).toPrecision(3)) }),
    });
    const total = html("p", { class: "total" }, "Mean loss of the three: ", numberButton({ id: "mean", onclick: () => press({ kind: "mean" }) }));
    room.append(presets, cards, html("div", { class: "under" }, temperature, total), detail());
    state.onChange(follow);
    update();
  }

  // Draw the current numbers; the panel goes to the number that the state names, of the current image.
  function follow({ room: open, formula }) {
    if (open !== "scores") return;
    update();
    if (formula && anchorOf(formula) !== panel.anchor()) show(formula);
    else if (!formula && panel.anchor()) panel.close();
  }

  function preset({ scores, targets, row }) {
    state.set({ scores: structuredClone(scores), targets: [...targets], row, temperature: 1 });
  }

  const choose = (n) => state.current.row !== n && state.set({ row: n });

  function card(name, n) {
    const lines = state.CLASSES.map((label, c) => {
      const id = `score-${n}-${c}`;
      return html("div", { class: "line" },
        html("label", { for: id, class: "scrub", title: "Drag sideways to change the score", onpointerdown: (event) => scrub(event, n, c) }, label),
        html("input", { id, type: "number", step: "any", inputmode: "decimal", "aria-label": `Score of ${label} for image ${n + 1}`,
          onfocus: () => choose(n), oninput: (event) => typed(n, c, event.target) }),
        html("span", { class: "bar", "aria-hidden": "true" }, html("span", { class: `c${c}`, id: `bar-${n}-${c}` })),
        numberButton({ id: `p-${n}-${c}`, onclick: () => press({ kind: "p", i: c }, n) }));
    });
    const options = state.CLASSES.map((label, c) => html("option", { value: c }, label));
    const truth = html("select", { id: `truth-${n}`, onfocus: () => choose(n),
      onchange: (event) => state.set({ targets: state.current.targets.map((y, k) => (k === n ? Number(event.target.value) : y)) }) }, ...options);
    return html("section", { class: "card", id: `card-${n}`, "aria-label": `Image ${n + 1}, a ${name}` },
      html("button", { type: "button", class: "picture", id: `picture-${n}`, "aria-label": `Show the details of image ${n + 1}, a ${name}`, onclick: () => choose(n) },
        svg("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }, svg("use", { href: `#image-${name}` }))),
      html("div", { class: "heads", "aria-hidden": "true" }, html("span", {}, "class"), html("span", {}, "score f"), html("span", {}, "probability p")),
      ...lines,
      html("div", { class: "foot" }, html("label", { for: `truth-${n}` }, "true class "), truth,
        html("span", {}, "loss ", numberButton({ id: `loss-${n}`, onclick: () => press({ kind: "loss" }, n) }))));
  }

  function setScore(n, c, value) {
    const scores = structuredClone(state.current.scores);
    scores[n][c] = state.clamp(value, state.LARGEST.score);
    state.set({ scores, row: n });
  }

  // Typed text counts once it is a number; until then the last number is kept and the field is marked.
  function typed(n, c, field) {
    const value = field.value.trim() === "" ? NaN : Number(field.value);
    field.setAttribute("aria-invalid", String(!Number.isFinite(value)));
    if (Number.isFinite(value)) setScore(n, c, value);
  }

  // Drag a class's name sideways: 40 pixels are one point of its score.
  function scrub(event, n, c) {
    const [from, first] = [event.clientX, scoresOf(n)[c]];
    drawing.follow(event, ({ clientX }) => setScore(n, c, Math.round((first + (clientX - from) / 40) * 10) / 10));
  }

  function detail() {
    const figure = (id, title, ...inside) => html("figure", { id }, html("figcaption", {}, title), ...inside);
    curve = charts.lossCurve("curve", (p) => {
      const n = state.current.row;
      const wanted = Math.min(0.9999, Math.max(0.0067, p));
      setScore(n, targetOf(n), Number(M.scoreFor(scoresOf(n), targetOf(n), wanted, tau()).toFixed(4)));
    });
    jacobian = charts.jacobianTable("j", (_, i, j) => press({ kind: "j", i, j }));
    return html("div", { class: "detail" },
      html("h3", { id: "detail-title" }),
      html("div", { class: "figures" },
        figure("curve", "The loss −ln p of the true class; drag the point", curve.element),
        figure("arrows", "The gradient: where each score is pushed", buildArrows()),
        figure("jacobian", "The Jacobian ∂pᵢ/∂fⱼ", jacobian.element,
          html("p", { class: "hint" }, "Each row and each column sums to 0: probabilities only move from one class to another."))),
      html("section", { class: "formula", "aria-labelledby": "rounding-title" },
        html("h4", { id: "rounding-title" }, "In 32-bit arithmetic"), html("div", { id: "rounding" })));
  }

  function buildArrows() {
    arrows = state.CLASSES.map((label, c) => {
      const y = 36 + 62 * c;
      const parts = { line: svg("line", { x1: 160, y1: y + 4, y2: y + 4, class: `c${c} arrow` }), head: svg("polygon", { class: `c${c}` }),
        text: svg("text", { x: 312, y: y + 22, "text-anchor": "end" }) };
      parts.button = svg("g", { class: "cell", role: "button", tabindex: 0, "data-entry": c, onclick: () => press({ kind: "g", i: c }), onkeydown: (event) => pressed(event, { kind: "g", i: c }) },
        svg("rect", { x: 4, y: y - 26, width: 312, height: 54, rx: 8, class: "hit" }), svg("text", { x: 12, y: y + 5, class: "strong" }, label), parts.line, parts.head, parts.text);
      return parts;
    });
    return svg("svg", { viewBox: "0 0 320 220", role: "group", "aria-label": "Gradient by each score" },
      svg("line", { x1: 160, x2: 160, y1: 12, y2: 192, class: "zero" }),
      svg("text", { x: 150, y: 210, "text-anchor": "end" }, "← descent lowers"), svg("text", { x: 170, y: 210 }, "raises →"), ...arrows.map(({ button }) => button));
  }

  function drawArrows(n) {
    const g = M.gradient(scoresOf(n), targetOf(n), tau());
    const most = Math.max(1, ...g.map(Math.abs));
    const x = scale([-most, most], [48, 272]);
    arrows.forEach(({ button, line, head, text }, c) => {
      const y = 40 + 62 * c;
      const to = x(-g[c]); // a step of descent goes against the gradient
      const length = Math.abs(to - 160) > 7 ? Math.sign(to - 160) * 7 : 0;
      line.setAttribute("x2", to - length);
      head.setAttribute("points", length ? `${to},${y} ${to - length},${y - 7} ${to - length},${y + 7}` : "");
      text.textContent = `∂L/∂f = ${fixed(g[c], 4)}`;
      button.setAttribute("aria-label", `Gradient of ${state.CLASSES[c]}, ${number(g[c])}: show the formula`);
    });
  }

  function pressed(event, what) {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    press(what);
  }

  function update() {
    state.IMAGES.forEach((name, n) => {
      const p = M.softmax(scoresOf(n), tau());
      state.CLASSES.forEach((label, c) => {
        showScore(byId(`score-${n}-${c}`), scoresOf(n)[c]);
        byId(`bar-${n}-${c}`).style.width = `${100 * p[c]}%`;
        setNumber(byId(`p-${n}-${c}`), fixed(p[c], 3), `Probability of ${label}, ${share(p[c], M.complement(p, c))}: show the formula`);
      });
      byId(`truth-${n}`).value = targetOf(n);
      const loss = M.loss(scoresOf(n), targetOf(n), tau());
      setNumber(byId(`loss-${n}`), fixed(loss, 3), `Loss ${number(loss)} nats: show the formula`);
      byId(`card-${n}`).classList.toggle("chosen", state.current.row === n);
      byId(`picture-${n}`).setAttribute("aria-pressed", String(state.current.row === n));
    });
    setSlider("temperature", Math.log10(tau()), fixed(tau(), 2));
    const mean = state.IMAGES.reduce((sum, _, n) => sum + M.loss(scoresOf(n), targetOf(n), tau()), 0) / 3;
    setNumber(byId("mean"), fixed(mean, 4), `Mean loss ${number(mean)} nats: show the formula`);
    const n = state.current.row;
    const ties = scoresOf(n).filter((each) => each === Math.max(...scoresOf(n))).length > 1;
    byId("detail-title").textContent =
      `Image ${n + 1}, in truth a ${state.CLASSES[targetOf(n)]}${ties ? ": the highest scores tie" : ""}`;
    curve.update(scoresOf(n), targetOf(n), tau());
    drawArrows(n);
    jacobian.update(scoresOf(n), tau());
    drawRounding(n);
    panel.refresh();
  }

  // A score of eight digits; a field that holds the same number in other digits is left as it was typed.
  function showScore(field, value) {
    if (field.value === "" || Number(field.value) !== value) field.value = Number(value.toPrecision(8));
    field.setAttribute("aria-invalid", "false");
  }

  function drawRounding(n) {
    const u = scoresOf(n).map((each) => each / tau()); // of these, so that a temperature is no further rounding
    const single = M.conventional32(u, targetOf(n));
    const g = M.gradient(u, targetOf(n));
    const lines = [["loss", single.loss, M.loss(u, targetOf(n))],
      ...state.CLASSES.map((label, c) => [`gradient, ${label}`, single.gradient[c], g[c]])];
    const lost = single.loss === 0 && lines[0][2] > 0;
    byId("rounding").replaceChildren(
      html("table", { class: "plain" },
        html("thead", {}, html("tr", {}, html("td", {}), html("th", { scope: "col" }, "as usual"), html("th", { scope: "col" }, "exact"))),
        html("tbody", {}, ...lines.map(([name, usual, right]) => html("tr", { class: usual === 0 && right !== 0 ? "lost" : "" },
          html("th", { scope: "row" }, name), html("td", {}, number(usual)), html("td", {}, number(right)))))),
      html("p", { class: "hint" }, lost
        ? "1 + r rounds to 1 in float32, so the usual loss and the target's gradient are exactly 0: this example no longer teaches. softnll keeps the rest r by itself."
        : "As usual: exp, sum, log, each rounded to float32. With a score 17 ahead it returns 0; try it above."));
  }

  // The element that shows a number of the current image.
  function anchorOf({ kind, i, j }) {
    const n = state.current.row;
    return { p: () => byId(`p-${n}-${i}`), loss: () => byId(`loss-${n}`), mean: () => byId("mean"), j: () => byId(`j-${i}-${j}`), g: () => arrows[i].button }[kind]();
  }

  const describe = (what) => () => origins.of(what, state.current.row, tau());

  // Show a number's formula, and keep it in the state.
  function show(what) {
    panel.open(anchorOf(what), describe(what), () => state.note({ formula: null }));
    state.note({ formula: what });
  }

  // Show a number's formula, or close it where it is shown.
  function press(what, n = state.current.row) {
    const before = panel.anchor();
    choose(n);
    if (before && anchorOf(what) === before) panel.close();
    else show(what);
  }

  return Object.freeze({ build, opened: () => follow(state.current) });
})();
