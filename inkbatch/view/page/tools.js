// Tools under the pointer: mouse, pen or finger become strokes in full-size pixels.

const LONGEST_STROKE = 6000; // points; a longer one goes on as another stroke
const CLICK_PX = 4;
const CLOSE_PX = 10;
export const DRAWING = ["brush", "polygon", "rectangle", "fill", "take", "smart"];

const round = (value) => Math.round(value * 100) / 100;

export class Tools {
  // `settings()` gives the tool and its numbers; `send(op)` delivers; `changed()` redraws; `resize(factor)` the brush.
  constructor(stage, { settings, send, changed, resize, refuse }) {
    Object.assign(this, { stage, settings, send, changed, resize, refuse, pointers: new Map(), op: null, corners: [], at: null });
    const { element } = stage;
    this.ring = Object.assign(document.createElement("div"), { className: "ring", hidden: true });
    element.append(this.ring);
    const handlers = { pointerdown: this.down, pointermove: this.move, pointerup: this.up, pointercancel: this.cancelled };
    for (const [name, handler] of Object.entries(handlers)) element.addEventListener(name, handler.bind(this), true);
    element.addEventListener("pointerleave", () => { this.at = null; this.aim(); });
    element.addEventListener("wheel", (event) => this.wheel(event), { capture: true, passive: false });
    element.addEventListener("contextmenu", (event) => DRAWING.includes(settings().tool) && event.preventDefault(), true);
  }

  // The stroke or corners being drawn.
  get drafts() { return this.op ? [{ op: this.op }] : []; }

  inside(event) {
    const { y, x } = this.stage.toImage(this.stage.inside(event));
    return [round(y), round(x)];
  }

  down(event) {
    if (this.stage.marking || event.target.closest(".navigator")) return;
    const { tool, panning } = this.settings();
    if (event.pointerType === "pen") this.hasPen = true;
    this.pointers.set(event.pointerId, event);
    if (event.button === 1 || (panning && event.button === 0)) return this.grab(event, "pan");
    if (!DRAWING.includes(tool) || (event.pointerType === "touch" && this.hasPen)) return;
    if (this.touches().length === 2) return this.pinch(event);
    if (this.drag || ![0, 2, 5].includes(event.button)) return;
    this.grab(event, "draw");
    this.start(event, event.button !== 0 || event.altKey);
  }

  grab(event, drag) {
    event.stopPropagation();
    event.preventDefault();
    this.stage.element.setPointerCapture(event.pointerId);
    Object.assign(this, { drag, pointer: event.pointerId, last: event });
  }

  touches() { return [...this.pointers.values()].filter((one) => one.pointerType === "touch"); }

  // A second finger: what the first one drew is dropped, and both move the map.
  pinch(event) {
    this.op = null;
    this.grab(event, "pinch");
    this.changed();
  }

  start(event, opposite) {
    const { tool, layer, radius, take } = this.settings(), erase = this.settings().erase !== opposite;
    const point = this.inside(event), marks = erase ? { layer, erase } : { layer };
    this.from = point;
    this.moved = false;
    const pressed = [...point, this.pressure(event)];
    const line = event.shiftKey && this.ended ? [this.ended, pressed] : [pressed];
    if (tool === "brush") this.op = { kind: tool, ...marks, points: line, radius };
    else if (tool === "smart") this.op = { kind: tool, ...marks, points: line, radius, map: take.map };
    else if (tool === "take") this.op = { kind: tool, ...take, points: line, radius };
    else if (tool === "rectangle") this.op = { kind: tool, ...marks, box: [0, 0, 0, 0] };
    else if (tool === "polygon" && !this.corners.length) this.erase = erase;
    if (tool === "polygon") this.path = [point];
    this.changed();
  }

  pressure(event) { return event.pointerType === "pen" ? Math.max(0.05, round(event.pressure)) : 1; }

