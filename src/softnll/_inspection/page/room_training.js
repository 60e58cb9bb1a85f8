// The training room: a linear classifier of points in the plane, trained step by step while it is drawn.
const roomTraining = (() => {
  const { html, svg, byId, slider, setSlider, numberButton, setNumber } = drawing;
  const { fixed } = formulas;
  const M = mathematics;
  const { NAMES } = plane;
  const COLUMNS = ["w₁", "w₂", "b"];
  const KINDS = {
    softmax: { name: "softmax", loss: "Loss −ln p", hint: "Colours show the most probable class, paler where it is less probable." },
    hinge: { name: "SVM (hinge)", loss: "Hinge loss", hint: "Colours show the class with the highest score, paler where it leads by less than the margin of 1. An SVM has scores, no probabilities." },
  };
  const points = () => state.current.points.map((at, n) => ({ at, label: state.current.labels[n] }));
  const evaluated = () => M.evaluate(state.current.model, points(), state.current.kind, state.current.penalty);
  const history = charts.history("Loss");
  const play = player.make("play", (steps) => advance(steps));
  let losses; // since the page was opened: a link holds the current model, not its history
  let known; // what this room has drawn, of the state

  const watched = ({ points: at, labels, model, kind, penalty }) => [at, labels, model, kind, penalty];

  function note(changes) {
    state.note(changes);
    known = watched(state.current);
  }

  // Change what is trained on, or its loss: the curve goes on from the new loss.
  function change(changes) {
    note(changes);
    losses[losses.length - 1] = evaluated().loss;
    update();
  }

  // Change it and begin the curve anew.
  function begin(changes) {
    note(changes);
    losses = [evaluated().loss];
    update();
  }

  function build(room) {
    const controls = html("div", { class: "buttons" }, play.button,
      html("button", { type: "button", id: "step", onclick: () => { play.stop(); advance(1); } }, "One step"),
      html("button", { type: "button", id: "reset", onclick: () => { play.stop(); begin({ model: structuredClone(state.START.model) }); } }, "Start again"));
    const kinds = choice("Loss", "kind", Object.entries(KINDS).map(([value, { name }]) => [value, name]), state.current.kind, (value) => begin({ kind: value }));
    const rates = slider({ id: "rate", label: "Learning rate η", min: -2, max: 1, step: 0.05, value: Math.log10(state.current.rate),
      shown: (value) => fixed(10 ** value, 2), input: (value) => { note({ rate: Number((10 ** value).toPrecision(3)) }); panel.refresh(); } });
    const penalties = slider({ id: "penalty", label: "Weight penalty λ", min: 0, max: state.LARGEST.penalty, step: 0.005, value: state.current.penalty,
      shown: (value) => fixed(value, 3), input: (value) => change({ penalty: value }) });
    plane.connect({ added: (at) => add(at), moved: move, pressed: (n) => explain({ kind: "point", n }), removed: remove });
    room.append(html("div", { class: "training" },
      html("div", {}, html("div", { class: "buttons sets", role: "group", "aria-label": "Data sets" }, ...Object.entries(dataSets).map(([id, each]) => setButton(id, each))),
        plane.element,
        html("div", { class: "adding" }, choice("New points are of class", "new-class", NAMES.map((name, c) => [String(c), name]), "0"),
          html("button", { type: "button", id: "add", onclick: () => add(free(), true) }, "Add a point")),
        html("p", { class: "hint" }, "Press the plane to add a point. Drag a point, or move it with the arrow keys; press it for its own loss, the size of its halo; Delete removes it. ",
          html("span", { id: "regions-hint" }))),
      html("div", { class: "side" }, controls, html("div", { class: "settings" }, kinds, rates, penalties),
        tiles(), html("figure", { id: "history" }, html("figcaption", {}, "Loss over the steps"), history.element),
        html("figure", { id: "weights" }, html("figcaption", {}, "Weights, and the gradient of the loss by each"), weights()))));
    begin({});
    state.onChange(follow);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawRegions);
  }

  function choice(legend, name, options, chosen, picked = () => {}) {
    return html("fieldset", { class: "choice" }, html("legend", {}, legend), ...options.map(([value, label]) => html("label", {},
      html("input", { type: "radio", name, value, checked: value === chosen, onchange: () => picked(value) }), ` ${label}`)));
  }

  // A button that shows a data set in small, and takes it.
  function setButton(id, { name, points: at, labels }) {
    const dots = at.map(([a, b], n) => svg("circle", { cx: 3 + a, cy: 3 - b, r: 0.24, class: `c${labels[n]}` }));
    return html("button", { type: "button", class: "set", id: `set-${id}`, onclick: () => { play.stop(); begin({ points: structuredClone(at), labels: [...labels], model: structuredClone(state.START.model) }); } },
      svg("svg", { viewBox: "0 0 6 6", "aria-hidden": "true" }, ...dots), name);
  }

  function tiles() {
    const tile = (name, value) => html("div", {}, html("dt", {}, name), html("dd", { id: `standing-${name.toLowerCase()}` }, value));
    const press = (kind) => numberButton({ "data-formula": kind, onclick: () => explain({ kind }) });
    return html("dl", { class: "tiles", id: "standing" }, tile("Loss", press("loss")), tile("Right", press("right")), tile("Steps", "0"));
  }

  function weights() {
    const cell = (c, k) => html("td", {}, numberButton({ "data-formula": `w${c}${k}`, onclick: () => explain({ kind: "w", c, k }) },
      html("span"), html("span", { class: "slope" })));
    return html("table", { class: "plain" },
      html("thead", {}, html("tr", {}, ...["class", ...COLUMNS].map((each) => html("th", { scope: "col" }, each)))),
      html("tbody", {}, ...NAMES.map((name, c) => html("tr", {}, html("th", { scope: "row" }, html("span", { class: `dot d${c}` }), ` ${name}`), ...[0, 1, 2].map((k) => cell(c, k))))));
  }

  // The state changed elsewhere: another room was opened, or the address changed.
  function follow({ room: open, kind, rate, penalty }) {
    if (open !== "training") play.stop();
    if (watched(state.current).every((each, k) => each === known[k])) return;
    play.stop();
    document.querySelector(`input[name=kind][value=${kind}]`).checked = true;
    setSlider("rate", Math.log10(rate), fixed(rate, 2));
    setSlider("penalty", penalty, fixed(penalty, 3));
    begin({});
  }

  function advance(steps) {
    const { rate, kind, penalty } = state.current;
    for (let k = 0; k < steps; k += 1) {
      note({ model: M.step(state.current.model, points(), rate, kind, penalty) });
      losses.push(evaluated().loss);
    }
    update();
  }

  // Within the plane, and of so few digits that a link can hold all of them.
  const inside = (value) => state.clamp(Math.round(value * 1000) / 1000, state.LARGEST.place);

  // A place near the middle that no point has.
  function free() {
    const taken = (a) => state.current.points.some(([p, q]) => Math.abs(p - a) < 0.15 && Math.abs(q) < 0.15);
    return [[0, 0.3, -0.3, 0.6, -0.6, 0.9, -0.9].find((a) => !taken(a)) ?? 0, 0];
  }

  function add(at, focus = false) {
    if (state.current.points.length >= state.LARGEST.points) return;
    const label = Number(document.querySelector("input[name=new-class]:checked").value);
    change({ points: [...state.current.points, at.map(inside)], labels: [...state.current.labels, label] });
    if (focus) plane.mark(state.current.points.length - 1).focus();
  }

  // Remove a point; the loss is a mean, so that one stays.
  function remove(n) {
    if (state.current.points.length === 1) return;
    panel.close();
    const others = (all) => all.filter((_, k) => k !== n);
    change({ points: others(state.current.points), labels: others(state.current.labels) });
    plane.mark(Math.min(n, state.current.points.length - 1)).focus({ preventScroll: true });
  }

  function move(n, at) {
    change({ points: state.current.points.map((each, k) => (k === n ? at.map(inside) : each)) });
  }

  const drawRegions = () => plane.drawRegions(state.current.model, state.current.kind);

  function update() {
    const found = evaluated();
    const { model, kind } = state.current;
    const all = state.current.points.length;
    drawRegions();
    plane.drawPoints(points(), model, kind);
    const press = (name, value) => setNumber(document.querySelector(`[data-formula=${name}]`), value, `${value}: show the formula`);
    press("loss", fixed(found.loss, 4));
    press("right", `${Math.round(found.accuracy * all)} of ${all}`);
    byId("standing-steps").textContent = losses.length - 1;
    byId("standing-loss").previousSibling.textContent = KINDS[kind].loss;
    byId("regions-hint").textContent = KINDS[kind].hint;
    byId("add").disabled = all >= state.LARGEST.points;
    for (const [id, each] of Object.entries(dataSets)) {
      byId(`set-${id}`).setAttribute("aria-pressed", String(String(each.points) === String(state.current.points) && String(each.labels) === String(state.current.labels)));
    }
    history.update(losses);
    drawWeights(found);
    panel.refresh();
  }

  function drawWeights({ dW, db }) {
    const { model } = state.current;
    NAMES.forEach((name, c) => COLUMNS.forEach((column, k) => {
      const [value, slope] = k < 2 ? [model.W[c][k], dW[c][k]] : [model.b[c], db[c]];
      const button = document.querySelector(`[data-formula=w${c}${k}]`);
      const [first, second] = button.children;
      first.textContent = fixed(value, 2);
      second.textContent = ` ∂ ${fixed(slope, 3)}`;
      button.setAttribute("aria-label", `${column} of class ${name} is ${fixed(value, 2)}, the gradient ${fixed(slope, 3)}: show the formula`);
    }));
  }

  function explain(what) {
    const anchor = what.kind === "point" ? plane.mark(what.n) : document.querySelector(`[data-formula=${what.kind === "w" ? `w${what.c}${what.k}` : what.kind}]`);
    panel.toggle(anchor, () => trainingOrigins.of(what, points(), () => remove(what.n)));
  }

  return Object.freeze({ build, opened: () => follow(state.current), standing: () => ({ losses: [...losses], model: structuredClone(state.current.model), playing: play.playing() }) });
})();
