// Separate objects: which result is drawn, which object is picked, and its row.

import { ask } from "./readout.js";

const $ = (id) => document.getElementById(id);
const round = (value) => Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
const sure = (value) => (value === null ? "–" : value.toFixed(3));
const area = ({ area_px: px, area_mm2: mm2 }) => (mm2 === null ? `${px.toLocaleString("en")} px` : `${mm2 < 0.1 ? `${round(mm2 * 1e6)} µm²` : `${round(mm2)} mm²`} (${px.toLocaleString("en")} px)`);

function length(row, name) {
  const mm = row[`${name}_mm`];
  return mm === null ? `${row[`${name}_px`].toFixed(1)} px` : mm < 1 ? `${round(mm * 1000)} µm` : `${round(mm)} mm`;
}

function lines(row) {
  const found = [
    ["Area", area(row)], ["Equivalent diameter", length(row, "equivalent_diameter")],
    ["Axes", `${length(row, "major_axis")} × ${length(row, "minor_axis")}`], ["Perimeter", length(row, "perimeter")],
    ["Orientation", `${row.orientation_deg.toFixed(0)}°`], ["Circularity", sure(row.circularity)], ["Solidity", sure(row.solidity)],
    ["Mean intensity", row.mean_intensity === null ? "–" : row.mean_intensity.toFixed(1)], ["Mean probability", sure(row.mean_probability)],
    ["Outlined by", row.source === "refined" ? "network" : "watershed of the map"],
    ["Predicted IoU", row.predicted_iou === null ? "none" : sure(row.predicted_iou)],
    ["Centre", `y ${row.centroid_y_px.toFixed(0)}, x ${row.centroid_x_px.toFixed(0)}`],
  ];
  return row.larger_than_tile ? [...found, ["Larger than a tile", "yes"]] : found;
}

export class Objects {
  // `address(query)` asks the server about an object; `reveal(row)` brings it into view.
  constructor(store, address, reveal, say) {
    Object.assign(this, { store, address, reveal, say, element: $("object") });
    $("objects").addEventListener("change", (event) => this.turn(event.target.checked));
    $("objects-of").addEventListener("change", (event) => store.set({ objects: event.target.value, picked: null }));
    $("object-number").addEventListener("change", (event) => {
      this.goTo(Number(event.target.value));
      event.target.blur(); // keys step on from here
    });
    $("object-before").addEventListener("click", () => this.step(-1));
    $("object-after").addEventListener("click", () => this.step(1));
    this.element.querySelector(".close").addEventListener("click", () => store.set({ picked: null }));
  }

  get chosen() { return this.group?.objects.find(({ name }) => name === this.store.state.objects); }

  // What the address asks for, as far as this group has it.
  fit(group, state) {
    const found = group.objects.find(({ name }) => name === state.objects);
    if (!found) Object.assign(state, { objects: "", picked: null });
    else if (!(Number.isInteger(state.picked) && state.picked <= found.count)) state.picked = null;
  }

  open(group) {
    this.group = group;
    $("objects-box").hidden = !group.objects.length;
    $("objects-of").replaceChildren(...group.objects.map(({ name, count }) => new Option(`${name} (${count.toLocaleString("en")})`, name)));
  }

  turn(on) {
    const { objects } = this.store.state;
    if (on === Boolean(objects)) return;
    this.store.set({ objects: on ? $("objects-of").value : "", picked: null });
  }

  toggle() { if (this.group?.objects.length) this.turn(!this.store.state.objects); }

  goTo(number) {
    if (!this.chosen?.count) return;
    this.revealing = true;
    const picked = Math.min(this.chosen.count, Math.max(1, Math.round(number) || 1));
    if (picked === this.store.state.picked) this.show(this.store.state);
    this.store.set({ picked, pin: null });
  }

  step(by) {
    if (this.group?.objects.length) this.turn(true);
    const { picked } = this.store.state;
    this.goTo(picked === null ? (by > 0 ? 1 : this.chosen?.count) : picked + by);
  }

  // Pick the object at a pixel; where there is none, `elsewhere()`.
  async pick(y, x, elsewhere) {
    try {
      const { label } = await ask(this.address({ name: this.store.state.objects, y, x }));
      if (label) this.store.set({ picked: label, pin: null });
      else elsewhere();
    } catch (error) {
      this.say(error.message);
    }
  }

  async show(state) {
    const { chosen } = this;
    $("objects").checked = Boolean(chosen);
    if (chosen) $("objects-of").value = state.objects;
    $("object-number").value = state.picked ?? "";
    $("object-number").max = chosen?.count ?? 1;
    for (const id of ["object-number", "object-before", "object-after"]) $(id).disabled = !chosen?.count;
    const wanted = chosen && state.picked ? this.address({ name: state.objects, label: state.picked, version: chosen.version }) : null;
    if (!wanted) {
      this.element.hidden = true;
      this.shown = null;
      return;
    }
    if (this.shown !== wanted) {
      this.shown = wanted;
      try {
        const found = await ask(wanted);
        if (this.shown !== wanted) return;
        this.draw(found);
      } catch (error) {
        return this.say(error.message);
      }
    }
    if (this.revealing && this.row) this.reveal(this.row);
    this.revealing = false;
  }

  draw({ name, label, row }) {
    this.row = row;
    this.element.querySelector("strong").textContent = `Object ${label.toLocaleString("en")}`;
    this.element.querySelector(".where").textContent = name;
    const cells = row ? lines(row) : [["Row", "none: this result has no instances.csv"]];
    this.element.querySelector("tbody").replaceChildren(...cells.map(([label, value]) => {
      const line = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.scope = "row";
      head.textContent = label;
      cell.textContent = value;
      line.append(head, cell);
      return line;
    }));
    this.element.hidden = false;
  }
}
