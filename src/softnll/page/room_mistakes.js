// Room three: what people get wrong, each a small experiment.
const roomMistakes = (() => {
  const { html, svg, byId, scale, slider } = drawing;
  const { fixed, number } = formulas;
  const M = mathematics;
  const NAMES = state.CLASSES;

  const table = (head, rows) => html("table", { class: "plain" },
    html("thead", {}, html("tr", {}, ...head.map((each) => html("th", { scope: "col" }, each)))),
    html("tbody", {}, ...rows.map(([name, ...cells]) => html("tr", {}, html("th", { scope: "row" }, name), ...cells.map((each) => html("td", {}, each))))));

  // An experiment: a title, sliders, an outcome that follows them, and one sentence of what to see.
  function experiment(id, title, sliders, see, outcome) {
    const values = Object.fromEntries(sliders.map((each) => [each.name, each.value]));
    const place = html("div", { class: "outcome", id: `${id}-outcome`, "aria-live": "polite" });
    const draw = () => place.replaceChildren(...[outcome(values)].flat());
    const made = html("section", { class: "experiment", id, "aria-labelledby": `${id}-title` },
      html("h3", { id: `${id}-title` }, title),
      ...sliders.map(({ name, label, min, max, step, value, shown = (each) => fixed(each, 1) }) => slider({
        id: `${id}-${name}`, label, min, max, step, value, shown, input: (now) => { values[name] = now; draw(); } })),
      place, html("p", { class: "see" }, see));
    draw();
    return made;
  }

  const offDiagonal = () => experiment("off-diagonal", "Only the diagonal of the Jacobian",
    [{ name: "ahead", label: "Score of the true class", min: -4, max: 8, step: 0.5, value: 2 }],
    "Without the off-diagonal terms the other classes get no gradient: nothing pushes their scores down, and the entries no longer sum to 0.",
    ({ ahead }) => {
      const scores = [ahead, 1, 0];
      const right = M.gradient(scores, 0);
      const p = M.softmax(scores);
      const J = M.jacobian(scores);
      const wrong = right.map((_, i) => (i === 0 ? (-1 / p[0]) * J[0][0] : 0));
      const sum = (each) => fixed(Math.abs(each.reduce((a, b) => a + b, 0)) < 1e-12 ? 0 : each.reduce((a, b) => a + b, 0), 4);
      return table(["∂L/∂x", "all terms", "diagonal only"],
        [...NAMES.map((name, i) => [name, fixed(right[i], 4), fixed(wrong[i], 4)]), ["sum", sum(right), sum(wrong)]]);
    });

  const logBase = () => experiment("log-base", "Which logarithm",
    [{ name: "p", label: "Probability of the truth", min: 0.01, max: 1, step: 0.01, value: 0.71, shown: (each) => fixed(each, 2) }],
    "The losses differ by a constant factor: compare figures only in one unit. Frameworks mean nats; a log10 loss looks 2.3 times better.",
    ({ p }) => table(["logarithm", "loss", "unit"], [["ln", fixed(-Math.log(p) || 0, 4), "nats"], ["log₂", fixed(-Math.log2(p) || 0, 4), "bits"], ["log₁₀", fixed(-Math.log10(p) || 0, 4), "bans"]]));

  const rounding = () => experiment("rounding", "Rounding before the logarithm",
    [{ name: "digits", label: "Digits kept of p", min: 1, max: 8, step: 1, value: 2, shown: (each) => String(each) },
      { name: "gap", label: "Truth behind by", min: 0, max: 16, step: 0.5, value: 6 }],
    "A probability rounded to two digits is 0 soon, and its loss infinite. The logarithm of the probability never needed the probability.",
    ({ digits, gap }) => {
      const scores = [0, gap, 0];
      const p = M.softmax(scores)[0];
      const kept = Number(p.toFixed(digits));
      return table(["", "p", "loss"], [["rounded", kept.toFixed(digits), number(-Math.log(kept), 4)], ["exact", number(p), number(M.loss(scores, 0), 4)]]);
    });

  const twice = () => experiment("twice", "Softmax applied twice",
    [{ name: "gap", label: "Truth ahead by", min: 0, max: 20, step: 0.5, value: 8 },
      { name: "classes", label: "Classes", min: 2, max: 100, step: 1, value: 10, shown: (each) => String(each) }],
    "Fed with probabilities, the loss cannot fall below ln(e + C − 1) − 1, however sure the classifier is. A loss that is stuck there says so.",
    ({ gap, classes }) => {
      const scores = Array.from({ length: classes }, (_, c) => (c === 0 ? gap : 0));
      return table(["", "loss"], [["once", number(M.loss(scores, 0), 4)], ["twice", number(M.loss(M.softmax(scores), 0), 4)],
        ["floor of twice", number(Math.log(Math.E + classes - 1) - 1, 4)]]);
    });

  const reduction = () => experiment("reduction", "Sum or mean",
    [{ name: "size", label: "Examples in a batch", min: 1, max: 256, step: 1, value: 32, shown: (each) => String(each) },
      { name: "rate", label: "Learning rate", min: 0.01, max: 1, step: 0.01, value: 0.1, shown: (each) => fixed(each, 2) }],
    "The gradient of a sum grows with the batch: the same learning rate takes a step as many times as long. Change one, and the other must follow.",
    ({ size, rate }) => {
      const slope = Math.abs(M.gradient([1, 0, 0], 0)[0]);
      return table(["reduction", "gradient", "step"], [["mean", fixed(slope, 4), fixed(rate * slope, 4)], ["sum", fixed(size * slope, 3), fixed(rate * size * slope, 3)]]);
    });

  // 2000 made-up examples of three classes, whose scores are calibrated as they are: always the same.
  const EXAMPLES = (() => {
    let seed = 7;
    const random = () => { seed = (1103515245 * seed + 12345) % 2147483648; return seed / 2147483648; };
    return Array.from({ length: 2000 }, () => {
      const scores = [3 * random() + 1.2, 3 * random(), 3 * random()];
      const p = M.softmax(scores);
      const u = random();
      return { scores, target: u < p[0] ? 0 : u < p[0] + p[1] ? 1 : 2 };
    });
  })();

  const calibration = () => experiment("calibration", "Confidence is not calibration",
    [{ name: "tau", label: "Scores divided by", min: -1, max: 1, step: 0.05, value: -0.5, shown: (each) => fixed(10 ** each, 2) }],
    "The prediction never changes, only how sure it is: accuracy stays, and the loss is least where confidence agrees with it. That is what fitting a temperature finds.",
    ({ tau }) => {
      const scaled = EXAMPLES.map(({ scores, target }) => ({ p: M.softmax(scores, 10 ** tau), loss: M.loss(scores, target, 10 ** tau), target }));
      const confidence = scaled.map(({ p }) => Math.max(...p));
      const right = scaled.map(({ p, target }) => p.indexOf(Math.max(...p)) === target);
      const { ece, bins } = M.reliability(confidence, right);
      const mean = (each) => each.reduce((a, b) => a + Number(b), 0) / each.length;
      return [reliabilityPicture(bins), table(["accuracy", "confidence", "loss", "ECE"], [[fixed(mean(right), 3), fixed(mean(confidence), 3), fixed(mean(scaled.map((each) => each.loss)), 3), fixed(ece, 3)]])];
    });

  function reliabilityPicture(bins) {
    const x = scale([0, 1], [30, 290]);
    const y = scale([0, 1], [130, 8]);
    return svg("svg", { viewBox: "0 0 300 150", role: "img", "aria-label": "Accuracy of each bin of confidence" },
      ...[0, 0.5, 1].map((each) => svg("g", { class: "axis" }, svg("line", { x1: 30, x2: 290, y1: y(each), y2: y(each) }), svg("text", { x: 24, y: y(each) + 4, "text-anchor": "end" }, each))),
      svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }),
      ...bins.map(({ count, right }, k) => (count ? svg("rect", { x: x(k / 10) + 2, width: 22, y: y(right / count), height: 130 - y(right / count), class: "c0 soft" }) : null)),
      svg("text", { x: 290, y: 147, "text-anchor": "end" }, "confidence"));
  }

  function build(room) {
    room.append(html("div", { class: "experiments" }, offDiagonal(), logBase(), rounding(), twice(), reduction(), calibration()));
  }

  return Object.freeze({ build });
})();
