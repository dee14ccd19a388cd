// The label editor: settings, panel and keys around the tools, the tiles of codes and the connection.

import { Codes, LAYERS } from "./codes.js";
import { Link, tabName } from "./link.js";
import { Overlay } from "./overlay.js";
import { DRAWING, Tools } from "./tools.js";
import { Versions } from "./versions.js";

const $ = (id) => document.getElementById(id);
const DEFAULTS = {
  tool: "brush", layer: "ink", erase: false, radius: 24, opacity: 0.45, outlines: true, hidden: [], band: false,
  uncertain: 0.3, below: 200,
};
const RADII = [1, 2000];
const TAKE_AT = 0.5; // while no threshold is set
const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));
const radiusOf = (place) => Math.round(RADII[1] ** place * 10) / 10;

export class Editor {
  // `view` is the viewer: { stages, store, say(text), group() gives the segment, number() its place }.
  static async start(token, view) {
    return new Editor(token, await tabName(), view);
  }

  constructor(token, tab, view) {
    const kept = JSON.parse(sessionStorage.getItem("inkbatch-paint") ?? "{}");
    Object.assign(this, { view, settings: { ...DEFAULTS, ...kept }, strokes: [], marked: [], lastMs: null });
    this.link = new Link(token, tab, {
      changed: () => this.tell(),
      applied: (item, answer) => this.applied(item, answer),
      refused: (item, error) => this.refused(item, error),
      stale: (session, found) => session === this.link.session && this.codes.refresh(found).catch(() => {}),
    });
    this.codes = new Codes((level, column, row) => this.read(level, column, row), () => this.redraw());
    this.tools = view.stages.map((stage) => new Tools(stage, {
      settings: () => ({ ...this.settings, panning: this.panning, take: this.take() }),
      send: (op) => this.send(op), changed: () => this.redraw(), resize: (factor) => this.resize(factor), refuse: view.say,
    }));
    this.overlays = view.stages.map((stage, number) => new Overlay(stage, this.codes, () => this.shown(number)));
    this.versions = new Versions(this);
    document.body.classList.add("editing");
    for (const id of ["tools", "paint-box", "saved"]) $(id).hidden = false;
    this.listen();
    view.store.listen(() => this.show());
  }

  async open() {
    const group = this.view.number();
    this.link.session = null;
    this.codes.clear();
    this.strokes = [];
    try {
      this.adopt(group, await this.link.describe(group));
    } catch (error) {
      this.view.say(error.message);
      setTimeout(() => !this.link.session && this.open(), 2000);
    }
    this.show();
  }

  // Begin with a version as the server describes it.
  adopt(group, found) {
    this.link.begin(group, found);
    const strokes = this.link.waiting.filter((item) => item.session === this.link.session);
    Object.assign(this, { can: { undo: found.undo, redo: found.redo }, marked: [], strokes });
    this.codes.clear();
    this.versions.open(found);
    this.show();
    this.redraw();
  }

  async read(level, column, row) {
    const { group, version } = this.link.session;
    const answer = await this.link.ask(`${group}/tile/${level}/${column}_${row}?version=${version}`);
    return new Uint8Array(await answer.arrayBuffer());
  }

  shown(number) {
    const tools = this.tools[number];
    return { look: this.settings, strokes: [...this.strokes, ...tools.drafts], draft: tools.corners, changes: this.marked };
  }

  redraw() { for (const overlay of this.overlays) overlay.ask(); }

  set(changes) {
    Object.assign(this.settings, changes);
    sessionStorage.setItem("inkbatch-paint", JSON.stringify(this.settings));
    if (changes.tool) for (const tools of this.tools) tools.drop();
    for (const tools of this.tools) tools.aim();
    this.show();
    this.redraw();
  }

  resize(factor) {
    const radius = clamp(this.settings.radius * factor, RADII);
    this.set({ radius: Math.round(radius * 10) / 10 });
  }

  // The map that is shown, and from which value on it is taken.
  take() {
    const { maps, combine, invert, threshold } = this.view.store.state, { band, uncertain } = this.settings;
    const from = threshold || TAKE_AT;
    const map = maps.length === 1 && !invert ? maps[0] : { maps, combine, invert };
    return { map, threshold: from, ...(band && uncertain < from ? { band: [uncertain, from] } : {}) };
  }

  send(op) {
    if (!this.link.session) return this.view.say("The server does not answer yet.");
    if (this.settings.hidden.includes(op.layer)) this.toggleHidden(op.layer);
    this.strokes.push(this.link.send(op));
    this.redraw();
  }

