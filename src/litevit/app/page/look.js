// What a model looks at: arrays come once per picture, model and block; every click is answered from them.

import { getBlob, post, postBlob } from "./api.js";
import { commandOf, DRAWINGS, spectraSheet } from "./drawings.js";
import { $, attempt, el, options, rgbBitmap, save, say } from "./ui.js";

const SIDE = 640; // least long side of the canvas, in its own pixels

// `found` is what is shown: the arrays, and the tool, picture, choice, stage and block that they are of. What the page's
// controls ask for may be on its way still.
export class LookView {
  constructor(state) {
    this.state = state;
    this.at = [0.5, 0.5]; // the pixel, as shares of width and height
    this.zoom = 1;
    this.head = -1;
    this.found = null;
    this.canvas = $("canvas");
    this.pen = this.canvas.getContext("2d");
    for (const radio of document.querySelectorAll('input[name="tool"]')) radio.addEventListener("change", () => this.update(state));
    for (const id of ["stage", "block"]) $(id).addEventListener("change", () => { if (id === "stage") this.fillBlocks(); this.fetch(); });
    $("branch").addEventListener("change", () => { this.fillHeads(); this.draw(); });
    $("head").addEventListener("change", () => { this.head = Number($("head").value); this.draw(); });
    for (const id of ["heat-opacity", "smooth", "feature-kind", "offset-kind"]) $(id).addEventListener("input", () => this.draw());
    this.listen();
    addEventListener("resize", () => this.layout());
    $("save-picture").addEventListener("click", () => (this.canvas.hidden ? spectraSheet() : this.canvas).toBlob((blob) => save(blob, `${this.name()}.png`)));
    $("save-arrays").addEventListener("click", () => attempt(async () => {
      const { tool, choice, stage, block, picture } = this.found;
      const name = this.name(), body = { choice, stage, block, view: tool, cell: this.cell() };
      save(await state.ask((id) => postBlob("api/look/arrays", { ...body, picture: id }), picture), `${name}.npz`);
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
    if (picture && !about && !state.why) return; // the model is being opened: this is called again
    $("save-source").hidden = !(picture?.sample >= 0);
    const why = !picture ? "Take a sample above, or drop a picture anywhere on the page."
      : !about ? state.why : !about.stages ? about.why : this.tool === "offsets" && !about.offsets
        ? `${about.label} has no deformable token merging, so there are no offsets to look at. LIT, LITv2, pvt_s_dtm and swin_ti_dtm have.`
        : ["attention", "frequency"].includes(this.tool) && !about.stages.flat().some(Boolean) ? `${about.label} has no attention in any block.` : null;
    $("look-note").hidden = !why;
    $("look-note").textContent = why ?? "";
    if (why) say(why);
    const there = !!picture && !!about?.stages;
    document.querySelector(".look").hidden = !there;
    for (const node of document.querySelectorAll("#view-look [data-for]")) node.hidden = !node.dataset.for.split(" ").includes(this.tool) || !!why;
    $("legend-card").hidden = !!why;
    if (there && this.filledFor !== `${state.choice} ${this.tool}`) this.fillStages();
    if (!why) { await this.fetch(); return; }
    this.begin(null);
    this.found = null;
    if (there) await attempt(() => this.see(picture, state.choice, this.stop.signal));
    if (this.key === null) { this.busy(false); this.draw(); }
  }

  // What was asked before is no longer wanted.
  begin(key) {
    this.stop?.abort();
    this.stop = new AbortController();
    this.key = key;
    this.busy(true);
  }

  busy(on) { if (on) $("frame").setAttribute("aria-busy", "true"); else $("frame").removeAttribute("aria-busy"); }

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
    const blocks = this.state.about?.stages?.[Number($("stage").value) - 1] ?? [];
    const rows = blocks.map((attends, j) => [j, String(j), !attends]);
    const kept = $("block").value;
    const usable = rows.filter((r) => !r[2]).map((r) => r[0]);
    options($("block"), rows, usable.includes(Number(kept)) && kept !== "" ? kept : usable.at(-1));
  }

  asked() {
    const stage = Number($("stage").value) || 1, block = Number($("block").value) || 0;
    return { attention: { stage, block }, frequency: { stage, block }, features: { stage }, offsets: {} }[this.tool];
  }

  // The picture as the model sees it.
  async see(picture, choice, signal) {
    const key = `${picture.serial} ${choice}`;
    if (this.seenKey === key) return;
    const { arrays: { pixels } } = await this.state.ask((id) => post("api/look/seen", { picture: id, choice }, signal), picture);
    signal.throwIfAborted();
    const [height, width] = pixels.shape;
    this.seen = rgbBitmap(pixels, width, height);
    this.seenKey = key;
    this.size = [width, height];
    this.found = null; // of other pixels
    this.layout();
    this.draw();
  }

  async fetch() {
    const { picture, choice, about } = this.state;
    if (!picture || !about) return;
    const tool = this.tool, parts = this.asked();
    const key = JSON.stringify([tool, picture.serial, choice, parts]);
    this.begin(key);
    const { signal } = this.stop;
    const found = this.found?.key === key ? this.found : await attempt(async () => {
      await this.see(picture, choice, signal);
      return this.state.ask((id) => post(`api/look/${tool}`, { ...parts, choice, picture: id }, signal), picture);
    });
    if (this.key !== key) return; // something else was asked meanwhile
    this.busy(false);
    this.found = found ? Object.assign(found, { key, tool, picture, choice, about, ...parts }) : null;
    if (found && tool === "attention") {
      found.branches.forEach((branch, n) => {
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

  // One row of a large map, one request at a time; the last cell asked for is drawn in the end.
  askRow(cell) {
    const { found } = this;
    const { choice, stage, block } = found;
    this.wanted = cell;
    if (this.asking) return;
    this.asking = true;
    attempt(async () => {
      const row = await this.state.ask((id) => post("api/look/row", { choice, stage, block, cell, picture: id }), found.picture);
      row.branches.forEach((b, n) => { b.p = row.arrays[`p${n}`]; b.peak = row.arrays[`peak${n}`]; });
      found.row = { cell, branches: row.branches };
    }).finally(() => {
      this.asking = false;
      if (this.found !== found || found.row?.cell === cell) this.draw(); // which asks again if that is not what is wanted now
      else if (this.wanted !== cell) this.askRow(this.wanted);
    });
  }

  // ---------------------------------------------------------------- the pixel

  grid() { // rows and columns of the map that the pixel is a cell of
    const { found } = this;
    if (found?.tool === "attention") return this.branch().mapGrid;
    if (found?.tool === "features") return found.arrays.features.shape.slice(0, 2);
    if (found?.tool === "offsets") return found.arrays.offsets2.shape.slice(0, 2);
    return null;
  }

  stride() { return this.found.tool === "offsets" ? this.found.stride * 8 : this.found.stride; }

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
    this.keepInSight();
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
      } else if (key === "[" || key === "]") { if (this.found?.tool === "attention") turn("head", key === "[" ? -1 : 1); }
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
    this.keepInSight();
  }

  keepInSight() { // the pixel, where the picture is larger than its frame
    if (this.zoom <= 1) return;
    const frame = $("frame");
    frame.scrollLeft = this.at[0] * this.canvas.clientWidth - frame.clientWidth / 2;
    frame.scrollTop = this.at[1] * this.canvas.clientHeight - frame.clientHeight / 2;
  }

  // ---------------------------------------------------------------- drawing

  draw() {
    const start = performance.now();
    const { found, pen } = this;
    $("frame").querySelector(".spectra")?.remove();
    this.canvas.hidden = $("zoom").hidden = found?.tool === "frequency";
    for (const id of ["save-picture", "save-arrays", "copy-command"]) $(id).disabled = !found;
    if (!this.seen) return;
    this.scale = Math.max(1, Math.ceil(SIDE / Math.max(...this.size)));
    const [width, height] = this.size.map((v) => v * this.scale);
    if (this.canvas.width !== width || this.canvas.height !== height) { this.canvas.width = width; this.canvas.height = height; this.layout(); }
    pen.globalAlpha = 1;
    pen.imageSmoothingEnabled = this.scale < 4;
    pen.drawImage(this.seen, 0, 0, width, height);
    $("readout").textContent = found ? DRAWINGS[found.tool](this) : "";
    const words = found ? commandOf(this).split(/(?= )/) : []; // lines break between words, never behind a hyphen
    $("command").replaceChildren(...words.flatMap((word) => [" ", el("span", { textContent: word.trim() })]).slice(1));
    const spent = performance.now() - start;
    this.canvas.dataset.drawn = spent.toFixed(3); // what benchmarks and tests read
    this.canvas.dataset.cell = this.cell();
  }

  name() {
    const { tool, picture, stage, block } = this.found;
    const stem = picture.name.replace(/\.[^.]*$/, "");
    return [stem, tool, stage && `stage-${stage}`, block !== undefined && `block-${block}`].filter(Boolean).join("-");
  }
}
