"use strict";
// Records a port from the page: the agent sends the capture's pieces, and they are saved as a tar archive.
// A recording that is forgotten ends by itself.
const LONGEST_MS = 10 * 60_000;
const LARGEST = 200 << 20;
let run = null;

// One file of a tar archive (ustar): its header and its bytes, filled up to whole blocks.
function tarred(name, pieces) {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = new Uint8Array(512);
  const put = (offset, text) => header.set(new TextEncoder().encode(text), offset);
  const octal = (number, digits) => number.toString(8).padStart(digits, "0");
  put(0, name);
  put(100, "0000644\0");
  put(108, "0000000\0");
  put(116, "0000000\0");
  put(124, octal(size, 11) + "\0");
  put(136, octal(Math.floor(Date.now() / 1000), 11) + "\0");
  put(148, "        ");
  put(156, "0");
  put(257, "ustar\x0000");
  put(148, octal(header.reduce((sum, byte) => sum + byte, 0), 6) + "\0 ");
  return [header, ...pieces, new Uint8Array((512 - size % 512) % 512)];
}

// Calls back with each frame: a file's name after its length (a byte), and what is appended to it after its own
// (four bytes, the highest first).
async function frames(body, take) {
  const reader = body.getReader();
  let buffer = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(buffer.length + value.length);
    joined.set(buffer);
    joined.set(value, buffer.length);
    buffer = joined;
    for (;;) {
      const start = 1 + (buffer[0] ?? 0) + 4;
      if (buffer.length < start) break;
      const length = new DataView(buffer.buffer, buffer.byteOffset + start - 4).getUint32(0);
      if (buffer.length < start + length) break;
      take(new TextDecoder().decode(buffer.subarray(1, start - 4)), buffer.slice(start, start + length));
      buffer = buffer.slice(start + length);
    }
  }
}

function note() {
  const button = run ? `Stop and save port ${run.port}` : "Record this port";
  if (at("record").textContent !== button) at("record").textContent = button;
}

function stop() {
  if (run?.number) fetch(`v1/recordings/${run.number}`, { method: "DELETE" });
}

async function record(port) {
  const files = new Map();
  let bytes = 0;
  let end = "the agent ended before the recording did; saved up to there: ";
  run = { port, number: null };
  note();
  at("recording").textContent = "";
  const timer = setTimeout(stop, LONGEST_MS);
  try {
    const answer = await fetch(`v1/recordings?port=${port}`, { method: "POST" });
    if (!answer.ok) throw new Error(await answer.text());
    await frames(answer.body, (name, piece) => {
      if (name === "number") {
        run.number = new TextDecoder().decode(piece);
        at("recording").textContent = "recording, for 10 minutes at most";
      } else if (name === "finished") end = "saved as ";
      else if (name === "failed") end = `${new TextDecoder().decode(piece)}; saved up to there: `;
      else {
        // The head of a capture is written anew, everything else goes on.
        files.set(name, name === "meta.json" ? [piece] : [...(files.get(name) ?? []), piece]);
        bytes += piece.length;
        if (bytes > LARGEST) stop();
      }
    });
  } catch (error) {
    end = `${error.message.trim()} `;
  }
  clearTimeout(timer);
  run = null;
  note();
  if (files.size === 0) {
    at("recording").textContent = end;
    return;
  }
  const name = named(`${port}-`);
  const parts = [...files].flatMap(([file, pieces]) => tarred(`${name}/${file}`, pieces));
  download([...parts, new Uint8Array(1024)], "application/x-tar", `${name}.tar`);
  at("recording").textContent = `${end}${name}.tar`;
}

at("record").addEventListener("click", () => {
  if (run) stop();
  else record(picture.services.find((known) => known.id === chosen).port);
});
note();
