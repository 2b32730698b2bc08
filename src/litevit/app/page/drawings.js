// What each tool of the look view draws on the canvas, with its legend; every drawing returns what it is in words.
// `view` is the LookView: its pen, canvas and scale, and `found`, what is shown.

import { allChains, attentionRow, chain, likeness, paint, RAMPS, sentRow } from "./maths.js";
import { $, bitmap, chart, el, percent, rgbBitmap, short } from "./ui.js";

const ARROW = "#0b3fae";

export const DRAWINGS = { attention: drawAttention, offsets: drawOffsets, features: drawFeatures, frequency: drawFrequency };

const strength = () => Number($("heat-opacity").value);

// Lays a bitmap of a map's cells over the picture: `cells` rows and columns of `stride` pixels, which padding may take beyond it.
function lay(view, bits, [H, W], stride, smooth) {
  const { pen, scale } = view;
  pen.globalAlpha = strength();
  pen.imageSmoothingEnabled = smooth;
  pen.drawImage(bits, 0, 0, W * stride * scale, H * stride * scale);
  pen.globalAlpha = 1;
}

function heat(view, { values, grid }, cells, name, low, high) {
  const painted = paint(values, name, low, high);
  lay(view, bitmap(grid[1], grid[0], painted.pixels), cells, view.found.stride, $("smooth").checked);
  return painted;
}

function mark(view) {
  const [row, column] = view.place(), side = view.stride() * view.scale;
  for (const [colour, wide] of [["#000", 5], ["#fff", 2.5]]) {
    view.pen.strokeStyle = colour;
    view.pen.lineWidth = Math.max(1, Math.min(wide, side / 2));
    view.pen.strokeRect(column * side, row * side, side, side);
  }
}

function legend(title, ...content) {
  $("legend-title").textContent = title;
  $("legend").replaceChildren(...content);
}

// ---------------------------------------------------------------- attention

function drawAttention(view) {
  const branch = view.branch(), cell = view.cell(), { found } = view;
  if (!branch.whole && found.row?.cell !== cell) { // large maps: the row comes from the server, then heads are answered here
    view.askRow(cell);
    mark(view);
    return "One row of a large map is on its way.";
  }
  const own = branch.whole ? branch : found.row.branches.find((b) => b.branch === branch.branch);
  const read = (head) => (branch.whole ? attentionRow(branch, cell, head) : sentRow(own, head));
  const map = read(view.head);
  const { low, high } = heat(view, map, branch.mapGrid, "inferno", branch.windows ? 0 : undefined);
  mark(view);
  const window = branch.windows ? reach(read(-1)) : null; // one for all heads
  for (const [h, { button, canvas }] of view.thumbnails.entries()) {
    const cut = window ? crop(read(h), window) : read(h);
    [canvas.height, canvas.width] = cut.grid;
    canvas.getContext("2d").putImageData(new ImageData(paint(cut.values, "inferno").pixels, cut.grid[1], cut.grid[0]), 0, 0);
    button.setAttribute("aria-pressed", String(h === view.head));
  }
  legend("Probability", ...ramp("inferno", short(low), short(high)));
  let best = 0;
  for (let i = 0; i < map.values.length; i++) if (map.values[i] > map.values[best]) best = i;
  const where = `row ${Math.floor(best / map.grid[1])}, column ${best % map.grid[1]} of ${map.grid[0]} × ${map.grid[1]}`;
  return `${at(view, branch.mapGrid)}. ${branch.title} looks most at ${where} (${percent(map.values[best])}).`;
}

function at(view, grid) {
  const [row, column] = view.place();
  return `Pixel ${view.pixel().join(", ")}: cell at row ${row}, column ${column} of ${grid[0]} × ${grid[1]}`;
}

// Top, bottom, left and right of what is not zero: the window, where attention stays inside one.
function reach({ values, grid: [H, W] }) {
  let [top, bottom, left, right] = [H, -1, W, -1];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) {
    const r = Math.floor(i / W), c = i % W;
    top = Math.min(top, r); bottom = Math.max(bottom, r); left = Math.min(left, c); right = Math.max(right, c);
  }
  return bottom < 0 ? null : [top, bottom, left, right];
}

function crop({ values, grid }, [top, bottom, left, right]) {
  const W = grid[1], out = [];
  for (let r = top; r <= bottom; r++) for (let c = left; c <= right; c++) out.push(values[r * W + c]);
  return { values: out, grid: [bottom - top + 1, right - left + 1] };
}

// ---------------------------------------------------------------- features

