// Opens a report as a reader would: hovers over a plot, zooms, sorts a table; then without JavaScript.
import { writeFile } from "node:fs/promises";
import { evaluate, finish, open, send } from "./browser.mjs";

const [url, screenshot] = process.argv.slice(2);
const screen = (width, height, mobile) =>
  send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
await screen(1280, 1600, false);
await open(url);
const text = await evaluate("document.body.innerText");
const mouse = (type, x, y, more = {}) => send("Input.dispatchMouseEvent",
  { type, x, y, button: type === "mouseMoved" ? "none" : "left", clickCount: 1, ...more });
const box = async (selector) => evaluate(`(() => {
  const element = document.querySelector(${JSON.stringify(selector)});
  element.scrollIntoView({ block: "center" });
  const { left, top, width, height } = element.getBoundingClientRect();
  return { left, top, width, height };
})()`);
const view = () => evaluate('document.querySelector("[data-plot] svg").getAttribute("viewBox")');
const labels = () => evaluate('[...document.querySelectorAll("[data-plot] .x span")].map((one) => one.textContent)');

const plot = await box("[data-plot] .canvas");
const at = (share) => [plot.left + plot.width * share, plot.top + plot.height / 2];
await mouse("mouseMoved", ...at(0.5));
const tip = await evaluate('document.querySelector("[data-plot] .tip").innerText');
const whole = { view: await view(), labels: await labels() };
await mouse("mousePressed", ...at(0.25));
await mouse("mouseMoved", ...at(0.5), { buttons: 1 });
await mouse("mouseReleased", ...at(0.75));
const zoomed = { view: await view(), labels: await labels() };
const png = await send("Page.captureScreenshot");
await writeFile(screenshot, Buffer.from(png.data, "base64"));
await evaluate('document.querySelector("[data-plot] button.all").click()');
const back = { view: await view(), labels: await labels() };

// Sorted by the first column of the first table that can be, twice: up and down.
const rows = () => evaluate(`(() => {
  const table = document.querySelector("th[data-sort]").closest("table");
  return [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
})()`);
const sorted = [await rows()];
for (const _ of [1, 2]) {
  await evaluate('document.querySelector("th[data-sort]").click()');
  sorted.push(await rows());
}

// The command of each section, and the numbers that the section shows, also where it is folded.
const again = await evaluate(`[...document.querySelectorAll(".run code")].map((code) => ({
  command: code.textContent,
  numbers: [...code.closest("section").querySelectorAll("td.n, .tiles b, .funnel .n")]
    .flatMap((one) => one.textContent.split(/\\s+/)).filter((word) => /\\d/.test(word)),
}))`);

// On a phone nothing lies beyond the edge but what scrolls by itself, and of that no status.
await screen(390, 844, true);
const beyond = await evaluate(`[...document.querySelectorAll("main *")]
  .filter((one) => !one.closest(".scroll") || one.matches(".status"))
  .filter((one) => one.getBoundingClientRect().right > 390)
  .map((one) => one.outerHTML.slice(0, 200))`);

// On paper, A4 less its margins, nothing scrolls and nothing lies beyond the edge.
await send("Emulation.setEmulatedMedia", { media: "print" });
await screen(718, 1000, false);
const cut = await evaluate(`[...document.querySelectorAll("main *")]
  .filter((one) => one.getBoundingClientRect().right > 718.5 || one.matches(".scroll") && one.scrollWidth > one.clientWidth)
  .map((one) => one.outerHTML.slice(0, 200))`);
await send("Emulation.setEmulatedMedia", { media: "" });

await screen(1280, 1600, false);
await send("Emulation.setScriptExecutionDisabled", { value: true });
await open(url);
const plain = await evaluate("document.body.innerText");
const buttons = await evaluate('document.querySelectorAll("button").length');
finish({ text, tip, whole, zoomed, back, sorted, again, beyond, cut, plain, buttons });
