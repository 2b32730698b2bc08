// A training run: its curves, live while it trains, what it confuses and its surest mistakes.

import { getBlob, getJson, post } from "./api.js";
import { $, attempt, chart, el, options, percent, rgbBitmap, say, short } from "./ui.js";

const EVERY = 2000; // milliseconds between two looks at a run that trains

export class RunView {
  constructor(state) {
    this.state = state;
    this.run = null;
    $("run").addEventListener("change", () => this.open($("run").value));
    document.addEventListener("visibilitychange", () => this.tick());
  }

  async update() {
    this.active = true;
    const told = await attempt(() => getJson("api/runs"));
    const runs = told?.runs ?? [];
    options($("run"), runs.map((name) => [name, name]), this.run ?? runs[0]);
    $("run").disabled = !runs.length;
    if (!runs.length) {
      $("run-state").textContent = "none";
      $("run-body").replaceChildren(el("div", { class: "empty" }, el("p", { textContent: "No training run was given." }),
        el("p", {}, "Start the page with ", el("code", { textContent: "litevit app --run runs" }), ": a run's folder, or one that holds runs. ", el("code", { textContent: "litevit train quickstart" }), " makes a first one.")));
      return;
    }
    if (this.run !== $("run").value) await this.open($("run").value);
    else this.tick();
  }

  hide() { this.active = false; clearTimeout(this.timer); }

  async open(name) {
    this.run = name;
    this.rows = [];
    this.drawn = "";
    this.examined = null;
    $("run-body").replaceChildren();
    await this.tick();
  }

  async tick() {
    clearTimeout(this.timer);
    if (!this.active || !this.run || document.hidden) return;
    const name = this.run;
    const told = await attempt(async () => {
      try { return await getJson(`api/runs/${encodeURIComponent(name)}?after=${this.rows.length}`); } catch (error) {
        if (error.status !== 404) throw error;
        return { state: "gone" };
      }
    });
    if (this.run !== name || !this.active) return;
    if (told?.state === "gone") { // what was read stays on the page
      $("run-state").textContent = "its folder is no longer there";
      $("run-state").className = "badge";
      this.drawn = "";
    } else if (told) {
      this.rows = [...this.rows.slice(0, told.from), ...told.rows];
      this.told = told;
      const now = JSON.stringify([this.rows.length, told.state, told.pictures, told.examinable]);
      if (now !== this.drawn) { this.drawn = now; this.draw(); }
    }
    this.timer = setTimeout(() => this.tick(), told?.state === "training" ? EVERY : 5 * EVERY);
  }

  draw() {
    const { told, rows } = this;
    const words = { training: "training", finished: "finished", quiet: "no new line for two minutes" };
    $("run-state").textContent = words[told.state];
    $("run-state").className = `badge ${told.state}`;
    const train = rows.filter((r) => r.kind === "train"), tested = rows.filter((r) => r.kind === "eval");
    const last = train.at(-1) ?? {}, best = told.result ?? tested.at(-1) ?? {};
    const skip = new Set(["kind", "step", "epoch", "images", "loss"]);
    const metrics = Object.keys(tested[0] ?? best).filter((k) => !skip.has(k) && typeof (tested[0] ?? best)[k] === "number").slice(0, 4);
    const tile = (value, name) => el("div", { class: "tile" }, el("b", { class: value.length > 9 ? "long" : "", textContent: value }), el("span", { textContent: name }));
    const tiles = [
      ...(last.step !== undefined ? [tile(`${last.step}`, `step, epoch ${(last.epoch ?? 0) + 1}`), tile(short(last.loss), "training loss")] : []),
      ...metrics.slice(0, 2).map((m) => tile(short(best[m]), `${m}, ${told.result ? "best weights" : "last evaluation"}`)),
      ...(last.images_per_s ? [tile(short(last.images_per_s), "images a second")] : []),
      ...told.summary.filter(([k]) => ["model", "data", "epochs"].includes(k)).map(([k, v]) => tile(v, k)),
    ];
    const pick = (list, key) => ({ x: list.map((r) => r.step), y: list.map((r) => r[key] ?? null) });
    const charts = [];
    const add = (title, series, keys) => {
      const svg = chart(title, series, { xTitle: "optimizer step" });
      if (svg) charts.push(el("div", { class: "card chart" }, el("h2", { textContent: title }), el("figure", {}, svg, keys ? el("figcaption", {}, el("span", { class: "key" }), "training", el("span", { class: "key b" }), "held out") : null)));
    };
    add("loss", [{ name: "training", ...pick(train, "loss") }, ...(tested.some((r) => r.loss !== undefined) ? [{ name: "held out", ...pick(tested, "loss"), dots: true, b: true }] : [])], tested.some((r) => r.loss !== undefined));
    for (const m of metrics) add(m, [{ name: "held out", ...pick(tested, m), dots: true, b: true }]);
    add("learning rate", [{ name: "learning rate", ...pick(train, "lr") }]);
    this.more ??= el("div");
    $("run-body").replaceChildren(el("div", { class: "tiles" }, ...tiles), el("div", { class: "charts" }, ...charts), this.more);
    this.drawMore();
  }

