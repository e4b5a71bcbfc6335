"use strict";
// Draws what /v1/live sends once a second. Text goes in as text only: names are not ours.
const KEPT = 300;
const at = (id) => document.getElementById(id);
const reports = new Map();
let picture = null;
// The latest failed handshakes as they were drawn, and when they were last spoken.
let failed = null;
let spoken = 0;
// The service is kept in the address, with what is searched for: a link leads to the same view.
let chosen = "";

const time = (ns) => new Date(ns / 1e6).toISOString().slice(11, 19);
const us = (value) => value === null ? "–" : value < 1000 ? `${value} µs` : value < 1e6 ? `${(value / 1e3).toFixed(1)} ms` : `${(value / 1e6).toFixed(1)} s`;

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = text;
  if (kind) td.className = kind;
  return td;
}

function code(text) {
  const element = document.createElement("code");
  element.textContent = text;
  return element;
}

// What is long may go on in the next line after a colon or an underscore, where there is no room.
function breakable(text, kind) {
  const td = cell("", kind);
  td.append(...text.split(/(?<=[:_])/).flatMap((part) => [part, document.createElement("wbr")]));
  return td;
}

function row(cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

// A screen reader says what changes: nothing is written that stands there already.
function write(name, text, kind) {
  const element = at(name);
  if (element.textContent !== text) element.textContent = text;
  if (kind !== undefined && element.className !== kind) element.className = kind;
}

// A name that leads to its service; heard by itself it says which of many of this name.
function link(id, text, of) {
  const name = cell("");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "name";
  button.textContent = text;
  button.setAttribute("aria-label", `${text}, ${of}`);
  button.dataset.service = id;
  name.append(button);
  return name;
}

// Rows that are new every second; the keyboard stays where it was.
function refill(body, rows) {
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.service : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`[data-service="${CSS.escape(focused)}"]`)?.focus();
}

function fromAddress() {
  const view = new URLSearchParams(location.hash.slice(1));
  chosen = view.get("service") ?? "";
  at("search").value = view.get("search") ?? "";
  at("quiet").checked = view.has("quiet");
  draw();
}

function show(name) {
  chosen = name;
  const search = at("search").value;
  const quiet = at("quiet").checked;
  const view = new URLSearchParams({ ...(name && { service: name }), ...(search && { search }), ...(quiet && { quiet }) });
  history.replaceState(null, "", "#" + view);
  draw();
}

// Its numbers stand below the table, which may be a long one.
function choose(name) {
  show(name);
  at("detail").scrollIntoView({ block: "nearest" });
}

// Of every port that ever had a connection the agent keeps the counts.
const isQuiet = (service) => service.established + service.close_wait + service.closed_held + service.attempts === 0 && service.opened_per_second === 0;

function services() {
  const search = at("search").value;
  const found = picture.services.filter((service) => service.id.includes(search) || service.name.includes(search));
  const quiet = found.filter((service) => isQuiet(service) && service.id !== chosen);
  // A search is for what is there, whatever it does.
  const all = at("quiet").checked || search !== "";
  at("quiet-part").hidden = search !== "" || quiet.length === 0;
  write("quiet-count", quiet.length);
  const shown = found
    .filter((service) => all || !quiet.includes(service))
    .sort((a, b) => b.established - a.established || a.id.localeCompare(b.id));
  refill(at("services"), shown.map((service) => {
    const n = (value, bad) => cell(value, bad ? "n bad" : "n");
    const wide = (value) => cell(value, "n wide");
    const tr = row([link(service.id, service.name, `port ${service.port}, ${service.role}`), n(service.port), cell(service.role), n(service.established), wide(service.upgraded),
      wide(service.close_wait + service.closed_held), wide(service.opened_per_second.toFixed(0)),
      wide(us(service.handshake_p50_us)), wide(us(service.handshake_p99_us)), n(service.failed, service.failed > 0)]);
    if (service.id === chosen) tr.setAttribute("aria-current", "true");
    tr.addEventListener("click", () => choose(service.id));
    return tr;
  }));
}

function detail() {
  const service = picture.services.find((known) => known.id === chosen);
  at("detail").hidden = !service;
  if (!service) return;
  const sum = service.namespaces > 1 ? `, of ${service.namespaces} network namespaces together` : "";
  at("detail-name").textContent = `${service.name}, port ${service.port}, ${service.role}${sum}`;
  at("attempts").textContent = service.attempts;
  at("command").textContent = `sudo probe record -o capture --port ${service.port} --duration 1m`;
  at("funnel").replaceChildren(...picture.stages.map((stage, index) => {
    const bar = cell("");
    const meter = document.createElement("meter");
    meter.max = Math.max(service.attempts, 1);
    meter.value = service.funnel[index];
    meter.setAttribute("aria-label", stage);
    bar.append(meter);
    return row([cell(stage), cell(service.funnel[index], "n"), bar]);
  }));
  const outcomes = Object.entries(service.outcomes).sort((a, b) => b[1] - a[1]);
  at("outcomes").replaceChildren(...outcomes.map(([outcome, count]) =>
    row([cell(outcome, outcome === "upgraded" || outcome === "open" ? "" : "bad"), cell(count, "n")])));
  shards(service);
}

