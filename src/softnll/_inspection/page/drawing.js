// HTML and SVG elements, scales, sliders and buttons, with which the rooms draw.
const drawing = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((each) => each !== null && each !== undefined));
    return element;
  }
  const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
  const byId = (id) => document.getElementById(id);

  // A linear scale from data to drawing.
  const scale = (from, to) => (value) => to[0] + ((value - from[0]) / (from[1] - from[0])) * (to[1] - to[0]);

  const colour = (c) => `var(--class-${c})`;

  // A slider with its name and value; screen readers get the value in words.
  function slider({ id, label, min, max, step, value, shown, input }) {
    const out = html("output", { for: id }, shown(value));
    const range = html("input", {
      id, type: "range", min, max, step, value, "aria-valuetext": shown(value),
      oninput: (event) => {
        const now = Number(event.target.value);
        out.textContent = shown(now);
        event.target.setAttribute("aria-valuetext", shown(now));
        input(now);
      },
    });
    return html("div", { class: "slider" }, html("label", { for: id }, label), range, out);
  }

  // A number as a button that shows its formula.
  const numberButton = (attributes, ...inside) => html("button", { type: "button", class: "number", ...attributes }, ...inside);

  // Change a number's text and its name for screen readers; the button stays, and so does its focus.
  function setNumber(button, text, label) {
    if (button.textContent !== text) button.textContent = text;
    if (label !== undefined) button.setAttribute("aria-label", label);
  }

  // Call a function for each move of the pressed pointer, until it is let go.
  function follow(event, moved) {
    const element = event.currentTarget;
    const until = new AbortController();
    element.setPointerCapture(event.pointerId);
    element.addEventListener("pointermove", moved, { signal: until.signal });
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => until.abort(), { signal: until.signal });
  }

  function setSlider(id, value, shown) {
    const range = byId(id);
    range.value = value;
    range.setAttribute("aria-valuetext", shown);
    range.parentElement.querySelector("output").textContent = shown;
  }

  return Object.freeze({ html, svg, byId, scale, colour, slider, setSlider, numberButton, setNumber, follow });
})();
