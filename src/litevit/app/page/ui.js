// Small things that all views need.

import { Refused } from "./api.js";

export const $ = (id) => document.getElementById(id);

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") node.className = value;
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

export function options(select, rows, chosen) {
  select.replaceChildren(...rows.map(([value, text, disabled]) => el("option", { value, textContent: text, disabled: !!disabled })));
  if (rows.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

// Said by a screen reader, not shown.
export function say(text) { $("said").textContent = text; }

export function note(message) {
  const same = [...$("notes").children].find((box) => box.dataset.message === message);
  if (same) { same.stay(); return; }
  const close = el("button", { class: "quiet", textContent: "×", ariaLabel: "Close this note" });
  const box = el("div", { class: "note" }, el("span", { textContent: message }), close);
  box.dataset.message = message;
  let timer;
  box.stay = () => { clearTimeout(timer); timer = setTimeout(() => box.remove(), 15000); };
  box.stay();
  close.addEventListener("click", () => box.remove());
  $("notes").replaceChildren(...[...$("notes").children].slice(-2), box);
}

// Runs what may be refused; the reason becomes a note. Returns undefined then.
export async function attempt(work) {
  try { return await work(); } catch (error) {
    if (error.name === "AbortError") return undefined;
    note(error instanceof Refused ? error.message : `That went wrong in the page: ${error.message}`);
    if (!(error instanceof Refused)) console.error(error);
    return undefined;
  }
}

export const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 2 : 1)} %`;

export function short(x) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1000 || size < 0.001 ? x.toExponential(1) : String(Number(x.toPrecision(3)));
}

export function seconds(s) { return s < 1 ? `${Math.round(1000 * s)} ms` : `${s.toFixed(2)} s`; }

export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function bitmap(width, height, pixels) {
  const canvas = el("canvas", { width, height });
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas;
}

export function rgbBitmap(rgb, width, height, start = 0) {
  const pixels = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = rgb[start + 3 * i + c];
    pixels[4 * i + 3] = 255;
  }
  return bitmap(width, height, pixels);
}

// Lines over an axis as SVG. series: [{name, x, y, dots, b}].
export function chart(title, series, { width = 330, height = 205, xTitle = "" } = {}) {
  const NS = "http://www.w3.org/2000/svg";
  const make = (tag, props, text) => {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const points = series.flatMap((s) => s.x.map((x, i) => [x, s.y[i]])).filter(([, y]) => y !== null && Number.isFinite(y));
  if (!points.length) return null;
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const [x, y] of points) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
  if (x0 === x1) { x0 -= 1; x1 += 1; }
  if (y0 === y1) { y0 -= Math.abs(y0) * 0.1 || 1; y1 += Math.abs(y1) * 0.1 || 1; }
  const left = 48, right = 8, top = 8, bottom = 30;
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const py = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
  const last = series.map((s) => `${s.name}: ${short(s.y[s.y.length - 1] ?? NaN)} at ${short(s.x[s.x.length - 1] ?? NaN)}`).join("; ");
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. Last values: ${last}` });
  const digits = Math.max(0, 1 - Math.floor(Math.log10((y1 - y0) / 4))); // ticks differ
  const tick = (y) => (Math.abs(y) >= 1000 || digits > 4 ? short(y) : String(Number(y.toFixed(digits))));
  for (let k = 0; k <= 4; k++) {
    const y = y0 + (k / 4) * (y1 - y0);
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }), make("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, tick(y)));
  }
  for (let k = 0; k <= 3; k++) {
    const x = x0 + (k / 3) * (x1 - x0);
    const text = x1 - x0 > 10 ? String(Math.round(x)) : short(x);
    svg.append(make("text", { x: px(x), y: height - 12, "text-anchor": k === 0 ? "start" : k === 3 ? "end" : "middle" }, text));
  }
  if (xTitle) svg.append(make("text", { x: (left + width - right) / 2, y: height, "text-anchor": "middle" }, xTitle));
  for (const s of series) {
    const kept = s.x.map((x, i) => [x, s.y[i]]).filter(([, y]) => y !== null && Number.isFinite(y));
    const line = make("polyline", { class: s.b ? "line b" : "line", points: kept.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ") });
    if (s.colour) line.style.stroke = s.colour;
    const name = make("title", {}, s.name);
    line.append(name);
    svg.append(line);
    if (s.dots) for (const [x, y] of kept) {
      const dot = make("circle", { class: s.b ? "b" : "", cx: px(x), cy: py(y), r: 3 });
      dot.append(make("title", {}, `${s.name} ${short(y)} at ${short(x)}`));
      svg.append(dot);
    }
  }
  return svg;
}