// What the service's processes connect to.
function shards(service) {
  const behind = service.shards;
  at("shards-part").hidden = behind.length === 0;
  const attempts = behind.reduce((sum, shard) => sum + shard.attempts, 0);
  at("shards-name").textContent = `Shards (${service.attempts} attempts here, ${attempts} at them)`;
  const where = (shard) => shard.address ?? `${shard.port}`;
  at("where").textContent = behind.some((shard) => shard.address) ? "Address" : "Port";
  refill(at("shards"), behind.map((shard) => {
    const tr = row([link(shard.id, shard.name ?? service.container, `shard at ${where(shard)}`), breakable(where(shard), "n"), cell(shard.established, "n"),
      cell(shard.reported ?? "–", "n"), cell(shard.upgraded, "n wide"), cell(us(shard.handshake_p50_us), "n wide"),
      cell(us(shard.handshake_p99_us), "n wide"), cell(shard.failed, shard.failed > 0 ? "n bad" : "n")]);
    tr.addEventListener("click", () => choose(shard.id));
    return tr;
  }));
}

function failures() {
  const latest = picture.failures.slice(0, 20);
  const drawn = JSON.stringify(latest.map((failure) => [failure.peer, failure.outcome, failure.last_stage]));
  if (drawn === failed) return;
  // Not what was there when the page was opened, and not more often than one can listen to.
  if (failed !== null && latest.length > 0 && Date.now() - spoken > 10_000) {
    spoken = Date.now();
    write("spoken", `failed handshake: ${latest[0].outcome} at ${latest[0].name}, port ${latest[0].port}`);
  }
  failed = drawn;
  at("failures").replaceChildren(...latest.map((failure) => row([
    cell(time(failure.at_unix_ns)), breakable(failure.outcome, "bad"), cell(`${failure.name}:${failure.port} ${failure.role}`),
    breakable(failure.peer), breakable(failure.last_stage)])));
  if (latest.length === 0) {
    const none = cell("none so far");
    none.colSpan = 5;
    at("failures").replaceChildren(row([none]));
  }
}

function reported() {
  at("reported-section").hidden = picture.reported.length === 0;
  at("reported").replaceChildren(...picture.reported.map((report) => {
    const p = document.createElement("p");
    if (report.error !== null) {
      p.className = "bad";
      p.textContent = `${report.url}: ${report.error}`;
      return p;
    }
    const apart = report.phantoms + report.reverse_phantoms;
    p.textContent = `${report.url} reports ${report.reported}; established ${report.established_max}; `;
    const phantoms = document.createElement("span");
    phantoms.className = apart > 0 ? "bad" : "good";
    phantoms.textContent = report.reverse_phantoms > 0 ? `${report.reverse_phantoms} not reported` : `${report.phantoms} phantoms`;
    p.append(phantoms);
    const kept = reports.get(report.url) ?? [];
    kept.push([report.established_max, report.reported]);
    reports.set(report.url, kept.slice(-KEPT));
    return p;
  }));
  const kept = [...reports.values()][0] ?? [];
  const highest = Math.max(1, ...kept.flat());
  if (kept.length > 0) {
    const [established, said] = kept.at(-1);
    at("plot").setAttribute("aria-label", `over the last ${kept.length} seconds; now reported ${said}, established ${established}`);
  }
  at("highest").textContent = highest;
  at("earliest").textContent = `${Math.max(kept.length - 1, 0)} s ago`;
  at("plot").replaceChildren(...["established", "reported"].map((name, index) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("class", name);
    line.setAttribute("points", kept.map((pair, x) => `${600 * x / Math.max(kept.length - 1, 1)},${119 - 118 * pair[index] / highest}`).join(" "));
    return line;
  }));
}

function draw() {
  if (!picture) return;
  write("exact", picture.exact ? "exact" : "NOT EXACT", picture.exact ? "good" : "bad");
  at("at").textContent = `${time(picture.at_unix_ns)} UTC`;
  at("since").textContent = `${time(picture.since_unix_ns)} UTC`;
  at("degraded").replaceChildren(...picture.degraded.map((reason) => {
    const li = document.createElement("li");
    li.append(...reason.split("`").map((part, index) => index % 2 ? code(part) : part));
    return li;
  }));
  services();
  detail();
  failures();
}

// The page as it is, with its style and without its script: opens anywhere, and goes into a ticket.
function snapshot() {
  const page = document.documentElement.cloneNode(true);
  page.querySelectorAll("script, link, noscript, .tools, .spoken, footer").forEach((element) => element.remove());
  const style = document.createElement("style");
  style.textContent = [...document.styleSheets[0].cssRules].map((rule) => rule.cssText).join("\n");
  page.querySelector("head").append(style);
  page.querySelector("h1").textContent = `groundtruth: ${location.host}`;
  return "<!doctype html>\n" + page.outerHTML;
}

// What files and directories from this page are called.
const named = (what) => `groundtruth-${location.hostname}-${what}${new Date().toISOString().slice(0, 19).replaceAll(":", "")}`;

function download(parts, type, name) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(new Blob(parts, { type }));
  anchor.download = name;
  anchor.click();
  // The browser reads it some time after the click.
  setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
}

function save() {
  download([snapshot()], "text/html", `${named("")}.html`);
}

function connect() {
  const events = new EventSource("v1/live");
  events.onmessage = (event) => {
    picture = JSON.parse(event.data);
    reported();
    draw();
  };
  events.onerror = () => {
    write("exact", "no answer from the agent, trying again …", "bad");
    // The browser connects again by itself, also to an agent that was started anew; but not where it
    // was turned away.
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  };
}

at("search").addEventListener("input", () => show(chosen));
at("quiet").addEventListener("change", () => show(chosen));
at("save").addEventListener("click", save);
addEventListener("hashchange", fromAddress);
fromAddress();
connect();
