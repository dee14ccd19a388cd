// The viewer: two linked stages, the panel, and the address.

import { Editor } from "./edit.js";
import { takeToken, tokenOfTabs } from "./link.js";
import { Objects } from "./objects.js";
import { Panel } from "./panel.js";
import { Profile } from "./profile.js";
import { Readout, ask, legend, scaleBar } from "./readout.js";
import { SaveDialog, drawMark, startMarking } from "./region.js";
import { Stage } from "./stage.js";
import { Store, parse } from "./state.js";

const $ = (id) => document.getElementById(id);
const store = new Store();
const colourNames = ["inferno", "amber", "viridis", "cividis", "grey"];
let groups = [], group = null, marking = null, following = false, moving = null, editor = null;

const path = (what, rest = "") => `/${what}/${groups.indexOf(group)}${rest}`;
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== null)).toString();
const range = (state) => [state.layer, state.layer + state.depth];
const version = (names) => names.map((name) => group.maps.find((map) => map.name === name)?.version).join("-");

function mapLook(state, names, minus) {
  const plain = { maps: names, combine: state.combine, blend: state.blend, boost: state.boost, threshold: state.threshold };
  return minus ? { ...plain, minus } : { ...plain, colours: state.colours, invert: state.invert, solid: state.solid };
}

// Choose the predictions of each stage, and the one that is subtracted.
function choices(state) {
  if (state.compare === "difference") return [{ names: state.maps, minus: state.second }];
  const first = { names: state.maps };
  return state.compare === "side" ? [first, { names: [state.second] }] : [first];
}

function showLayers(stage, state, choice) {
  const papyrus = state.papyrus && (group.layers.length || group.photograph) ? query({ range: range(state), low: state.low, high: state.high }) : null;
  stage.show("papyrus", papyrus, papyrus && ((level, x, y) => path("tile", `/papyrus/${level}/${x}_${y}?${papyrus}`)));
  const named = state.map && choice.names.length ? [...choice.names, ...(choice.minus ? [choice.minus] : [])] : null;
  const map = named && query({ ...mapLook(state, choice.names, choice.minus), version: version(named) });
  stage.show("map", map, map && ((level, x, y) => path("tile", `/map/${level}/${x}_${y}?${map}`)), state.opacity);
  const partial = named?.filter((name) => group.maps.some((one) => one.name === name && !one.complete)) ?? [];
  const lines = { ink_labels: state.ink_labels && group.overlays.includes("ink_labels"), ignore_mask: state.ignore_mask && group.overlays.includes("ignore_mask") };
  const shown = objects.chosen, versions = [version(partial), shown?.version].filter(Boolean).join("-");
  const wanted = lines.ink_labels || lines.ignore_mask || partial.length || shown;
  const outlines = wanted ? query({ ...lines, objects: shown?.name, picked: shown && state.picked, ...(partial.length ? { maps: partial } : {}), ...(versions ? { version: versions } : {}) }) : null;
  stage.show("outlines", outlines, outlines && ((level, x, y) => path("tile", `/outlines/${level}/${x}_${y}?${outlines}`)));
}

function describe(state, choice) {
  const several = choice.names.length > 1 ? `${state.combine === "max" ? "Maximum" : "Mean"} of ${choice.names.length}` : choice.names[0];
  return choice.minus ? `${several} − ${choice.minus}` : several;
}

const events = {
  moved(stage) {
    if (!group || !stage.placed) return;
    follow(stage);
    scaleBar($("scale"), stages[0].scale, group.voxel_size_um);
    marks();
    if (stage === stages[0]) {
      clearTimeout(moving);
      moving = setTimeout(() => {
        moving = null;
        const { x, y, zoom } = stages[0].look();
        store.set({ x: Math.round(x), y: Math.round(y), zoom: Number(zoom.toPrecision(4)) });
      }, 150);
    }
  },
  hovered(stage, point) {
    readout.at(point, group, store.state);
    for (const other of stages) {
      const ghost = other.element.querySelector(".ghost");
      ghost.hidden = !point || other === stage || store.state.compare !== "side";
      if (!ghost.hidden) put(ghost, other.toScreen(point.x, point.y));
    }
  },
  clicked(stage, point) {
    const y = Math.floor(point.y), x = Math.floor(point.x);
    if (y < 0 || x < 0 || y >= group.height || x >= group.width) return;
    const pin = () => store.set({ pin: group.layers.length ? [y, x] : null, picked: null });
    if (objects.chosen) objects.pick(y, x, pin);
    else pin();
  },
  opened(stage) {
    if (stage.placed) return;
    stage.placed = true;
    if (stage !== stages[0]) return stage.goTo(stages[0].look());
    const { x, y, zoom } = store.state;
    if (x !== null && y !== null && zoom) stage.goTo({ x, y, zoom });
    else stage.home(true);
  },
  async failed({ tile }) {
    try {
      await ask(tile.getUrl());
    } catch (error) {
      say(error.message);
    }
  },
};

