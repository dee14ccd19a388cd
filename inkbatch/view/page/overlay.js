// Painted labels over one stage: tiles of codes, and strokes that are on their way, in the frame of the map below.

import { LAYERS, TILE_PX } from "./codes.js";

const HIGHEST_LEVEL = 12;
const HINT = "#ffa62b";

function canvas() {
  const element = document.createElement("canvas");
  return { element, context: element.getContext("2d") };
}

// Path of a brush whose radius follows the pen: as the server draws it, but for pixels on the rim.
function brush(context, { points, radius }, colour) {
  const widths = points.map(([, , pressure]) => 2 * Math.max(radius * pressure, 0.5));
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  const isEven = widths.every((width) => width === widths[0]);
  for (let first = 0; first < points.length; first = isEven ? points.length : first + 1) {
    const part = isEven ? points : points.slice(first, first + 2);
    context.lineWidth = isEven ? widths[0] : (widths[first] + (widths[first + 1] ?? widths[first])) / 2;
    context.beginPath();
    part.forEach(([y, x]) => context.lineTo(x, y));
    if (part.length === 1) context.lineTo(part[0][1], part[0][0]);
    context.stroke();
  }
}

function shape(context, op, colour) {
  context.fillStyle = colour;
  if (op.kind === "rectangle") return context.fillRect(op.box[1], op.box[0], op.box[3] - op.box[1], op.box[2] - op.box[0]);
  if (op.kind === "polygon") {
    context.beginPath();
    op.points.forEach(([y, x]) => context.lineTo(x, y));
    return context.fill("evenodd");
  }
  if (op.points) brush(context, op, colour);
}

export class Overlay {
  // `shown()` gives { look, strokes, draft, changes }: settings, strokes on their way, corners being set, tiles to mark.
  constructor(stage, codes, shown) {
    Object.assign(this, { stage, codes, shown, main: canvas(), flat: canvas(), rim: canvas() });
    this.main.element.className = "painted";
    stage.viewer.canvas.append(this.main.element);
    stage.viewer.addHandler("update-viewport", () => this.draw());
  }

