// What the pages can do beyond plain HTML. Nothing of a page is read as HTML here:
// text goes in as text.
"use strict";

for (const e of document.querySelectorAll(".js")) e.hidden = false;

// The table of the images: filter, sort, and arrow keys.
const matrix = document.getElementById("matrix");
if (matrix) {
  const body = matrix.tBodies[0];
  const rows = [...body.rows];
  const heads = [matrix.tHead.rows[0].cells[0], ...matrix.tHead.rows[1].cells];
  const form = document.querySelector("form.filters");
  const reason = document.getElementById("reason");
  const answer = (cell) => (cell.classList.contains("yes") ? 2 : cell.classList.contains("unknown") ? 1 : 0);

  const filter = () => {
    const want = Object.fromEntries(new FormData(form));
    const column = heads.findIndex((h) => h.textContent.trim() === want.flavor);
    let found = 0;
    for (const row of rows) {
      const d = row.dataset;
      const show =
        (!want.q || row.cells[0].textContent.toLowerCase().includes(want.q.trim().toLowerCase())) &&
        (!want.distribution || d.distribution === want.distribution) &&
        (!want.class || d.class === want.class) &&
        (!want.flavor || answer(row.cells[column]) === 2) &&
        (!want.capability || d.capabilities.split(" ").includes(want.capability)) &&
        (!want.released || d.released !== undefined);
      row.hidden = !show;
      found += show ? 1 : 0;
    }
    form.querySelector(".found").textContent = found + " of " + rows.length + " images";
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (e) => e.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  const key = (row, i) => {
    const cell = row.cells[i];
    if (i > 2) return answer(cell);
    return i === 2 ? Number(cell.dataset.sort) : cell.dataset.sort ?? cell.textContent.trim();
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = i === 0 ? "ascending" : "descending";
      const other = i === 0 ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const h of heads) h.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const sorted = [...rows].sort((a, b) => {
        const x = key(a, i), y = key(b, i);
        return x < y ? -sign : x > y ? sign : rows.indexOf(a) - rows.indexOf(b);
      });
      body.append(...sorted);
    });
  });

  // One cell is in the order of the tabulator key; arrows go from there.
  const cells = (row) => [...row.cells];
  const tell = (cell) => {
    const row = cell.parentElement;
    const head = heads[row.cells ? cells(row).indexOf(cell) : 0];
    const why = cell.querySelector("details p");
    const text = cell.querySelector(".vh") ? cell.querySelector(".vh").textContent : "";
    reason.textContent = row.cells[0].textContent.trim() + " on " + head.textContent.trim() + ": " + text + (why ? ", " + why.textContent : "");
  };
  const stop = (cell) => cell.querySelector("summary, a") ?? cell;
  for (const row of rows)
    for (const cell of cells(row).slice(1)) {
      const s = stop(cell);
      s.tabIndex = -1;
    }
  let current = null;
  const go = (cell) => {
    if (current) stop(current).tabIndex = -1;
    current = cell;
    const s = stop(cell);
    s.tabIndex = 0;
    s.focus();
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  body.addEventListener("keydown", (e) => {
    const cell = e.target.closest("td, th");
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[e.key];
    if (!cell || !step) return;
    const shown = [...body.rows].filter((r) => !r.hidden);
    const row = shown[shown.indexOf(cell.parentElement) + step[0]];
    const next = row && row.cells[cells(cell.parentElement).indexOf(cell) + step[1]];
    if (next) {
      e.preventDefault();
      go(next);
    }
  });
  const about = (e) => {
    const cell = e.target.closest("td");
    if (cell && cell.querySelector(".vh")) tell(cell);
  };
  body.addEventListener("toggle", (e) => {
    // One reason at a time lies above the table.
    if (e.target.open) for (const other of body.querySelectorAll("details[open]")) other.open = other === e.target;
  }, true);
  body.addEventListener("focusin", about);
  body.addEventListener("mouseover", about);
}

// Lists with a search.
for (const section of document.querySelectorAll("[data-search]")) {
  const input = section.querySelector("input");
  if (!input) continue;
  const rows = [...section.querySelectorAll("tbody tr")];
  input.addEventListener("input", () => {
    const want = input.value.trim().toLowerCase();
    let found = 0;
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(want);
      found += row.hidden ? 0 : 1;
    }
    section.querySelector("details").open = want !== "";
    section.querySelector("[role=status]").textContent = found + " of " + rows.length;
  });
}

// The changes between any two releases, from their lists of packages.
for (const section of document.querySelectorAll("[data-compare]")) {
  const name = section.dataset.compare;
  const [from, to] = section.querySelectorAll("select");
  const status = section.querySelector("[role=status]");
  const table = section.querySelector("table");
  to.selectedIndex = 0;
  from.selectedIndex = Math.min(1, from.options.length - 1);
  const load = async (build) => {
    const answer = await fetch("../../download/" + name + "/" + build + "/" + name + "-" + build + ".packages");
    if (!answer.ok) throw new Error("the list of " + build + " cannot be read");
    const list = new Map();
    for (const line of (await answer.text()).split("\n")) {
      const [pkg, version, arch] = line.split(" ");
      if (pkg) list.set(pkg + (arch ? " (" + arch + ")" : ""), version ?? "");
    }
    return list;
  };
  const plain = (s) => s.replace(/[^\x20-\x7e]/gu, (c) => "‹U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "›").slice(0, 200);
  section.querySelector("button").addEventListener("click", async () => {
    table.hidden = true;
    status.textContent = "…";
    try {
      const [was, is] = await Promise.all([load(from.value), load(to.value)]);
      const names = [...new Set([...was.keys(), ...is.keys()])].filter((n) => was.get(n) !== is.get(n)).sort();
      table.tBodies[0].replaceChildren(
        ...names.map((n) => {
          const row = document.createElement("tr");
          for (const [tag, text] of [["th", plain(n)], ["td", plain(was.get(n) ?? "") || "—"], ["td", plain(is.get(n) ?? "") || "—"]]) {
            const cell = document.createElement(tag);
            if (tag === "th") cell.scope = "row";
            cell.textContent = text;
            row.append(cell);
          }
          return row;
        }),
      );
      status.textContent = names.length + " changes";
      table.hidden = names.length === 0;
    } catch (err) {
      status.textContent = err.message;
    }
  });
}
