// Where a number of the training room comes from: words and formulas, with the current numbers.
const trainingOrigins = (() => {
  const { html } = drawing;
  const { math, mi, mo, mn, row, fraction, sub, sup, ln, paren, signed, fixed, shareOf } = formulas;
  const M = mathematics;
  const { NAMES } = plane;
  const score = (c) => sub(mi("f"), mi(c));
  const sumOver = (below, above) => formulas.element("munderover", mo("∑"), below, above);
  const others = () => formulas.element("munder", mo("∑"), row(mi("c"), mo("≠"), mi("y")));
  const hinge = () => row(others(), mi("max"), paren(mn("0"), mo(","), score("c"), mo("−"), score("y"), mo("+"), mn("1")));

  function of(what, points, remove) {
    const { model, rate, kind, penalty } = state.current;
    const { loss, data, squares, accuracy, dW, db } = M.evaluate(model, points, kind, penalty);
    const N = mn(String(points.length));
    const mean = (term) => row(fraction(mn("1"), N), sumOver(row(mi("n"), mo("="), mn("1")), N), term);
    return {
      loss: () => [kind === "softmax" ? "The mean over the points of −ln of the probability of each one's own class:" : "The mean over the points of what other classes' scores have beyond the own class's, less a margin of 1:",
        math(mi("L"), mo("="), mean(kind === "softmax" ? row(mo("−"), mi("ln"), sub(mi("p"), row(mi("n"), sub(mi("y"), mi("n"))))) : hinge()), ...(penalty ? [mo("+"), fraction(mi("λ"), mn("2")), mo("∑"), sup(mi("w"), mn("2"))] : [])),
        math(mo("="), fraction(mn(data * points.length), N), ...(penalty ? [mo("+"), fraction(mn(penalty), mn("2")), mo("·"), mn(squares)] : []), mo("="), mn(loss)),
        penalty ? "The penalty is the price of large weights, which make the classifier sure of itself." : null],
      right: () => ["The points whose own class has the highest score f = W·x + b:",
        math(fraction(mn(String(Math.round(accuracy * points.length))), N), mo("="), mn(accuracy))],
      point: () => ofPoint(points[what.n], kind, points.length > 1 ? remove : null),
      w: () => ofWeight(what),
    }[what.kind]();

    function ofWeight({ c, k }) {
      const [value, slope] = k < 2 ? [model.W[c][k], dW[c][k]] : [model.b[c], db[c]];
      const by = k < 2 ? sub(mi("w"), row(mi(NAMES[c]), mn(String(k + 1)))) : sub(mi("b"), mi(NAMES[c]));
      const derivative = () => fraction(row(mo("∂"), mi("L")), row(mo("∂"), by));
      const inner = kind === "softmax" ? paren(sub(mi("p"), row(mi("n"), mi(NAMES[c]))), mo("−"), mi("1"), mo("["), sub(mi("y"), mi("n")), mo("="), mi(NAMES[c]), mo("]"))
        : fraction(row(mo("∂"), sub(mi("L"), mi("n"))), row(mo("∂"), score(NAMES[c])));
      return [`The gradient: what the loss has by this ${k < 2 ? "weight" : "bias"}, averaged over the points:`,
        math(derivative(), mo("="), mean(k < 2 ? row(inner, sub(mi("x"), row(mi("n"), mn(String(k + 1))))) : inner), ...(penalty && k < 2 ? [mo("+"), mi("λ"), by] : []), mo("="), mn(slope)),
        "The next step goes against it, by the learning rate:",
        math(by, mo("−"), mi("η"), derivative(), mo("="), mn(value), mo("−"), mn(rate), mo("·"), signed(slope), mo("="), mn(value - rate * slope))];
    }

    // One point: its scores, and its loss; with a button that removes it.
    function ofPoint({ at, label }, of_, removed) {
      const scores = M.scoresOf(model, at);
      const { loss: own } = M.ofScores(scores, label, of_);
      const p = M.softmax(scores);
      const place = `Class ${NAMES[label]} at x₁ = ${fixed(at[0], 2)}, x₂ = ${fixed(at[1], 2)}. Its scores f = W·x + b: ${NAMES.map((each, c) => `${each} ${fixed(scores[c], 3)}`).join(", ")}.`;
      const lines = of_ === "softmax"
        ? ["Its loss is −ln of the probability of its own class:",
          math(mo("−"), ln(sub(mi("p"), mi(NAMES[label]))), mo("="), mo("−"), ln(shareOf(p[label], M.complement(p, label))), mo("="), mn(own))]
        : ["Its hinge loss is what each other class's score has beyond its own class's, less a margin of 1:",
          math(...NAMES.flatMap((_, c) => (c === label ? [] : [mo("+"), mi("max"), paren(mn("0"), mo(","), mn(scores[c]), mo("−"), signed(scores[label]), mo("+"), mn("1"))])).slice(1), mo("="), mn(own))];
      return [place, ...lines, removed && html("button", { type: "button", class: "remove", onclick: removed }, "Remove this point")];
    }
  }

  return Object.freeze({ of });
})();
