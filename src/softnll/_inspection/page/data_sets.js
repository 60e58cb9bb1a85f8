// The three data sets of the training room: points in the plane, and the class of each.
const dataSets = (() => {
  const labels = (counts) => counts.flatMap((count, c) => Array.from({ length: count }, () => c));

  // Always the same numbers: two of a normal distribution for each call (Box and Muller).
  function normals(seed) {
    let at = seed;
    const random = () => { at = (1103515245 * at + 12345) % 2147483648; return (at + 0.5) / 2147483648; };
    return () => {
      const [size, turn] = [Math.sqrt(-2 * Math.log(random())), 2 * Math.PI * random()];
      return [size * Math.cos(turn), size * Math.sin(turn)];
    };
  }
  const rounded = (value) => Math.round(Math.min(2.8, Math.max(-2.8, value)) * 100) / 100;

  function overlapping() {
    const draw = normals(11);
    return [[-0.8, 0.6], [0.9, 0.7], [0, -0.9]].flatMap(([a, b]) => Array.from({ length: 12 }, () => {
      const [u, v] = draw();
      return [rounded(a + 0.75 * u), rounded(b + 0.75 * v)];
    }));
  }

  // Class A in the middle of B and C: no straight line parts it from them.
  function surrounded() {
    const draw = normals(5);
    const ring = Array.from({ length: 24 }, (_, k) => {
      const [u] = draw();
      const turn = (2 * Math.PI * (k + 0.5)) / 24 - Math.PI / 2;
      return [rounded((2 + 0.2 * u) * Math.cos(turn)), rounded((2 + 0.2 * u) * Math.sin(turn))];
    });
    return [...Array.from({ length: 10 }, () => draw().map((each) => rounded(0.45 * each))), ...ring];
  }

  return Object.freeze({
    apart: {
      name: "Apart",
      points: [
        [-1.6, 0.9], [-1.1, 1.6], [-1.9, 1.7], [-0.7, 0.8], [-1.3, 0.3],
        [1.3, 1.2], [1.9, 0.6], [0.9, 1.7], [1.6, 1.9], [0.5, 0.6],
        [0.1, -1.2], [0.8, -1.6], [-0.6, -1.7], [0.3, -2.1], [-0.2, -0.5],
      ],
      labels: labels([5, 5, 5]),
    },
    overlapping: { name: "Overlapping", points: overlapping(), labels: labels([12, 12, 12]) },
    surrounded: { name: "Surrounded", points: surrounded(), labels: labels([10, 12, 12]) },
  });
})();
