// Steps 1 to 3 of the story: scores, why exp, and the shares that are the probabilities.
const storyScores = (() => {
  const { html, svg, byId, scale, slider, setNumber } = drawing;
  const { math, mi, mo, mn, fraction, exp, fixed, number } = formulas;
  const { NAMES, M, image, scores, scoreSliders, pressable, table, picture } = storyParts;

  function first() {
    const sliders = scoreSliders("story-f");
    const pictures = html("div", { class: "pictures", role: "group", "aria-label": "Image" }, ...state.IMAGES.map((name, n) =>
      html("button", { type: "button", class: "picture", id: `story-image-${n}`, "aria-label": `Image ${n + 1}, a ${name}`, onclick: () => state.set({ row: n }) }, picture(name))));
    const said = html("p", { id: "story-says" });
    return {
      title: "Scores",
      words: ["A network looks at an image and gives each class one number: its score f. A higher score means likelier. Scores may be negative, and they have no unit.",
        "Choose an image, and drag its scores. All seven steps use these numbers."],
      experiment: [pictures, sliders.element, said],
      update() {
        sliders.update();
        state.IMAGES.forEach((_, n) => byId(`story-image-${n}`).setAttribute("aria-pressed", String(n === image())));
        const most = Math.max(...scores());
        const best = NAMES.filter((__, c) => scores()[c] === most);
        said.textContent = best.length === 1 ? `The highest score is the ${best[0]}'s. But how sure is the network? The scores alone do not say.` : `${best.join(" and ")} tie.`;
      },
    };
  }

  // Ways to make shares of scores: three functions, each value over the sum of all.
  const WAYS = [["f", (x) => x], ["f²", (x) => x.map((each) => each * each)], ["e^f", null]];
  const shares = (each, x) => {
    if (each === null) return M.softmax(x);
    const values = each(x);
    const sum = values.reduce((a, b) => a + b, 0);
    return values.map((value) => value / sum);
  };
  const order = (x) => x.map((a) => x.map((b) => Math.sign(a - b)).join()).join();

  // What is wrong with shares as probabilities, in a word.
  function fault(found, plain, x) {
    if (!found.every(Number.isFinite)) return "sum is 0";
    if (found.some((each) => each < 0)) return "negative";
    if (order(found) !== order(x) && found.some((each, c) => found.some((other, k) => x[c] > x[k] && each < other))) return "wrong order";
    return found.some((each, c) => Math.abs(each - plain[c]) > 1e-6) ? "moved" : "none";
  }

  function why() {
    const sliders = scoreSliders("why-f");
    const added = () => state.current.sliders["why-add"] ?? 0;
    const addToAll = (value) => state.set({ sliders: { ...state.current.sliders, "why-add": value } });
    const lowest = () => scores().indexOf(Math.min(...scores()));
    const add = slider({ id: "why-add", label: "Add to all scores", min: -10, max: 10, step: 0.5, value: added(), shown: (value) => fixed(value, 1),
      input: addToAll });
    const tryOut = html("div", { class: "buttons", role: "group", "aria-label": "Try" },
      html("button", { type: "button", id: "why-negative", onclick: () => storyParts.setScore(image(), lowest(), -6) }, "Make one negative"),
      html("button", { type: "button", id: "why-three", onclick: () => addToAll(3) }, "Add 3 to all"),
      html("button", { type: "button", id: "why-back", onclick: () => { addToAll(0); state.set({ scores: structuredClone(state.START.scores) }); } }, "Start again"));
    const cells = NAMES.map(() => WAYS.map(() => html("span")));
    const faults = WAYS.map((_, w) => html("span", { id: `why-fault-${w}` }));
    const place = html("figure", {}, html("figcaption", {}, "e to the power of f: every score gets a positive height"));
    return {
      title: "Why exp",
      words: ["Probabilities are positive and sum to 1. Why not divide each score by the sum of all scores? A negative score would be a negative probability. Squares lose the order: −6 would beat 5. Try it.",
        "The exponential is positive and keeps the order. It turns differences into ratios: one point more is 2.718 times as much. Add the same to all scores, and nothing changes."],
      experiment: [sliders.element, tryOut, place, add,
        table(["share of", ...WAYS.map(([name]) => (name === "e^f" ? html("span", {}, "e", html("sup", {}, "f")) : name))], [...NAMES.map((name, c) => [name, cells[c]]), ["fault", faults]])],
      update() {
        sliders.update();
        drawing.setSlider("why-add", added(), fixed(added(), 1));
        const x = scores().map((each) => each + added());
        WAYS.forEach(([, each], w) => {
          const found = shares(each, x);
          found.forEach((value, c) => { cells[c][w].textContent = fixed(value, 3); });
          const wrong = fault(found, shares(each, scores()), x);
          setNumber(faults[w], wrong);
          faults[w].className = wrong === "none" ? "good" : "bad";
        });
        drawExponentials(place, x);
      },
    };
  }

  // The curve of e^f around the scores, its height in units of the largest: no number is infinite.
  function drawExponentials(place, given) {
    const most = Math.max(...given);
    const low = Math.max(Math.min(...given), most - 9) - 0.6;
    const x = scale([low, most + 0.4], [52, 344]);
    const y = scale([0, 1.1], [150, 10]);
    const top = Math.exp(most);
    const height = (f) => Math.exp(f - most);
    const line = Array.from({ length: 120 }, (_, k) => low + ((most + 0.09 - low) * k) / 119).map((f) => `${x(f).toFixed(1)},${y(height(f)).toFixed(1)}`).join(" ");
    const label = (share) => (Number.isFinite(top) && top >= 0.001 ? number(share * top, top < 10 ? 2 : 0) : `${share}·e^${number(most, 1)}`);
    const ticks = Array.from({ length: 5 }, (_, k) => low + 0.6 + ((most - low - 0.6) * k) / 4);
    place.querySelector("svg")?.remove();
    place.append(svg("svg", { viewBox: "0 0 360 190", role: "img", "aria-label": `e to the power of ${given.map((each) => number(each, 2)).join(", ")} is ${given.map((each) => number(Math.exp(each), 3)).join(", ")}` },
      ...[0, 0.5, 1].map((each) => svg("g", { class: "axis" }, svg("line", { x1: 52, x2: 344, y1: y(each), y2: y(each) }), svg("text", { x: 46, y: y(each) + 4, "text-anchor": "end" }, each ? label(each) : 0))),
      ...(most - low > 1 ? ticks : [most]).map((each) => svg("text", { x: x(each), y: 167, "text-anchor": "middle" }, number(each, 1))),
      svg("text", { x: 198, y: 186, "text-anchor": "middle" }, "score f"),
      svg("text", { x: 8, y: 80, "text-anchor": "middle", transform: "rotate(-90 8 80)", dy: 4 }, "exponential"),
      svg("polyline", { points: line, class: "curve" }),
      ...given.flatMap((each, c) => [svg("line", { x1: x(Math.max(each, low)), x2: x(Math.max(each, low)), y1: 150, y2: y(height(each)), class: "drop" }),
        svg("circle", { cx: x(Math.max(each, low)), cy: y(height(each)), r: 6, class: `c${c} point` })])));
  }

  function normalise() {
    const sliders = scoreSliders("share-f");
    const powers = NAMES.map((_, c) => pressable(`share-e-${c}`, { kind: "e", i: c }));
    const sum = pressable("share-sum", { kind: "sum" });
    const found = NAMES.map((_, c) => pressable(`share-p-${c}`, { kind: "p", i: c }));
    const parts = NAMES.map((_, c) => html("span", { class: `c${c}` }));
    const formula = html("div", { class: "explanation", id: "share-formula" });
    const total = html("span");
    return {
      title: "Normalise",
      words: ["Divide each exponential by the sum of all. The shares lie between 0 and 1 and sum to 1: this is softmax. Now they can be read: “how sure is the network that this is a cat?”",
        "Raise one score: its share grows, and all others shrink. Press a number to see where it comes from."],
      experiment: [sliders.element, html("div", { class: "stack", role: "img", "aria-label": "The shares as one bar" }, ...parts),
        table(["", html("span", {}, "e", html("sup", {}, "f")), "probability p"], [...NAMES.map((name, c) => [[html("span", { class: `dot d${c}` }), ` ${name}`], [powers[c].element, found[c].element]]), ["sum", [sum.element, total]]]), formula],
      update() {
        sliders.update();
        const x = scores();
        const p = M.softmax(x);
        p.forEach((value, c) => {
          parts[c].style.width = `${100 * value}%`;
          powers[c].update(Math.exp(x[c]), `e to the power of the score of ${NAMES[c]}`, 2);
          found[c].update(value, `Probability of ${NAMES[c]}`);
        });
        sum.update(x.reduce((a, each) => a + Math.exp(each), 0), "Sum of the exponentials", 2);
        total.textContent = fixed(p.reduce((a, b) => a + b, 0), 3);
        formula.replaceChildren(math(formulas.sub(mi("p"), mi(NAMES[0])), mo("="), fraction(exp(mn(x[0])), origins.joined(x.map((each) => exp(mn(each))))), mo("="), mn(p[0])));
      },
    };
  }

  return Object.freeze({ steps: [first, why, normalise] });
})();
