// One deep-zoom picture: papyrus, map and outlines as layers of tiles drawn by the server.

const SWAP_AFTER_MS = 2500;
const ORDER = ["papyrus", "map", "outlines"];

// A layer may be replaced while its tiles are on their way; that is no error.
const warn = OpenSeadragon.console.warn.bind(OpenSeadragon.console);
OpenSeadragon.console.warn = (...parts) => String(parts[0]).startsWith("Ignoring tile") || warn(...parts);

export class Stage {
  constructor(element, events) {
    this.element = element;
    this.events = events;
    this.layers = {};
    this.group = null;
    this.viewer = new OpenSeadragon.Viewer({
      element: element.querySelector(".canvas"), drawer: "canvas", prefixUrl: "", showNavigationControl: false,
      showNavigator: events.navigator, navigatorPosition: "BOTTOM_RIGHT", navigatorSizeRatio: 0.16,
      animationTime: 0.45, springStiffness: 9, minZoomImageRatio: 0.7, maxZoomPixelRatio: 24, visibilityRatio: 0.2,
      maxImageCacheCount: 300, imageLoaderLimit: 6, alwaysBlend: false, blendTime: 0.1, preserveImageSizeOnResize: true, preserveViewport: true,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true, flickEnabled: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true, pinchRotate: false },
    });
    this.viewer.innerTracker.keyDownHandler = null;
    this.viewer.innerTracker.keyHandler = null;
    const changed = () => { this.smooth(); events.moved(this); };
    for (const name of ["update-viewport", "resize", "flip"]) this.viewer.addHandler(name, changed);
    this.viewer.addHandler("canvas-click", (event) => {
      if (event.quick && !this.marking) events.clicked(this, this.toImage(event.position));
    });
    if (this.viewer.navigator) this.ownOverview(this.viewer.navigator.world);
    this.viewer.addHandler("tile-load-failed", (event) => events.failed(event));
    element.addEventListener("pointermove", (event) => events.hovered(this, this.toImage(this.inside(event))));
    element.addEventListener("pointerleave", () => events.hovered(this, null));
  }

  get viewport() { return this.viewer.viewport; }

  inside(event) {
    const box = this.element.getBoundingClientRect();
    return new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
  }

  // Screen position in this stage to full-size pixels, and back. OpenSeadragon leaves the flip to us.
  toImage(position) {
    if (!this.group) return null;
    const x = this.viewport.getFlip() ? this.element.clientWidth - position.x : position.x;
    const point = this.viewport.pointFromPixel(new OpenSeadragon.Point(x, position.y), true);
    return { x: point.x * this.group.width, y: point.y * this.group.width };
  }

  toScreen(x, y) {
    const point = new OpenSeadragon.Point(x / this.group.width, y / this.group.width);
    const found = this.viewport.pixelFromPoint(point, true);
    if (this.viewport.getFlip()) found.x = this.element.clientWidth - found.x;
    return found;
  }

  // Screen pixels per full-size pixel.
  get scale() { return this.viewport.getZoom(true) * this.element.clientWidth / this.group.width; }

  look() {
    const centre = this.viewport.getCenter(false);
    const zoom = this.viewport.getZoom(false) * this.element.clientWidth / this.group.width;
    return { x: centre.x * this.group.width, y: centre.y * this.group.width, zoom };
  }

  goTo({ x, y, zoom }, immediately = true) {
    const width = this.group.width;
    this.viewport.zoomTo(zoom * width / this.element.clientWidth, null, immediately);
    this.viewport.panTo(new OpenSeadragon.Point(x / width, y / width), immediately);
  }

  home(immediately = false) {
    const height = this.group.height / this.group.width;
    this.viewport.fitBounds(new OpenSeadragon.Rect(0, 0, 1, height), immediately);
    this.viewport.zoomBy(0.96, null, immediately);
  }

  visible() {
    const corners = [this.toImage({ x: 0, y: 0 }), this.toImage({ x: this.element.clientWidth, y: this.element.clientHeight })];
    const [left, right] = corners.map((corner) => corner.x).sort((a, b) => a - b);
    const clamp = (value, top) => Math.min(top, Math.max(0, value));
    return [
      clamp(Math.floor(corners[0].y), this.group.height), clamp(Math.floor(left), this.group.width),
      clamp(Math.ceil(corners[1].y), this.group.height), clamp(Math.ceil(right), this.group.width),
    ];
  }

  smooth() {
    const wanted = !this.group || this.scale < 3;
    if (wanted === this.smoothing) return;
    this.smoothing = wanted;
    this.viewer.drawer.setImageSmoothingEnabled(wanted);
  }

  open(group) {
    this.group = group;
    for (const name of ORDER) this.drop(name);
    this.smoothing = undefined;
  }

  drop(name) {
    const layer = this.layers[name];
    delete this.layers[name];
    for (const item of [layer?.item, layer?.next]) if (item) this.viewer.world.removeItem(item);
    if (layer) layer.gone = true;
  }

  // Show a layer from `address(level, x, y)`; `key` says when it is another one. Null takes the layer away. The old
  // picture stays until the new one is whole, so that sliders do not flicker.
  show(name, key, address, opacity = 1) {
    if (address === null) return this.drop(name);
    const layer = (this.layers[name] ??= { key: null, item: null, next: null });
    layer.opacity = opacity;
    if (layer.key === key) {
      if (layer.item) layer.item.setOpacity(opacity);
      return;
    }
    layer.key = key;
    const levels = this.group.levels;
    this.viewer.addTiledImage({
      tileSource: {
        width: this.group.width, height: this.group.height, tileSize: this.group.tile_px, tileOverlap: 0, minLevel: 0,
        maxLevel: levels - 1, getTileUrl: (level, x, y) => address(levels - 1 - level, x, y),
      },
      opacity: layer.item ? 0 : opacity, preload: true,
      success: ({ item }) => this.added(name, layer, key, item),
    });
  }

  added(name, layer, key, item) {
    if (layer.gone || layer.key !== key) return this.viewer.world.removeItem(item);
    if (layer.next) this.viewer.world.removeItem(layer.next);
    if (!layer.item) {
      layer.item = item;
      item.setOpacity(layer.opacity);
      this.arrange();
      this.events.opened(this);
      return;
    }
    layer.next = item;
    this.arrange();
    const swap = () => {
      if (layer.next !== item) return;
      const before = layer.item;
      layer.item = item;
      layer.next = null;
      item.setOpacity(layer.opacity);
      if (before) this.viewer.world.removeItem(before);
    };
    if (item.getFullyLoaded()) return swap();
    item.addHandler("fully-loaded-change", (event) => event.fullyLoaded && swap());
    setTimeout(swap, SWAP_AFTER_MS);
  }

  // Papyrus below, outlines on top, however the layers came in.
  arrange() {
    const items = ORDER.flatMap((name) => [this.layers[name]?.item, this.layers[name]?.next]).filter(Boolean);
    const world = this.viewer.world;
    items.forEach((item, index) => world.getIndexOfItem(item) === index || world.setItemIndex(item, index));
    this.arrangeOverview();
  }

  // OpenSeadragon repeats each change of order in its overview by place and a moment later, when other layers may lie
  // there, or none. We order the overview by its layers instead.
  ownOverview(world) {
    this.overview = { world, place: world.setItemIndex.bind(world) };
    world.setItemIndex = () => {};
    world.addHandler("add-item", () => setTimeout(() => this.arrangeOverview()));
  }

  arrangeOverview() {
    if (!this.overview) return;
    const { world, place } = this.overview;
    const below = (item) => this.viewer.world.getIndexOfItem(item._originalForNavigator);
    const items = Array.from({ length: world.getItemCount() }, (_, index) => world.getItemAt(index));
    const known = items.filter((item) => item._originalForNavigator).sort((a, b) => below(a) - below(b));
    known.forEach((item, index) => place(item, index));
  }

  get settled() {
    const layers = Object.values(this.layers);
    return layers.length > 0 && !this.viewer.isAnimating() && layers.every((layer) => layer.item && !layer.next && layer.item.getFullyLoaded());
  }
}