const stages = [new Stage($("stage-one"), Object.assign(events, { navigator: true })), new Stage($("stage-two"), Object.assign(Object.create(events), { navigator: false }))];
const readout = new Readout($("readout"), (y, x) => {
  const { state } = store;
  const names = new Set(state.map ? state.maps : []);
  if (state.map && state.compare !== "off") names.add(state.second);
  const maps = names.size ? [...names] : undefined;
  return path("value", `?${query({ y, x, maps, range: state.papyrus && group.layers.length ? range(state) : undefined })}`);
});
const objects = new Objects(store, (values) => path("object", `?${query(values)}`), reveal, say);
const profile = new Profile($("profile"), () => store.set({ pin: null }));
const saving = new SaveDialog($("save-dialog"), () => {
  const { state } = store, [first, second] = choices(state);
  const settings = { opacity: state.opacity, outlines: { ink_labels: state.ink_labels, ignore_mask: state.ignore_mask, ...(objects.chosen ? { objects: state.objects, picked: state.picked } : {}) } };
  if (state.papyrus && (group.layers.length || group.photograph)) settings.papyrus = { range: range(state), low: state.low, high: state.high };
  if (state.map && state.maps.length) settings.map = mapLook(state, first.names, first.minus);
  if (settings.map && second) settings.beside = mapLook(state, second.names);
  return { stage: stages[0], group, state, settings, address: (look) => path("picture", `?${query({ look: JSON.stringify(look) })}`) };
});

function put(element, position) {
  element.style.left = `${position.x}px`;
  element.style.top = `${position.y}px`;
}

function follow(stage) {
  if (following || store.state.compare !== "side") return;
  following = true;
  for (const other of stages) if (other !== stage && other.group) other.goTo(stage.look());
  following = false;
}

// Bring an object into view, large enough to see it.
function reveal({ y0, x0, y1, x1 }) {
  const [top, left, bottom, right] = stages[0].visible(), { zoom } = stages[0].look(), { clientWidth, clientHeight } = stages[0].element;
  const fits = Math.min(clientWidth, clientHeight) / 3 / Math.max(y1 - y0, x1 - x0, 1);
  const isSmall = zoom < fits / 8, isSeen = y0 >= top && x0 >= left && y1 <= bottom && x1 <= right;
  if (isSeen && !isSmall) return;
  stages[0].goTo({ y: (y0 + y1) / 2, x: (x0 + x1) / 2, zoom: isSmall ? Math.min(4, fits) : Math.min(zoom, fits * 3) }, false);
}

function marks() {
  const { state } = store;
  for (const stage of stages) {
    if (stage.element.hidden || !stage.viewer.world.getItemCount()) continue;
    const pin = stage.element.querySelector(".pin");
    pin.hidden = !state.pin;
    if (state.pin) put(pin, stage.toScreen(state.pin[1] + 0.5, state.pin[0] + 0.5));
    drawMark(stage, state.region);
  }
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("message").hidden = true; }, 9000);
}

function render(state) {
  const shown = choices(state);
  stages[1].element.hidden = shown.length < 2;
  stages.forEach((stage, number) => {
    const choice = shown[number];
    const tag = stage.element.querySelector(".tag");
    tag.hidden = !choice || !state.map || !choice.names.length || (state.compare === "off" && choice.names.length < 2);
    if (!choice) return;
    tag.textContent = describe(state, choice);
    stage.viewport?.setFlip(state.flip);
    showLayers(stage, state, choice);
  });
  legend($("legend"), state, group);
  marks();
  objects.show(state);
  if (state.pin && group.layers.length) profile.show(path("profile", `?y=${state.pin[0]}&x=${state.pin[1]}`), state, group);
  else profile.hide();
}

