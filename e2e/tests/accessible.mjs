// Opens a page as people do who can't use a mouse, can't see it, or can't see it well: walks it with the
// Tab key, and asks axe-core, in light and dark, at a desk and on a phone. Prints what they'd stumble over.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { evaluate, finish, open, send } from "./browser.mjs";

const [url, ready] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
await open(url);
console.error("open");
const until = Date.now() + 60_000;
let text = "";
while (!text.includes(ready)) {
  if (Date.now() > until) finish({ text });
  await new Promise((resolve) => setTimeout(resolve, 200));
  text = (await evaluate("document.body.innerText")) ?? "";
}

// What the Tab key comes to, and whether one sees that it is there. Rows of a live page come and go: an element
// is known by what it is, not by where it stands.
await evaluate(`window.describe = (one) => [one.tagName, one.id, one.dataset.service ?? "", one.getAttribute("aria-label") ?? "",
  one.closest("[aria-labelledby], details, section")?.getAttribute("aria-labelledby") ?? "", one.textContent.slice(0, 40)].join(" ")`);
const tab = { key: "Tab", code: "Tab", windowsVirtualKeyCode: 9 };
const reached = new Set();
const unmarked = new Set();
let first;
for (let presses = 0; presses < 500; presses++) {
  await send("Input.dispatchKeyEvent", { type: "keyDown", ...tab });
  await send("Input.dispatchKeyEvent", { type: "keyUp", ...tab });
  const [name, outline] = await evaluate(`(() => {
    const one = document.activeElement;
    return [one === document.body ? null : describe(one), getComputedStyle(one).outlineStyle];
  })()`);
  if (name === null || name === first) break;
  first ??= name;
  reached.add(name);
  if (outline === "none") unmarked.add(name);
}
const unreached = (await evaluate(`[...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility()).map(describe)`)).filter((name) => !reached.has(name));

await evaluate(axe);
const violations = [];
let rules = 0;
for (const scheme of ["light", "dark"]) {
  for (const width of [1280, 390]) {
    await send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: width < 500 });
    await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    const found = await evaluate(`axe.run().then(({ violations, passes }) => ({ passes: passes.length,
      violations: violations.flatMap((rule) => rule.nodes.map((node) => [rule.id, node.html, node.failureSummary])) }))`);
    rules = Math.max(rules, found.passes);
    violations.push(...found.violations.map((one) => [scheme, width, ...one]));
  }
}
finish({ violations, rules, unreached, unmarked: [...unmarked], reached: reached.size });
