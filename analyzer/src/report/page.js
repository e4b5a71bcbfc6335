"use strict";
// Adds hovering, zooming and sorting; everything can be read without.
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400];
for (const plot of document.querySelectorAll("[data-plot]")) {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const canvas = plot.querySelector(".canvas");
  const svg = canvas.querySelector("svg");
  const cursor = plot.querySelector(".cursor");
  const tip = plot.querySelector(".tip");
  const axis = plot.querySelector(".x");
  const labels = [...axis.children];
  const times = data.at_ms;
  const first = times[0], span = times[times.length - 1] - first;
  // What is shown, in percent of the whole.
  let from = 0, to = 100;
  const percent = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return from + (to - from) * share;
  };
  const time = (at) => first + span * at / 100;
  const left = (at) => 100 * (at - from) / (to - from);
  const hide = () => { cursor.hidden = tip.hidden = true; };
  const show = (event) => {
    const at = time(percent(event));
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < at) { low = middle + 1; } else { high = middle; }
    }
    if (low > 0 && at - times[low - 1] < times[low] - at) { low -= 1; }
    const width = canvas.getBoundingClientRect().width;
    const x = width * left(100 * (times[low] - first) / span) / 100;
    if (x < 0 || x > width) { hide(); return; }
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
      const shown = (values) => (values[low] / data.one).toLocaleString("en-US");
      const value = shown(series.values);
      const top = series.high && series.high[low] !== series.values[low]
        ? " to " + shown(series.high) : "";
      line(series.name + " " + value + top, series.class);
    }
    const beside = x + 12 + tip.offsetWidth > width ? x - 12 - tip.offsetWidth : x + 12;
    tip.style.left = Math.max(0, beside) + "px";
  };
  const ticks = () => {
    const [begin, end] = [time(from), time(to)];
    const step = 1000 * (STEPS_S.find((step) => (end - begin) / 1000 / step <= 6) ?? (end - begin) / 6000);
    const spans = [];
    for (let at = Math.ceil(begin / step) * step; at <= end && spans.length < 8; at += step) {
      const label = document.createElement("span");
      label.textContent = new Date(at).toISOString().slice(11, step < 60000 ? 19 : 16);
      label.style.setProperty("--at", left(100 * (at - first) / span) + "%");
      spans.push(label);
    }
    return spans;
  };
  const all = document.createElement("button");
  all.type = "button";
  all.className = "all";
  all.textContent = "show all";
  all.hidden = true;
  plot.querySelector("figcaption").append(all);
  const zoom = (begin, end) => {
    [from, to] = [begin, end];
    all.hidden = from === 0 && to === 100;
    svg.setAttribute("viewBox", `${from} 0 ${to - from} 100`);
    svg.style.overflow = all.hidden ? "" : "hidden";
    axis.replaceChildren(...(all.hidden ? labels : ticks()));
    hide();
  };
  const brush = document.createElement("div");
  brush.className = "brush";
  brush.hidden = true;
  canvas.append(brush);
  canvas.title = "drag to zoom, double click to show all";
  let began = null;
  canvas.addEventListener("pointerdown", (event) => {
    // A finger scrolls.
    if (event.pointerType !== "touch" && event.button === 0) { began = percent(event); }
    show(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    show(event);
    if (began === null) { return; }
    const [a, b] = [began, percent(event)].sort((x, y) => x - y);
    brush.hidden = false;
    brush.style.left = left(a) + "%";
    brush.style.width = left(b) - left(a) + "%";
  });
  addEventListener("pointerup", (event) => {
    if (began === null) { return; }
    const [a, b] = [began, percent(event)].sort((x, y) => x - y);
    began = null;
    brush.hidden = true;
    if (left(b) - left(a) > 2) { zoom(a, b); }
  });
  canvas.addEventListener("dblclick", () => zoom(0, 100));
  all.addEventListener("click", () => zoom(0, 100));
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
