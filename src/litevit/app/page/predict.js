// What a model says about the picture, and a second one beside it. Thresholds and toggles are answered here.

import { post } from "./api.js";
import { Chooser } from "./app.js";
import { bitAt } from "./maths.js";
import { $, attempt, el, percent, say, seconds } from "./ui.js";

const SIDE = 900; // about the long side of a drawn picture

export class PredictView {
  constructor(state) {
    this.state = state;
    this.second = new Chooser($("second"), $("second-weights"), $("second-weights-label"), { empty: "nothing else", changed: () => this.update(state) });
    this.second.fill(state.list, "");
    this.panels = [];
    const redraw = () => { $("threshold-value").value = Number($("threshold").value).toFixed(2); for (const p of this.panels) p.draw(); };
    $("threshold").addEventListener("input", redraw);
    $("opacity").addEventListener("input", redraw);
  }

  async update(state) {
    if (!state.picture) {
      $("panels").replaceChildren(el("p", { class: "empty", textContent: "Take a sample above, or drop a picture anywhere on the page." }));
      return;
    }
    const keys = [state.choice, this.second.key].filter(Boolean);
    const asked = JSON.stringify([state.picture.serial, keys]);
    if (asked === this.asked) return;
    this.asked = asked;
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    const { picture } = state;
    $("panels").classList.toggle("two", keys.length > 1);
    $("panels").setAttribute("aria-busy", "true");
    const panels = [];
    for (const key of keys) {
      const start = performance.now();
      const found = await attempt(() => state.ask((id) => post("api/predict", { picture: id, choice: key }, signal), picture));
      if (this.asked !== asked) return;
      panels.push(found ? new Panel(found, picture, performance.now() - start) : new Failed());
    }
    if (panels.some((p) => p instanceof Failed)) this.asked = null; // the same may be asked again
    this.panels = panels;
    const kinds = panels.map((p) => p.found?.kind);
    $("threshold-label").hidden = !kinds.includes("objects");
    $("opacity-label").hidden = !kinds.some((k) => k === "map" || k === "objects");
    $("panels").replaceChildren(...panels.map((p) => p.node));
    $("panels").removeAttribute("aria-busy");
    for (const p of panels) p.draw();
    say(panels.map((p) => p.inWords()).join(" "));
  }
}

class Failed {
  constructor() { this.node = el("p", { class: "empty", textContent: "No answer; the note at the bottom says why." }); }
  draw() {}
  inWords() { return ""; }
}

class Panel {
  constructor(found, picture, milliseconds) {
    Object.assign(this, { found, picture });
    const { width, height } = picture.image;
    this.scale = Math.max(1, Math.round(SIDE / Math.max(width, height))); // lines and names stay sharp on small pictures
    this.canvas = el("canvas", { width: width * this.scale, height: height * this.scale });
    this.paper = el("canvas", { width, height }); // at the size of the arrays
    this.canvas.setAttribute("role", "img");
    this.side = el("div", { class: "side-list" });
    this.hidden = new Set();
    const reduced = found.reduced ? `, picture made smaller: ${found.reduced.join(" × ")}` : "";
    const time = `model ${seconds(found.seconds)}, with the way here ${seconds(milliseconds / 1000)}${reduced}`;
    const random = found.random ? el("span", { class: "badge", textContent: "random weights" }) : null;
    this.node = el("article", { class: "panel" },
      el("header", {}, el("h3", { textContent: found.label }), random, el("span", { class: "muted small", textContent: time })),
      el("div", { class: "panel-body" }, this.canvas, this.side));
    this.node.dataset.kind = found.kind;
    if (found.kind === "classes") this.classes();
    else if (found.kind === "map") this.prepareMap();
    else this.prepareObjects();
  }

  draw() {
    const pixels = this.paper.getContext("2d", { willReadFrequently: true });
    const pen = this.canvas.getContext("2d");
    pixels.drawImage(this.picture.image, 0, 0);
    if (this.found.kind === "map") this.paintMap(pixels);
    else if (this.found.kind === "objects") this.paintMasks(pixels);
    else this.canvas.setAttribute("aria-label", `The picture ${this.picture.name}`);
    pen.imageSmoothingEnabled = this.scale < 3;
    pen.drawImage(this.paper, 0, 0, this.canvas.width, this.canvas.height);
    if (this.found.kind === "objects") this.drawObjects(pen);
  }

  inWords() {
    const { label, random, kind, guesses } = this.found;
    const said = kind === "classes" ? guesses.slice(0, 3).map(({ name, p }) => `${name} ${percent(p)}`).join(", ") : this.canvas.getAttribute("aria-label");
    return `${label}${random && !label.includes("random") ? ", random weights" : ""}: ${said}.`;
  }

  classes() {
    const rows = this.found.guesses.map(({ name, p }) => {
      const fill = el("span", { class: "fill" });
      fill.style.width = `${100 * p}%`;
      return el("li", {}, fill, el("span", { class: "name", textContent: name }), el("span", { class: "number", textContent: percent(p) }));
    });
    this.side.append(el("p", { class: "muted small", textContent: `Most likely classes, at ${this.found.input[1]} × ${this.found.input[0]}` }), el("ol", { class: "guesses" }, ...rows));
  }

