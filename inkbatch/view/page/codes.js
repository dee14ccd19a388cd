// Tiles of painted codes: one byte per pixel, a bit per layer. Kept as one small picture per layer, in bounded number.

export const TILE_PX = 256;
export const LAYERS = {
  ink: { bit: 1, colour: "#35d6ff", excludes: "not_ink", fill: 1 },
  not_ink: { bit: 2, colour: "#a48cff", excludes: "ink", fill: 1 },
  ignore: { bit: 4, colour: "#ff5ebe", fill: 0.8 },
  supervision: { bit: 8, colour: "#b8f04a", fill: 0.12 },
};
const MOST_TILES = 640;
const AT_ONCE = 6;
const REST_MS = 1500;

function picture(codes, { bit, colour }) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = TILE_PX;
  const context = canvas.getContext("2d"), image = context.createImageData(TILE_PX, TILE_PX);
  const pixels = new Uint32Array(image.data.buffer);
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const value = (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  for (let index = 0; index < codes.length; index += 1) if (codes[index] & bit) pixels[index] = value;
  context.putImageData(image, 0, 0);
  return canvas;
}

function pictures(codes) {
  const seen = new Uint32Array(codes.buffer, codes.byteOffset, codes.length / 4).reduce((all, four) => all | four, 0);
  const bits = seen | seen >> 8 | seen >> 16 | seen >> 24;
  return Object.fromEntries(Object.entries(LAYERS).filter(([, layer]) => bits & layer.bit).map(([name, layer]) => [name, picture(codes, layer)]));
}

export class Codes {
  // `read(level, column, row)` gives a promise of bytes; `changed()` is called when there is something new to draw.
  constructor(read, changed) {
    Object.assign(this, { read, changed, tiles: new Map(), seen: new Map(), queue: [], loading: 0 });
  }

  clear() {
    this.tiles.clear();
    this.queue = [];
  }

  find(level, column, row) { return this.tiles.get(`${level}/${column}_${row}`); }

  // Say which tiles a view shows, nearest to its middle first; those that are not here are fetched.
  show(view, places) {
    this.seen.set(view, new Set(places.map((place) => place.join("/"))));
    const now = performance.now();
    this.queue = [];
    for (const [level, column, row] of places) {
      const key = `${level}/${column}_${row}`;
      const tile = this.tiles.get(key) ?? { level, column, row, key, have: -1, wanted: 0, layers: null, rest: 0 };
      this.tiles.delete(key);
      this.tiles.set(key, tile);
      if (tile.have !== tile.wanted && !tile.promise && tile.rest < now) this.queue.push(tile);
    }
    for (const [key, tile] of this.tiles) {
      if (this.tiles.size <= MOST_TILES || this.shows(tile)) break;
      this.tiles.delete(key);
    }
    this.pump();
  }

  shows({ level, column, row }) {
    return [...this.seen.values()].some((places) => places.has(`${level}/${column}/${row}`));
  }

  pump() {
    while (this.loading < AT_ONCE && this.queue.length) this.load(this.queue.shift()).catch(() => {});
  }

  load(tile) {
    tile.promise ??= this.fetch(tile).finally(() => { tile.promise = null; });
    return tile.promise;
  }

  async fetch(tile) {
    this.loading += 1;
    try {
      while (tile.have !== tile.wanted) {
        const { wanted } = tile;
        tile.layers = pictures(await this.read(tile.level, tile.column, tile.row));
        tile.have = wanted;
      }
    } catch (error) {
      tile.rest = performance.now() + REST_MS;
      setTimeout(this.changed, REST_MS + 50);
      throw error;
    } finally {
      this.loading -= 1;
      this.pump();
      this.changed();
    }
  }

  // Tiles changed: by [column, row] at full resolution, or all in a box of pixels. Resolves when what is seen is new.
  refresh({ tiles = [], changed = tiles, box = null }) {
    const touched = (tile) => {
      if (box) {
        const edge = TILE_PX << tile.level;
        return tile.row * edge < box[2] && (tile.row + 1) * edge > box[0] && tile.column * edge < box[3] && (tile.column + 1) * edge > box[1];
      }
      return changed.some(([column, row]) => column >> tile.level === tile.column && row >> tile.level === tile.row);
    };
    const loads = [];
    for (const [key, tile] of [...this.tiles]) {
      if (!touched(tile)) continue;
      if (!this.shows(tile)) this.tiles.delete(key);
      else {
        tile.wanted += 1;
        loads.push(this.load(tile));
      }
    }
    return Promise.all(loads);
  }

  get settled() { return !this.loading && !this.queue.length; }
}
