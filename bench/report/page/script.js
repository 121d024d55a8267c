"use strict";
// Each column's heading becomes a button that sorts by it: ascending, descending, then as it was. Without this script
// every table still reads the same.

const MISSING = /^[–-]?$/;
const NUMBER = /^(?:above|below|[<>≤≥≈†]\s*)?\s*([+-]?(?:\d[\d,]*)?(?:\.\d+)?(?:e[+-]?\d+)?)/i;
const collator = new Intl.Collator("en", { numeric: true });

// What a cell sorts as: numbers first ("4.431 ± 0.020" by its mean), then words, then what is missing.
function sortKey(cell) {
  const text = cell.textContent.trim().replace(/\u2212/g, "-");
  if (MISSING.test(text)) return { rank: 2, value: 0, text };
  const found = NUMBER.exec(text);
  const value = found && /\d/.test(found[1]) ? Number(found[1].replace(/,/g, "")) : NaN;
  return Number.isNaN(value) ? { rank: 1, value: 0, text } : { rank: 0, value, text };
}

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: sortKey(row.cells[column]) }));
  rows.sort((a, b) => {
    if (direction === "none") return a.row.dataset.place - b.row.dataset.place;
    const up = a.key.value - b.key.value || collator.compare(a.key.text, b.key.text);
    return a.key.rank - b.key.rank || (direction === "ascending" ? up : -up) || a.row.dataset.place - b.row.dataset.place;
  });
  body.append(...rows.map((each) => each.row));
}

function press(table, column) {
  const headings = [...table.tHead.rows[0].cells];
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  const direction = next[headings[column].ariaSort ?? "none"];
  for (const heading of headings) heading.removeAttribute("aria-sort");
  if (direction !== "none") headings[column].ariaSort = direction;
  sort(table, column, direction);
  const told = direction === "none" ? "in the order as made" : `sorted by ${headings[column].textContent}, ${direction}`;
  document.getElementById("sorted").textContent = told;
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => press(table, column));
    heading.append(button);
  });
}

// A printed page has nothing to click: open what is folded in the first seven sections, and close again what was closed.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("main > section:nth-of-type(-n+7) details:not([open])")];
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
