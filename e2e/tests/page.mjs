// Opens the agent's page and waits for a text; prints the page's text and what went wrong in it.
import { evaluate, finish, send } from "./browser.mjs";

const [url, expected] = process.argv.slice(2);
await send("Page.navigate", { url });
console.error("open");
let text = "";
const until = Date.now() + 45_000;
while (!text.includes(expected) && Date.now() < until) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  text = (await evaluate("document.body.innerText")) ?? "";
}
finish({ text });
