// The panel beside a pressed number: where the number comes from. It follows the numbers until it is closed.
const panel = (() => {
  const { html } = drawing;
  const GAP = 8; // pixels between the number and the panel
  const EDGE = 12; // pixels between the panel and the window's edge
  const CONTROLS = ".number, .heat button, .cell, .mark, .handle, input, select, button.main"; // not to be covered
  let shown = null; // { anchor, describe, closed, side }
  const content = html("div", { id: "formula", class: "explanation" });
  const box = html("section", { id: "panel", hidden: true, "aria-label": "Where the number comes from" },
    html("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => close() }, "×"), content);
  document.body.append(box);

  // Show what a function returns (words and formulas) beside an element; call `closed` when the panel closes.
  function open(anchor, describe, closed = () => {}) {
    if (shown) finish();
    shown = { anchor, describe, closed, side: "below" };
    anchor.setAttribute("aria-current", "true");
    box.hidden = false;
    fillWith("polite");
    shown.side = choose();
    place();
    box.scrollIntoView({ block: "nearest" });
  }

  // Open the panel, or close it where it is already open for this element.
  function toggle(anchor, describe, closed) {
    if (shown?.anchor === anchor) close();
    else open(anchor, describe, closed);
  }

  function finish() {
    const { anchor, closed } = shown;
    anchor.removeAttribute("aria-current");
    shown = null;
    closed();
  }

  function close() {
    if (!shown) return;
    const { anchor } = shown;
    const inside = box.contains(document.activeElement);
    box.hidden = true;
    finish();
    if (inside) anchor.focus();
  }

  // Write the formula of the current numbers; screen readers get what was pressed, not each frame of a training.
  function fillWith(live) {
    content.setAttribute("aria-live", live);
    content.replaceChildren(...shown.describe().filter(Boolean).map((each) => (typeof each === "string" ? html("p", {}, each) : each)));
    fit();
    place();
  }

  // Formulas do not break into lines: one that is wider than the panel gets smaller letters, down to 10 pixels.
  function fit() {
    for (const each of content.querySelectorAll("math")) {
      const size = Number.parseFloat(getComputedStyle(each).fontSize);
      const wide = each.firstElementChild.getBoundingClientRect().width / (content.clientWidth - 8);
      if (wide > 1) each.style.fontSize = `${Math.max(10, Math.floor((10 * size) / wide) / 10)}px`;
    }
  }

  function refresh() {
    if (!shown) return;
    if (!shown.anchor.isConnected || shown.anchor.getClientRects().length === 0) close();
    else if (box.contains(document.activeElement)) place(); // its own buttons keep the focus
    else fillWith("off");
  }

  // Where the panel can lie: left and top corner, from the number's rectangle and the panel's size.
  const SIDES = {
    below: (at, width) => [at.left + at.width / 2 - width / 2, at.bottom + GAP],
    above: (at, width, height) => [at.left + at.width / 2 - width / 2, at.top - GAP - height],
    right: (at, width, height) => [at.right + GAP, at.top + at.height / 2 - height / 2],
    left: (at, width, height) => [at.left - GAP - width, at.top + at.height / 2 - height / 2],
  };

  // The panel's rectangle on a side, moved along that side into the window.
  function rectangle(side) {
    const at = shown.anchor.getBoundingClientRect();
    const { width, height } = box.getBoundingClientRect();
    let [left, top] = SIDES[side](at, width, height);
    if (side === "below" || side === "above") left = Math.max(EDGE, Math.min(left, document.documentElement.clientWidth - width - EDGE));
    else top = Math.max(EDGE, Math.min(top, window.innerHeight - height - EDGE));
    return { left, top, right: left + width, bottom: top + height };
  }

  // The side on which the panel covers the fewest other numbers, and the page scrolls the least.
  function choose() {
    const others = [...document.querySelectorAll(CONTROLS)].filter((each) => !box.contains(each) && each !== shown.anchor)
      .map((each) => each.getBoundingClientRect()).filter(({ width }) => width > 0);
    const cost = (side) => {
      const { left, top, right, bottom } = rectangle(side);
      const beside = left < 0 || right > document.documentElement.clientWidth || top + window.scrollY < 0;
      const beyond = Math.max(0, -top, bottom - window.innerHeight); // pixels that the page then scrolls
      const covered = others.filter((each) => each.left < right && each.right > left && each.top < bottom && each.bottom > top).length;
      return (beside ? 1e6 : 0) + beyond / 30 + covered + (side === "left" || side === "right" ? 1.5 : 0);
    };
    const costs = Object.keys(SIDES).map((side) => [side, cost(side)]);
    return costs.reduce((best, each) => (each[1] < best[1] ? each : best))[0];
  }

  function place() {
    const { left, top } = rectangle(shown.side);
    box.style.left = `${left + window.scrollX}px`;
    box.style.top = `${top + window.scrollY}px`;
  }

  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
  window.addEventListener("resize", () => {
    if (!shown) return;
    shown.side = choose();
    place();
  });

  new ResizeObserver(() => shown && place()).observe(document.body); // what lies above the number grew or shrank
  // A press beside all controls closes the panel; sliders and numbers keep it open, so that it can be watched.
  document.addEventListener("click", ({ target }) => {
    if (shown && !box.contains(target) && target.isConnected && !target.closest("button, input, select, label, a, [role=button], [role=slider], .ground")) close();
  });

  return Object.freeze({ open, toggle, close, refresh, anchor: () => shown?.anchor ?? null });
})();
