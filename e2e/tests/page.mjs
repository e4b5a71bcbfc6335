// Opens the agent's page and waits for one text after another; prints what the page says, what it would
// save, what a screen reader has no name for or the same for two, what went wrong in it, and what it says with quiet ports.
import { evaluate, finish, send } from "./browser.mjs";

const NAMED = ["button", "link", "table", "group", "region", "searchbox", "image", "meter"];

const [url, ...expected] = process.argv.slice(2);
await send("Page.navigate", { url });
console.error("open");
let text = "";
for (const [index, next] of expected.entries()) {
  const until = Date.now() + 60_000;
  while (!text.includes(next) && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    text = (await evaluate("document.body.innerText")) ?? "";
  }
  console.error(`saw ${index}`);
}
await send("Accessibility.enable");
const { nodes } = await send("Accessibility.getFullAXTree");
const unnamed = nodes
  .filter((node) => !node.ignored && NAMED.includes(node.role?.value) && !node.name?.value)
  .map((node) => node.role.value);
const buttons = nodes.filter((node) => !node.ignored && node.role?.value === "button").map((node) => node.name?.value);
const alike = buttons.filter((name, index) => buttons.indexOf(name) !== index);
const saved = await evaluate("snapshot()");
const address = await evaluate("location.hash");
const all = await evaluate("document.getElementById('quiet').click(), document.body.innerText");
finish({ text, all, unnamed, alike, saved, address });
