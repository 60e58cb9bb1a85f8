// Room three: common mistakes, each a small experiment; a press on a number shows its formula.
const roomMistakes = (() => {
  const { html, svg, scale, slider, setSlider, numberButton, setNumber } = drawing;
  const { math, mi, mo, mn, row, fraction, sub, exp, paren, ln, fixed, number, share } = formulas;
  const M = mathematics;
  const NAMES = state.CLASSES;
  const redraws = []; // a function of each experiment, called when the address changes

  // A number and where it comes from: words and formulas.
  const from = (text, ...formula) => ({ text, formula });

  // An experiment: a title, sliders, a table of numbers that follow them, and one sentence that says what they show.
  function experiment(id, title, sliders, see, outcome) {
    const valueOf = ({ name, value, min, max }) => {
      const moved = state.current.sliders[`${id}-${name}`];
      return moved === undefined ? value : Math.min(max, Math.max(min, moved));
    };
    const now = () => outcome(Object.fromEntries(sliders.map((each) => [each.name, valueOf(each)])));
    const formulasOf = ({ rows }) => rows.flatMap(([, ...each]) => each);
    const first = now();
    const buttons = first.rows.map(([, ...each]) => each.map(() => numberButton({
      onclick: ({ currentTarget }) => panel.toggle(currentTarget, () => formulasOf(now())[buttons.flat().indexOf(currentTarget)].formula),
    })));
    const picture = html("div");
    const place = html("div", { class: "outcome", id: `${id}-outcome` }, picture, html("table", { class: "plain" },
      html("thead", {}, html("tr", {}, ...first.head.map((each, k) => (k || each ? html("th", { scope: "col" }, each) : html("td"))))),
      html("tbody", {}, ...first.rows.map(([name], k) => html("tr", {}, html("th", { scope: "row" }, name), ...buttons[k].map((each) => html("td", {}, each)))))));

    // The buttons stay: one that is pressed or focused is so after each change.
    function draw() {
      const found = now();
      picture.replaceChildren(...[found.picture].filter(Boolean));
      found.rows.forEach(([name, ...cells], k) => cells.forEach(({ text }, c) => setNumber(buttons[k][c], text, `${name}, ${found.head[c + 1]}: ${text}: show the formula`)));
      panel.refresh();
    }

    const move = (name, value) => {
      state.note({ sliders: { ...state.current.sliders, [`${id}-${name}`]: Number(value.toPrecision(6)) } });
      draw();
    };
    const section = html("section", { class: "experiment", id, "aria-labelledby": `${id}-title` },
      html("h3", { id: `${id}-title` }, title),
      ...sliders.map((each) => slider({ ...each, id: `${id}-${each.name}`, value: valueOf(each),
        shown: each.shown ?? ((value) => fixed(value, 1)), input: (value) => move(each.name, value) })),
      place, html("p", { class: "see" }, see));
    draw();
    redraws.push(() => {
      sliders.forEach((each) => setSlider(`${id}-${each.name}`, valueOf(each), (each.shown ?? ((value) => fixed(value, 1)))(valueOf(each))));
      draw();
    });
    return section;
  }

  const p = (c) => sub(mi("p"), mi(c));
  const derivative = (c) => fraction(row(mo("∂"), mi("L")), row(mo("∂"), sub(mi("f"), mi(c))));

  const offDiagonal = () => experiment("off-diagonal", "Only the diagonal of the Jacobian",
    [{ name: "ahead", label: "Score of the true class", min: -4, max: 8, step: 0.5, value: 2 }],
    "Without the off-diagonal terms the other classes get no gradient: nothing pushes their scores down, and the entries no longer sum to 0.",
    ({ ahead }) => {
      const scores = [ahead, 1, 0];
      const right = M.gradient(scores, 0);
      const probabilities = M.softmax(scores);
      const J = M.jacobian(scores);
      const wrong = right.map((_, i) => (i === 0 ? (-1 / probabilities[0]) * J[0][0] : 0));
      const all = (each) => each.reduce((a, b) => a + b, 0);
      const sum = (each) => {
        const value = Math.abs(all(each)) < 1e-12 ? 0 : all(each);
        return from(fixed(value, 4), "The sum of the entries above:", math(...each.flatMap((g, c) => [...(c ? [mo("+")] : []), g < 0 ? paren(mn(g)) : mn(g)]), mo("="), mn(value)));
      };
      const entry = (i) => from(fixed(right[i], 4), i ? "Of any other class: its probability." : "Of the true class: its probability less 1.",
        math(derivative(NAMES[i]), mo("="), ...(i ? [p(NAMES[i])] : [p(NAMES[0]), mo("−"), mn("1")]), mo("="), mn(right[i])));
      const lone = (i) => from(fixed(wrong[i], 4), i ? "The loss holds the true class's probability alone; its derivative by another class's score is off the diagonal, and left out." : "The one entry on the diagonal that the loss meets:",
        math(derivative(NAMES[i]), mo("="), ...(i ? [mn("0")] : [mo("−"), fraction(mn("1"), p(NAMES[0])), mo("·"), fraction(row(mo("∂"), p(NAMES[0])), row(mo("∂"), sub(mi("f"), mi(NAMES[0])))), mo("="), mn(wrong[0])])));
      return { head: ["∂L/∂f", "all terms", "diagonal only"], rows: [...NAMES.map((name, i) => [name, entry(i), lone(i)]), ["sum", sum(right), sum(wrong)]] };
    });

  const logBase = () => experiment("log-base", "Which logarithm",
    [{ name: "p", label: "Probability of the truth", min: 0.01, max: 1, step: 0.01, value: 0.71, shown: (each) => fixed(each, 2) }],
    "The losses differ by a constant factor: compare figures only in one unit. Frameworks mean nats; a log10 loss looks 2.3 times better.",
    ({ p: given }) => {
      const nats = 0 - Math.log(given);
      const other = (base, unit) => from(fixed(nats / Math.log(base), 4), `The natural logarithm's loss over ln ${base}:`,
        math(mo("−"), sub(mi("log"), mn(String(base))), mn(given), mo("="), fraction(mn(nats), ln(mn(String(base)))), mo("="), mn(nats / Math.log(base)), mi(unit)));
      const line = (name, cell, unit) => [name, cell, from(unit, `One ${unit.slice(0, -1)} is the loss of a probability of 1/${{ nats: "e", bits: "2", bans: "10" }[unit]}.`)];
      return { head: ["logarithm", "loss", "unit"], rows: [
        line("ln", from(fixed(nats, 4), "The negative natural logarithm:", math(mo("−"), ln(mn(given)), mo("="), mn(nats), mi("nats"))), "nats"),
        line("log₂", other(2, "bits"), "bits"), line("log₁₀", other(10, "bans"), "bans")] };
    });

  const rounding = () => experiment("rounding", "Rounding before the logarithm",
    [{ name: "digits", label: "Digits kept of p", min: 1, max: 8, step: 1, value: 2, shown: (each) => String(each) },
      { name: "gap", label: "Truth behind by", min: 0, max: 16, step: 0.5, value: 6 }],
    "A probability rounded to two digits is 0 soon, and its loss infinite. The logarithm of the probability never needed the probability.",
    ({ digits, gap }) => {
      const scores = [0, gap, 0];
      const all = M.softmax(scores);
      const kept = all[0].toFixed(digits);
      const exact = M.loss(scores, 0);
      const { r } = M.parts(scores);
      return { head: ["", "p", "loss"], rows: [
        ["rounded", from(kept, `The probability ${number(all[0])}, cut to ${digits} digits after the point.`),
          from(number(-Math.log(Number(kept)), 4), "The logarithm of what is left:", math(mo("−"), ln(mn(kept)), mo("="), mn(-Math.log(Number(kept)))))],
        ["exact", from(share(all[0], M.complement(all, 0)), "The share of one exponential in the sum of all:", math(p("truth"), mo("="), fraction(mn(M.parts(scores).shifted[0]), row(mn("1"), mo("+"), mn(r))), mo("="), mn(all[0]))),
          from(number(exact, 4), "From the scores, without the probability:", math(mi("L"), mo("="), paren(mi("m"), mo("−"), sub(mi("f"), mi("truth"))), mo("+"), ln(paren(mn("1"), mo("+"), mi("r"))), mo("="), mn(gap), mo("+"), ln(paren(mn("1"), mo("+"), mn(r))), mo("="), mn(exact)))]] };
    });

  const twice = () => experiment("twice", "Softmax applied twice",
    [{ name: "gap", label: "Truth ahead by", min: 0, max: 20, step: 0.5, value: 8 },
      { name: "classes", label: "Classes", min: 2, max: 100, step: 1, value: 10, shown: (each) => String(each) }],
    "Fed with probabilities, the loss cannot fall below ln(e + C − 1) − 1, however sure the classifier is. A loss that is stuck there says so.",
    ({ gap, classes }) => {
      const scores = Array.from({ length: classes }, (_, c) => (c === 0 ? gap : 0));
      const probabilities = M.softmax(scores);
      const others = String(classes - 1);
      const once = M.loss(scores, 0);
      const again = M.loss(probabilities, 0);
      const floor = Math.log(Math.E + classes - 1) - 1;
      return { head: ["", "loss"], rows: [
        ["once", from(number(once, 4), "Of the truth's score and as many others of 0:", math(ln(paren(mn("1"), mo("+"), mn(others), exp(row(mo("−"), mn(gap))))), mo("="), mn(once)))],
        ["twice", from(number(again, 4), "The probabilities taken for scores: they are at most 1 apart.", math(ln(paren(mn("1"), mo("+"), mn(others), exp(row(mo("−"), paren(p("truth"), mo("−"), p("other")))))), mo("="), mn(again)))],
        ["floor of twice", from(number(floor, 4), "With the truth's probability at 1 and all others at 0:", math(ln(paren(mi("e"), mo("+"), mi("C"), mo("−"), mn("1"))), mo("−"), mn("1"), mo("="), mn(floor)))]] };
    });

  const reduction = () => experiment("reduction", "Sum or mean",
    [{ name: "size", label: "Examples in a batch", min: 1, max: 256, step: 1, value: 32, shown: (each) => String(each) },
      { name: "rate", label: "Learning rate", min: 0.01, max: 1, step: 0.01, value: 0.1, shown: (each) => fixed(each, 2) }],
    "The gradient of a sum grows with the batch: the same learning rate takes a step as many times as long. Change one, and the other must follow.",
    ({ size, rate }) => {
      const slope = Math.abs(M.gradient([1, 0, 0], 0)[0]);
      const step = (value) => from(fixed(rate * value, value === slope ? 4 : 3), "The learning rate times the gradient:", math(mn(rate), mo("·"), mn(value), mo("="), mn(rate * value)));
      return { head: ["reduction", "gradient", "step"], rows: [
        ["mean", from(fixed(slope, 4), "Of examples that are all alike, with scores 1, 0, 0: 1 − p of the truth.", math(mn("1"), mo("−"), p("truth"), mo("="), mn(slope))), step(slope)],
        ["sum", from(fixed(size * slope, 3), "The same, once for each example:", math(mn(String(size)), mo("·"), mn(slope), mo("="), mn(size * slope))), step(size * slope)]] };
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
      const confidence = scaled.map(({ p: each }) => Math.max(...each));
      const right = scaled.map(({ p: each, target }) => each.indexOf(Math.max(...each)) === target);
      const { ece, bins } = M.reliability(confidence, right);
      const mean = (each) => each.reduce((a, b) => a + Number(b), 0) / each.length;
      const N = mn(String(EXAMPLES.length));
      const over = (all) => fraction(mn(all), N);
      const [accuracy, sure, loss] = [mean(right), mean(confidence), mean(scaled.map((each) => each.loss))];
      return { picture: reliabilityPicture(bins), head: ["", "accuracy", "confidence", "loss", "ECE"], rows: [["all", from(fixed(accuracy, 3), "The share whose highest probability is the truth's:", math(over(accuracy * EXAMPLES.length), mo("="), mn(accuracy))),
        from(fixed(sure, 3), "The mean of the highest probabilities:", math(over(sure * EXAMPLES.length), mo("="), mn(sure))),
        from(fixed(loss, 3), "The mean of −ln of the truth's probability:", math(over(loss * EXAMPLES.length), mo("="), mn(loss))),
        from(fixed(ece, 3), "In ten bins of confidence: how far accuracy is from confidence, weighted by how many are there.",
          math(formulas.element("munder", mo("∑"), mi("bins")), fraction(mi("n"), N), mo("·"), mo("|"), mi("accuracy"), mo("−"), mi("confidence"), mo("|"), mo("="), mn(ece)))]] };
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
    let known = state.current.sliders;
    state.onChange(({ sliders }) => {
      if (sliders === known) return;
      known = sliders;
      redraws.forEach((each) => each());
    });
  }

  return Object.freeze({ build });
})();
