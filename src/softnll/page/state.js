// What the reader has set, in the address after '#': a link or a reload brings it back. Bad links change nothing.
const state = (() => {
  const CLASSES = Object.freeze(["cat", "dog", "horse"]);
  const IMAGES = Object.freeze(["cat", "horse", "dog"]);
  const ROOMS = Object.freeze(["scores", "training", "mistakes"]);
  const START = Object.freeze({
    room: "scores",
    scores: [[5, 4, 2], [4, 2, 8], [4, 4, 1]],
    targets: [0, 2, 1],
    temperature: 1,
    row: 0,
  });
  const current = structuredClone(START);
  const watchers = [];

  function read(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const found = structuredClone(START);
    if (ROOMS.includes(given.get("room"))) found.room = given.get("room");
    const rows = (given.get("x") ?? "").split(";").map((each) => each.split(",").map(Number));
    const whole = rows.length === 3 && rows.every((each) => each.length === 3 && each.every(Number.isFinite));
    if (given.has("x") && whole) found.scores = rows;
    const targets = (given.get("y") ?? "").split(",").map(Number);
    if (given.has("y") && targets.length === 3 && targets.every((y) => [0, 1, 2].includes(y))) found.targets = targets;
    const temperature = Number(given.get("t") ?? 1);
    if (temperature >= 0.1 && temperature <= 10) found.temperature = temperature;
    const row = Number(given.get("row") ?? 0);
    if ([0, 1, 2].includes(row)) found.row = row;
    return found;
  }

  function written() {
    const parts = [`room=${current.room}`];
    const text = current.scores.map((each) => each.join(",")).join(";");
    if (text !== START.scores.map((each) => each.join(",")).join(";")) parts.push(`x=${text}`);
    if (current.targets.join() !== START.targets.join()) parts.push(`y=${current.targets.join(",")}`);
    if (current.temperature !== 1) parts.push(`t=${current.temperature}`);
    if (current.row) parts.push(`row=${current.row}`);
    return `#${parts.join("&")}`;
  }

  // Change something, note it in the address, tell the rooms.
  function set(changes) {
    Object.assign(current, changes);
    history.replaceState(null, "", written());
    watchers.forEach((each) => each(current));
  }

  function watch(tell) {
    watchers.push(tell);
  }

  window.addEventListener("hashchange", () => set(read(location.hash)));
  Object.assign(current, read(location.hash));
  return Object.freeze({ CLASSES, IMAGES, START, current, set, watch, read });
})();
