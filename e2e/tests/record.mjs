// Opens the agent's page, records its port with the keyboard alone, and saves the capture into a directory.
import { existsSync } from "node:fs";
import { evaluate, finish, send } from "./browser.mjs";

const [url, directory, before, done] = process.argv.slice(2);
await send("Page.setDownloadBehavior", { behavior: "allow", downloadPath: directory });
const until = async (what, shows) => {
  const until = Date.now() + 60_000;
  while (!(await shows())) {
    if (Date.now() > until) {
      console.error(`never: ${what}`);
      finish({ text: await evaluate("document.body.innerText") });
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
};
const press = async () => {
  await evaluate("document.getElementById('record').focus()");
  const key = { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" };
  await send("Input.dispatchKeyEvent", { type: "keyDown", ...key });
  await send("Input.dispatchKeyEvent", { type: "keyUp", ...key });
};
const page = () => evaluate("document.body.innerText");
const said = () => evaluate("document.getElementById('recording').textContent");
await send("Page.navigate", { url });
await until("the service", () => evaluate("document.getElementById('detail')?.hidden === false"));
await press();
await until("that it records", async () => (await said()).startsWith("recording"));
console.error("recording");
await until("everybody", async () => (await page()).includes(before));
console.error("all there");
await until("everybody gone", async () => (await page()).includes(done));
await press();
await until("the file's name", async () => (await said()).startsWith("saved as "));
const file = (await said()).slice("saved as ".length);
await until("the file", () => existsSync(`${directory}/${file}`));
finish({ file });
