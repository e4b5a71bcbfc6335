"use strict";
// Adds hovering and sorting; everything can be read without.
for (const plot of document.querySelectorAll("[data-plot]")) {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const canvas = plot.querySelector(".canvas");
  const cursor = plot.querySelector(".cursor");
  const tip = plot.querySelector(".tip");
  const times = data.at_ms;
  const first = times[0], span = times[times.length - 1] - first;
  const hide = () => { cursor.hidden = tip.hidden = true; };
  const show = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = first + span * (event.clientX - box.left) / box.width;
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < at) { low = middle + 1; } else { high = middle; }
    }
    if (low > 0 && at - times[low - 1] < times[low] - at) { low -= 1; }
    const x = box.width * (times[low] - first) / span;
    cursor.hidden = tip.hidden = false;
    cursor.style.left = x + "px";
    tip.replaceChildren();
    const line = (text, name) => {
      const element = document.createElement("div");
      element.textContent = text;
      if (name) { element.className = "key " + name; }
      tip.append(element);
    };
    line(new Date(times[low]).toISOString().replace("T", " ").replace("Z", " UTC"));
    for (const series of data.series) {
      const value = series.values[low].toLocaleString("en-US");
      const top = series.high && series.high[low] !== series.values[low]
        ? " to " + series.high[low].toLocaleString("en-US") : "";
      line(series.name + " " + value + top, series.class);
    }
    const left = x + 12 + tip.offsetWidth > box.width ? x - 12 - tip.offsetWidth : x + 12;
    tip.style.left = Math.max(0, left) + "px";
  };
  canvas.addEventListener("pointermove", show);
  canvas.addEventListener("pointerdown", show);
  canvas.addEventListener("pointerleave", hide);
}
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th").forEach((head, column) => {
    if (!table.tBodies[0] || table.tBodies[0].rows.length < 2) { return; }
    head.dataset.sort = "";
    let down = true;
    head.addEventListener("click", () => {
      const key = (row) => row.cells[column].textContent.trim();
      const number = (text) => Number(text.replace(/,/g, "").replace("−", "-"));
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [number(key(a)), number(key(b))];
        return Number.isNaN(x) || Number.isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
      });
      if (down) { rows.reverse(); }
      down = !down;
      table.tBodies[0].append(...rows);
    });
  });
}