  legend(rows) {
    const list = el("ul", { class: "legend" });
    list.setAttribute("aria-label", "Legend");
    for (const { key, name, figure, colour } of rows) {
      const box = el("input", { type: "checkbox", checked: !this.hidden.has(key) });
      box.addEventListener("change", () => { if (box.checked) this.hidden.delete(key); else this.hidden.add(key); this.draw(); });
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = `rgb(${colour.join(",")})`;
      list.append(el("li", {}, el("label", {}, box, swatch, el("span", { class: "name", textContent: name }), el("span", { class: "number muted", textContent: figure }))));
    }
    const all = el("button", { class: "quiet", textContent: "all" });
    const none = el("button", { class: "quiet", textContent: "none" });
    const set = (on) => { for (const box of list.querySelectorAll("input")) if (box.checked !== on) box.click(); };
    all.addEventListener("click", () => set(true));
    none.addEventListener("click", () => set(false));
    return [el("div", {}, el("span", { class: "muted small", textContent: "Show " }), all, none), list];
  }

  prepareMap() {
    const rows = this.found.segments.map((s, key) => ({ key, name: s.name, colour: s.colour,
      figure: s.score === undefined ? percent(s.share) : `${s.score.toFixed(2)}  ${percent(s.share)}` }));
    this.side.append(...this.legend(rows));
  }

  paintMap(pen) {
    const { map } = this.found.arrays;
    const [height, width] = map.shape;
    const strength = Number($("opacity").value);
    const image = pen.getImageData(0, 0, width, height);
    const { data } = image;
    const { segments } = this.found;
    for (let i = 0; i < map.length; i++) {
      const n = map[i];
      if (n >= segments.length || this.hidden.has(n)) continue;
      const edge = (i % width < width - 1 && map[i + 1] !== n) || (i + width < map.length && map[i + width] !== n);
      const own = edge ? Math.min(strength + 0.35, 1) : strength;
      for (let c = 0; c < 3; c++) data[4 * i + c] += own * ((edge ? 0.35 : 1) * segments[n].colour[c] - data[4 * i + c]);
    }
    pen.putImageData(image, 0, 0);
    const seen = segments.filter((_, n) => !this.hidden.has(n)).map((s) => `${s.name} ${percent(s.share)}`);
    this.canvas.setAttribute("aria-label", `${this.picture.name} with ${seen.length} segments: ${seen.slice(0, 12).join(", ")}`);
  }

  prepareObjects() {
    this.count = el("p", { class: "muted" });
    this.count.setAttribute("role", "status");
    this.marks = {};
    const toggles = ["boxes", "names", ...(this.found.arrays.bits ? ["masks"] : [])].map((what) => {
      const box = el("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => this.draw());
      this.marks[what] = box;
      return el("label", { class: "check" }, box, what);
    });
    const rows = this.found.names.map((name) => ({ key: name, name, colour: this.found.colours[name],
      figure: String(this.found.labels.filter((l) => l === name).length) }));
    this.side.append(this.count, el("div", { class: "buttons" }, ...toggles), ...this.legend(rows));
    if (this.found.arrays.bits) { // where each mask's bits begin
      this.starts = [];
      let at = 0;
      for (let n = 0; n < this.found.labels.length; n++) {
        this.starts.push(at);
        at += (this.found.arrays.corners[4 * n + 2] * this.found.arrays.corners[4 * n + 3] + 7) >> 3;
      }
    }
  }

  kept() { // objects that are shown, the surest first
    const least = Number($("threshold").value);
    return this.found.labels.map((_, n) => n).filter((n) => this.found.scores[n] >= least && !this.hidden.has(this.found.labels[n]));
  }

  paintMasks(pen) {
    if (!this.marks.masks?.checked) return;
    const { labels, colours, arrays } = this.found;
    const { width, height } = this.paper;
    const image = pen.getImageData(0, 0, width, height);
    const strength = Number($("opacity").value);
    for (const n of this.kept().reverse()) {
      const [x0, y0, w, h] = arrays.corners.subarray(4 * n, 4 * n + 4);
      const colour = colours[labels[n]];
      for (let k = 0; k < w * h; k++) {
        if (!bitAt(arrays.bits, this.starts[n], k)) continue;
        const at = 4 * ((y0 + Math.floor(k / w)) * width + x0 + (k % w));
        for (let c = 0; c < 3; c++) image.data[at + c] += strength * (colour[c] - image.data[at + c]);
      }
    }
    pen.putImageData(image, 0, 0);
  }

  drawObjects(pen) {
    const { labels, scores, colours, arrays } = this.found;
    const kept = this.kept();
    const { width, height } = this.canvas;
    const line = Math.max(2, Math.round(Math.max(width, height) / 320));
    const size = Math.max(12, Math.round(Math.sqrt(width * height) / 44));
    pen.font = `600 ${size}px system-ui, sans-serif`;
    pen.textBaseline = "top";
    for (const n of [...kept].reverse()) {
      const [x1, y1, x2, y2] = arrays.boxes.subarray(4 * n, 4 * n + 4).map((v) => v * this.scale);
      const colour = colours[labels[n]];
      if (this.marks.boxes.checked) {
        pen.lineWidth = line;
        pen.strokeStyle = `rgb(${colour.join(",")})`;
        pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      }
      if (this.marks.names.checked) {
        const text = `${labels[n]} ${scores[n].toFixed(2)}`;
        const wide = pen.measureText(text).width + 6, tall = size + 4;
        const x = Math.min(Math.max(x1, 0), Math.max(width - wide, 0)), y = y1 >= tall ? y1 - tall : y1;
        pen.fillStyle = `rgb(${colour.join(",")})`;
        pen.fillRect(x, y, wide, tall);
        pen.fillStyle = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140 ? "#000" : "#fff";
        pen.fillText(text, x + 3, y + 2);
      }
    }
    this.count.textContent = `${kept.length} of ${labels.length} objects with a score of at least ${Number($("threshold").value).toFixed(2)}`;
    const said = kept.slice(0, 12).map((n) => `${labels[n]} ${scores[n].toFixed(2)}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.picture.name} with ${kept.length} objects${said ? ": " + said : ""}`);
    this.node.dataset.shown = kept.length;
  }
}
