// A button that plays steps: one a frame, or 20 each half second where the reader prefers reduced motion.
const player = (() => {
  const { html } = drawing;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  function make(id, advance) {
    let next = null;
    const button = html("button", { type: "button", id, class: "main", onclick: () => (next === null ? play() : stop()) }, "Play");
    const plan = (wait) => { next = still.matches ? setTimeout(tick, wait) : requestAnimationFrame(tick); };

    function tick() {
      plan(500); // planned first: a step may stop the player
      advance(still.matches ? 20 : 1);
    }

    function play() {
      button.textContent = "Pause";
      plan(0);
    }

    function stop() {
      if (next === null) return;
      cancelAnimationFrame(next);
      clearTimeout(next);
      next = null;
      button.textContent = "Play";
    }

    return Object.freeze({ button, stop, playing: () => next !== null });
  }

  return Object.freeze({ make });
})();