  drawMore() {
    const { told } = this;
    const cards = [];
    if (this.examined) cards.push(...this.examined);
    else if (told.examinable) {
      const button = el("button", { class: "primary", textContent: "Examine the held-out images" });
      button.addEventListener("click", () => this.examine(button));
      cards.push(el("div", { class: "card" }, el("h2", { textContent: "What it gets wrong" }), el("p", { class: "muted", textContent: "The best weights so far, on the held-out images: confusion and surest mistakes. It takes up to half a minute." }), button));
    }
    const key = JSON.stringify(told.pictures) + this.run;
    if (this.sheetsKey !== key) {
      this.sheetsKey = key;
      this.sheets = told.pictures.filter((p) => !told.examinable || p !== "confusion.png").map((name) => {
        const image = el("img", { class: "sheet", alt: `${name} as training has drawn it` });
        attempt(async () => { image.src = URL.createObjectURL(await getBlob(`api/runs/${encodeURIComponent(this.run)}/${name}`)); });
        return el("div", { class: "card whole" }, el("h2", { textContent: name === "predictions.png" ? "Held-out images, drawn at the end of training" : "Confusion, drawn at the end of training" }), image);
      });
    }
    this.more.className = "more";
    this.more.replaceChildren(...cards, ...this.sheets);
  }

  async examine(button) {
    const run = this.run;
    button.disabled = true;
    button.textContent = "Examining…";
    const found = await attempt(() => post(`api/runs/${encodeURIComponent(run)}/examine`));
    if (this.run !== run) return;
    if (!found) { button.disabled = false; button.textContent = "Try again"; return; }
    say(`Examined: ${found.right} of ${found.seen} right.`);
    this.examined = [this.confusion(found), this.mistakes(found)];
    this.drawMore();
  }

  confusion({ names, seen, of, right, arrays }) {
    const { confusion } = arrays, K = names.length;
    const said = `${right} of ${seen} right (${percent(right / Math.max(seen, 1))})${seen < of ? `; ${seen} of ${of} images, spread over the set, in the time there is` : ""}.`;
    const body = [];
    if (K <= 30) {
      const table = el("table", { class: "confusion" }, el("caption", { class: "muted small", textContent: "Rows: what they are. Columns: what the model says." }));
      table.append(el("tr", {}, el("td"), ...names.map((n) => el("th", { scope: "col", textContent: n }))));
      for (let r = 0; r < K; r++) {
        let total = 0;
        for (let c = 0; c < K; c++) total += confusion[r * K + c];
        table.append(el("tr", {}, el("th", { scope: "row", textContent: names[r] }), ...names.map((_, c) => {
          const count = confusion[r * K + c], cell = el("td", { textContent: count || "" });
          if (count) cell.style.background = r === c ? `color-mix(in srgb, var(--accent) ${Math.round(8 + (27 * count) / total)}%, var(--card))` : `color-mix(in srgb, var(--bad) ${Math.round(12 + (20 * count) / total)}%, var(--card))`;
          return cell;
        })));
      }
      body.push(el("div", { class: "scroll", tabIndex: 0, role: "region", ariaLabel: "Confusion matrix" }, table));
    } else {
      const pairs = [];
      for (let r = 0; r < K; r++) for (let c = 0; c < K; c++) if (r !== c && confusion[r * K + c]) pairs.push([confusion[r * K + c], names[r], names[c]]);
      pairs.sort((a, b) => b[0] - a[0]);
      body.push(el("ol", {}, ...pairs.slice(0, 20).map(([n, is, say]) => el("li", { textContent: `${is} taken for ${say}: ${n}` }))));
    }
    return el("div", { class: "card" }, el("h2", { textContent: "Confusion" }), el("p", { textContent: said }), ...body);
  }

  mistakes({ mistakes, arrays }) {
    const side = arrays.pictures.shape[1];
    const figures = mistakes.map((m, n) => {
      const canvas = rgbBitmap(arrays.pictures, side, side, 3 * side * side * n);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${m.is}, taken for ${m.said}`);
      return el("figure", {}, canvas, el("figcaption", {}, el("b", { textContent: `${m.said} ${percent(m.p)}` }), el("br"), `is ${m.is}`));
    });
    return el("div", { class: "card" }, el("h2", { textContent: "Surest mistakes" }), figures.length ? el("div", { class: "mistakes" }, ...figures) : el("p", { textContent: "None among these images." }));
  }
}
