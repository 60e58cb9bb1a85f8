// Steps 6 and 7 of the story: the derivative, line by line to p − onehot, and what learning does with it.
const storyGradient = (() => {
  const { html, byId, slider, setSlider } = drawing;
  const { math, mi, mo, mn, row, fraction, sub, fixed } = formulas;
  const { NAMES, M, image, scores, target, scoreSliders, pressable, table } = storyParts;
  const { by } = origins;
  const p = (k) => sub(mi("p"), mi(k));
  const f = (k) => sub(mi("f"), mi(k));

  // The derivation's lines; each is a title, words, a formula, and an element with the current numbers.
  function derivative() {
    const press = (id, what) => NAMES.map((_, c) => pressable(`${id}-${c}`, () => what(c)));
    const inner = press("d-lp", (i) => ({ kind: "lp", i }));
    const row_ = press("d-row", (k) => ({ kind: "j", i: target(), j: k }));
    const product = press("d-product", (i) => ({ kind: "g", i }));
    const shares = press("d-p", (i) => ({ kind: "p", i }));
    const result = press("d-g", (i) => ({ kind: "g", i }));
    const onehot = NAMES.map(() => html("span"));
    const [sum, alone] = [html("span", { id: "d-sum" }), html("span", { id: "d-alone" })];
    const jacobian = charts.jacobianTable("d-j", (button, i, j) => panel.toggle(button, () => origins.of({ kind: "j", i, j }, image(), 1)));
    const lone = NAMES.map((_, c) => html("span", { id: `d-lone-${c}` }));
    const elements = (all) => all.map(({ element }) => element);
    const sliders = scoreSliders("d-f");
    const lines = [
      ["The chain rule", "The loss depends on the probabilities, and every probability depends on every score. So all of them are in the sum:",
        math(by(mi("L"), f("k")), mo("="), origins.sumOver("i"), by(mi("L"), p("i")), mo("·"), by(p("i"), f("k"))), sliders.element],
      ["∂L/∂p", "L = −ln p of the true class y. For the other classes it is 0:",
        math(by(mi("L"), p("y")), mo("="), mo("−"), fraction(mn("1"), p("y"))), table(["", ...NAMES], [["∂L/∂p", elements(inner)]])],
      ["∂p/∂f, the quotient rule", "Two cases: a score and its own probability (the diagonal), a score and another's probability (off the diagonal):",
        math(by(p("i"), f("i")), mo("="), p("i"), formulas.paren(mn("1"), mo("−"), p("i"))), math(by(p("i"), f("k")), mo("="), mo("−"), p("i"), p("k")), jacobian.element],
      ["The product", "Only the true class's row meets a ∂L/∂p that is not 0. Its p cancels:",
        math(row(mo("−"), fraction(mn("1"), p("y"))), mo("·"), p("y"), formulas.paren(mn("1"), mo("−"), p("y")), mo("="), p("y"), mo("−"), mn("1")),
        math(row(mo("−"), fraction(mn("1"), p("y"))), mo("·"), formulas.paren(mo("−"), p("y"), p("k")), mo("="), p("k")),
        table(["", ...NAMES], [["∂p of y/∂f", elements(row_)], ["times −1/p of y", elements(product)]])],
      ["p − onehot", "Both cases in one line. The entries sum to 0: what one score gains, the others lose.",
        math(by(mi("L"), mi("f")), mo("="), mi("p"), mo("−"), mi("onehot"), formulas.paren(mi("y"))),
        table(["", ...NAMES, "sum"], [["p", [...elements(shares), "1"]], ["onehot", [...onehot, "1"]], ["p − onehot", [...elements(result), sum]], ["diagonal only", [...lone, alone], { class: "lost" }]]),
        html("p", { class: "hint" }, "Without the terms off the diagonal only the true class would get a gradient: p − 1, the rule that many texts stop at. The other scores would never be pushed down.")],
    ];
    const shown = () => Math.min(lines.length, Math.max(1, state.current.sliders["derivative-line"] ?? 1));
    const items = lines.map(([title, words, ...rest], n) => html("li", { id: `line-${n + 1}` }, html("h4", { tabindex: -1 }, title), html("p", {}, words), ...rest));
    const more = html("button", { type: "button", id: "next-line", class: "main", onclick: () => go(shown() + 1) }, "Next line");
    const less = html("button", { type: "button", id: "previous-line", onclick: () => go(shown() - 1) }, "Back");
    function go(to) {
      state.set({ sliders: { ...state.current.sliders, "derivative-line": to } });
      if (to > 1) items[to - 1].scrollIntoView({ block: "nearest" });
    }
    return {
      title: "The derivative",
      words: ["How does the loss change if one score changes a little? The derivative by each score says it, and learning starts from it.",
        "Five lines lead to it, each with the numbers of the chosen image. The result is the simplest that it could be: the probabilities, less 1 at the true class."],
      experiment: [html("ol", { class: "lines" }, ...items), html("div", { class: "buttons" }, less, more)],
      update() {
        items.forEach((each, n) => { each.hidden = n >= shown(); });
        more.disabled = shown() === lines.length;
        less.disabled = shown() === 1;
        sliders.update();
        const [x, y] = [scores(), target()];
        const probabilities = M.softmax(x);
        const J = M.jacobian(x);
        const g = M.gradient(x, y);
        jacobian.update(x, 1);
        NAMES.forEach((name, c) => {
          inner[c].update(c === y ? -1 / probabilities[c] : 0, `Derivative of the loss by p ${name}`);
          row_[c].update(J[y][c], `Derivative of the true class's probability by the score of ${name}`);
          product[c].update(g[c], `Product for ${name}`, 4);
          shares[c].update(probabilities[c], `Probability of ${name}`, 4);
          result[c].update(g[c], `Gradient of ${name}`, 4);
          onehot[c].textContent = c === y ? "1" : "0";
          lone[c].textContent = c === y ? fixed(g[c], 4) : "0";
        });
        byId("d-j-0-0").closest("table").querySelectorAll("tbody tr").forEach((each, i) => each.classList.toggle("truth", i === y));
        sum.textContent = fixed(near(g.reduce((a, b) => a + b, 0)), 4);
        alone.textContent = fixed(g[y], 4);
      },
    };
  }
  const near = (value) => (Math.abs(value) < 1e-12 ? 0 : value);

  function learning() {
    const rate = () => Math.min(5, Math.max(0.1, state.current.sliders["learn-rate"] ?? 1));
    const meanLoss = () => state.IMAGES.reduce((sum, _, n) => sum + M.loss(scores(n), target(n)), 0) / 3;
    const play = player.make("learn-play", advance);
    const mean = pressable("learn-mean", { kind: "mean" });
    const curve = charts.history("Mean loss");
    const lines = state.IMAGES.map(() => NAMES.map((_, c) => html("span", { class: `c${c}` })));
    let losses = [meanLoss()];
    let own = null; // the scores that this step has made: others begin the curve anew

    function advance(steps) {
      let now = state.current.scores;
      for (let k = 0; k < steps; k += 1) {
        now = now.map((x, n) => M.gradient(x, target(n)).map((g, c) => state.clamp(x[c] - rate() * g, state.LARGEST.score)));
        losses.push(state.IMAGES.reduce((sum, _, n) => sum + M.loss(now[n], target(n)), 0) / 3);
      }
      own = now;
      state.set({ scores: now });
    }

    const rates = slider({ id: "learn-rate", label: "Learning rate η", min: 0.1, max: 5, step: 0.1, value: rate(), shown: (value) => fixed(value, 1),
      input: (value) => state.note({ sliders: { ...state.current.sliders, "learn-rate": value } }) });
    return {
      title: "Learning",
      words: ["A step of learning goes against the derivative: the true class's score rises, the others fall, each by its probability. Surprised networks take large steps; where p − onehot is near 0, nothing is left to learn.",
        "Here the scores themselves are moved. In a network they come from weights, and the same p − onehot is passed back to those."],
      experiment: [math(mi("f"), mo("←"), mi("f"), mo("−"), mi("η"), formulas.paren(mi("p"), mo("−"), mi("onehot"))),
        html("div", { class: "buttons" }, play.button, html("button", { type: "button", id: "learn-step", onclick: () => { play.stop(); advance(1); } }, "One step"),
          html("button", { type: "button", id: "learn-reset", onclick: () => { play.stop(); state.set({ scores: structuredClone(state.START.scores) }); } }, "Start again")),
        rates, html("div", { class: "bars" }, ...lines.map((parts, n) => html("div", {}, html("span", {}, state.IMAGES[n]), html("div", { class: "stack" }, ...parts)))),
        html("p", {}, "Mean loss ", mean.element), html("figure", {}, html("figcaption", {}, "Mean loss over the steps"), curve.element),
        html("div", { class: "buttons" }, html("button", { type: "button", id: "to-training", class: "main", onclick: () => state.set({ room: "training" }) }, "Train a classifier"),
          html("button", { type: "button", onclick: () => state.set({ room: "scores" }) }, "Free play"))],
      stop: play.stop,
      update() {
        if (state.current.scores !== own) losses = [meanLoss()];
        own = state.current.scores;
        lines.forEach((parts, n) => M.softmax(scores(n)).forEach((value, c) => { parts[c].style.width = `${100 * value}%`; }));
        mean.update(meanLoss(), "Mean loss", 4);
        setSlider("learn-rate", rate(), fixed(rate(), 1));
        curve.update(losses);
      },
    };
  }

  return Object.freeze({ steps: [derivative, learning] });
})();
