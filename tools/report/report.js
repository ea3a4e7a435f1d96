// SPDX-License-Identifier: Apache-2.0
// What the page of `faultline report` can do beyond being read: dark and light, the axis of time, and the map's cursor.
"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  root.classList.add("scripted");

  // --- buttons ---

  const theme = byId("theme");
  const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches);
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  wantsDark.addEventListener("change", showTheme);
  showTheme();

  const axis = byId("axis");
  axis.addEventListener("click", () => {
    axis.setAttribute("aria-pressed", String(root.classList.toggle("logarithmic")));
  });
  if (!document.querySelector(".log")) axis.hidden = true;

  // --- the map ---

  const map = byId("map");
  const svg = map.querySelector("svg");
  const cursor = byId("cursor");
  const under = byId("under");
  const { columns, size, cellPages, pages, pageSize, cells } = JSON.parse(byId("cells").textContent);
  const cell = cells.split(" ");
  const rows = Math.ceil(cell.length / columns);
  const titles = { d: "demand", n: "neighbour", r: "replay", f: "fill", z: "zero", t: "template", o: "other",
    x: "failed", ".": "never" };
  let at = -1;

  const bytes = (number) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    for (; number >= 1024 && number % 1024 === 0 && unit < 4; unit++) number /= 1024;
    return `${number.toLocaleString("en")} ${units[unit]}`;
  };
  const describe = (index) => {
    const first = index * cellPages;
    const last = Math.min(first + cellPages, pages) - 1;
    const parts = [];
    for (const [, letter, count] of cell[index].matchAll(/([a-z.])(\d*)/g))
      parts.push(cellPages === 1 ? titles[letter] : `${Number(count || 1).toLocaleString("en")} ${titles[letter]}`);
    const what = first === last ? `Page ${first.toLocaleString("en")}`
      : `Pages ${first.toLocaleString("en")} to ${last.toLocaleString("en")}`;
    return `${what}, from ${bytes(first * pageSize)} (0x${(first * pageSize).toString(16)}) on: ${parts.join(", ")}`;
  };
  const show = (index) => {
    at = Math.max(0, Math.min(cell.length - 1, index));
    cursor.removeAttribute("hidden");
    cursor.setAttribute("x", (at % columns) * size);
    cursor.setAttribute("y", Math.floor(at / columns) * size);
    under.textContent = describe(at);
  };
  map.addEventListener("keydown", (event) => {
    const here = Math.max(at, 0);
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns,
      Home: event.ctrlKey ? 0 : here - (here % columns), End: event.ctrlKey ? cell.length - 1 : here - (here % columns) + columns - 1,
      PageUp: here - 8 * columns, PageDown: here + 8 * columns }[event.key];
    if (to === undefined || event.altKey || event.metaKey) return;
    event.preventDefault();
    // Up and down stay in their column.
    const up = event.key.endsWith("Up");
    const lowest = here + Math.floor((cell.length - 1 - here) / columns) * columns;
    show(at < 0 ? 0 : up && to < 0 ? here % columns : event.key.endsWith("Down") && to >= cell.length ? lowest : to);
  });
  map.addEventListener("focus", () => {
    if (at < 0) show(0);
  });
  const underPointer = (event) => {
    const box = svg.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const index = row * columns + column;
    if (column >= 0 && column < columns && row >= 0 && index < cell.length) show(index);
  };
  map.addEventListener("pointermove", underPointer);
  map.addEventListener("pointerdown", underPointer);
  for (const link of document.querySelectorAll("a[data-page]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      show(Math.floor(Number(link.dataset.page) / cellPages));
      map.focus({ preventScroll: true });
      map.scrollIntoView({ block: "center" });
    });
  }

  // --- one kind alone ---

  const kinds = document.querySelectorAll("#kinds button");
  const choose = (button) => {
    const off = button.getAttribute("aria-pressed") === "true";
    for (const each of kinds) each.setAttribute("aria-pressed", String(!off && each === button));
    for (const path of map.querySelectorAll("path"))
      path.classList.toggle("chosen", !off && path.classList.contains(`k-${button.dataset.kind}`));
    if (off) delete map.dataset.only;
    else map.dataset.only = button.dataset.kind;
  };
  for (const button of kinds) button.addEventListener("click", () => choose(button));
})();
