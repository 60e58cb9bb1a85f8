// The reader's settings, kept in the address after '#', so that a link or a reload restores them. Invalid parts of a
// link are ignored: only numbers that the page itself allows are read.
const state = (() => {
  const CLASSES = Object.freeze(["cat", "dog", "horse"]);
  const IMAGES = Object.freeze(["cat", "horse", "dog"]);
  const ROOMS = Object.freeze(["story", "scores", "training", "mistakes"]);
  const KINDS = Object.freeze(["softmax", "hinge"]);
  const LARGEST = Object.freeze({ score: 1e6, place: 2.9, weight: 1e9, points: 60, penalty: 1 });
  const STEPS = 7; // of the story
  const FORMULAS = new Map([["loss", 0], ["mean", 0], ["p", 1], ["g", 1], ["j", 2]]); // of so many entries each
  const LATER = 250; // milliseconds: browsers throttle pages that write the address at each move of a slider
  const START = Object.freeze({
    room: "story",
    step: 0, // of the story
    scores: [[5, 4, 2], [4, 2, 8], [4, 4, 1]],
    targets: [0, 2, 1],
    temperature: 1,
    row: 0,
    formula: null, // the number in the room of scores that is pressed
    points: dataSets.apart.points,
    labels: dataSets.apart.labels,
    model: { W: [[0.5, -0.6], [-0.4, -0.5], [0.2, 0.9]], b: [0, 0, 0] }, // wrong on purpose: there is something to learn
    kind: "softmax",
    rate: 0.5,
    penalty: 0, // λ: half of it times the squared weights joins the loss
    sliders: {}, // of the experiments, by id: those that were moved
  });
  const current = structuredClone(START);
  const callbacks = [];
  let pending = null;

  const clamp = (value, most) => Math.min(most, Math.max(-most, value));
  // A number written in digits; Number("") and Number(" ") are 0, which is refused here.
  const numeric = (text) => (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text ?? "") ? Number(text) : NaN);

  // A table of numbers such as "1,2;3,4", of this many rows and columns; null for anything else.
  function table(text, rows, columns, most) {
    const found = (text ?? "").split(";", LARGEST.points + 1).map((line) => line.split(",", columns + 1).map(numeric));
    const whole = found.length === rows && found.every((line) => line.length === columns && line.every((each) => !Number.isNaN(each)));
    return whole ? found.map((line) => line.map((each) => clamp(each, most))) : null;
  }
  const text = (rows) => rows.map((line) => line.join(",")).join(";");

  const toText = {
    x: (at) => text(at.scores),
    y: (at) => at.targets.join(","),
    t: (at) => String(at.temperature),
    row: (at) => String(at.row),
    step: (at) => String(at.step + 1),
    f: ({ formula }) => (formula ? [formula.kind, formula.i, formula.j].filter((each) => each !== undefined).join(".") : ""),
    pts: (at) => text(at.points.map((each, n) => [...each, at.labels[n]])),
    W: ({ model: { W, b } }) => text(W.map((line, c) => [...line, b[c]])),
    loss: (at) => at.kind,
    rate: (at) => String(at.rate),
    l2: (at) => String(at.penalty),
    e: (at) => Object.entries(at.sliders).map(([id, value]) => `${id}.${value}`).join(","),
  };

  const fromText = {
    room: (given, found) => { if (ROOMS.includes(given)) found.room = given; },
    x: (given, found) => { found.scores = table(given, 3, 3, LARGEST.score) ?? found.scores; },
    y: (given, found) => {
      const targets = given.split(",").map(numeric);
      if (targets.length === 3 && targets.every((y) => [0, 1, 2].includes(y))) found.targets = targets;
    },
    t: (given, found) => { if (numeric(given) >= 0.1 && numeric(given) <= 10) found.temperature = numeric(given); },
    row: (given, found) => { if ([0, 1, 2].includes(numeric(given))) found.row = numeric(given); },
    f: (given, found) => {
      const [kind, i, j] = given.split(".");
      if (!FORMULAS.has(kind)) return;
      const entries = [i, j].slice(0, FORMULAS.get(kind));
      if (!entries.every((each) => ["0", "1", "2"].includes(each))) return;
      found.formula = { kind, ...(entries.length > 0 && { i: Number(i) }), ...(entries.length > 1 && { j: Number(j) }) };
    },
    pts: (given, found) => {
      const count = given.split(";", LARGEST.points + 1).length;
      const rows = count <= LARGEST.points ? table(given, count, 3, LARGEST.place) : null;
      if (!rows?.every((line) => [0, 1, 2].includes(line[2]))) return;
      found.points = rows.map(([a, b]) => [a, b]);
      found.labels = rows.map((line) => line[2]);
    },
    W: (given, found) => {
      const rows = table(given, 3, 3, LARGEST.weight);
      if (rows) found.model = { W: rows.map(([a, b]) => [a, b]), b: rows.map((line) => line[2]) };
    },
    step: (given, found) => { if (Number.isInteger(numeric(given)) && numeric(given) >= 1 && numeric(given) <= STEPS) found.step = numeric(given) - 1; },
    l2: (given, found) => { if (numeric(given) >= 0 && numeric(given) <= LARGEST.penalty) found.penalty = numeric(given); },
    loss: (given, found) => { if (KINDS.includes(given)) found.kind = given; },
    rate: (given, found) => { if (numeric(given) >= 0.01 && numeric(given) <= 10) found.rate = numeric(given); },
    // The experiments clamp these values to the ends of their sliders.
    e: (given, found) => {
      for (const each of given.split(",").slice(0, 20)) {
        const [, id, value] = /^([a-z]+(?:-[a-z]+)*)\.(.*)$/.exec(each) ?? [];
        if (id && !Number.isNaN(numeric(value))) found.sliders[id] = clamp(numeric(value), 1e3);
      }
    },
  };

  function read(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const found = structuredClone(START);
    for (const [name, take] of Object.entries(fromText)) if (given.has(name)) take(given.get(name), found);
    return found;
  }

  function written() {
    const changed = Object.entries(toText).filter(([, each]) => each(current) !== each(START));
    return `#${[`room=${current.room}`, ...changed.map(([name, each]) => `${name}=${each(current)}`)].join("&")}`;
  }

  function write() {
    clearTimeout(pending);
    pending = null;
    history.replaceState(null, "", written());
  }

  // Change the state and write it to the address soon, without calling the other rooms.
  function note(changes) {
    Object.assign(current, changes);
    pending ??= setTimeout(write, LATER);
  }

  // Whether the address holds the whole state.
  function settled() {
    return pending === null;
  }

  // Change the state and redraw the rooms.
  function set(changes) {
    note(changes);
    callbacks.forEach((each) => each(current));
  }

  function onChange(callback) {
    callbacks.push(callback);
  }

  // The event's own address: a write that was pending may have replaced the page's before the event comes.
  window.addEventListener("hashchange", (event) => set(read(new URL(event.newURL).hash)));
  window.addEventListener("pagehide", () => pending !== null && write());
  Object.assign(current, read(location.hash));
  return Object.freeze({ CLASSES, IMAGES, START, current, set, note, settled, onChange, read, clamp, LARGEST, STEPS });
})();
