// The plane of the training room: a colour for each pixel, and points that are added, moved, pressed and removed.
const plane = (() => {
  const { html, svg, scale } = drawing;
  const { fixed } = formulas;
  const M = mathematics;
  const NAMES = ["A", "B", "C"];
  const SIZE = 480; // of the picture, in its own units
  const PIXELS = { still: 480, moving: 240 }; // a side; the browser smooths the fewer of a picture that changes
  const REST = 150; // milliseconds without a change, after which the picture is drawn in full
  const x = scale([-3, 3], [0, SIZE]);
  const y = scale([-3, 3], [SIZE, 0]);
  const MARKS = [(s) => `M0,${-s}L${s},${s}L${-s},${s}Z`, (s) => `M${-s},${-s}H${s}V${s}H${-s}Z`, (s) => `M0,${-1.3 * s}L${1.3 * s},0L0,${1.3 * s}L${-1.3 * s},0Z`];
  const canvas = html("canvas", { id: "regions", "aria-hidden": "true" });
  const ground = svg("rect", { width: SIZE, height: SIZE, class: "ground" });
  const picture = svg("svg", { id: "points", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": "Points of three classes" }, ground);
  const element = html("div", { class: "plane" }, canvas, picture);
  const marks = [];

  // Of a pointer's place in the plane.
  function placeOf({ clientX, clientY }) {
    const box = picture.getBoundingClientRect();
    return [-3 + (6 * (clientX - box.left)) / box.width, 3 - (6 * (clientY - box.top)) / box.height];
  }

  let happened; // what to call: added(at), moved(n, at), pressed(n), removed(n)

  function connect(callbacks) {
    happened = callbacks;
    ground.addEventListener("click", (event) => happened.added(placeOf(event)));
  }

  function makeMark(n) {
    const mark = svg("g", { class: "mark", tabindex: 0, role: "button", "data-point": n }, svg("circle", { class: "halo" }), svg("circle", { r: 22, class: "hit" }), svg("path"));
    mark.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      mark.focus({ preventScroll: true });
      const from = [event.clientX, event.clientY];
      let far = false; // a press that goes nowhere asks for the point's loss
      drawing.follow(event, (now) => {
        far ||= Math.hypot(now.clientX - from[0], now.clientY - from[1]) > 4;
        if (far) happened.moved(n, placeOf(now));
      });
      mark.addEventListener("pointerup", () => far || happened.pressed(n), { once: true });
    });
    mark.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (by) happened.moved(n, state.current.points[n].map((each, k) => each + by[k]));
      else if (event.key === "Enter" || event.key === " ") happened.pressed(n);
      else if (event.key === "Delete" || event.key === "Backspace") happened.removed(n);
      else return;
      event.preventDefault();
    });
    return mark;
  }

  // Put each mark at its point. A halo shows the point's loss: its area grows with it.
  function drawPoints(points, model, kind) {
    while (marks.length < points.length) {
      marks.push(makeMark(marks.length));
      picture.append(marks.at(-1));
    }
    marks.splice(points.length).forEach((each) => each.remove());
    points.forEach(({ at, label }, n) => {
      const mark = marks[n];
      const [halo, , path] = mark.children;
      const scores = M.scoresOf(model, at);
      const { loss } = M.ofScores(scores, label, kind);
      mark.setAttribute("transform", `translate(${x(at[0])} ${y(at[1])})`);
      mark.classList.toggle("miss", scores.indexOf(Math.max(...scores)) !== label);
      halo.setAttribute("r", Math.min(60, 18 * Math.sqrt(loss)).toFixed(1));
      halo.setAttribute("class", `halo c${label}`);
      path.setAttribute("d", MARKS[label](9)); // 24 pixels of `hit` on a phone
      path.setAttribute("class", `c${label}`);
      mark.setAttribute("aria-label", `Point of class ${NAMES[label]} at ${fixed(at[0], 1)}, ${fixed(at[1], 1)}, loss ${fixed(loss, 3)}: show the formula`);
    });
  }

  // Colours as red, green, blue: a canvas cannot read style sheets by itself.
  const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim().split(" ").map(Number);

  // How strong the colour is: softmax's confidence, or how far the highest score leads, up to the SVM's margin of 1.
  function strength(scores, kind) {
    if (kind === "softmax") return 0.12 + 0.87 * (M.confidence(scores) - 1 / 3);
    const [a, b, c] = scores;
    const second = Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
    return 0.12 + 0.4 * Math.min(1, Math.max(a, b, c) - second);
  }

  // Draw the regions quickly; in full once nothing has changed for a while.
  let later = null;
  function drawRegions(model, kind) {
    clearTimeout(later);
    paint(model, kind, PIXELS.moving);
    later = setTimeout(() => paint(model, kind, PIXELS.still), REST);
  }

  function paint(model, kind, side) {
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const image = new ImageData(side, side);
    const colours = [0, 1, 2].map((c) => colourOf(`--region-${c}`));
    const paper = colourOf("--region-paper");
    const scores = [0, 0, 0];
    for (let j = 0; j < side; j += 1) {
      const b = 3 - (6 * (j + 0.5)) / side;
      for (let i = 0; i < side; i += 1) {
        const a = -3 + (6 * (i + 0.5)) / side;
        for (let c = 0; c < 3; c += 1) scores[c] = model.W[c][0] * a + model.W[c][1] * b + model.b[c];
        const top = scores[1] > scores[0] ? (scores[2] > scores[1] ? 2 : 1) : (scores[2] > scores[0] ? 2 : 0);
        const much = strength(scores, kind);
        const at = 4 * (j * side + i);
        for (let k = 0; k < 3; k += 1) image.data[at + k] = paper[k] + much * (colours[top][k] - paper[k]);
        image.data[at + 3] = 255;
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  const mark = (n) => marks[n];

  return Object.freeze({ NAMES, element, connect, drawPoints, drawRegions, mark });
})();