  move(event) {
    this.at = event;
    this.aim();
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, event);
    if (!this.drag || (this.drag !== "pinch" && event.pointerId !== this.pointer)) return;
    event.stopPropagation();
    if (this.drag === "draw") this.trace(event);
    else this.shift(event);
  }

  trace(event) {
    const { tool } = this.settings();
    const [y, x] = this.inside(event);
    this.moved ||= Math.hypot(y - this.from[0], x - this.from[1]) * this.stage.scale > CLICK_PX;
    if (tool === "rectangle") {
      const [ys, xs] = [[this.from[0], y].sort((a, b) => a - b), [this.from[1], x].sort((a, b) => a - b)];
      this.op.box = [Math.floor(ys[0]), Math.floor(xs[0]), Math.ceil(ys[1]), Math.ceil(xs[1])];
    } else if (tool === "polygon") this.path.push([y, x]);
    else if (this.op) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.extend(one);
      if (this.op.points.length > LONGEST_STROKE) {
        const { points } = this.op;
        this.finish();
        this.op = { ...this.op, points: points.slice(-1) };
      }
    }
    this.changed();
  }

  extend(event, always = false) {
    const { points, radius } = this.op, [y, x] = this.inside(event), before = points.at(-1);
    const pressure = always ? before[2] : this.pressure(event), gap = Math.hypot(y - before[0], x - before[1]);
    if (gap > 0 && (always || gap >= Math.max(0.5 / this.stage.scale, radius / 20))) points.push([y, x, pressure]);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.drag || (this.drag !== "pinch" && event.pointerId !== this.pointer)) return;
    event.stopPropagation();
    const { drag } = this;
    if (drag === "pinch" && this.touches().length) return;
    this.drag = null;
    if (drag === "draw") this.end(event);
  }

  cancelled(event) {
    this.pointers.delete(event.pointerId);
    this.drag = this.op = null;
    this.changed();
  }

  end(event) {
    const { tool } = this.settings(), [y, x] = this.inside(event);
    if (tool === "polygon") return this.corner([y, x]);
    if (tool === "fill") return this.fill([y, x]);
    if (!this.op) return;
    if (this.op.points) this.extend(event, true);
    if (tool === "take" && !this.moved) {
      const { points, radius, ...rest } = this.op;
      this.op = { ...rest, at: [Math.floor(y), Math.floor(x)] };
    }
    const isEmpty = this.op.box && !(this.op.box[0] < this.op.box[2] && this.op.box[1] < this.op.box[3]);
    if (!isEmpty) this.finish();
    this.op = null;
    this.changed();
  }

  finish() {
    this.ended = this.op.points?.at(-1);
    if (this.op.at && !this.isInside(this.op.at)) return this.refuse("That is outside of the segment.");
    this.send(this.op);
  }

  isInside([y, x]) {
    const { height, width } = this.stage.group;
    return y >= 0 && x >= 0 && y < height && x < width;
  }

  fill([y, x]) {
    const { layer, erase } = this.settings();
    this.op = { kind: "fill", layer, ...(erase ? { erase } : {}), at: [Math.floor(y), Math.floor(x)] };
    this.finish();
    this.op = null;
  }

  // A click sets a corner; a drag is an outline by itself; a click on the first corner closes.
  corner(point) {
    const first = this.corners[0];
    if (this.moved && !first) {
      this.corners = this.path;
      return this.close();
    }
    if (first && this.corners.length > 2 && Math.hypot(point[0] - first[0], point[1] - first[1]) * this.stage.scale < CLOSE_PX) return this.close();
    this.corners.push(point);
    this.changed();
  }

  close() {
    const { layer } = this.settings(), { corners, erase } = this;
    this.corners = [];
    const step = Math.ceil(corners.length / LONGEST_STROKE);
    const points = corners.filter((_, index) => index % step === 0);
    if (points.length > 2) this.send({ kind: "polygon", layer, ...(erase ? { erase } : {}), points });
    this.changed();
  }

  // Take back what is being drawn; false when there is nothing.
  drop(last = false) {
    const any = Boolean(this.op || this.corners.length);
    this.corners = last ? this.corners.slice(0, -1) : [];
    if (!last) this.op = null;
    if (!last && this.drag === "draw") this.drag = null;
    this.changed();
    return any;
  }

  // The tool by key, at the pointer or in the middle of the view.
  press() {
    const box = this.stage.element.getBoundingClientRect();
    const at = this.at ?? { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
    const event = { clientX: at.clientX, clientY: at.clientY, pressure: 1, pointerType: "mouse", shiftKey: false };
    if (this.drag || !DRAWING.includes(this.settings().tool)) return;
    if (this.settings().tool === "rectangle") {
      if (!this.op) return this.start(event, false);
      this.trace(event);
    } else this.start(event, false);
    this.end(event);
  }

  // Move the map by one pointer, or by two fingers.
  shift(event) {
    const { viewport } = this.stage, turn = viewport.getFlip() ? -1 : 1;
    const fingers = this.touches();
    const now = this.drag === "pinch" && fingers.length > 1 ? this.between(fingers) : { x: event.clientX, y: event.clientY, apart: 0 };
    const before = this.last.apart === undefined ? { x: this.last.clientX, y: this.last.clientY, apart: 0 } : this.last;
    this.last = now;
    if (Boolean(now.apart) !== Boolean(before.apart)) return;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(turn * (before.x - now.x), before.y - now.y), true), true);
    if (!now.apart) return;
    const middle = this.stage.toImage(this.stage.inside({ clientX: now.x, clientY: now.y })), { width } = this.stage.group;
    viewport.zoomBy(now.apart / before.apart, new OpenSeadragon.Point(middle.x / width, middle.y / width), true);
  }

  between([one, other]) {
    return {
      x: (one.clientX + other.clientX) / 2, y: (one.clientY + other.clientY) / 2,
      apart: Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY)),
    };
  }

  wheel(event) {
    if (!(event.shiftKey || event.altKey) || !DRAWING.includes(this.settings().tool)) return;
    event.preventDefault();
    event.stopPropagation();
    this.resize((event.deltaY || event.deltaX) < 0 ? 1.15 : 1 / 1.15);
    this.aim();
  }

  // Ring as large as the brush, around the pointer.
  aim() {
    const { tool, radius, erase, panning } = this.settings();
    const isBrush = ["brush", "smart", "take"].includes(tool) && !panning;
    this.stage.element.classList.toggle("painting", DRAWING.includes(tool) && !panning);
    this.ring.hidden = !this.at || !isBrush || this.at.pointerType === "touch";
    if (this.ring.hidden) return;
    const box = this.stage.element.getBoundingClientRect(), size = Math.max(3, 2 * radius * this.stage.scale);
    this.ring.classList.toggle("erasing", erase);
    Object.assign(this.ring.style, { left: `${this.at.clientX - box.left}px`, top: `${this.at.clientY - box.top}px`, width: `${size}px`, height: `${size}px` });
  }
}
