// Regions: mark one, and save pictures of it, of the view, or of the whole segment.

const GAP_PX = 8;
const LONGEST_PX = 1000000;

export function drawMark(stage, region) {
  const box = stage.element.querySelector(".marked");
  box.hidden = !region;
  if (!region) return;
  const one = stage.toScreen(region[1], region[0]), other = stage.toScreen(region[3], region[2]);
  box.style.left = `${Math.min(one.x, other.x)}px`;
  box.style.top = `${one.y}px`;
  box.style.width = `${Math.abs(other.x - one.x)}px`;
  box.style.height = `${other.y - one.y}px`;
}

// Let the user drag a rectangle; calls `done` with [y0, x0, y1, x1] in full-size pixels, or with null.
export function startMarking(stages, done, changed) {
  const stops = [];
  const stop = (region) => {
    for (const undo of stops) undo();
    done(region);
  };
  for (const stage of stages) {
    stage.marking = true;
    stage.element.classList.add("marking");
    stage.viewer.setMouseNavEnabled(false);
    let start = null, region = null;
    const clamp = (value, top) => Math.round(Math.min(top, Math.max(0, value)));
    const place = (event) => {
      const point = stage.toImage(stage.inside(event));
      return { y: clamp(point.y, stage.group.height), x: clamp(point.x, stage.group.width) };
    };
    const down = (event) => { start = place(event); stage.element.setPointerCapture(event.pointerId); event.preventDefault(); };
    const move = (event) => {
      if (!start) return;
      const end = place(event);
      region = [Math.min(start.y, end.y), Math.min(start.x, end.x), Math.max(start.y, end.y), Math.max(start.x, end.x)];
      changed(region);
    };
    const up = () => { if (start) stop(region && region[2] > region[0] && region[3] > region[1] ? region : null); };
    const handlers = { pointerdown: down, pointermove: move, pointerup: up };
    for (const [name, handler] of Object.entries(handlers)) stage.element.addEventListener(name, handler, true);
    stops.push(() => {
      stage.marking = false;
      stage.element.classList.remove("marking");
      stage.viewer.setMouseNavEnabled(true);
      for (const [name, handler] of Object.entries(handlers)) stage.element.removeEventListener(name, handler, true);
    });
  }
  return stop;
}

function sizeOf(box, level) {
  const factor = 2 ** level;
  const cells = (from, to) => Math.ceil(to / factor) - Math.floor(from / factor);
  return { height: cells(box[0], box[2]), width: cells(box[1], box[3]) };
}

// In powers of 1024, as every other part of inkbatch says bytes.
const bytes = (count) => count > 2 ** 30 ? `${(count / 2 ** 30).toFixed(1)} GiB` : count > 2 ** 20 ? `${Math.round(count / 2 ** 20)} MiB` : `${Math.max(1, Math.round(count / 1024))} KiB`;

export class SaveDialog {
  // `shown()` gives { stage, group, state, settings, address(look) }.
  constructor(dialog, shown) {
    this.dialog = dialog;
    this.shown = shown;
    this.part = dialog.querySelector("#save-part");
    this.size = dialog.querySelector("#save-size");
    this.go = dialog.querySelector("#save-go");
    for (const select of [this.part, this.size]) select.addEventListener("change", () => this.update());
    this.go.addEventListener("click", () => setTimeout(() => dialog.close(), 100));
  }

  open() {
    const { state } = this.shown();
    this.part.querySelector("[value=region]").disabled = !state.region;
    this.part.value = state.region ? "region" : "view";
    this.update();
    this.dialog.showModal();
  }

  update() {
    const { stage, group, state, settings, address } = this.shown();
    const box = { view: () => stage.visible(), region: () => state.region, whole: () => [0, 0, group.height, group.width] }[this.part.value]();
    const sharp = Math.max(0, Math.min(group.levels - 1, Math.floor(Math.log2(1 / stage.scale) + 0.01)));
    const level = this.size.value === "screen" ? sharp : 0;
    const empty = !(box[2] > box[0] && box[3] > box[1]);
    const { height, width } = sizeOf(box, level);
    const wide = settings.beside ? 2 * width + GAP_PX : width;
    const fits = !empty && Math.max(wide, height) <= LONGEST_PX;
    const says = this.dialog.querySelector("#save-says");
    says.textContent = empty ? "No part of the segment is visible." : `${wide.toLocaleString("en")} × ${height.toLocaleString("en")} px, up to about ${bytes(wide * height * 1.6)}${fits ? "" : ": too large for a PNG"}`;
    this.go.setAttribute("aria-disabled", String(!fits));
    if (fits) this.go.href = address({ box, level, flip: state.flip, ...settings });
    else this.go.removeAttribute("href");
  }
}