  async applied(item, answer) {
    this.can = { undo: answer.undo, redo: answer.redo };
    this.link.others = answer.others;
    try {
      if (item.session === this.link.session) await this.codes.refresh(answer);
    } catch { /* its tiles are asked for again with the next picture */ }
    this.strokes = this.strokes.filter((one) => one !== item);
    for (const overlay of this.overlays) overlay.draw();
    this.lastMs = performance.now() - item.at;
  }

  refused(item, error) {
    this.strokes = this.strokes.filter((one) => one !== item);
    this.view.say(`Not painted: ${error.message}`);
    if (item.session === this.link.session) this.codes.refresh({ tiles: error.tiles }).catch(() => {});
    this.link.see();
    this.redraw();
  }

  undo() { this.send({ kind: "undo" }); }

  redo() { this.send({ kind: "redo" }); }

  takeView() { this.send({ kind: "take", ...this.take(), box: this.view.stages[0].visible() }); }

  clean() {
    const { layer, below } = this.settings;
    this.send({ kind: "clean", layer, box: this.view.stages[0].visible(), below_px: below });
  }

  listen() {
    const on = (id, name, action) => $(id).addEventListener(name, action);
    $("paint-layers").addEventListener("change", ({ target }) => {
      if (target.type === "radio") this.set({ layer: target.value });
      else this.toggleHidden(target.value);
    });
    $("tools").addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (!button) return;
      if (DRAWING.includes(button.value) || button.value === "hand") this.set({ tool: button.value });
      else if (button.value === "erase") this.set({ erase: !this.settings.erase });
      else this[button.value]();
    });
    on("radius", "input", ({ target }) => this.set({ radius: radiusOf(Number(target.value)) }));
    on("wash", "input", ({ target }) => this.set({ opacity: Number(target.value) }));
    on("rims", "change", ({ target }) => this.set({ outlines: target.checked }));
    on("band", "change", ({ target }) => this.set({ band: target.checked }));
    on("uncertain", "input", ({ target }) => this.set({ uncertain: Number(target.value) }));
    on("below", "change", ({ target }) => this.set({ below: clamp(Math.round(Number(target.value)) || 1, [1, 100000]) }));
    on("take-view", "click", () => this.takeView());
    on("clean", "click", () => this.clean());
    // A button that was clicked does not keep the space bar, which moves the map.
    for (const id of ["tools", "paint-box"]) on(id, "mousedown", (event) => event.target.closest("button") && event.preventDefault());
    document.addEventListener("keydown", (event) => this.held(event, true));
    document.addEventListener("keyup", (event) => this.held(event, false));
    addEventListener("blur", () => this.pan(false));
  }

  toggleHidden(layer) {
    const { hidden } = this.settings;
    this.set({ hidden: hidden.includes(layer) ? hidden.filter((one) => one !== layer) : [...hidden, layer] });
  }

  toggleAll() { this.set({ hidden: this.settings.hidden.length ? [] : Object.keys(LAYERS) }); }

  held(event, down) {
    if (event.key === " " && !event.target.matches("button, input, select, summary") && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      if (!event.repeat) this.pan(down);
    }
    if (!down || !(event.ctrlKey || event.metaKey) || event.altKey || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) this.redo();
    else this.undo();
  }

  pan(on) {
    this.panning = on;
    for (const tools of this.tools) tools.aim();
  }

  get active() { return this.tools.find((tools) => tools.at || tools.corners.length || tools.op) ?? this.tools[0]; }

  // What the Escape key takes back; false when there is nothing.
  drop() { return this.tools.map((tools) => tools.drop()).some(Boolean); }

  keys() {
    const tool = (name) => () => this.set({ tool: name });
    const layer = (name) => () => this.set({ layer: name });
    const wash = (by) => () => this.set({ opacity: clamp(Math.round((this.settings.opacity + by) * 20) / 20, [0, 1]) });
    return [
      [["1"], "paint ink", layer("ink")], [["2"], "paint not ink", layer("not_ink")],
      [["3"], "paint ignore", layer("ignore")], [["4"], "paint the supervision area", layer("supervision")],
      [["b"], "brush", tool("brush")], [["n"], "polygon, or freehand outline", tool("polygon")],
      [["r"], "rectangle", tool("rectangle")], [["k"], "fill what is joined", tool("fill")],
      [["a"], "accept from the map", tool("take")], [["w"], "smart stroke, to the map's edge", tool("smart")],
      [["v"], "hand: move the map, click for a depth profile", tool("hand")],
      [["e"], "erase instead (also: right button, Alt)", () => this.set({ erase: !this.settings.erase })],
      [["["], "smaller brush (also: Shift and wheel)", () => this.resize(1 / 1.15)], [["]"], "larger brush", () => this.resize(1.15)],
      [["z"], "undo (also: Ctrl Z)", () => this.undo()], [["Z", "y"], "redo (also: Ctrl Y)", () => this.redo()],
      [["A"], "accept all of the view", () => this.takeView()], [["C"], "clean specks in the view", () => this.clean()],
      [["u"], "uncertain becomes ignored, on or off", () => this.set({ band: !this.settings.band })],
      [["q"], "labels on or off", () => this.toggleAll()], [["o"], "outlines on or off", () => this.set({ outlines: !this.settings.outlines })],
      [["j"], "fainter labels", wash(-0.1)], [["J"], "stronger labels", wash(0.1)],
      [["Enter"], "close the polygon, or use the tool at the pointer", () => this.enter()],
      [["Insert"], "set a corner at the pointer", () => this.active.press()],
      [["Backspace"], "take back a corner", () => this.active.drop(true)],
      [["Space"], "hold to move the map", () => {}],
    ];
  }

  enter() {
    const { active } = this;
    if (active.corners.length > 2) active.close();
    else active.press();
  }

  show() {
    const { settings, view } = this, { layer, tool, erase, radius, hidden } = settings, group = view.group();
    for (const box of $("paint-layers").querySelectorAll("input")) box.checked = box.type === "radio" ? box.value === layer : !hidden.includes(box.value);
    for (const button of $("tools").querySelectorAll("button")) {
      const { value } = button;
      if (value === "erase") button.setAttribute("aria-pressed", String(erase));
      else if (value in (this.can ?? {})) button.disabled = !this.can[value];
      else button.setAttribute("aria-pressed", String(value === tool));
      if (["take", "smart"].includes(value)) button.disabled = !group?.maps.length;
    }
    $("radius").value = Math.log(radius) / Math.log(RADII[1]);
    const um = 2 * radius * (group?.voxel_size_um ?? 0);
    $("radius-says").textContent = `${Math.round(2 * radius)} px`;
    $("radius-says").title = `${Math.round(um)} µm across`;
    $("wash").value = settings.opacity;
    $("wash-says").textContent = `${Math.round(settings.opacity * 100)} %`;
    $("rims").checked = settings.outlines;
    $("band").checked = settings.band;
    $("uncertain").value = settings.uncertain;
    $("uncertain-says").textContent = settings.uncertain.toFixed(2);
    $("below").value = settings.below;
    $("take-box").hidden = !group?.maps.length;
    $("take-says").textContent = `Ink from ${(view.store.state.threshold || TAKE_AT).toFixed(2)} on (the map's threshold).`;
    this.tell();
  }

  // Say what is saved, and who else is here.
  tell() {
    const { link } = this, { unsaved, others } = link, strokes = `${unsaved} ${unsaved === 1 ? "stroke" : "strokes"}`;
    const [kind, text] = !link.session ? ["wait", "Connecting…"]
      : link.trouble ? ["away", unsaved ? `Not saved: ${strokes}` : "No server"]
        : unsaved ? ["wait", "Saving…"] : ["saved", "Saved"];
    if ($("saved").textContent !== text) $("saved").textContent = text;
    $("saved").className = `saved ${kind}`;
    $("saved").title = link.trouble || "Strokes are stored as you paint.";
    $("trouble").hidden = !link.trouble;
    $("trouble").textContent = link.trouble && `${link.trouble}${unsaved ? ` ${strokes} wait here and are sent when it is back; leave this page open.` : ""}`;
    const names = [...new Set(others.map((one) => one.author).filter(Boolean))].join(", ");
    $("others").hidden = !others.length;
    $("others").textContent = others.length ? `${others.length} more ${others.length === 1 ? "tab paints" : "tabs paint"} into this version${names ? ` (${names})` : ""}.` : "";
    for (const name of ["undo", "redo"]) $("tools").querySelector(`[value=${name}]`).disabled = !(this.can?.[name] || link.waiting.length);
  }

  get settled() { return Boolean(this.link.session) && this.codes.settled && !this.link.waiting.length && !this.strokes.length; }
}
