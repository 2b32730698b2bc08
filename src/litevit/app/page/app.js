// The page: picture, model and weights, and which view is shown. Views get the state and draw themselves.

import { getBlob, getJson, postJson, Refused, renew, setLimits, upload } from "./api.js";
import { LookView } from "./look.js";
import { PredictView } from "./predict.js";
import { RunView } from "./run.js";
import { $, attempt, el, note, options } from "./ui.js";

export const GROUPS = { run: "Training runs and weights", exported: "Exported files" };

// Which model and weights: two selects that make one key of choices.py.
export class Chooser {
  constructor(model, weights, weightsLabel, { empty = null, changed }) {
    Object.assign(this, { model, weights, weightsLabel, empty, changed });
    model.addEventListener("change", () => { this.fillWeights(); changed(); });
    weights.addEventListener("change", () => changed());
  }

  fill(list, chosen) {
    this.list = list;
    const kept = chosen ?? this.key;
    this.model.replaceChildren();
    if (this.empty) this.model.append(el("option", { value: "", textContent: this.empty }));
    for (const [group, title] of Object.entries(GROUPS)) {
      const rows = list.others.filter((o) => o.group === group);
      if (rows.length) this.model.append(el("optgroup", { label: title }, ...rows.map((o) => el("option", { value: o.key, textContent: o.label }))));
    }
    for (const task of [...new Set(list.models.map((m) => m.task))]) {
      const rows = list.models.filter((m) => m.task === task);
      const title = task[0].toUpperCase() + task.slice(1);
      this.model.append(el("optgroup", { label: title }, ...rows.map((m) => el("option", { value: m.name, textContent: m.name }))));
    }
    const [kind, name, weights] = (kept || "").split(":");
    this.model.value = kind === "model" ? name : kept || "";
    if (this.model.selectedIndex < 0) this.model.selectedIndex = 0;
    this.fillWeights(weights);
  }

  fillWeights(chosen) {
    const found = this.list.models.find((m) => m.name === this.model.value);
    this.weightsLabel.hidden = !found;
    if (!found) return;
    const official = { here: "published", elsewhere: "published (not on this machine)", none: "published: there are none" }[found.official];
    const best = found.official === "here" ? "official" : "none";
    options(this.weights, [["official", official, found.official !== "here"], ["none", "none: random"]], chosen ?? best);
  }

  get key() {
    if (!this.model.value) return null;
    return this.weightsLabel.hidden ? this.model.value : `model:${this.model.value}:${this.weights.value}`;
  }
}

// about: what is known of the choice; null while it is opened, or cannot be: `why` says so.
const state = { picture: null, choice: null, about: null, why: null, list: null };
const chooser = new Chooser($("model"), $("weights"), $("weights-label"), { changed: choose });
const views = {};
let shown = "predict", taken = 0, opening = new AbortController();

// A request about a picture; where the server has forgotten it, it is sent once more.
state.ask = async (work, picture = state.picture) => {
  try { return await work(picture.id); } catch (error) {
    if (!(error instanceof Refused) || error.status !== 410) throw error;
    await renew();
    picture.id = (await picture.send()).picture;
    return work(picture.id);
  }
};

async function take(send, sample) {
  const serial = ++taken;
  document.body.setAttribute("aria-busy", "true");
  const done = await attempt(async () => {
    let told;
    try { told = await send(); } catch (error) {
      if (!(error instanceof Refused) || error.status !== 410) throw error;
      await renew();
      told = await send();
    }
    const image = await createImageBitmap(await getBlob(`api/pictures/${told.picture}`));
    if (serial !== taken) return false; // another was chosen meanwhile
    state.picture = { serial, id: told.picture, name: told.name, width: told.width, height: told.height, image, send, sample };
    return true;
  });
  if (serial !== taken) return;
  document.body.removeAttribute("aria-busy");
  for (const button of $("samples").children) button.setAttribute("aria-pressed", String(done ? Number(button.dataset.index) === sample : button.getAttribute("aria-pressed") === "true"));
  if (done) await views[shown].update(state);
}

const takeFile = (file) => take(() => upload(file), -1);

async function choose() {
  state.choice = chooser.key;
  const key = state.choice;
  state.about = state.why = null; // what is known is of the choice before
  opening.abort();
  opening = new AbortController();
  const about = await attempt(async () => {
    try { return await postJson("api/describe", { choice: key }, opening.signal); } catch (error) {
      if (state.choice === key) state.why = error.message;
      throw error;
    }
  });
  if (state.choice !== key) return;
  state.about = about ?? null;
  $("random").hidden = !about?.random;
  if (about) await views[shown].update(state);
}

function show(name) {
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const on = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !on;
  }
  $("source").hidden = name === "run";
  $("random").hidden = name === "run" || !state.about?.random;
  if (shown !== name) views[shown].hide?.();
  shown = name;
  history.replaceState(null, "", `#${name}`);
  views[name].update(state);
}

function tabs() {
  const all = [...document.querySelectorAll('[role="tab"]')];
  for (const [i, tab] of all.entries()) {
    tab.addEventListener("click", () => show(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step ? all[(i + step + all.length) % all.length] : event.key === "Home" ? all[0] : event.key === "End" ? all.at(-1) : null;
      if (next) { event.preventDefault(); next.focus(); show(next.id.slice(4)); }
    });
  }
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const apply = () => {
    const on = chosen === null ? dark.matches : chosen === "dark";
    $("theme").setAttribute("aria-pressed", String(on));
    if (chosen) document.documentElement.dataset.theme = chosen;
  };
  $("theme").addEventListener("click", () => { chosen = $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark"; apply(); });
  dark.addEventListener("change", apply);
  apply();
}

function receive() {
  $("file").addEventListener("change", () => { const [file] = $("file").files; if (file) takeFile(file); $("file").value = ""; });
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => { if (carries(event)) { event.preventDefault(); $("veil").hidden = false; } });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("veil").hidden = true; });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    $("veil").hidden = true;
    if (event.dataTransfer.files.length > 1) note("One picture at a time: the first is taken.");
    takeFile(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => { const [file] = event.clipboardData?.files ?? []; if (file) takeFile(file); });
}

async function start() {
  theme();
  tabs();
  receive();
  const list = await attempt(() => getJson("api/list"));
  if (!list) return;
  state.list = list;
  setLimits(list.limits);
  $("file").setAttribute("aria-description", `${list.limits.readable}; up to ${list.limits.bytes / 2 ** 20} MB`);
  views.predict = new PredictView(state);
  views.look = new LookView(state);
  views.run = new RunView(state);
  chooser.fill(list, list.first);
  list.samples.forEach((sample, i) => {
    const image = el("img", { src: `api/samples/${i}`, alt: sample.title, width: 48, height: 48 });
    const button = el("button", { title: sample.title }, image);
    button.setAttribute("aria-pressed", "false");
    button.dataset.index = i;
    button.addEventListener("click", () => take(() => postJson(`api/samples/${i}`), i));
    $("samples").append(button);
  });
  const wanted = location.hash.slice(1);
  show(wanted in views ? wanted : "predict");
  await choose();
  document.body.dataset.ready = "true";
}

start();
