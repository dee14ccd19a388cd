// Depth profile of the clicked pixel: grey value against layer.

import { ask } from "./readout.js";

const WIDTH = 360, HEIGHT = 168, LEFT = 34, RIGHT = 8, TOP = 8, BOTTOM = 30;

function node(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export class Profile {
  constructor(element, close) {
    this.element = element;
    element.querySelector(".close").addEventListener("click", close);
  }

  hide() { this.element.hidden = true; this.shown = null; }

  async show(address, state, group) {
    if (this.shown === address) return this.draw(this.found, state, group);
    this.shown = address;
    try {
      const found = await ask(address);
      if (this.shown !== address) return;
      this.found = found;
      this.draw(found, state, group);
    } catch (error) {
      this.element.querySelector(".note").textContent = error.message;
    }
  }

  draw(found, state, group) {
    if (!found) return;
    this.element.hidden = false;
    this.element.querySelector(".where").textContent = `y ${found.y}, x ${found.x}`;
    const svg = this.element.querySelector("svg");
    const all = [...found.values, ...found.around];
    const high = Math.max(...all), low = Math.min(...all), span = Math.max(1, high - low);
    const bottom = Math.max(0, Math.floor(low - span * 0.08)), top = Math.min(group.dtype === "uint16" ? 65535 : 255, Math.ceil(high + span * 0.08));
    const step = (WIDTH - LEFT - RIGHT) / Math.max(1, found.layers.length - 1);
    const x = (index) => LEFT + index * step;
    const y = (value) => HEIGHT - BOTTOM - (value - bottom) / (top - bottom || 1) * (HEIGHT - TOP - BOTTOM);
    const line = (values) => values.map((value, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const parts = [];
    for (const value of [bottom, Math.round((bottom + top) / 2), top]) {
      parts.push(node("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
      parts.push(node("text", { x: LEFT - 5, y: y(value) + 3, "text-anchor": "end" }, value));
    }
    const every = Math.max(1, Math.ceil(found.layers.length / 7));
    found.layers.forEach((layer, index) => {
      if (index % every === 0) parts.push(node("text", { x: x(index), y: HEIGHT - 16, "text-anchor": "middle" }, layer));
    });
    parts.push(node("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "layer, in depth order"));
    const first = x(state.layer) - step / 2;
    const left = Math.max(LEFT, first), right = Math.min(WIDTH - RIGHT, first + step * state.depth);
    parts.push(node("rect", { class: "shown", x: left, width: Math.max(2, right - left), y: TOP, height: HEIGHT - TOP - BOTTOM }));
    parts.push(node("path", { class: "around", d: line(found.around) }), node("path", { class: "pixel", d: line(found.values) }));
    svg.replaceChildren(...parts);
    svg.setAttribute("aria-label", `Grey value against layer: ${found.values.join(", ")}`);
    const note = this.element.querySelector(".note");
    const bold = document.createElement("b");
    bold.textContent = "This pixel";
    note.replaceChildren(bold, ` · dashed: mean of ${found.around_px} × ${found.around_px} px · shaded: layers shown (${group.segment})`);
  }
}
