/** Round dots written straight into pixels: thousands a millisecond, where one call of Canvas 2D each takes microseconds. */

const PLACES = 4; // dots lie on quarters of a pixel

interface Kernel {
  dx: Int16Array;
  dy: Int16Array;
  cover: Float32Array;
}

const kernels = new Map<number, Kernel[]>();

/** Return the pixels that a dot covers, and how much of each, for each of the places within a pixel. */
function kernelsOf(radius: number): Kernel[] {
  const known = kernels.get(radius);
  if (known) return known;
  const reach = Math.ceil(radius) + 1;
  const made: Kernel[] = [];
  for (let place = 0; place < PLACES * PLACES; place++) {
    const [fx, fy] = [(place % PLACES) / PLACES, Math.floor(place / PLACES) / PLACES];
    const cells: [number, number, number][] = [];
    for (let y = -reach; y <= reach; y++)
      for (let x = -reach; x <= reach; x++) {
        const cover = Math.min(Math.max(radius + 0.5 - Math.hypot(x - fx, y - fy), 0), 1);
        if (cover > 0.02) cells.push([x, y, cover]);
      }
    made.push({
      dx: Int16Array.from(cells, (cell) => cell[0]),
      dy: Int16Array.from(cells, (cell) => cell[1]),
      cover: Float32Array.from(cells, (cell) => cell[2]),
    });
  }
  kernels.set(radius, made);
  return made;
}

export class Splatter {
  #image: ImageData;
  private pixels: Uint32Array;

  constructor(readonly size: number) {
    this.#image = new ImageData(size, size);
    this.pixels = new Uint32Array(this.#image.data.buffer);
  }

  clear(): void {
    this.pixels.fill(0);
  }

  /** Lay a dot over what is there; the colour is (r, g, b), the strength 0 to 1. */
  dot(x: number, y: number, radius: number, r: number, g: number, b: number, strength: number): void {
    const { size, pixels } = this;
    if (!(x > -8 && y > -8 && x < size + 8 && y < size + 8)) return;
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const place = Math.floor((x - left) * PLACES) + PLACES * Math.floor((y - top) * PLACES);
    const { dx, dy, cover } = kernelsOf(radius)[place];
    for (let i = 0; i < dx.length; i++) {
      const [px, py] = [left + dx[i], top + dy[i]];
      if (px < 0 || py < 0 || px >= size || py >= size) continue;
      const at = py * size + px;
      const old = pixels[at];
      const new_ = cover[i] * strength;
      const before = (old >>> 24) / 255;
      const alpha = new_ + before * (1 - new_);
      const share = new_ / alpha;
      const blue = (old >>> 16) & 255;
      const green = (old >>> 8) & 255;
      const red = old & 255;
      pixels[at] =
        ((alpha * 255) << 24) |
        ((blue + share * (b - blue)) << 16) |
        ((green + share * (g - green)) << 8) |
        (red + share * (r - red));
    }
  }

  put(context: CanvasRenderingContext2D): void {
    context.putImageData(this.#image, 0, 0);
  }
}

/** Read #rrggbb. */
export function rgb(colour: string): [number, number, number] {
  const value = Number.parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