function drawFeatures(view) {
  const { arrays: { features, pca }, stage, stride } = view.found;
  const grid = features.shape.slice(0, 2);
  if ($("feature-kind").value === "pca") {
    lay(view, rgbBitmap(pca, grid[1], grid[0]), grid, stride, $("smooth").checked);
    legend("Colours", el("p", { class: "small muted", textContent: "Red, green and blue are the first three principal components of the map's cells: what has one colour is alike to the model." }));
    return `The map of stage ${stage}: ${grid[0]} × ${grid[1]} cells of ${features.shape[2]} channels.`;
  }
  const values = likeness(features, view.cell());
  const { low } = heat(view, { values, grid }, grid, "viridis", undefined, 1);
  mark(view);
  legend("Cosine similarity", ...ramp("viridis", short(low), "1"));
  let mean = 0;
  for (const v of values) mean += v / values.length;
  return `${at(view, grid)}. Its likeness to all cells is ${short(mean)} on average.`;
}

// ---------------------------------------------------------------- offsets

function drawOffsets(view) {
  const { pen, canvas, scale, found: { arrays, stride } } = view;
  const offsets = [arrays.offsets0, arrays.offsets1, arrays.offsets2];
  const [H, W] = view.grid();
  const place = ([y, x]) => [(x + 0.5) * stride * scale, (y + 0.5) * stride * scale];
  if ($("offset-kind").value === "density") return drawDensity(view, offsets);
  pen.fillStyle = `rgb(255 255 255 / ${0.6 * strength()})`;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if ($("offset-kind").value === "all") return drawDisplacement(view, offsets, place);
  const dot = Math.min(Math.max(0.3 * stride * scale, canvas.width / 500), canvas.width / 190);
  const [row, column] = view.place(), side = 8 * stride * scale;
  pen.lineWidth = Math.max(2, dot / 1.5);
  pen.strokeStyle = "#0a7d2c";
  pen.fillStyle = "rgb(20 160 60 / 22%)";
  pen.fillRect(column * side, row * side, side, side);
  pen.strokeRect(column * side, row * side, side, side);
  const points = chain(offsets, row, column).map(place);
  const inside = points.filter(([x, y]) => x >= 0 && y >= 0 && x < canvas.width && y < canvas.height);
  for (const [x, y] of points) {
    pen.beginPath();
    pen.arc(x, y, dot, 0, 7);
    pen.fillStyle = "#d01530";
    pen.fill();
    pen.lineWidth = 1;
    pen.strokeStyle = "#fff";
    pen.stroke();
  }
  canvas.dataset.points = points.length;
  legend("Marks", marks([["#d01530", "where the cell was merged from"], ["#0a7d2c", `its regular patch, ${8 * stride} × ${8 * stride} pixels`]]));
  return `Cell at row ${row}, column ${column} of the last map (${H} × ${W}): ${points.length} sampling points, ${inside.length} in the picture.`;
}

function everyCell(view, offsets) {
  const { found, size } = view;
  const cells = [size[1], size[0]].map((v) => Math.ceil(v / found.stride));
  found.all ??= { cells, ...allChains(offsets, cells) };
  return found.all;
}

// How often each patch is read.
function drawDensity(view, offsets) {
  const { cells, density } = everyCell(view, offsets);
  const [H, W] = view.grid();
  const sorted = density.slice().sort();
  const top = Math.max(sorted[Math.floor(0.99 * (sorted.length - 1))], 2);
  const painted = paint(density, "inferno", 0, top);
  lay(view, bitmap(cells[1], cells[0], painted.pixels), cells, view.found.stride, false);
  legend("Sampling points per patch", ...ramp("inferno", "0", `${short(top)} or more`));
  return `All ${H * W} cells of the last map, ${H} × ${W}: how many of their points lie in each patch of ${view.found.stride} × ${view.found.stride} pixels.`;
}

// Where each cell looks on average.
function drawDisplacement(view, offsets, place) {
  const { pen, canvas, found: { stride } } = view;
  const { means } = everyCell(view, offsets);
  const [H, W] = view.grid();
  let total = 0;
  for (const { row, column, y, x } of means) {
    const from = place([8 * row + 3.5, 8 * column + 3.5]);
    arrow(pen, from, place([y, x]), Math.max(2, canvas.width / 450));
    total += Math.hypot(y - 8 * row - 3.5, x - 8 * column - 3.5) * stride;
  }
  const far = total / Math.max(means.length, 1);
  legend("Marks", marks([[ARROW, "from a cell's middle to that of its points"]]));
  return `All ${H * W} cells of the last map, ${H} × ${W}, through the three mergings: displaced by ${short(far)} pixels on average.`;
}

