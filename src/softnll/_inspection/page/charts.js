// Charts that more than one room draws: the curve −ln p, the Jacobian as a table, losses over steps.
const charts = (() => {
  const { html, svg, scale, numberButton, setNumber } = drawing;
  const { fixed, number, share } = formulas;
  const M = mathematics;
  const NAMES = state.CLASSES;
  const MOST = 5; // the largest loss on the curve

  // The curve of −ln p with a point that can be dragged, or moved with the arrow keys: `moved` gets the new probability.
  function lossCurve(id, moved) {
    const x = scale([0, 1], [46, 344]);
    const y = scale([0, MOST], [220, 14]);
    const samples = Array.from({ length: 240 }, (_, k) => Math.exp(-MOST * (1 - k / 239)));
    const drop = svg("line", { y2: 220, class: "drop" });
    const circle = svg("circle", { r: 7, class: "point" });
    const words = svg("text", { class: "strong" });
    const hit = svg("circle", { r: 24, class: "hit" });
    const handle = svg("g", { id: `${id}-point`, class: "handle", role: "slider", tabindex: 0, "aria-label": "Probability of the true class",
      "aria-valuemin": 0, "aria-valuemax": 1, onpointerdown: drag, onkeydown: pressed }, hit, circle);
    const picture = svg("svg", { viewBox: "0 0 360 266", role: "group", "aria-label": "The curve of −ln p" },
      ...[0, 1, 2, 3, 4, 5].map((each) => svg("g", { class: "axis" },
        svg("line", { x1: 46, x2: 344, y1: y(each), y2: y(each) }), svg("text", { x: 40, y: y(each) + 4, "text-anchor": "end" }, each))),
      ...[0, 0.25, 0.5, 0.75, 1].map((each) => svg("text", { x: x(each), y: 238, "text-anchor": "middle" }, each)),
      svg("text", { x: 195, y: 259, "text-anchor": "middle" }, "probability p of the true class"),
      svg("text", { x: 14, y: 117, "text-anchor": "middle", transform: "rotate(-90 14 117)" }, "loss −ln p, nats"),
      svg("polyline", { points: samples.map((p) => `${x(p).toFixed(1)},${y(-Math.log(p)).toFixed(1)}`).join(" "), class: "curve" }),
      drop, words, handle);
    let now = 0.5;

    function drag(event) {
      event.preventDefault();
      handle.focus();
      drawing.follow(event, ({ clientX, clientY }) => {
        const box = picture.getBoundingClientRect();
        const [a, b] = [((clientX - box.left) * 360) / box.width, ((clientY - box.top) * 360) / box.width];
        const far = samples.map((p) => Math.hypot(x(p) - a, y(-Math.log(p)) - b));
        moved(samples[far.indexOf(Math.min(...far))]); // the nearest point of the curve
      });
    }

    function pressed(event) {
      const by = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      moved(now + by);
    }

    // Move the point to a row's probability and loss.
    function update(scores, target, temperature) {
      const all = M.softmax(scores, temperature);
      const loss = M.loss(scores, target, temperature);
      now = all[target];
      const [cx, cy] = [x(now), Math.max(8, y(loss))];
      for (const each of [circle, hit]) fillIn(each, { cx, cy });
      circle.setAttribute("class", `c${target} point`);
      fillIn(drop, { x1: cx, x2: cx, y1: cy });
      const right = cx > 236; // the words stand left of a point at the right edge, above the curve
      fillIn(words, { x: right ? 344 : cx + 12, y: right ? Math.max(cy - 22, 14) : Math.max(cy - 10, 14), "text-anchor": right ? "end" : "start" });
      words.textContent = `loss ${fixed(loss, 3)}`;
      const said = share(now, M.complement(all, target));
      fillIn(handle, { "aria-valuenow": now, "aria-valuetext": `p = ${said}, loss ${number(loss, 4)}` });
    }
    return { element: picture, update };
  }

  const fillIn = (element, attributes) => Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));

  // The derivative of each probability by each score, as a table of numbers to press.
  function jacobianTable(id, press) {
    const cells = NAMES.map((_, i) => NAMES.map((__, j) => numberButton({ id: `${id}-${i}-${j}`, onclick: (event) => press(event.currentTarget, i, j) })));
    const element = html("table", { class: "heat" },
      html("thead", {}, html("tr", {}, html("td", {}), ...NAMES.map((label) => html("th", { scope: "col" }, `f ${label}`)))),
      html("tbody", {}, ...cells.map((line, i) => html("tr", {}, html("th", { scope: "row" }, `p ${NAMES[i]}`), ...line.map((cell) => html("td", {}, cell))))));
    function update(scores, temperature) {
      const J = M.jacobian(scores, temperature);
      const most = Math.max(1e-300, ...J.flat().map(Math.abs));
      J.forEach((line, i) => line.forEach((value, j) => {
        const cell = cells[i][j];
        cell.className = value < 0 ? "minus" : "plus";
        cell.style.setProperty("--strength", (0.08 + 0.42 * Math.sqrt(Math.abs(value) / most)).toFixed(3));
        setNumber(cell, fixed(value, 3), `Derivative of p ${NAMES[i]} by the score of ${NAMES[j]}, ${number(value)}: show the formula`);
      }));
    }
    return { element, update };
  }

  // Losses over the steps of a training.
  function history(name) {
    const place = html("div", { class: "history" });
    function update(losses) {
      const most = Math.max(...losses.slice(0, 200), losses.at(-1)) * 1.05 || 1;
      const across = scale([0, Math.max(losses.length - 1, 1)], [44, 392]);
      const up = scale([0, most], [116, 10]);
      const stride = Math.max(1, Math.floor(losses.length / 350));
      const line = losses.map((each, k) => [k, each]).filter(([k]) => k % stride === 0 || k === losses.length - 1)
        .map(([k, each]) => `${across(k).toFixed(1)},${Math.max(up(each), 4).toFixed(1)}`).join(" ");
      const last = losses.length - 1;
      place.replaceChildren(svg("svg", { viewBox: "0 0 400 140", role: "img", "aria-label": `${name} ${fixed(losses[0], 3)} at first, ${fixed(losses[last], 3)} after ${last} steps` },
        ...[0, most / 2, most].map((each) => svg("g", { class: "axis" }, svg("line", { x1: 44, x2: 392, y1: up(each), y2: up(each) }),
          svg("text", { x: 38, y: up(each) + 4, "text-anchor": "end" }, fixed(each, 2)))),
        svg("polyline", { points: line, class: "curve" }),
        svg("circle", { cx: across(last), cy: Math.max(up(losses[last]), 4), r: 4, class: "point" }),
        svg("text", { x: 44, y: 135 }, "step 0"), svg("text", { x: 392, y: 135, "text-anchor": "end" }, `step ${last}`)));
    }
    return { element: place, update };
  }

  return Object.freeze({ lossCurve, jacobianTable, history });
})();
