// The last layer in float64, in the same form as the library: the largest score m and the rest r.
// These functions do not use the page; a test runs these functions in the browser against the library.
const mathematics = (() => {
  // d = (f - largest f)/temperature, the difference first: it is exact where the quotients are not;
  // r = sum of exp(d_j) without the first largest entry, which would be exactly 1.
  function parts(scores, temperature = 1) {
    const top = scores.indexOf(Math.max(...scores));
    const d = scores.map((x) => (x - scores[top]) / temperature);
    const shifted = d.map(Math.exp);
    const r = shifted.reduce((sum, each, j) => (j === top ? sum : sum + each), 0);
    return { d, top, m: scores[top] / temperature, r, shifted };
  }

  function softmax(scores, temperature = 1) {
    const { r, shifted } = parts(scores, temperature);
    return shifted.map((each) => each / (1 + r));
  }

  function logsumexp(scores, temperature = 1) {
    const { m, r } = parts(scores, temperature);
    return m + Math.log1p(r);
  }

  // -log p_y = -d_y + log1p(r): no probability is rounded to 1 on the way.
  function loss(scores, target, temperature = 1) {
    const { d, r } = parts(scores, temperature);
    return Math.log1p(r) - d[target];
  }

  // 1 - p_i as the sum of the others: 1 minus a number near 1 has no digits left.
  function complement(p, i) {
    return p.reduce((sum, each, j) => (j === i ? sum : sum + each), 0);
  }

  function gradient(scores, target, temperature = 1) {
    const p = softmax(scores, temperature);
    return p.map((each, i) => (i === target ? -complement(p, i) : each) / temperature);
  }

  // d p_i / d f_j
  function jacobian(scores, temperature = 1) {
    const p = softmax(scores, temperature);
    return p.map((pi, i) => p.map((pj, j) => (i === j ? pi * complement(p, i) : -pi * pj) / temperature));
  }

  // The largest probability, 1/(1 + r); it makes no arrays, as a picture asks for each of its pixels.
  function confidence(scores) {
    let top = 0;
    for (let j = 1; j < scores.length; j += 1) if (scores[j] > scores[top]) top = j;
    let r = 0;
    for (let j = 0; j < scores.length; j += 1) if (j !== top) r += Math.exp(scores[j] - scores[top]);
    return 1 / (1 + r);
  }

  // The score of one class at which its probability is p, the other scores as they are: ln(p/(1 - p)) + logsumexp(others).
  function scoreFor(scores, target, p, temperature = 1) {
    const others = scores.filter((_, j) => j !== target);
    return temperature * (Math.log(p) - Math.log1p(-p) + logsumexp(others, temperature));
  }

  // What most libraries compute in float32: exp, sum, log, each rounded to 24 bits.
  function conventional32(scores, target) {
    const f = Math.fround;
    const m = f(Math.max(...scores));
    const e = scores.map((x) => f(Math.exp(f(f(x) - m))));
    const sum = e.reduce((total, each) => f(total + each), 0);
    const p = e.map((each) => f(each / sum));
    const lossOf = f(f(Math.log(sum)) - f(f(scores[target]) - m));
    return { loss: lossOf, gradient: p.map((each, i) => (i === target ? f(each - 1) : each)) };
  }

  // Linear scores of a point in the plane.
  function scoresOf(model, [a, b]) {
    return model.W.map(([w0, w1], c) => w0 * a + w1 * b + model.b[c]);
  }

  // The loss of one example and its derivative by the scores: softmax, or the hinge of a multiclass SVM.
  function ofScores(scores, target, kind) {
    if (kind === "softmax") return { loss: loss(scores, target), slope: gradient(scores, target) };
    const over = scores.map((s, j) => (j === target ? 0 : Math.max(0, s - scores[target] + 1)));
    const slope = over.map((each) => (each > 0 ? 1 : 0));
    slope[target] = -slope.reduce((sum, each) => sum + each, 0);
    return { loss: over.reduce((sum, each) => sum + each, 0), slope };
  }

  // Mean loss of points [{at: [a, b], label}] plus penalty/2 times the squares of W, and the gradient by W and b.
  function evaluate(model, points, kind = "softmax", penalty = 0) {
    const dW = model.W.map(() => [0, 0]);
    const db = model.b.map(() => 0);
    let total = 0;
    let right = 0;
    for (const { at, label } of points) {
      const scores = scoresOf(model, at);
      const { loss: each, slope } = ofScores(scores, label, kind);
      total += each;
      right += scores.indexOf(Math.max(...scores)) === label;
      slope.forEach((g, c) => {
        dW[c][0] += (g * at[0]) / points.length;
        dW[c][1] += (g * at[1]) / points.length;
        db[c] += g / points.length;
      });
    }
    let squares = 0;
    model.W.forEach((line, c) => line.forEach((w, k) => {
      squares += w * w;
      dW[c][k] += penalty * w;
    }));
    const data = total / points.length;
    return { loss: data + (penalty / 2) * squares, data, squares, accuracy: right / points.length, dW, db };
  }

  // One step of gradient descent; the given model is not changed.
  function step(model, points, rate, kind = "softmax", penalty = 0) {
    const { dW, db } = evaluate(model, points, kind, penalty);
    return {
      W: model.W.map((row, c) => row.map((w, k) => w - rate * dW[c][k])),
      b: model.b.map((each, c) => each - rate * db[c]),
    };
  }

  // Expected calibration error over equal bins, each with its upper edge, and each bin's count, confidence and accuracy.
  function reliability(confidences, rights, bins = 10) {
    const found = Array.from({ length: bins }, () => ({ count: 0, confidence: 0, right: 0 }));
    confidences.forEach((p, n) => {
      const bin = found[Math.max(0, Math.ceil(p * bins) - 1)];
      bin.count += 1;
      bin.confidence += p;
      bin.right += rights[n] ? 1 : 0;
    });
    const ece = found.reduce((sum, bin) => sum + Math.abs(bin.right - bin.confidence), 0) / confidences.length;
    return { ece, bins: found };
  }

  return Object.freeze({
    parts, softmax, logsumexp, loss, complement, gradient, jacobian, confidence, scoreFor, conventional32, ofScores, evaluate, step, reliability,
    scoresOf,
  });
})();
