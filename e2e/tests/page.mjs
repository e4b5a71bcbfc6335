// Opens a page in headless chromium, over the DevTools pipe; prints its text and what went wrong in it.
import { spawn } from "node:child_process";

const chromium = spawn("chromium",
  ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const waiting = new Map();
const errors = [];
let rest = "";
let last = 0;
chromium.stdio[4].on("data", (data) => {
  const messages = (rest + data).split("\0");
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) waiting.get(message.id)?.(message.result ?? message.error);
    else if (/Log.entryAdded|exceptionThrown|consoleAPICalled/.test(message.method)) errors.push(JSON.stringify(message.params));
  }
});
const send = (method, params = {}, sessionId) => new Promise((resolve) => {
  waiting.set(++last, resolve);
  chromium.stdio[3].write(JSON.stringify({ id: last, method, params, sessionId }) + "\0");
});

const [url, expected] = process.argv.slice(2);
const { targetInfos } = await send("Target.getTargets");
const page = targetInfos.find((target) => target.type === "page").targetId;
const { sessionId } = await send("Target.attachToTarget", { targetId: page, flatten: true });
for (const domain of ["Runtime", "Log", "Page"]) await send(`${domain}.enable`, {}, sessionId);
await send("Page.navigate", { url }, sessionId);
console.error("open");
let text = "";
const until = Date.now() + 45_000;
while (!text.includes(expected) && Date.now() < until) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  const answer = await send("Runtime.evaluate", { expression: "document.body.innerText" }, sessionId);
  text = answer.result?.value ?? "";
}
console.log(JSON.stringify({ text, errors }));
chromium.kill();
process.exit(0);
