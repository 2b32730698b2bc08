// Requests to the server. Paths are relative, so that a token in the address stays in them; the session lives here, in memory.

let session = null;
let limits = null;

export function setLimits(value) { limits = value; }

export class Refused extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

async function open() {
  const answer = await fetch("api/session", { method: "POST" });
  if (!answer.ok) throw new Refused("The server does not answer.", answer.status);
  session = (await answer.json()).session;
}

async function request(path, options = {}) {
  if (session === null) await open();
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, "X-Session": session } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is litevit app still running?", 0);
  }
  if (!answer.ok) {
    let note = answer.statusText;
    try { note = (await answer.json()).error; } catch { /* no JSON: the status has to do */ }
    throw new Refused(note, answer.status);
  }
  return answer;
}

export const getJson = async (path) => (await request(path)).json();
export const getBlob = async (path) => (await request(path)).blob();

function posted(body, signal) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

export const postJson = async (path, body = {}, signal) => (await request(path, posted(body, signal))).json();
export const postBlob = async (path, body) => (await request(path, posted(body))).blob();
export const post = async (path, body = {}, signal) => unpack(await (await request(path, posted(body, signal))).arrayBuffer());

export async function upload(file) {
  if (limits && file.size > limits.bytes) {
    throw new Refused(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MB; the page takes up to ${limits.bytes / 2 ** 20} MB.`, 413);
  }
  const headers = { "X-Name": encodeURIComponent(file.name || "pasted.png"), "Content-Type": "application/octet-stream" };
  return (await request("api/pictures", { method: "POST", headers, body: file })).json();
}

// A new session after the old one was forgotten.
export async function renew() { await open(); }

const KINDS = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array };

// See packing.py. Returns the header's values, and `arrays`: name -> typed array with a `shape`.
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const values = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = Math.ceil((4 + length) / 8) * 8;
  const arrays = {};
  for (const [name, entry] of Object.entries(values.arrays)) {
    const count = entry.shape.reduce((a, b) => a * b, 1);
    const array = new KINDS[entry.dtype](buffer, start + entry.offset, count);
    array.shape = entry.shape;
    arrays[name] = array;
  }
  return { ...values, arrays };
}
