// Figures: a click or Enter shows one large; Esc, ✕ and a click beside it close.
const dialog = document.getElementById("enlarged");
const stage = dialog.querySelector("div");
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    const figure = button.closest("figure");
    dialog.querySelector("strong").textContent = figure.querySelector("h2, h3").textContent;
    stage.replaceChildren(button.firstElementChild.cloneNode(true));
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => stage.replaceChildren()); // the copy's names are those of the original

// Numbers: a card with all the runs behind one. Without this script the link leads to the first of them.
const card = document.getElementById("card");
const element = (tag, ...content) => {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
};
const entry = (id) => {
  const run = document.getElementById(id);
  const link = element("a", ...(run.querySelector("summary") ?? run.querySelector("h3")).cloneNode(true).childNodes);
  link.href = `#${id}`;
  const command = run.querySelector("pre.command");
  return element("li", link, ...(command ? [command.cloneNode(true)] : []));
};
const showCard = (number) => {
  const cell = number.closest("td");
  const column = cell.closest("table").querySelectorAll("thead th")[cell.cellIndex].textContent;
  const place = element("p", element("b", `${cell.parentElement.firstElementChild.textContent} · ${column}`));
  card.replaceChildren(place, element("p", cell.title), element("ul", ...number.dataset.runs.split(" ").map(entry)));
  card.showPopover();
  const at = cell.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 8));
  const below = at.bottom + 4 + card.offsetHeight < innerHeight || at.top < card.offsetHeight;
  card.style.left = `${left + scrollX}px`;
  card.style.top = `${(below ? at.bottom + 4 : at.top - card.offsetHeight - 4) + scrollY}px`;
  card.focus({ preventScroll: true });
};
if (card.showPopover) {
  document.addEventListener("click", (event) => {
    const number = event.target.closest("a.from");
    if (!number || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    showCard(number);
  });
  card.addEventListener("click", (event) => { if (event.target.closest("a")) card.hidePopover(); });
}

// A link to a run opens it.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", reveal);
reveal();

// What is wider than its box says so until its end was reached.
const hint = (box) => box.parentElement.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
const sizes = new ResizeObserver((changes) => changes.forEach((change) => hint(change.target)));
for (const box of document.querySelectorAll(".wide > .scroll")) {
  box.addEventListener("scroll", () => hint(box), { passive: true });
  sizes.observe(box);
}

// A narrow screen lays tables out as a grid, in which some browsers forget what the elements are.
for (const table of document.querySelectorAll("table.cells")) {
  table.role = "table";
  for (const group of table.querySelectorAll("thead, tbody")) group.role = "rowgroup";
  for (const row of table.rows) {
    row.role = "row";
    for (const cell of row.cells) cell.role = { col: "columnheader", row: "rowheader" }[cell.scope] ?? "cell";
  }
}
