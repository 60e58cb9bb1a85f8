// The tabs, and one global object for tests.
const ROOMS = { story: roomStory, scores: roomScores, training: roomTraining, mistakes: roomMistakes };

function openRoom(name) {
  for (const each of Object.keys(ROOMS)) {
    const chosen = each === name;
    const tab = drawing.byId(`tab-${each}`);
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    drawing.byId(`room-${each}`).hidden = !chosen;
  }
}

// Before the rooms' own: a number that is hidden now closes its panel.
state.onChange(({ room }) => {
  openRoom(room);
  panel.refresh();
});

for (const [name, room] of Object.entries(ROOMS)) {
  room.build(drawing.byId(`room-${name}`));
  const tab = drawing.byId(`tab-${name}`);
  tab.addEventListener("click", () => state.set({ room: name }));
  tab.addEventListener("keydown", (event) => {
    const names = Object.keys(ROOMS);
    const to = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = event.key === "Home" ? names[0] : event.key === "End" ? names.at(-1)
      : to && names[(names.indexOf(name) + to + names.length) % names.length];
    if (!next) return;
    event.preventDefault();
    state.set({ room: next });
    drawing.byId(`tab-${next}`).focus();
  });
}
openRoom(state.current.room);
ROOMS[state.current.room].opened?.();

// For tests: the page's functions and its state.
window.softnllPage = Object.freeze({ mathematics, state, training: roomTraining.standing });
