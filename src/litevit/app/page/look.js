// What a model looks at: arrays come once per picture, model and block; every click is answered from them.

import { getBlob, post, postBlob } from "./api.js";
import { attentionRow, chain, likeness, paint, RAMPS, sentRow } from "./maths.js";
import { $, attempt, bitmap, chart, el, options, percent, rgbBitmap, save, short } from "./ui.js";

const SIDE = 640; // least long side of the canvas, in its own pixels

export class LookView {
  constructor(state) {
    this.state = state;
    this.at = [0.5, 0.5]; // the pixel, as shares of width and height
    this.zoom = 1;
    this.head = -1;
    this.canvas = $("canvas");
    this.pen = this.canvas.getContext("2d");
    for (const radio of document.querySelectorAll('input[name="tool"]')) radio.addEventListener("change", () => this.update(state));
    for (const id of ["stage", "block"]) $(id).addEventListener("change", () => { if (id === "stage") this.fillBlocks(); this.fetch(); });
    $("branch").addEventListener("change", () => { this.fillHeads(); this.draw(); });
    $("head").addEventListener("change", () => { this.head = Number($("head").value); this.draw(); });
    for (const id of ["heat-opacity", "smooth", "feature-kind", "offset-kind"]) $(id).addEventListener("input", () => this.draw());
    this.listen();
    addEventListener("resize", () => this.layout());
    $("save-picture").addEventListener("click", () => (this.canvas.hidden ? this.spectra() : this.canvas).toBlob((blob) => save(blob, `${this.name()}.png`)));
    $("save-arrays").addEventListener("click", () => attempt(async () => {
      const { body } = this.asked();
      save(await state.ask((picture) => postBlob("api/look/arrays", { ...body, picture, view: this.tool, cell: this.cell() })), `${this.name()}.npz`);
    }));
    $("save-source").addEventListener("click", () => attempt(async () => save(await getBlob(`api/samples/${state.picture.sample}`), state.picture.name)));
    $("copy-command").addEventListener("click", () => attempt(async () => {
      const selection = getSelection();
      selection.selectAllChildren($("command"));
      if (navigator.clipboard) await navigator.clipboard.writeText($("command").textContent);
      $("readout").textContent = "The command is copied.";
    }));
  }

  get tool() { return document.querySelector('input[name="tool"]:checked').value; }

  // ---------------------------------------------------------------- what is asked of the server

  async update(state) {
    const { about, picture } = state;
    if (picture && !about) return; // the model is being opened: this is called again
    $("save-source").hidden = !(picture?.sample >= 0);
    const why = !picture ? "Take a sample above, or drop a picture anywhere on the page."
      : !about.stages ? about.why : this.tool === "offsets" && !about.offsets
        ? `${about.label} has no deformable token merging, so there are no offsets to look at. LIT, LITv2, pvt_s_dtm and swin_ti_dtm have.`
        : ["attention", "frequency"].includes(this.tool) && !about.stages.flat().some(Boolean) ? `${about.label} has no attention in any block.` : null;
    $("look-note").hidden = !why;
    $("look-note").textContent = why ?? "";
    document.querySelector(".look").hidden = !picture || !about?.stages;
    if (!picture || !about?.stages) return;
    if (this.choice !== state.choice) {
      this.choice = state.choice;
      this.stages = null;
    }
    if (this.filledFor !== `${state.choice} ${this.tool}`) this.fillStages();
    for (const node of document.querySelectorAll("#view-look [data-for]")) node.hidden = !node.dataset.for.split(" ").includes(this.tool) || !!why;
    $("legend-card").hidden = !!why;
    if (why) { this.found = null; await this.see(); this.draw(); return; }
    await this.fetch();
  }

  fillStages() {
    const { stages } = this.state.about;
    const attends = ["attention", "frequency"].includes(this.tool);
    const rows = stages.map((blocks, i) => [i + 1, `${i + 1}${attends && !blocks.some(Boolean) ? " (no attention)" : ""}`, attends && !blocks.some(Boolean)]);
    const usable = rows.filter((r) => !r[2]);
    const kept = Number($("stage").value);
    const best = usable.some((r) => r[0] === kept) && this.filledFor?.startsWith(`${this.state.choice} `) ? kept : usable.some((r) => r[0] === 3) ? 3 : usable.at(-1)?.[0];
    options($("stage"), rows, best);
    this.filledFor = `${this.state.choice} ${this.tool}`;
    this.fillBlocks();
  }