  ask() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.draw(); });
  }

  // Place of the picture in device pixels, before it is flipped.
  placed() {
    const ratio = devicePixelRatio, { viewport } = this.stage;
    const at = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    return { x: at.x * ratio, y: at.y * ratio, scale: this.stage.scale * ratio, ratio };
  }

  draw() {
    const { stage } = this, { group, element } = stage;
    if (!group || element.hidden || !stage.viewer.world.getItemCount()) return this.codes.seen.delete(this);
    const at = this.placed();
    const [width, height] = [element.clientWidth, element.clientHeight].map((side) => Math.round(side * at.ratio));
    for (const one of [this.main, this.flat, this.rim]) {
      if (one.element.width !== width || one.element.height !== height) Object.assign(one.element, { width, height });
    }
    const level = Math.min(HIGHEST_LEVEL, Math.max(0, Math.floor(Math.log2(1 / at.scale) + 0.01)));
    const places = this.places(at, level, width, height);
    this.codes.show(this, places);
    const { look, strokes, draft, changes } = this.shown();
    const { context } = this.main;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (stage.viewport.getFlip()) context.setTransform(-1, 0, 0, 1, width, 0);
    for (const name of Object.keys(LAYERS).toReversed()) {
      if (look.hidden.includes(name)) continue;
      if (this.compose(name, at, places, strokes)) this.lay(name, look, at.ratio);
    }
    this.hints(context, at, strokes, draft, changes);
  }

  places(at, level, width, height) {
    const { group } = this.stage, edge = TILE_PX * 2 ** level, size = edge * at.scale;
    const first = (offset) => Math.max(0, Math.floor(-offset / size));
    const last = (offset, room, whole) => Math.min(Math.ceil(whole / edge), Math.ceil((room - offset) / size)) - 1;
    const middle = [(width / 2 - at.x) / size - 0.5, (height / 2 - at.y) / size - 0.5], found = [];
    for (let row = first(at.y); row <= last(at.y, height, group.height); row += 1) {
      for (let column = first(at.x); column <= last(at.x, width, group.width); column += 1) found.push([level, column, row]);
    }
    const away = ([, column, row]) => Math.hypot(column - middle[0], row - middle[1]);
    return found.sort((one, other) => away(one) - away(other));
  }

  // Draw one layer, opaque: its tiles, then the strokes. False when there is nothing.
  compose(name, at, places, strokes) {
    const { context, element } = this.flat;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, element.width, element.height);
    context.imageSmoothingEnabled = at.scale < 1;
    let any = false;
    for (const place of places) any = this.tile(context, name, at, place) || any;
    context.setTransform(at.scale, 0, 0, at.scale, at.x, at.y);
    for (const { op } of strokes) {
      if (op.layer !== name && (op.erase || LAYERS[op.layer]?.excludes !== name) || op.kind === "smart") continue;
      const takes = op.layer !== name || op.erase;
      context.globalCompositeOperation = takes ? "destination-out" : "source-over";
      shape(context, op, LAYERS[name].colour);
      any ||= !takes;
    }
    context.globalCompositeOperation = "source-over";
    return any;
  }

  // A tile, or as long as it is on its way the part of a coarser one.
  tile(context, name, at, [level, column, row]) {
    for (let up = 0; up < 4; up += 1) {
      const tile = this.codes.find(level + up, column >> up, row >> up);
      if (!tile?.layers) continue;
      const image = tile.layers[name];
      if (!image) return false;
      const size = TILE_PX * 2 ** level * at.scale, side = TILE_PX >> up, mask = (1 << up) - 1;
      const [x0, x1] = [column, column + 1].map((edge) => Math.round(at.x + edge * size));
      const [y0, y1] = [row, row + 1].map((edge) => Math.round(at.y + edge * size));
      context.drawImage(image, (column & mask) * side, (row & mask) * side, side, side, x0, y0, x1 - x0, y1 - y0);
      return true;
    }
    return false;
  }

  // Lay a composed layer over the map: a wash, and a thin rim around it.
  lay(name, look, ratio) {
    const { context } = this.main, rim = this.rim.context, { element: flat } = this.flat, { element: edge } = this.rim;
    context.globalAlpha = look.opacity * LAYERS[name].fill;
    context.drawImage(flat, 0, 0);
    context.globalAlpha = 1;
    if (!look.outlines) return;
    const step = Math.max(1, Math.round(ratio * 1.5));
    rim.globalCompositeOperation = "source-over";
    rim.clearRect(0, 0, edge.width, edge.height);
    for (const [x, y] of [[step, 0], [-step, 0], [0, step], [0, -step]]) rim.drawImage(flat, x, y);
    rim.globalCompositeOperation = "destination-out";
    rim.drawImage(flat, 0, 0);
    context.drawImage(edge, 0, 0);
  }

  // Strokes whose pixels only the server knows, corners of a polygon, and tiles that differ between two versions.
  hints(context, at, strokes, draft, changes) {
    context.save();
    context.transform(at.scale, 0, 0, at.scale, at.x, at.y);
    context.globalAlpha = 0.35;
    for (const { op } of strokes) if (op.points && ["take", "smart"].includes(op.kind)) brush(context, op, HINT);
    context.globalAlpha = 1;
    context.strokeStyle = HINT;
    context.lineWidth = 1.5 * at.ratio / at.scale;
    for (const [column, row] of changes) context.strokeRect(column * TILE_PX, row * TILE_PX, TILE_PX, TILE_PX);
    if (draft.length) {
      context.beginPath();
      draft.forEach(([y, x]) => context.lineTo(x, y));
      context.stroke();
      context.fillStyle = "#fff";
      const half = 3.5 * at.ratio / at.scale;
      const [y, x] = draft[0];
      context.fillRect(x - half, y - half, 2 * half, 2 * half);
      context.strokeRect(x - half, y - half, 2 * half, 2 * half);
    }
    context.restore();
  }
}