function openGroup(wanted) {
  group = groups.find((one) => one.segment === wanted) ?? groups[0];
  document.title = `${group.segment} · inkbatch`;
  const top = group.dtype === "uint16" ? 65535 : 255;
  const names = group.maps.map((map) => map.name);
  const second = names[1] ?? names[0] ?? "";
  store.defaults = { ...store.defaults, segment: groups[0].segment, layer: Math.floor(group.layers.length / 2), low: 0, high: top, maps: names.slice(0, 1), second, objects: group.photograph ? group.objects[0].name : "" };
  objects.open(group);
  for (const stage of stages) { stage.open(group); stage.placed = false; }
}

// Take what an address asks for, as far as this segment has it.
function fitted(given) {
  const names = group.maps.map((map) => map.name);
  const state = { ...store.defaults, ...given, segment: group.segment };
  const known = state.maps.filter((name) => names.includes(name));
  state.maps = known.length || !names.length ? known : names.slice(0, 1);
  if (!names.includes(state.second)) state.second = store.defaults.second;
  if (names.length < 2) state.compare = "off";
  const count = Math.max(1, group.layers.length);
  state.layer = Math.min(Math.floor(state.layer), count - 1);
  state.depth = Math.min(Math.floor(state.depth), count - state.layer);
  if (!(state.low < state.high)) [state.low, state.high] = [store.defaults.low, store.defaults.high];
  objects.fit(group, state);
  const inside = (y, x) => y >= 0 && x >= 0 && y <= group.height && x <= group.width;
  if (state.pin && !inside(state.pin[0] + 1, state.pin[1] + 1)) state.pin = null;
  if (state.region && !(inside(state.region[0], state.region[1]) && inside(state.region[2], state.region[3]) && state.region[0] < state.region[2] && state.region[1] < state.region[3])) state.region = null;
  return state;
}

async function stretch() {
  const found = await ask(path("range", `?range=${range(store.state)}`));
  store.set({ low: found.low, high: found.high });
}

function mark() {
  if (marking) return marking(null);
  if (store.state.region) return store.set({ region: null });
  $("mark").setAttribute("aria-pressed", "true");
  say("Drag a rectangle over the region.");
  marking = startMarking(stages.filter((stage) => !stage.element.hidden), (region) => {
    marking = null;
    $("message").hidden = true;
    store.set({ region });
    panel.show(store.state);
  }, (region) => stages.forEach((stage) => stage.element.hidden || drawMark(stage, region)));
}

async function copyLink() {
  store.write();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this view is in the clipboard.");
  } catch {
    say("The address of this page is the link: copy it from the browser's address bar.");
  }
}

const actions = {
  home: () => stages[0].home(), actual: () => stages[0].goTo({ ...stages[0].look(), zoom: 1 }, false),
  reset: () => { store.set({ ...fitted({}), x: null, y: null, zoom: null }); stages[0].home(); },
  stretch: () => stretch().catch((error) => say(error.message)),
  unstretch: () => store.set({ low: store.defaults.low, high: store.defaults.high }),
  mark, save: () => saving.open(), link: copyLink, help: () => $("help-dialog").showModal(),
};
const panel = new Panel(store, actions);

