// Where a number of the three images comes from: words and formulas, with the current numbers.
const origins = (() => {
  const { math, mi, mo, mn, row, fraction, sub, sup, exp, ln, paren, signed, number, shareOf } = formulas;
  const M = mathematics;
  const { CLASSES, IMAGES } = state;
  const name = (c) => mi(CLASSES[c]);
  const f = (c) => sub(mi("f"), name(c));
  const p = (c) => sub(mi("p"), name(c));
  const by = (above, below) => fraction(row(mo("∂"), above), row(mo("∂"), below));
  const joined = (terms) => row(...terms.flatMap((each, k) => (k ? [mo("+"), each] : [each])));
  const sumOver = (index) => formulas.element("munder", mo("∑"), mi(index));

  // The words and formulas of one number of an image at a temperature. `what` has a kind, and the classes it is about.
  function of(what, n, tau) {
    const scores = state.current.scores[n];
    const y = state.current.targets[n];
    const probabilities = M.softmax(scores, tau);
    const { d, top, r, shifted } = M.parts(scores, tau);
    const g = M.gradient(scores, y, tau);
    const J = M.jacobian(scores, tau);
    const value = (i) => shareOf(probabilities[i], M.complement(probabilities, i)); // p_i, as a number that formulas of it may use
    const over = (x) => (tau === 1 ? mn(x) : fraction(mn(x), mn(tau)));
    const half = (node) => (tau === 1 ? node : fraction(node, mn(tau)));
    const loss = M.loss(scores, y, tau);
    const all = IMAGES.map((_, k) => M.loss(state.current.scores[k], state.current.targets[k], tau));
    const total = all.reduce((sum, each) => sum + each, 0);
    return {
      e: ({ i }) => ["Positive for every score; one point more is e = 2.71828 times as much:",
        math(exp(f(i)), mo("="), exp(over(scores[i])), mo("="), mn(Math.exp(scores[i] / tau))),
        Number.isFinite(Math.exp(scores[i] / tau)) ? null : "Too large for a number. That is why the largest score is taken from each first."],
      sum: () => ["All exponentials together:",
        math(joined(scores.map((each) => exp(over(each)))), mo("="), mn(scores.reduce((sum, each) => sum + Math.exp(each / tau), 0)))],
      p: ({ i }) => ["The share of one exponential in the sum of all:",
        math(p(i), mo("="), fraction(exp(over(scores[i])), joined(scores.map((each) => exp(over(each)))))),
        "The largest score taken from each changes nothing, and no exponential is infinite:",
        math(mo("="), fraction(exp(half(row(mn(scores[i]), mo("−"), signed(scores[top])))), row(mn("1"), mo("+"), mi("r"))), mo("="),
          fraction(mn(shifted[i]), row(mn("1"), mo("+"), mn(r))), mo("="), value(i)),
        r === 0 ? "The others' exponentials are 0: too small for a number." : null],
      loss: () => ["How unlikely the classifier thought the truth, in nats:",
        math(mi("L"), mo("="), mo("−"), ln(p(y)), mo("="), mo("−"), ln(value(y)), mo("="), mn(loss)),
        "Computed from the largest score m and the rest r, so that nothing is rounded away:",
        math(mi("L"), mo("="), half(paren(mi("m"), mo("−"), f(y))), mo("+"), ln(paren(mn("1"), mo("+"), mi("r"))), mo(","), mi("m"), mo("="), mn(scores[top])),
        math(mo("="), mn(0 - d[y]), mo("+"), ln(paren(mn("1"), mo("+"), mn(r))), mo("="), mn(loss))],
      g: ({ i }) => [i === y ? "Of the true class: its probability less 1. Descent raises this score." : "Of any other class: its probability. Descent lowers this score.",
        math(by(mi("L"), f(i)), mo("="), half(i === y ? row(p(i), mo("−"), mn("1")) : p(i)), mo("="), mn(g[i])),
        "By the chain rule over all probabilities; only that of the true class is in the loss:",
        math(row(mo("−"), fraction(mn("1"), p(y))), mo("·"), by(p(y), f(i))),
        math(mo("="), row(mo("−"), fraction(mn("1"), value(y))), mo("·"), signed(J[y][i]), mo("="), mn(g[i]))],
      j: ({ i, j }) => [i === j ? "On the diagonal: a score raises its own probability." : "Off the diagonal: a score takes from every other probability.",
        math(by(p(i), f(j)), mo("="), half(i === j ? row(p(i), paren(mn("1"), mo("−"), p(i))) : row(mo("−"), p(i), p(j)))),
        math(mo("="), half(i === j ? row(value(i), mo("·"), mn(M.complement(probabilities, i))) : row(mo("−"), value(i), mo("·"), value(j))), mo("="), mn(J[i][j])),
        "It is the quotient rule:",
        math(by(p(i), f(j)), mo("="), i === j
          ? fraction(row(exp(f(i)), mi("S"), mo("−"), exp(f(i)), exp(f(i))), sup(mi("S"), mn("2")))
          : fraction(row(mn("0"), mo("−"), exp(f(i)), exp(f(j))), sup(mi("S"), mn("2"))), mo(","), mi("S"), mo("="), sumOver("c"), exp(sub(mi("f"), mi("c"))))],
      lp: ({ i }) => (i === y
        ? ["L = −ln p of the true class; the derivative of ln p is 1/p:",
          math(by(mi("L"), p(i)), mo("="), mo("−"), fraction(mn("1"), p(i)), mo("="), mo("−"), fraction(mn("1"), value(i)), mo("="), mn(-1 / probabilities[i]))]
        : ["The loss holds the true class's probability alone:", math(by(mi("L"), p(i)), mo("="), mn("0"))]),
      mean: () => ["The sum of the three losses, divided by three:",
        math(fraction(joined(all.map((each) => mn(each))), mn("3")), mo("="), mn(total / 3))],
      total: () => ["The sum of the three losses:", math(joined(all.map((each) => mn(each))), mo("="), mn(total)),
        "Training uses the sum or the mean; the mean does not grow with the number of images."],
    }[what.kind](what);
  }

  return Object.freeze({ of, f, p, by, joined, sumOver, number });
})();