  fillBlocks() {
    const blocks = this.state.about.stages[Number($("stage").value) - 1] ?? [];
    const rows = blocks.map((attends, j) => [j, String(j), !attends]);
    const kept = $("block").value;
    const usable = rows.filter((r) => !r[2]).map((r) => r[0]);
    options($("block"), rows, usable.includes(Number(kept)) && kept !== "" ? kept : usable.at(-1));
  }

  asked() {
    const stage = Number($("stage").value) || 1, block = Number($("block").value) || 0;
    const parts = { attention: { stage, block }, frequency: { stage, block }, features: { stage }, offsets: {} }[this.tool];
    return { body: { choice: this.state.choice, ...parts }, key: JSON.stringify([this.tool, this.state.picture.id, this.state.choice, parts]) };
  }

  async see() {
    const key = JSON.stringify([this.state.picture.id, this.state.choice]);
    if (this.seenKey === key) return true;
    const seen = await attempt(() => this.state.ask((picture) => post("api/look/seen", { picture, choice: this.state.choice })));
    if (!seen) return false;
    const [height, width] = seen.arrays.pixels.shape;
    this.seen = rgbBitmap(seen.arrays.pixels, width, height);
    this.seenKey = JSON.stringify([this.state.picture.id, this.state.choice]);
    this.size = [width, height];
    this.layout();
    return true;
  }

  async fetch() {
    const { body, key } = this.asked();
    this.key = key;
    if (this.foundKey === key && this.seen) { this.draw(); return; }
    $("frame").setAttribute("aria-busy", "true");
    const start = performance.now();
    const there = await this.see();
    const found = there && await attempt(() => this.state.ask((picture) => post(`api/look/${this.tool}`, { ...body, picture })));
    if (this.key !== key) return; // something else was asked meanwhile
    $("frame").removeAttribute("aria-busy");
    this.found = found || null;
    this.foundKey = found ? key : null;
    this.row = null;
    if (!found) { this.draw(); return; }
    this.fetched = performance.now() - start;
    if (this.tool === "attention") {
      this.found.branches.forEach((branch, n) => {
        for (const name of ["rows", "p", "peak", "cells"]) branch[name] = found.arrays[name + n];
      });
      this.fillBranches();
    }
    this.draw();
    this.canvas.dataset.key = key;
  }

  fillBranches() {
    const { branches } = this.found;
    const kept = $("branch").value;
    const rows = branches.map((b) => [b.branch, b.title]);
    options($("branch"), rows, rows.some((r) => r[0] === kept) ? kept : branches.at(-1).branch);
    this.fillHeads();
  }

  fillHeads() {
    const { heads } = this.branch();
    if (this.head >= heads) this.head = -1;
    options($("head"), [[-1, "mean of all"], ...Array.from({ length: heads }, (_, h) => [h, String(h)])], this.head);
    this.thumbnails = Array.from({ length: heads }, (_, h) => {
      const canvas = el("canvas", { width: 1, height: 1 });
      const button = el("button", { ariaLabel: `Head ${h}` }, canvas, el("span", { textContent: String(h) }));
      button.addEventListener("click", () => { this.head = this.head === h ? -1 : h; $("head").value = this.head; this.draw(); });
      return { button, canvas };
    });
    $("heads").replaceChildren(...this.thumbnails.map((t) => t.button));
  }

  branch() { return this.found.branches.find((b) => b.branch === $("branch").value) ?? this.found.branches[0]; }

  // ---------------------------------------------------------------- the pixel

  grid() { // rows and columns of the map that the pixel is a cell of
    if (!this.found) return null;
    if (this.tool === "attention") return this.branch().mapGrid;
    if (this.tool === "features") return this.found.arrays.features.shape.slice(0, 2);
    if (this.tool === "offsets") return this.found.arrays.offsets2.shape.slice(0, 2);
    return null;
  }

  stride() { return this.tool === "offsets" ? this.found.stride * 8 : this.found.stride; }

  place() { // row and column
    const [H, W] = this.grid(), stride = this.stride();
    const [width, height] = this.size;
    return [Math.min(Math.floor((this.at[1] * height) / stride), H - 1), Math.min(Math.floor((this.at[0] * width) / stride), W - 1)];
  }

  cell() { const grid = this.grid(); if (!grid) return 0; const [row, column] = this.place(); return row * grid[1] + column; }

  pixel() { const [row, column] = this.place(), s = this.stride(); return [Math.min(column * s + (s >> 1), this.size[0] - 1), Math.min(row * s + (s >> 1), this.size[1] - 1)]; }

