// State of the view, kept in the address: `#` and the settings that differ from the defaults.

export const DEFAULTS = Object.freeze({
  segment: "", x: null, y: null, zoom: null,
  papyrus: true, layer: 0, depth: 1, low: null, high: null,
  map: true, maps: [], combine: "mean", opacity: 0.9, colours: "inferno", blend: "ink",
  boost: 1, threshold: 0, solid: false, invert: false,
  compare: "off", second: "", flip: false, ink_labels: false, ignore_mask: false,
  objects: "", picked: null, pin: null, region: null,
});

const KEYS = {
  segment: "seg", x: "x", y: "y", zoom: "z", papyrus: "p", layer: "l", depth: "n", low: "lo", high: "hi", map: "m",
  maps: "maps", combine: "k", opacity: "o", colours: "c", blend: "b", boost: "g", threshold: "t", solid: "s",
  invert: "i", compare: "v", second: "with", flip: "f", ink_labels: "il", ignore_mask: "im", objects: "obj", picked: "pick", pin: "pin", region: "r",
};
const NUMBERS = new Set(["x", "y", "zoom", "layer", "depth", "low", "high", "opacity", "boost", "threshold", "picked"]);
const PLACES = { pin: 2, region: 4 };
const CHOICES = {
  combine: ["mean", "max"], blend: ["ink", "cover"], compare: ["off", "side", "difference"],
  colours: ["inferno", "amber", "viridis", "cividis", "grey"],
};
const LIMITS = { opacity: [0, 1], threshold: [0, 1], boost: [0.05, 100], depth: [1, 1e4], layer: [0, 1e4], picked: [1, 2 ** 32 - 1] };

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function read(key, text) {
  if (NUMBERS.has(key)) {
    const value = Number(text), [low, high] = LIMITS[key] ?? [-1e9, 1e9];
    return text !== "" && Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : undefined;
  }
  if (key in PLACES) {
    const parts = text.split(",").map(Number);
    return parts.length === PLACES[key] && parts.every(Number.isInteger) ? parts : undefined;
  }
  if (key in CHOICES) return CHOICES[key].includes(text) ? text : undefined;
  if (key === "maps") return text ? text.split(",") : [];
  return typeof DEFAULTS[key] === "boolean" ? text === "1" : text;
}

export function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const found = {};
  for (const [key, short] of Object.entries(KEYS)) {
    const value = given.has(short) ? read(key, given.get(short)) : undefined;
    if (value !== undefined) found[key] = value;
  }
  return found;
}

export function format(state, defaults) {
  const out = new URLSearchParams();
  for (const [key, short] of Object.entries(KEYS)) {
    const value = state[key];
    if (value === null || same(value, defaults[key])) continue;
    out.set(short, typeof value === "boolean" ? Number(value) : Array.isArray(value) ? value.join(",") : value);
  }
  return "#" + out.toString().replaceAll("%2C", ",");
}

export class Store {
  constructor() {
    this.defaults = { ...DEFAULTS };
    this.state = { ...DEFAULTS };
    this.listeners = [];
  }

  set(changes) {
    const changed = Object.keys(changes).filter((key) => !same(this.state[key], changes[key]));
    if (!changed.length) return;
    this.state = { ...this.state, ...changes };
    for (const listener of this.listeners) listener(this.state, new Set(changed));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), 200);
  }

  write() {
    clearTimeout(this.timer);
    this.timer = null;
    const hash = format(this.state, this.defaults);
    if (hash !== location.hash) history.replaceState(null, "", hash === "#" ? location.pathname : hash);
  }

  listen(listener) { this.listeners.push(listener); }
}