const step = (key, by, low, high) => () => store.set({ [key]: Number(Math.min(high, Math.max(low, store.state[key] + by)).toFixed(2)) });
const toggle = (key) => () => store.set({ [key]: !store.state[key] });
const compare = (kind) => () => group.maps.length > 1 && store.set({ compare: store.state.compare === kind ? "off" : kind });
const layerStep = (by) => () => store.set({ layer: Math.max(0, Math.min(group.layers.length - store.state.depth, store.state.layer + by)) });
const MOVED = { 1: "9", b: "B", r: "R", o: "O", "[": "{", "]": "}" }; // keys that painting needs
let keys = [
  [["+"], "zoom in", () => stages[0].viewport.zoomBy(1.5)], [["-"], "zoom out", () => stages[0].viewport.zoomBy(1 / 1.5)],
  [["0"], "whole segment", actions.home], [["1"], "full size (1 : 1)", actions.actual],
  [[","], "a layer up", layerStep(-1)], [["."], "a layer deeper", layerStep(1)],
  [["p"], "papyrus on or off", toggle("papyrus")], [["m"], "ink map on or off", toggle("map")],
  [["["], "less opacity", step("opacity", -0.1, 0, 1)], [["]"], "more opacity", step("opacity", 0.1, 0, 1)],
  [["t"], "higher threshold", step("threshold", 0.05, 0, 1)], [["T"], "lower threshold", step("threshold", -0.05, 0, 1)],
  [["c"], "next colours", () => store.set({ colours: colourNames[(colourNames.indexOf(store.state.colours) + 1) % colourNames.length] })],
  [["b"], "ink only or cover", () => store.set({ blend: store.state.blend === "ink" ? "cover" : "ink" })],
  [["i"], "invert", toggle("invert")], [["f"], "flip horizontally", toggle("flip")],
  [["x"], "side by side", compare("side")], [["d"], "difference", compare("difference")],
  [["l"], "ink labels", toggle("ink_labels")], [["g"], "ignore mask", toggle("ignore_mask")],
  [["o"], "objects on or off", () => objects.toggle()], [["<"], "the object before", () => objects.step(-1)], [[">"], "the next object", () => objects.step(1)],
  [["r"], "mark a region", mark], [["s"], "save a picture", actions.save],
  [["Escape"], "close, clear marks", () => (editor?.drop() ? null : marking ? marking(null) : store.set({ pin: null, region: null, picked: null }))], [["?"], "this help", actions.help],
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !group || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("select, input:not([type=checkbox])");
  if (event.key === "Enter" && event.target.matches("button, a, summary")) return;
  if (event.key in ARROWS && !typing) {
    const [x, y] = ARROWS[event.key], bounds = stages[0].viewport.getBounds();
    const side = store.state.flip ? -x : x;
    stages[0].viewport.panBy(new OpenSeadragon.Point(side * bounds.width * 0.2, y * bounds.height * 0.2));
    return event.preventDefault();
  }
  const found = keys.find(([names]) => names.includes(event.key) || (event.key === "=" && names.includes("+")));
  if (!found || (typing && !event.target.matches("input[type=range]"))) return;
  event.preventDefault();
  found[2]();
});

function listKeys() {
  $("keys").replaceChildren(...keys.flatMap(([names, text]) => {
    const term = document.createElement("dt"), meaning = document.createElement("dd");
    term.append(...names.map((key) => Object.assign(document.createElement("kbd"), { textContent: key === "Escape" ? "Esc" : key })));
    meaning.textContent = text;
    return [term, meaning];
  }));
}

async function startEditing(token) {
  token ??= await tokenOfTabs(() => say("To paint, open the address that inkbatch view printed: it carries a token."));
  editor = await Editor.start(token, { stages, store, say, group: () => group, number: () => groups.indexOf(group) });
  keys = [...editor.keys(), ...keys.map(([names, ...rest]) => [names.map((key) => MOVED[key] ?? key), ...rest])];
  window.inkbatch.editor = editor;
  listKeys();
  await editor.open();
}

store.listen((state, changed) => {
  if (!group) return;
  if (changed.has("segment") && state.segment !== group.segment) {
    openGroup(state.segment);
    panel.open(group, groups);
    editor?.open();
    return store.set({ ...fitted({}), x: null, y: null, zoom: null });
  }
  if ([...changed].some((key) => !["x", "y", "zoom"].includes(key))) render(state);
});
window.addEventListener("hashchange", () => {
  if (new URLSearchParams(location.hash.slice(1)).has("token")) {
    const token = takeToken();
    return editor ? editor.link.renew(token) : location.reload();
  }
  const given = parse(location.hash);
  if (given.segment && given.segment !== group.segment) return location.reload();
  store.set(fitted(given));
  if (given.zoom) stages[0].goTo(store.state, false);
});

async function start() {
  const token = takeToken();
  let scene;
  try {
    scene = await ask("/scene");
    groups = scene.groups.map((one) => ({ ...one, tile_px: scene.tile_px }));
  } catch (error) {
    return say(error.message);
  }
  const given = parse(location.hash);
  openGroup(given.segment);
  panel.open(group, groups);
  objects.revealing = Boolean(given.picked && !given.zoom);
  store.set(fitted(given));
  panel.show(store.state);
  render(store.state);
  if (scene.edit) await startEditing(token);
}

// For tests, and for the browser's console.
window.inkbatch = { store, stages, settled: () => !moving && !store.timer && (!editor || editor.settled) && stages.every((stage) => stage.element.hidden || stage.settled) };
listKeys();
start();
