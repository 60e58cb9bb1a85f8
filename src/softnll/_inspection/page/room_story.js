// The story: seven steps from scores to learning, which one scrolls or clicks through.
const roomStory = (() => {
  const { html, byId } = drawing;
  const { fixed } = formulas;
  const M = mathematics;
  const steps = [...storyScores.steps, ...storyLoss.steps, ...storyGradient.steps].map((make) => make());
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const links = steps.map(({ title }, n) => html("a", { href: `#story-${n + 1}`, id: `to-${n + 1}`, onclick: (event) => { event.preventDefault(); go(n); } },
    html("span", { class: "digit" }, n + 1), html("span", { class: "title" }, title)));
  let going = null; // the step that a click scrolls to: the steps between do not count

  function build(room) {
    const bar = html("div", { class: "progress" }, html("nav", { "aria-label": "Steps of the story" }, html("ol", {}, ...links.map((each) => html("li", {}, each)))),
      html("p", { id: "live", class: "live" }));
    room.append(html("p", { id: "story-temperature", class: "hint" }), bar, ...steps.map(section));
    state.onChange(follow);
    window.addEventListener("scroll", () => visible() && noteStep(), { passive: true });
    // The click's own scrolling ends, or the reader takes over; not every browser has the first event.
    for (const name of ["scrollend", "wheel", "touchmove", "keydown"]) window.addEventListener(name, arrived, { passive: true });
  }

  function section({ title, words, experiment }, n) {
    const next = n + 1 < steps.length
      ? html("button", { type: "button", class: "next", id: `next-${n + 1}`, onclick: () => go(n + 1) }, `Next: ${steps[n + 1].title}`) : null;
    return html("section", { class: "chapter", id: `story-${n + 1}`, "aria-labelledby": `story-title-${n + 1}` },
      html("div", { class: "telling" }, html("h3", { id: `story-title-${n + 1}`, tabindex: -1 }, html("span", { class: "digit" }, n + 1), ` ${title}`), ...words.map((each) => html("p", {}, each))),
      html("div", { class: "trying" }, ...experiment, next));
  }

  function arrived({ type }) {
    going = null;
    if (type === "scrollend" && visible()) noteStep();
  }

  const visible = () => !byId("room-story").hidden;

  // Scroll to a step, and put the keyboard's place at its heading.
  function go(n) {
    going = n;
    mark(n);
    byId(`story-${n + 1}`).scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
    byId(`story-title-${n + 1}`).focus({ preventScroll: true });
  }

  // The step that is being read: the last whose top is above the middle of the window.
  function noteStep() {
    if (going !== null) return;
    const tops = steps.map((_, n) => byId(`story-${n + 1}`).getBoundingClientRect().top);
    mark(Math.max(0, tops.filter((top) => top < window.innerHeight / 2).length - 1));
  }

  function mark(n) {
    links.forEach((each, k) => (k === n ? each.setAttribute("aria-current", "step") : each.removeAttribute("aria-current")));
    if (n !== state.current.step) state.note({ step: n });
  }

  function follow({ room, temperature, step }) {
    if (room !== "story") return steps.forEach((each) => each.stop?.());
    const [x, y] = [storyParts.scores(), storyParts.target()];
    const list = (all, digits) => all.map((each) => fixed(each, digits)).join(", ");
    byId("live").replaceChildren(html("span", {}, `f = (${list(x, 1)})`), html("span", {}, `p = (${list(M.softmax(x), 3)})`), html("span", {}, `L = ${fixed(M.loss(x, y), 3)}`));
    byId("story-temperature").textContent = temperature === 1 ? "" : `The story computes at temperature 1; the free play's is ${fixed(temperature, 2)}.`;
    steps.forEach((each) => each.update());
    if (links[step].getAttribute("aria-current") !== "step") show(step);
    panel.refresh();
    return undefined;
  }

  // The address named a step, or the room was opened: show where the reader was.
  function show(step) {
    mark(step);
    if (step > 0) byId(`story-${step + 1}`).scrollIntoView();
  }

  return Object.freeze({ build, opened: () => follow(state.current) });
})();
