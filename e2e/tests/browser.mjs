// Headless chromium over the DevTools pipe: opens pages, and keeps what went wrong in them.
import { spawn } from "node:child_process";

const chromium = spawn("chromium",
  ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const waiting = new Map();
export const errors = [];
let rest = "";
let last = 0;
let sessionId;
chromium.stdio[4].on("data", (data) => {
  const messages = (rest + data).split("\0");
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) waiting.get(message.id)?.(message.result ?? message.error);
    else if (/Log.entryAdded|exceptionThrown|consoleAPICalled/.test(message.method)) errors.push(JSON.stringify(message.params));
    else if (message.method === "Page.loadEventFired") waiting.get("load")?.();
  }
});
export const send = (method, params = {}) => new Promise((resolve) => {
  waiting.set(++last, resolve);
  chromium.stdio[3].write(JSON.stringify({ id: last, method, params, sessionId }) + "\0");
});
// The value of an expression in the page.
export const evaluate = async (expression) =>
  (await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })).result?.value;
export const open = async (url) => {
  const loaded = new Promise((resolve) => waiting.set("load", resolve));
  await send("Page.navigate", { url });
  await loaded;
};
// Prints what was seen, and ends.
export const finish = (seen) => {
  // A pipe takes some of a long text at a time: not before all of it is out.
  process.stdout.write(JSON.stringify({ ...seen, errors }) + "\n", () => {
    chromium.kill();
    process.exit(0);
  });
};

const { targetInfos } = await send("Target.getTargets");
const page = targetInfos.find((target) => target.type === "page").targetId;
({ sessionId } = await send("Target.attachToTarget", { targetId: page, flatten: true }));
for (const domain of ["Runtime", "Log", "Page"]) await send(`${domain}.enable`);
