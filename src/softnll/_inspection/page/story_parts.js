// What the steps of the story share: the chosen image's numbers at temperature 1, sliders of its scores, and tables.
const storyParts = (() => {
  const { html, svg, slider, setSlider, numberButton, setNumber } = drawing;
  const { fixed, number } = formulas;
  const M = mathematics;
  const NAMES = state.CLASSES;
  const image = () => state.current.row;
  const scores = (n = image()) => state.current.scores[n];
  const target = (n = image()) => state.current.targets[n];
  const picture = (name) => svg("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }, svg("use", { href: `#image-${name}` }));

  function setScore(n, c, value) {
    const changed = structuredClone(state.current.scores);
    changed[n][c] = state.clamp(value, state.LARGEST.score);
    state.set({ scores: changed });
  }

  // Sliders of the chosen image's scores.
  function scoreSliders(id) {
    const element = html("div", { class: "sliders" }, ...NAMES.map((name, c) => {
      const line = slider({ id: `${id}-${c}`, label: `f ${name}`, min: -10, max: 10, step: 0.1, value: 0, shown: (value) => fixed(value, 1), input: (value) => setScore(image(), c, value) });
      line.classList.add(`s${c}`);
      return line;
    }));
    const update = () => NAMES.forEach((_, c) => document.activeElement?.id === `${id}-${c}` && Number(document.activeElement.value) === scores()[c]
      ? null : setSlider(`${id}-${c}`, scores()[c], shownScore(scores()[c])));
    return { element, update };
  }
  const shownScore = (value) => (Number.isInteger(value * 10) ? fixed(value, 1) : fixed(value, 3));

  // A number that shows where it comes from; `what` is of origins.js, and may be a function of what is current.
  function pressable(id, what) {
    const button = numberButton({ id, onclick: () => panel.toggle(button, () => origins.of(typeof what === "function" ? what() : what, image(), 1)) });
    const update = (value, name, digits = 3) => setNumber(button, fixed(value, digits), `${name}, ${number(value)}: show the formula`);
    return { element: button, update };
  }

  // A table of a row a quantity and a column a class; rows are [header, cells].
  const table = (head, rows) => html("table", { class: "plain" },
    html("thead", {}, html("tr", {}, ...head.map((each, k) => (k ? html("th", { scope: "col" }, each) : html("td", {}, each))))),
    html("tbody", {}, ...rows.map(([name, cells, attributes = {}]) => html("tr", attributes, html("th", { scope: "row" }, ...[name].flat()), ...cells.map((each) => html("td", {}, each))))));

  return Object.freeze({ NAMES, M, image, scores, target, picture, setScore, scoreSliders, shownScore, pressable, table });
})();