  moveTo(row, column) {
    const [H, W] = this.grid(), stride = this.stride(), [width, height] = this.size;
    const r = Math.min(Math.max(row, 0), H - 1), c = Math.min(Math.max(column, 0), W - 1);
    this.at = [Math.min(((c + 0.5) * stride) / width, 0.9999), Math.min(((r + 0.5) * stride) / height, 0.9999)];
    this.draw();
  }

  listen() {
    const point = (event) => {
      if (!this.grid()) return;
      const box = this.canvas.getBoundingClientRect();
      const inside = (v) => Math.min(Math.max(v, 0), 0.9999);
      const before = this.cell();
      this.at = [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
      if (this.cell() !== before || event.type === "pointerdown") this.draw();
    };
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture?.(event.pointerId); point(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (event.buttons || $("hover").checked) point(event); });
    this.canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 4 : 1;
      const moves = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] };
      const turn = (id, by) => { const s = $(id); let i = s.selectedIndex; do i += by; while (s.options[i]?.disabled); if (s.options[i]) { s.selectedIndex = i; s.dispatchEvent(new Event("change")); } };
      const { key } = event;
      if ((moves[key] || key === "Home" || key === "End") && this.grid()) {
        const [row, column] = this.place();
        if (moves[key]) this.moveTo(row + moves[key][0], column + moves[key][1]);
        else this.moveTo(row, key === "Home" ? 0 : this.grid()[1] - 1);
      } else if (key === "[" || key === "]") { if (this.tool === "attention" && this.found) turn("head", key === "[" ? -1 : 1); }
      else if (key === "," || key === ".") { if (["attention", "frequency"].includes(this.tool)) turn("block", key === "," ? -1 : 1); }
      else if (key === "+" || key === "=") this.enlarge(1);
      else if (key === "-") this.enlarge(-1);
      else return;
      event.preventDefault();
    });
    $("zoom-in").addEventListener("click", () => this.enlarge(1));
    $("zoom-out").addEventListener("click", () => this.enlarge(-1));
  }

  enlarge(by) {
    this.zoom = Math.min(Math.max(this.zoom * 1.5 ** by, 1), 1.5 ** 6);
    $("zoom-value").value = `${Math.round(100 * this.zoom)} %`;
    this.layout();
  }

  layout() { // how large the canvas is shown: as the frame allows, times the zoom
    if (!this.size) return;
    const [width, height] = this.size;
    const room = [$("frame").clientWidth || 300, 0.76 * innerHeight];
    const fit = Math.min(room[0] / width, room[1] / height) * this.zoom;
    this.canvas.style.width = `${Math.floor(width * fit)}px`;
    this.canvas.style.height = `${Math.floor(height * fit)}px`;
    if (this.zoom > 1) { // the pixel stays in sight
      $("frame").scrollLeft = this.at[0] * width * fit - room[0] / 2;
      $("frame").scrollTop = this.at[1] * height * fit - $("frame").clientHeight / 2;
    }
  }

  // ---------------------------------------------------------------- drawing

  draw() {
    const start = performance.now();
    $("frame").querySelector(".spectra")?.remove();
    this.canvas.hidden = $("zoom").hidden = this.tool === "frequency" && !!this.found;
    if (!this.seen) return;
    const scale = Math.max(1, Math.ceil(SIDE / Math.max(...this.size)));
    const [width, height] = this.size.map((v) => v * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) { this.canvas.width = width; this.canvas.height = height; this.layout(); }
    this.scale = scale;
    this.pen.globalAlpha = 1;
    this.pen.imageSmoothingEnabled = scale < 4;
    this.pen.drawImage(this.seen, 0, 0, width, height);
    if (!this.found) { $("readout").textContent = ""; $("command").textContent = ""; return; }
    ({ attention: () => this.drawAttention(), offsets: () => this.drawOffsets(), features: () => this.drawFeatures(), frequency: () => this.drawFrequency() })[this.tool]();
    this.command();
    const spent = performance.now() - start;
    this.canvas.dataset.drawn = spent.toFixed(3); // what benchmarks and tests read
    this.canvas.dataset.cell = this.cell();
  }

  overlay({ values, grid }, name, low, high) {
    const [h, w] = grid;
    const painted = paint(values, name, low, high);
    const branch = this.tool === "attention" ? this.branch() : null;
    const [H, W] = branch ? branch.mapGrid : grid; // keys that are a coarser grid lie over the whole map
    const covered = [W * this.found.stride * this.scale, H * this.found.stride * this.scale]; // or beyond: padding
    this.pen.globalAlpha = Number($("heat-opacity").value);
    this.pen.imageSmoothingEnabled = $("smooth").checked;
    this.pen.drawImage(bitmap(w, h, painted.pixels), 0, 0, covered[0], covered[1]);
    this.pen.globalAlpha = 1;
    return painted;
  }

  mark() {
    const [row, column] = this.place(), side = this.stride() * this.scale;
    for (const [colour, wide] of [["#000", 5], ["#fff", 2.5]]) {
      this.pen.strokeStyle = colour;
      this.pen.lineWidth = Math.max(1, Math.min(wide, side / 2));
      this.pen.strokeRect(column * side, row * side, side, side);
    }
  }

  drawAttention() {
    const branch = this.branch(), cell = this.cell();
    if (!branch.whole) { // large maps: the row comes from the server, then heads are answered here
      if (this.row?.cell !== cell) { this.askRow(cell); this.mark(); $("readout").textContent = "One row of a large map is on its way."; return; }
    }
    const own = branch.whole ? branch : this.row.branches.find((b) => b.branch === branch.branch);
    const read = (head) => (branch.whole ? attentionRow(branch, cell, head) : sentRow(own, head));
    const heat = read(this.head);
    const { low, high } = this.overlay(heat, "inferno", branch.windows ? 0 : undefined);
    this.mark();
    for (const [h, { button, canvas }] of this.thumbnails.entries()) {
      const one = read(h);
      const cut = branch.windows ? crop(one) : one;
      [canvas.height, canvas.width] = cut.grid;
      canvas.getContext("2d").putImageData(new ImageData(paint(cut.values, "inferno").pixels, cut.grid[1], cut.grid[0]), 0, 0);
      button.setAttribute("aria-pressed", String(h === this.head));
    }
    this.legendRamp("inferno", low, high, "Probability");
    let best = 0, sum = 0;
    for (let i = 0; i < heat.values.length; i++) { sum += heat.values[i]; if (heat.values[i] > heat.values[best]) best = i; }
    const [row, column] = this.place();
    const where = `row ${Math.floor(best / heat.grid[1])}, column ${best % heat.grid[1]} of ${heat.grid[0]} × ${heat.grid[1]}`;
    $("readout").textContent = `Pixel ${this.pixel().join(", ")}: cell at row ${row}, column ${column} of ${branch.mapGrid[0]} × ${branch.mapGrid[1]}. ${branch.title} looks most at ${where} (${percent(heat.values[best])}).`;
  }

  askRow(cell) {
    const key = this.key;
    this.wanted = cell;
    if (this.asking) return;
    this.asking = true;
    attempt(async () => {
      const { body } = this.asked();
      const found = await this.state.ask((picture) => post("api/look/row", { ...body, picture, cell }));
      if (this.key !== key) return;
      found.branches.forEach((b, n) => { b.p = found.arrays[`p${n}`]; b.peak = found.arrays[`peak${n}`]; });
      this.row = { cell, branches: found.branches };
    }).finally(() => {
      this.asking = false;
      if (this.key === key && this.row && this.tool === "attention") { if (this.wanted !== this.row.cell) this.askRow(this.wanted); else this.draw(); }
    });
  }

  drawFeatures() {
    const { features, pca } = this.found.arrays;
    const grid = features.shape.slice(0, 2);
    if ($("feature-kind").value === "pca") {
      const covered = grid.map((v) => v * this.found.stride * this.scale);
      this.pen.globalAlpha = Number($("heat-opacity").value);
      this.pen.imageSmoothingEnabled = $("smooth").checked;
      this.pen.drawImage(rgbBitmap(pca, grid[1], grid[0]), 0, 0, covered[1], covered[0]);
      this.pen.globalAlpha = 1;
      $("legend-title").textContent = "Colours";
      $("legend").replaceChildren(el("p", { class: "small muted", textContent: "Red, green and blue are the first three principal components of the map's cells: what has one colour is alike to the model." }));
      $("readout").textContent = `The map of stage ${$("stage").value}: ${grid[0]} × ${grid[1]} cells of ${features.shape[2]} channels.`;
      return;
    }
    const values = likeness(features, this.cell());
    const { low } = this.overlay({ values, grid }, "viridis", undefined, 1);
    this.mark();
    this.legendRamp("viridis", low, 1, "Cosine similarity");
    const [row, column] = this.place();
    let mean = 0;
    for (const v of values) mean += v / values.length;
    $("readout").textContent = `Pixel ${this.pixel().join(", ")}: cell at row ${row}, column ${column} of ${grid[0]} × ${grid[1]}. Its likeness to all cells is ${short(mean)} on average.`;
  }

  drawOffsets() {
    const { arrays, stride } = this.found;
    const offsets = [arrays.offsets0, arrays.offsets1, arrays.offsets2];
    const [H, W] = this.grid(), [row, column] = this.place();
    const at = ([y, x]) => [(x + 0.5) * stride * this.scale, (y + 0.5) * stride * this.scale];
    this.pen.fillStyle = `rgb(255 255 255 / ${0.6 * Number($("heat-opacity").value)})`;
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const dot = Math.max(2, this.canvas.width / 190);
    if ($("offset-kind").value === "all") {
      const arrows = [];
      this.pen.fillStyle = "rgb(200 20 40 / 35%)";
      for (let r = 0; r < H; r++) for (let c = 0; c < W; c++) {
        const points = chain(offsets, r, c);
        if (!points.length) continue;
        let y = 0, x = 0;
        for (const p of points) { const [px, py] = at(p); this.pen.fillRect(px - 1.5, py - 1.5, 3, 3); y += p[0] / points.length; x += p[1] / points.length; }
        arrows.push([at([8 * r + 3.5, 8 * c + 3.5]), at([y, x])]);
      }
      for (const [from, to] of arrows) arrow(this.pen, from, to, Math.max(2, this.canvas.width / 320));
      $("legend-title").textContent = "Marks";
      $("legend").replaceChildren(marks([["#c81428", "sampling points of all cells"], ["#10325f", "mean displacement of a cell"]]));
      $("readout").textContent = `All ${H * W} cells of the last map, ${H} × ${W}, through the three mergings.`;
      return;
    }
    const side = 8 * stride * this.scale;
    this.pen.lineWidth = Math.max(2, dot / 1.5);
    this.pen.strokeStyle = "#0a7d2c";
    this.pen.fillStyle = "rgb(20 160 60 / 22%)";
    this.pen.fillRect(column * side, row * side, side, side);
    this.pen.strokeRect(column * side, row * side, side, side);
    const points = chain(offsets, row, column);
    const inside = points.filter((p) => { const [x, y] = at(p); return x >= 0 && y >= 0 && x < this.canvas.width && y < this.canvas.height; });
    for (const p of points) {
      const [x, y] = at(p);
      this.pen.beginPath();
      this.pen.arc(x, y, dot, 0, 7);
      this.pen.fillStyle = "#d01530";
      this.pen.fill();
      this.pen.lineWidth = 1;
      this.pen.strokeStyle = "#fff";
      this.pen.stroke();
    }
    this.canvas.dataset.points = points.length;
    $("legend-title").textContent = "Marks";
    $("legend").replaceChildren(marks([["#d01530", "where the cell was merged from"], ["#0a7d2c", `its regular patch, ${8 * stride} × ${8 * stride} pixels`]]));
    $("readout").textContent = `Cell at row ${row}, column ${column} of the last map (${H} × ${W}): ${points.length} sampling points, ${inside.length} in the picture.`;
  }

  drawFrequency() {
    const { arrays, branches, curves } = this.found;
    const figures = Object.entries(branches).map(([branch, title]) => {
      const values = arrays[`magnitude_${branch}`];
      const { pixels, low, high } = paint(values, "inferno");
      const canvas = bitmap(values.shape[1], values.shape[0], pixels);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${title}: log-magnitude over frequency, zero in the middle, from ${short(low)} to ${short(high)}`);
      return el("figure", {}, canvas, el("figcaption", { textContent: `${title}: ${short(low)} to ${short(high)}` }));
    });
    $("frame").append(el("div", { class: "spectra" }, ...figures));
    $("legend-title").textContent = "Scale";
    $("legend").replaceChildren(rampCanvas("inferno"), el("div", { class: "ends" }, el("span", { textContent: "weak" }), el("span", { textContent: "strong" })),
      el("p", { class: "small muted", textContent: "Logarithm of the Fourier magnitude, mean over channels. Zero frequency is in the middle, each picture has its own range." }));
    const series = curves.map((name, n) => ({ name: `block ${name}`, x: [...arrays[`x${n}`]], y: [...arrays[`y${n}`]], colour: `rgb(${[0, 1, 2].map((c) => RAMPS.viridis[3 * Math.round((n / Math.max(curves.length - 1, 1)) * 220) + c]).join(" ")})` }));
    const drawn = chart("Relative log-amplitude of the blocks over frequency", series, { width: 400, height: 230, xTitle: "frequency / π" });
    $("depth").replaceChildren(el("div", { class: "chart" }, drawn), el("p", { class: "small muted", textContent: "Relative log-amplitude of every block's output: first blocks dark, last ones bright. Lower to the right: smoother." }));
    $("readout").textContent = `Frequencies that the attention of stage ${$("stage").value}, block ${$("block").value} gives out.`;
  }

  spectra() { // all of them beside each other, to be kept
    const shown = [...$("frame").querySelectorAll(".spectra canvas")], side = 320;
    const sheet = el("canvas", { width: shown.length * (side + 16) - 16, height: side });
    const pen = sheet.getContext("2d");
    pen.imageSmoothingEnabled = false;
    shown.forEach((canvas, n) => pen.drawImage(canvas, n * (side + 16), 0, side, side));
    return sheet;
  }

  legendRamp(name, low, high, title) {
    $("legend-title").textContent = title;
    $("legend").replaceChildren(rampCanvas(name), el("div", { class: "ends" }, el("span", { textContent: short(low) }), el("span", { textContent: short(high) })));
  }

  name() {
    const stem = this.state.picture.name.replace(/\.[^.]*$/, "");
    const { stage, block } = this.asked().body;
    return [stem, this.tool, stage && `stage-${stage}`, block !== undefined && `block-${block}`].filter(Boolean).join("-");
  }

  command() {
    const { arguments: chosen } = this.state.about;
    const quoted = /^[\w.+-]+$/.test(this.state.picture.name) ? this.state.picture.name : `'${this.state.picture.name.replaceAll("'", "'\\''")}'`;
    const { stage, block } = this.asked().body;
    const parts = [`litevit explain ${this.tool} ${quoted}`, chosen];
    if (this.tool === "attention") {
      parts.push(`--stage ${stage} --block ${block}`);
      if (this.head >= 0) parts.push(`--head ${this.head}`);
      parts.push(`--pixel ${this.pixel().join(" ")}`);
    } else if (this.tool === "frequency") parts.push(`--stage ${stage} --block ${block}`);
    else if (this.tool === "features") { if ($("feature-kind").value === "cosine") parts.push(`--pixel ${this.pixel().join(" ")}`); }
    else if ($("offset-kind").value === "cell") parts.push(`--cells ${this.place().join(" ")}`);
    $("command").textContent = parts.join(" ");
  }
}

// The part of a map that is not zero: the window, where attention stays inside one.
function crop({ values, grid }) {
  const [H, W] = grid;
  let [top, bottom, left, right] = [H, -1, W, -1];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) {
    const r = Math.floor(i / W), c = i % W;
    top = Math.min(top, r); bottom = Math.max(bottom, r); left = Math.min(left, c); right = Math.max(right, c);
  }
  if (bottom < 0) return { values, grid };
  const out = [];
  for (let r = top; r <= bottom; r++) for (let c = left; c <= right; c++) out.push(values[r * W + c]);
  return { values: out, grid: [bottom - top + 1, right - left + 1] };
}

function rampCanvas(name) {
  const canvas = bitmap(256, 1, paint(Array.from({ length: 256 }, (_, v) => v), name).pixels);
  canvas.className = "ramp";
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

function marks(rows) {
  return el("ul", { class: "legend" }, ...rows.map(([colour, text]) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colour;
    return el("li", {}, el("label", {}, swatch, text));
  }));
}

function arrow(pen, [x0, y0], [x1, y1], wide) {
  pen.strokeStyle = pen.fillStyle = "#10325f";
  pen.lineWidth = wide;
  const angle = Math.atan2(y1 - y0, x1 - x0), long = Math.hypot(x1 - x0, y1 - y0), tip = Math.min(4 * wide, long);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1 - tip * Math.cos(angle), y1 - tip * Math.sin(angle));
  pen.stroke();
  pen.beginPath();
  pen.moveTo(x1, y1);
  for (const turn of [2.7, -2.7]) pen.lineTo(x1 + tip * Math.cos(angle + turn), y1 + tip * Math.sin(angle + turn));
  pen.fill();
  pen.fillStyle = "rgb(200 20 40 / 35%)";
}
