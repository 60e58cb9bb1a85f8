// Room two: a linear classifier of points in the plane, trained step by step while it is drawn.
const roomTraining = (() => {
  const { html, svg, byId, scale, slider, setSlider, numberButton } = drawing;
  const { math, mi, mo, mn, row, fraction, sub, paren, signed, fixed } = formulas;
  const M = mathematics;
  const NAMES = ["A", "B", "C"];
  const SIZE = 480; // of the picture, in its own units
  const CELLS = 60; // regions are painted in so many cells a side
  const x = scale([-3, 3], [0, SIZE]);
  const y = scale([-3, 3], [SIZE, 0]);
  const EACH = 5; // points of a class
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const points = () => state.current.points.map((at, n) => ({ at, label: Math.floor(n / EACH) }));
  const evaluated = () => M.evaluate(state.current.model, points(), state.current.kind);
  let losses; // since the page was opened: a link holds the current model, not its history
  let known; // the points, model and loss that this room has drawn
  let shown = null; // which number's formula
  let playing = null;

  function note(changes) {
    state.note(changes);
    known = [state.current.points, state.current.model, state.current.kind];
  }

  function reset() {
    note({ points: structuredClone(state.START.points), model: structuredClone(state.START.model) });
    losses = [evaluated().loss];
  }

  function build(room) {
    note({});
    losses = [evaluated().loss];
    const play = html("button", { type: "button", id: "play", class: "main", onclick: toggle }, "Play");
    const controls = html("div", { class: "buttons" }, play,
      html("button", { type: "button", id: "step", onclick: () => { stop(); advance(1); } }, "One step"),
      html("button", { type: "button", id: "reset", onclick: () => { stop(); reset(); update(); } }, "Start again"));
    const kinds = html("fieldset", { class: "choice" }, html("legend", {}, "Loss"),
      ...[["softmax", "softmax"], ["hinge", "SVM (hinge)"]].map(([value, label]) => html("label", {},
        html("input", { type: "radio", name: "kind", value, checked: value === state.current.kind, onchange: () => choose(value) }), ` ${label}`)));
    const rates = slider({ id: "rate", label: "Learning rate", min: -2, max: 1, step: 0.05, value: Math.log10(state.current.rate),
      shown: (value) => fixed(10 ** value, 2), input: (value) => { note({ rate: Number((10 ** value).toPrecision(3)) }); explain(shown); } });
    const canvas = html("canvas", { id: "regions", width: CELLS, height: CELLS, "aria-hidden": "true" });
    const picture = svg("svg", { id: "points", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group",
      "aria-label": "Points of three classes; each can be dragged, or moved with the arrow keys" });
    room.append(html("div", { class: "training" },
      html("div", {}, html("div", { class: "plane" }, canvas, picture),
        html("p", { class: "hint" }, "Drag the points, or move one with the arrow keys. Colours show the most probable class, paler where the classifier is less sure.")),
      html("div", { class: "side" }, controls, html("div", { class: "settings" }, kinds, rates),
        html("dl", { class: "tiles", id: "standing" }), html("figure", { id: "history" }, html("figcaption", {}, "Loss over the steps")),
        html("figure", { id: "weights" }, html("figcaption", {}, "Weights, and the gradient of the loss by each")),
        html("div", { id: "training-formula", class: "explanation formula", "aria-live": "polite" }))));
    drawPoints();
    update();
    state.onChange(follow);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawRegions);
  }

  // The state changed elsewhere: another room was opened, or the address changed.
  function follow({ room: open, points: at, model, kind, rate }) {
    if (open !== "training") stop();
    if (at === known[0] && model === known[1] && kind === known[2]) return;
    stop();
    note({});
    losses = [evaluated().loss];
    document.querySelector(`input[name=kind][value=${kind}]`).checked = true;
    setSlider("rate", Math.log10(rate), fixed(rate, 2));
    update();
  }

  function choose(value) {
    note({ kind: value });
    losses = [evaluated().loss];
    update();
  }

  function toggle() {
    if (playing !== null) return stop();
    byId("play").textContent = "Pause";
    const tick = () => {
      advance(still.matches ? 20 : 1);
      playing = still.matches ? setTimeout(tick, 500) : requestAnimationFrame(tick);
    };
    playing = still.matches ? setTimeout(tick, 0) : requestAnimationFrame(tick);
    return undefined;
  }

  function stop() {
    if (playing === null) return;
    cancelAnimationFrame(playing);
    clearTimeout(playing);
    playing = null;
    byId("play").textContent = "Play";
  }

  function advance(steps) {
    for (let k = 0; k < steps; k += 1) {
      note({ model: M.step(state.current.model, points(), state.current.rate, state.current.kind) });
      losses.push(evaluated().loss);
    }
    if (losses.length > 4000) losses = losses.filter((_, k) => k % 2 === 0);
    update();
  }

  function update() {
    const found = evaluated();
    const all = state.current.points.length;
    drawRegions();
    placePoints();
    const press = (kind, value) => numberButton({ "data-formula": kind, "aria-label": `${value}: show the formula`, onclick: () => explain({ kind }) }, value);
    byId("standing").replaceChildren(...[["Loss", press("loss", fixed(found.loss, 4))], ["Right", press("right", `${Math.round(found.accuracy * all)} of ${all}`)], ["Steps", losses.length - 1]]
      .map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", { id: `standing-${name.toLowerCase()}` }, value))));
    drawHistory();
    drawWeights(found);
    explain(shown);
  }

  // Colours of the classes as red, green, blue: a canvas cannot read style sheets by itself.
  const palette = () => [0, 1, 2].map((c) => getComputedStyle(document.documentElement).getPropertyValue(`--region-${c}`)
    .trim().split(" ").map(Number));

  function drawRegions() {
    const canvas = byId("regions");
    const context = canvas.getContext("2d");
    const { model, kind } = state.current;
    const image = context.createImageData(CELLS, CELLS);
    const colours = palette();
    const paper = getComputedStyle(document.documentElement).getPropertyValue("--region-paper").trim().split(" ").map(Number);
    for (let j = 0; j < CELLS; j += 1) {
      for (let i = 0; i < CELLS; i += 1) {
        const at = [-3 + (6 * (i + 0.5)) / CELLS, 3 - (6 * (j + 0.5)) / CELLS];
        const p = M.softmax(M.scoresOf(model, at));
        const top = p.indexOf(Math.max(...p));
        const sure = kind === "softmax" ? 0.15 + 0.55 * ((p[top] - 1 / 3) * 1.5) : 0.45;
        for (let k = 0; k < 3; k += 1) {
          image.data[4 * (j * CELLS + i) + k] = Math.round(paper[k] + sure * (colours[top][k] - paper[k]));
        }
        image.data[4 * (j * CELLS + i) + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }

  const MARKS = [(s) => `M0,${-s}L${s},${s}L${-s},${s}Z`, (s) => `M${-s},${-s}H${s}V${s}H${-s}Z`, (s) => `M0,${-1.3 * s}L${1.3 * s},0L0,${1.3 * s}L${-1.3 * s},0Z`];

  function drawPoints() {
    points().forEach(({ label }, n) => {
      const mark = svg("g", { class: "mark", tabindex: 0, role: "button", "data-point": n,
        onpointerdown: (event) => drag(event, n), onkeydown: (event) => nudge(event, n) },
      svg("circle", { r: 22, class: "hit" }), svg("path", { d: MARKS[label](9), class: `c${label}` })); // 24 pixels on a phone
      byId("points").append(mark);
    });
  }

  function placePoints() {
    points().forEach(({ at, label }, n) => {
      const mark = document.querySelector(`[data-point='${n}']`);
      mark.setAttribute("transform", `translate(${x(at[0])} ${y(at[1])})`);
      const scores = M.scoresOf(state.current.model, at);
      mark.classList.toggle("miss", scores.indexOf(Math.max(...scores)) !== label);
      mark.setAttribute("aria-label", `Point of class ${NAMES[label]} at ${fixed(at[0], 1)}, ${fixed(at[1], 1)}`);
    });
  }

  // Within the plane, and of so few digits that a link can hold all of them.
  const inside = (value) => state.clamp(Math.round(value * 1000) / 1000, state.LARGEST.place);

  function move(n, at) {
    note({ points: state.current.points.map((each, k) => (k === n ? at.map(inside) : each)) });
    losses[losses.length - 1] = evaluated().loss;
    update();
  }

  function drag(event, n) {
    event.preventDefault();
    const mark = event.currentTarget;
    mark.focus();
    mark.setPointerCapture(event.pointerId);
    const along = ({ clientX, clientY }) => {
      const box = byId("points").getBoundingClientRect();
      move(n, [-3 + (6 * (clientX - box.left)) / box.width, 3 - (6 * (clientY - box.top)) / box.height]);
    };
    mark.addEventListener("pointermove", along);
    mark.addEventListener("pointerup", () => mark.removeEventListener("pointermove", along), { once: true });
    mark.addEventListener("pointercancel", () => mark.removeEventListener("pointermove", along), { once: true });
  }

  function nudge(event, n) {
    const by = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!by) return;
    event.preventDefault();
    move(n, state.current.points[n].map((each, k) => each + by[k]));
  }

  function drawHistory() {
    const most = Math.max(...losses.slice(0, 200), losses.at(-1)) * 1.05 || 1;
    const across = scale([0, Math.max(losses.length - 1, 1)], [44, 392]);
    const up = scale([0, most], [120, 10]);
    const stride = Math.max(1, Math.floor(losses.length / 350));
    const line = losses.map((each, k) => [k, each]).filter(([k]) => k % stride === 0 || k === losses.length - 1)
      .map(([k, each]) => `${across(k).toFixed(1)},${Math.max(up(each), 4).toFixed(1)}`).join(" ");
    byId("history").querySelector("svg")?.remove();
    byId("history").append(svg("svg", { viewBox: "0 0 400 140", role: "img", "aria-label": `Loss ${fixed(losses[0], 3)} at first, ${fixed(losses.at(-1), 3)} after ${losses.length - 1} steps` },
      ...[0, most / 2, most].map((each) => svg("g", { class: "axis" }, svg("line", { x1: 44, x2: 392, y1: up(each), y2: up(each) }),
        svg("text", { x: 38, y: up(each) + 4, "text-anchor": "end" }, fixed(each, 2)))),
      svg("polyline", { points: line, class: "curve" }),
      svg("circle", { cx: across(losses.length - 1), cy: Math.max(up(losses.at(-1)), 4), r: 4, class: "point" }),
      svg("text", { x: 392, y: 136, "text-anchor": "end" }, `${losses.length - 1} steps`)));
  }

  const COLUMNS = ["w₁", "w₂", "b"];

  function drawWeights({ dW, db }) {
    const { model } = state.current;
    const cell = (value, slope, c, k) => html("td", {},
      numberButton({ "data-formula": `w${c}${k}`, onclick: () => explain({ kind: "w", c, k }),
        "aria-label": `${COLUMNS[k]} of class ${NAMES[c]} is ${fixed(value, 2)}, the gradient ${fixed(slope, 3)}: show the formula` },
      fixed(value, 2), html("span", { class: "slope" }, ` ∂ ${fixed(slope, 3)}`)));
    byId("weights").querySelector("table")?.remove();
    byId("weights").append(html("table", { class: "plain" },
      html("thead", {}, html("tr", {}, ...["class", ...COLUMNS].map((each) => html("th", { scope: "col" }, each)))),
      html("tbody", {}, ...NAMES.map((name, c) => html("tr", {}, html("th", { scope: "row" }, html("span", { class: `dot d${c}` }), ` ${name}`),
        ...[0, 1].map((k) => cell(model.W[c][k], dW[c][k], c, k)), cell(model.b[c], db[c], c, 2))))));
  }

  const sum = (below, above) => formulas.element("munderover", mo("∑"), below, above);

  // The formula of a number, with the current numbers.
  function explain(what) {
    shown = what;
    const place = byId("training-formula");
    document.querySelectorAll("#room-training [aria-current]").forEach((each) => each.removeAttribute("aria-current"));
    if (!what) return place.replaceChildren();
    const { model, rate, kind } = state.current;
    const { loss, accuracy, dW, db } = evaluated();
    const N = state.current.points.length;
    const mean = (term) => row(fraction(mn("1"), mn(String(N))), sum(row(mi("n"), mo("="), mn("1")), mn(String(N))), term);
    const score = (c) => sub(mi("s"), mi(c));
    const hinge = row(formulas.element("munder", mo("∑"), row(mi("c"), mo("≠"), mi("y"))), mi("max"), paren(mn("0"), mo(","), score("c"), mo("−"), score("y"), mo("+"), mn("1")));
    const found = {
      loss: () => [kind === "softmax" ? "The mean over the points of −ln of the probability of each one's own class:" : "The mean over the points of what other classes' scores have beyond the own class's, less a margin of 1:",
        math(mi("L"), mo("="), mean(kind === "softmax" ? row(mo("−"), mi("ln"), sub(mi("p"), row(mi("n"), sub(mi("y"), mi("n"))))) : hinge)),
        math(mo("="), fraction(mn(loss * N), mn(String(N))), mo("="), mn(loss))],
      right: () => ["The points whose own class has the highest score s = W·x + b:",
        math(fraction(mn(String(Math.round(accuracy * N))), mn(String(N))), mo("="), mn(accuracy))],
      w: ({ c, k }) => {
        const value = k < 2 ? model.W[c][k] : model.b[c];
        const slope = k < 2 ? dW[c][k] : db[c];
        const by = k < 2 ? sub(mi("w"), row(mi(NAMES[c]), mn(String(k + 1)))) : sub(mi("b"), mi(NAMES[c]));
        const inner = kind === "softmax" ? paren(sub(mi("p"), row(mi("n"), mi(NAMES[c]))), mo("−"), mi("1"), mo("["), sub(mi("y"), mi("n")), mo("="), mi(NAMES[c]), mo("]"))
          : row(fraction(row(mo("∂"), sub(mi("L"), mi("n"))), row(mo("∂"), score(NAMES[c]))));
        return [`The gradient: what the loss has by this ${k < 2 ? "weight" : "bias"}, averaged over the points:`,
          math(fraction(row(mo("∂"), mi("L")), row(mo("∂"), by)), mo("="), mean(k < 2 ? row(inner, sub(mi("x"), row(mi("n"), mn(String(k + 1))))) : inner), mo("="), mn(slope)),
          "The next step goes against it, by the learning rate:",
          math(by, mo("−"), mi("η"), fraction(row(mo("∂"), mi("L")), row(mo("∂"), by)), mo("="), mn(value), mo("−"), mn(rate), mo("·"), signed(slope), mo("="), mn(value - rate * slope))];
      },
    }[what.kind](what);
    place.replaceChildren(...found.map((each) => (typeof each === "string" ? html("p", {}, each) : each)));
    const at = what.kind === "w" ? `w${what.c}${what.k}` : what.kind;
    document.querySelector(`[data-formula='${at}']`)?.setAttribute("aria-current", "true");
    return undefined;
  }

  return Object.freeze({ build, standing: () => ({ losses: [...losses], model: structuredClone(state.current.model), playing: playing !== null }) });
})();