function arrow(pen, [x0, y0], [x1, y1], wide) {
  const angle = Math.atan2(y1 - y0, x1 - x0), long = Math.hypot(x1 - x0, y1 - y0), tip = Math.min(4.5 * wide, long);
  for (const [colour, more] of [["#fff", 2], [ARROW, 0]]) { // a rim, to be seen on every ground
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = wide + more;
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x1 - 0.8 * tip * Math.cos(angle), y1 - 0.8 * tip * Math.sin(angle));
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x1, y1);
    for (const turn of [2.7, -2.7]) pen.lineTo(x1 + tip * Math.cos(angle + turn), y1 + tip * Math.sin(angle + turn));
    pen.closePath();
    if (more) pen.stroke();
    pen.fill();
  }
}

// ---------------------------------------------------------------- frequencies

function drawFrequency(view) {
  const { arrays, branches, curves, stage, block } = view.found;
  const figures = Object.entries(branches).map(([branch, title]) => {
    const values = arrays[`magnitude_${branch}`];
    const { pixels, low, high } = paint(values, "inferno");
    const canvas = bitmap(values.shape[1], values.shape[0], pixels);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}: log-magnitude over frequency, zero in the middle, from ${short(low)} to ${short(high)}`);
    return el("figure", {}, canvas, el("figcaption", { textContent: `${title}: ${short(low)} to ${short(high)}` }));
  });
  $("frame").append(el("div", { class: "spectra" }, ...figures));
  legend("Scale", ...ramp("inferno", "weak", "strong"),
    el("p", { class: "small muted", textContent: "Logarithm of the Fourier magnitude, mean over channels. Zero frequency is in the middle, each picture has its own range." }));
  const series = curves.map((name, n) => ({ name: `block ${name}`, x: [...arrays[`x${n}`]], y: [...arrays[`y${n}`]], colour: `rgb(${[0, 1, 2].map((c) => RAMPS.viridis[3 * Math.round((n / Math.max(curves.length - 1, 1)) * 220) + c]).join(" ")})` }));
  const drawn = chart("Relative log-amplitude of the blocks over frequency", series, { width: 400, height: 230, xTitle: "frequency / π" });
  $("depth").replaceChildren(el("div", { class: "chart" }, drawn), el("p", { class: "small muted", textContent: "Relative log-amplitude of every block's output: first blocks dark, last ones bright. Lower to the right: smoother." }));
  return `Frequencies that the attention of stage ${stage}, block ${block} gives out.`;
}

export function spectraSheet() { // all of them beside each other, to be kept
  const shown = [...$("frame").querySelectorAll(".spectra canvas")], side = 320;
  const sheet = el("canvas", { width: shown.length * (side + 16) - 16, height: side });
  const pen = sheet.getContext("2d");
  pen.imageSmoothingEnabled = false;
  shown.forEach((canvas, n) => pen.drawImage(canvas, n * (side + 16), 0, side, side));
  return sheet;
}

// ---------------------------------------------------------------- legends and the command line

function ramp(name, low, high) {
  const canvas = bitmap(256, 1, paint(Array.from({ length: 256 }, (_, v) => v), name).pixels);
  canvas.className = "ramp";
  canvas.setAttribute("aria-hidden", "true");
  return [canvas, el("div", { class: "ends" }, el("span", { textContent: low }), el("span", { textContent: high }))];
}

function marks(rows) {
  return el("ul", { class: "legend" }, ...rows.map(([colour, text]) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colour;
    return el("li", { class: "mark" }, swatch, text);
  }));
}

// The command line that draws the same.
export function commandOf(view) {
  const { tool, picture, about, stage, block } = view.found;
  const quoted = /^[\w.+][\w.+-]*$/.test(picture.name) ? picture.name : `'${picture.name.replace(/^-/, "./-").replaceAll("'", "'\\''")}'`;
  const parts = [`litevit explain ${tool} ${quoted}`, about.arguments];
  if (tool === "attention") {
    parts.push(`--stage ${stage} --block ${block}`);
    if (view.head >= 0) parts.push(`--head ${view.head}`);
    parts.push(`--pixel ${view.pixel().join(" ")}`);
  } else if (tool === "frequency") parts.push(`--stage ${stage} --block ${block}`);
  else if (tool === "features") { if ($("feature-kind").value === "cosine") parts.push(`--pixel ${view.pixel().join(" ")}`); }
  else if ($("offset-kind").value === "cell") parts.push(`--cells ${view.place().join(" ")}`);
  return parts.join(" ");
}
