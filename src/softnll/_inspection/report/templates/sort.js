// Tables whose headings are buttons are sorted by them; a second press turns the order around.
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const falling = heading.getAttribute("aria-sort") !== "descending";
    for (const each of heading.parentElement.children) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = (row) => row.cells[heading.cellIndex].dataset.value ?? row.cells[heading.cellIndex].textContent.trim();
    const number = [...body.rows].every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
    const order = (a, b) => (number ? (Number(value(a) || -1) - Number(value(b) || -1)) : value(a).localeCompare(value(b)));
    body.append(...[...body.rows].sort((a, b) => (falling ? -order(a, b) : order(a, b))));
  });
}
