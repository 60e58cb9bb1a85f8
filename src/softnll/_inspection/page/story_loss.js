// Steps 4 and 5 of the story: the negative log-likelihood, and the loss of three images.
const storyLoss = (() => {
  const { html, slider, setSlider } = drawing;
  const { fixed } = formulas;
  const { NAMES, M, image, scores, target, setScore, pressable, picture } = storyParts;

  // Give the true class this probability: its score changes, the others stay.
  function setProbability(p) {
    const wanted = Math.min(0.9999, Math.max(0.0067, p));
    setScore(image(), target(), Number(M.scoreFor(scores(), target(), wanted).toFixed(4)));
  }

  function logarithm() {
    const curve = charts.lossCurve("story-curve", setProbability);
    const loss = pressable("story-loss", { kind: "loss" });
    const p = pressable("story-p", () => ({ kind: "p", i: target() }));
    const name = html("strong");
    const truth = html("span");
    return {
      title: "−ln p",
      words: ["Only the probability of the true class counts. The loss is its negative logarithm: 0 where the network is sure and right, and without bound where it gave the truth no chance. It is the network's unhappiness.",
        "Drag the point along the curve. The logarithm is the natural one; with another base, loss and gradient change by the same factor."],
      experiment: [html("figure", {}, html("figcaption", {}, "The loss −ln p"), curve.element),
        html("p", {}, "In truth it is a ", name, ". p = ", p.element, ", loss = ", loss.element, " nats. ", truth)],
      update() {
        curve.update(scores(), target(), 1);
        name.textContent = NAMES[target()];
        p.update(M.softmax(scores())[target()], "Probability of the true class");
        loss.update(M.loss(scores(), target()), "Loss");
        truth.textContent = `The score of ${NAMES[target()]} follows: ${storyParts.shownScore(scores()[target()])}.`;
      },
    };
  }

  function three() {
    const lines = state.IMAGES.map((name, n) => {
      const here = (what) => () => ({ ...what, i: target(n) });
      const choose = (event) => { if (image() !== n) state.set({ row: n }); return event; };
      const [p, loss] = [pressable(`three-p-${n}`, here({ kind: "p" })), pressable(`three-loss-${n}`, { kind: "loss" })];
      for (const each of [p, loss]) each.element.addEventListener("click", choose, { capture: true }); // its formula is of this image
      const bar = html("span", { class: "loss-bar" });
      const label = html("label", { for: `three-f-${n}` });
      const line = slider({ id: `three-f-${n}`, label: "", min: -10, max: 10, step: 0.1, value: 0, shown: (value) => fixed(value, 1), input: (value) => setScore(n, target(n), value) });
      line.querySelector("label").replaceWith(label);
      const element = html("section", { class: "third", "aria-label": `Image ${n + 1}, a ${name}` }, html("span", { class: "picture" }, picture(name)), line,
        html("p", {}, html("span", {}, "p = ", p.element), html("span", {}, "loss ", loss.element)), html("span", { class: "bar", "aria-hidden": "true" }, bar));
      return { element, p, loss, bar, label };
    });
    const [total, mean] = [pressable("three-total", { kind: "total" }), pressable("three-mean", { kind: "mean" })];
    return {
      title: "Three images",
      words: ["Each image has its own scores, its own true class, and its own loss. Confident and right costs little, unsure costs more, confident and wrong costs most.",
        "A training set's loss is the sum or the mean of all. Change the score of an image's true class: only its own loss changes."],
      experiment: [html("div", { class: "thirds" }, ...lines.map(({ element }) => element)),
        html("p", { class: "totals" }, html("span", {}, "total ", total.element), html("span", {}, "mean ", mean.element))],
      update() {
        const losses = state.IMAGES.map((_, n) => M.loss(scores(n), target(n)));
        const most = Math.max(1, ...losses);
        lines.forEach(({ p, loss, bar, label }, n) => {
          const value = scores(n)[target(n)];
          label.textContent = `f ${NAMES[target(n)]}`;
          setSlider(`three-f-${n}`, value, storyParts.shownScore(value));
          p.update(M.softmax(scores(n))[target(n)], `Probability of ${NAMES[target(n)]}, the true class of image ${n + 1}`);
          loss.update(losses[n], `Loss of image ${n + 1}`);
          bar.style.width = `${(100 * losses[n]) / most}%`;
        });
        const sum = losses.reduce((a, b) => a + b, 0);
        total.update(sum, "Total loss", 4);
        mean.update(sum / 3, "Mean loss", 4);
      },
    };
  }

  return Object.freeze({ steps: [logarithm, three] });
})();
