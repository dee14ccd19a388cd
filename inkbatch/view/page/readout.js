// Values under the cursor, the scale bar, and the colour legend.

const ASK_EVERY_MS = 90;

export async function ask(address) {
  const answer = await fetch(address);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

export class Readout {
  constructor(element, address) {
    this.element = element;
    this.address = address;
    this.asked = 0;
  }

  at(point, group, state) {
    clearTimeout(this.timer);
    const y = Math.floor(point?.y ?? -1), x = Math.floor(point?.x ?? -1);
    if (!group || y < 0 || x < 0 || y >= group.height || x >= group.width) {
      this.element.replaceChildren();
      this.last = null;
      return;
    }
    Object.assign(this.element.dataset, { y, x });
    this.write(y, x, group, this.last?.y === y && this.last?.x === x ? this.last : null, state);
    const wait = Math.max(0, ASK_EVERY_MS - (performance.now() - this.asked));
    this.timer = setTimeout(() => this.fetch(y, x, group, state), wait);
  }

  async fetch(y, x, group, state) {
    this.asked = performance.now();
    try {
      const found = await ask(this.address(y, x));
      this.last = found;
      this.write(y, x, group, found, state);
    } catch { /* the tile that failed says why */ }
  }

  write(y, x, group, found, state) {
    const mm = (pixels) => (pixels * group.voxel_size_um / 1000).toFixed(2);
    const parts = [["y", y], ["x", x]];
    if (group.voxel_size_um) parts.push(["", `${mm(y)}, ${mm(x)} mm`]);
    if (found?.papyrus != null) parts.push(["papyrus", found.papyrus]);
    for (const [name, value] of Object.entries(found?.maps ?? {})) {
      const { unit } = scaleOf(group, [name]);
      const label = Object.keys(found.maps).length > 1 ? name : LABELS[unit] ?? unit;
      parts.push([label, value == null ? (unit === "ink" ? "not computed yet" : "no value") : unit === "layers" ? value : value.toFixed(3)]);
    }
    const values = Object.values(found?.maps ?? {});
    if (state.compare === "difference" && values.length === 2 && values.every((value) => value != null)) {
      parts.push(["difference", (values[0] - values[1]).toFixed(3)]);
    }
    this.element.replaceChildren(...parts.flatMap(([label, value]) => {
      const name = document.createElement("span");
      name.textContent = label;
      return [name, ` ${value} `];
    }));
  }
}

export function scaleBar(element, pixelsPerPixel, voxelSizeUm) {
  element.hidden = !voxelSizeUm;
  if (!voxelSizeUm) return;
  const room = Math.min(180, window.innerWidth / 3);
  const perMm = pixelsPerPixel * 1000 / voxelSizeUm;
  const most = room / perMm;
  const power = 10 ** Math.floor(Math.log10(most));
  const mm = [5, 2, 1].map((step) => step * power).find((length) => length <= most) ?? power;
  element.querySelector(".rule").style.width = `${mm * perMm}px`;
  element.querySelector("span").textContent = mm >= 10 ? `${mm / 10} cm` : mm >= 0.01 ? `${Number(mm.toPrecision(1))} mm` : `${Number((mm * 1000).toPrecision(1))} µm`;
  element.dataset.mm = mm;
}

const INK = { low: 0, high: 1, unit: "ink" };
const MIXED = { low: 0, high: 1, unit: "of each map's range" };
const LABELS = { layers: "best depth" };

// The scale that maps have in common.
export function scaleOf(group, names) {
  const found = names.map((name) => group?.maps.find((map) => map.name === name)?.scale ?? INK);
  const same = found.every((one) => one.unit === found[0].unit && one.low === found[0].low && one.high === found[0].high);
  return same ? found[0] ?? INK : MIXED;
}

const RAMPS = {
  inferno: ["#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4"],
  viridis: ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"],
  cividis: ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"],
  amber: ["#000", "#8c3e00", "#ff9614", "#fff0be"],
  grey: ["#000", "#fff"],
  difference: ["#69d7ff", "#1478d7", "#101014", "#d7640a", "#ffcd5a"],
};

export function legend(element, state, group) {
  const difference = state.compare === "difference";
  element.hidden = !state.map || !state.maps.length;
  const context = element.querySelector("canvas").getContext("2d");
  const ramp = RAMPS[difference ? "difference" : state.colours];
  const gradient = context.createLinearGradient(0, 0, 256, 0);
  ramp.forEach((colour, index) => gradient.addColorStop(index / (ramp.length - 1), colour));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  const { low, high, unit } = scaleOf(group, difference ? [...state.maps, state.second] : state.maps);
  const number = (value) => String(Number(value.toPrecision(2))).replace("-", "−");
  const top = 1 / state.boost, at = (share) => number(low + (high - low) * share);
  const [from, to] = difference ? [number(-top * (high - low)), `+${number(top * (high - low))}`]
    : state.invert ? [at(1), at(Math.max(0, 1 - top))] : [at(0), at(Math.min(1, top))];
  element.querySelector(".from").textContent = from;
  element.querySelector(".to").textContent = difference && unit === "ink" ? to : `${to} ${unit}`;
}
