"use strict";
// Points tell their figures at once, and on a phone at a touch.
const told = document.getElementById("told");
for (const title of document.querySelectorAll("svg title")) {
  const point = title.parentNode;
  point.setAttribute("data-told", title.textContent);
  title.remove();
}
function show(event) {
  const point = event.target.closest("[data-told]");
  told.hidden = !point;
  if (!point) return;
  told.textContent = point.getAttribute("data-told");
  const box = told.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const below = event.clientY + 18 + box.height < innerHeight;
  told.style.left = Math.max(8, left) + "px";
  told.style.top = (below ? event.clientY + 18 : event.clientY - box.height - 12) + "px";
}
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { told.hidden = true; }, true);
// Names hide their curve.
document.addEventListener("click", (event) => {
  const name = event.target.closest("[data-name]");
  if (!name) return;
  const hidden = name.classList.toggle("off");
  for (const part of name.closest("svg").querySelectorAll("[data-curve]")) {
    if (part.dataset.curve === name.dataset.name) part.style.display = hidden ? "none" : "";
  }
});
// Headings sort their table.
document.addEventListener("click", (event) => {
  const heading = event.target.closest("th");
  if (!heading) return;
  const rising = heading.getAttribute("aria-sort") === "descending" ||
    !heading.hasAttribute("aria-sort");
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const body = heading.closest("table").tBodies[0];
  const value = (row) => {
    const cell = row.cells[heading.cellIndex];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (typeof x === "number" && typeof y === "number") return x - y;
    return String(x).localeCompare(String(y), undefined, { numeric: true });
  };
  const rows = [...body.rows].sort(order);
  if (!rising) rows.reverse();
  body.append(...rows);
});
