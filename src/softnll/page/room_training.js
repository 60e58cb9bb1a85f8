// Room two: a linear classifier of points in the plane, trained before the reader's eyes.
const roomTraining = (() => {
  const { html, svg, byId, scale, slider } = drawing;
  const { fixed } = formulas;
  const M = mathematics;
  const NAMES = ["A", "B", "C"];
  const SIZE = 480; // of the picture, in its own units
  const CELLS = 60; // regions are painted in so many cells a side
  const x = scale([-3, 3], [0, SIZE]);
  const y = scale([-3, 3], [SIZE, 0]);
  const START = [
    [[-1.6, 0.9], 0], [[-1.1, 1.6], 0], [[-1.9, 1.7], 0], [[-0.7, 0.8], 0], [[-1.3, 0.3], 0],
    [[1.3, 1.2], 1], [[1.9, 0.6], 1], [[0.9, 1.7], 1], [[1.6, 1.9], 1], [[0.5, 0.6], 1],
    [[0.1, -1.2], 2], [[0.8, -1.6], 2], [[-0.6, -1.7], 2], [[0.3, -2.1], 2], [[-0.2, -0.5], 2],
  ];
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let points;
  let model;
  let losses;
  let kind = "softmax";
  let rate = 0.5;
  let playing = null;

  function reset() {
    points = START.map(([at, label]) => ({ at: [...at], label }));
    model = { W: [[0.5, -0.6], [-0.4, -0.5], [0.2, 0.9]], b: [0, 0, 0] }; // wrong on purpose: there is something to learn
    losses = [M.evaluate(model, points, kind).loss];
  }

  function build(room) {
    reset();
    const play = html("button", { type: "button", id: "play", class: "main", onclick: toggle }, "Play");
    const controls = html("div", { class: "buttons" }, play,
      html("button", { type: "button", id: "step", onclick: () => { stop(); advance(1); } }, "One step"),
      html("button", { type: "button", id: "reset", onclick: () => { stop(); reset(); update(); } }, "Start again"));
    const kinds = html("fieldset", { class: "choice" }, html("legend", {}, "Loss"),
      ...[["softmax", "softmax"], ["hinge", "SVM (hinge)"]].map(([value, label]) => html("label", {},
        html("input", { type: "radio", name: "kind", value, checked: value === kind, onchange: () => choose(value) }), ` ${label}`)));
    const rates = slider({ id: "rate", label: "Learning rate", min: -2, max: 1, step: 0.05, value: Math.log10(rate),
      shown: (value) => fixed(10 ** value, 2), input: (value) => { rate = 10 ** value; } });
    const canvas = html("canvas", { id: "regions", width: CELLS, height: CELLS, "aria-hidden": "true" });
    const picture = svg("svg", { id: "points", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group",
      "aria-label": "Points of three classes; each can be dragged, or moved with the arrow keys" });
    room.append(html("div", { class: "training" },
      html("div", {}, html("div", { class: "plane" }, canvas, picture),
        html("p", { class: "hint" }, "Drag the points, or move one with the arrow keys. Colours show the most probable class, paler where the classifier is less sure.")),
      html("div", { class: "side" }, controls, html("div", { class: "settings" }, kinds, rates),
        html("dl", { class: "tiles", id: "standing" }), html("figure", { id: "history" }, html("figcaption", {}, "Loss over the steps")),
        html("figure", { id: "weights" }, html("figcaption", {}, "Weights, and where the next step takes them"))))); 
    drawPoints();
    update();
    state.watch(({ room: open }) => open !== "training" && stop());
  }

  function choose(value) {
    kind = value;
    losses = [M.evaluate(model, points, kind).loss];
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
      model = M.step(model, points, rate, kind);
      losses.push(M.evaluate(model, points, kind).loss);
    }
    if (losses.length > 4000) losses = losses.filter((_, k) => k % 2 === 0);
    update();
  }

  function update() {
    const found = M.evaluate(model, points, kind);
    drawRegions();
    placePoints();
    byId("standing").replaceChildren(...[["Loss", fixed(found.loss, 4)], ["Right", `${Math.round(found.accuracy * points.length)} of ${points.length}`], ["Steps", losses.length - 1]]
      .map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", { id: `standing-${name.toLowerCase()}` }, value))));
    drawHistory();
    drawWeights(found);
  }

  // Colours of the classes as red, green, blue: a canvas cannot read style sheets by itself.
  const palette = () => [0, 1, 2].map((c) => getComputedStyle(document.documentElement).getPropertyValue(`--region-${c}`)
    .trim().split(" ").map(Number));

  function drawRegions() {
    const canvas = byId("regions");
    const context = canvas.getContext("2d");
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
    points.forEach(({ label }, n) => {
      const mark = svg("path", { d: MARKS[label](9), class: `c${label} mark`, tabindex: 0, role: "button", "data-point": n,
        onpointerdown: (event) => drag(event, n), onkeydown: (event) => nudge(event, n) });
      byId("points").append(mark);
    });
  }

  function placePoints() {
    points.forEach(({ at, label }, n) => {
      const mark = document.querySelector(`[data-point='${n}']`);
      mark.setAttribute("transform", `translate(${x(at[0])} ${y(at[1])})`);
      const scores = M.scoresOf(model, at);
      mark.classList.toggle("miss", scores.indexOf(Math.max(...scores)) !== label);
      mark.setAttribute("aria-label", `Point of class ${NAMES[label]} at ${fixed(at[0], 1)}, ${fixed(at[1], 1)}`);
    });
  }

  const inside = (value) => Math.min(2.9, Math.max(-2.9, value));

  function move(n, at) {
    points[n].at = at.map(inside);
    losses[losses.length - 1] = M.evaluate(model, points, kind).loss;
    update();
  }

  function drag(event, n) {
    event.preventDefault();
    const mark = event.currentTarget;
    mark.focus();
    mark.setPointerCapture(event.pointerId);
    const follow = ({ clientX, clientY }) => {
      const box = byId("points").getBoundingClientRect();
      move(n, [-3 + (6 * (clientX - box.left)) / box.width, 3 - (6 * (clientY - box.top)) / box.height]);
    };
    mark.addEventListener("pointermove", follow);
    mark.addEventListener("pointerup", () => mark.removeEventListener("pointermove", follow), { once: true });
    mark.addEventListener("pointercancel", () => mark.removeEventListener("pointermove", follow), { once: true });
  }

  function nudge(event, n) {
    const by = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!by) return;
    event.preventDefault();
    move(n, points[n].at.map((each, k) => each + by[k]));
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

  function drawWeights({ dW, db }) {
    const cell = (value, slope) => html("td", {}, fixed(value, 2), html("span", { class: "slope", title: "−rate × gradient" }, ` ${slope > 0 ? "−" : "+"}${fixed(Math.abs(rate * slope), 3)}`));
    byId("weights").querySelector("table")?.remove();
    byId("weights").append(html("table", { class: "plain" },
      html("thead", {}, html("tr", {}, ...["class", "w₁", "w₂", "b"].map((each) => html("th", { scope: "col" }, each)))),
      html("tbody", {}, ...NAMES.map((name, c) => html("tr", {}, html("th", { scope: "row" }, html("span", { class: `dot d${c}` }), ` ${name}`),
        cell(model.W[c][0], dW[c][0]), cell(model.W[c][1], dW[c][1]), cell(model.b[c], db[c]))))));
  }

  return Object.freeze({ build, standing: () => ({ losses: [...losses], model: structuredClone(model), playing: playing !== null }) });
})();
