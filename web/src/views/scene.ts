/** Draw one panel: a pure function of data, walks, layers and time onto a Canvas 2D. */

import { type Contours, LATTICE, REACH } from '../compute/layers.ts';
import type { Field, Path, Walked } from '../compute/messages.ts';
import type { Points } from '../math/shapes.ts';
import { placeIn } from '../math/time.ts';
import type { Live } from '../server/protocol.ts';
import type { Palette } from './palette.ts';
import { rgb, Splatter } from './splat.ts';

const TRAILS = 120;
const LINES = 500;

export interface Scene {
  data: Points;
  walked: Walked | null;
  /** Samples of a network in training, in place of a walk. */
  live: Live | null;
  /** For each sample the row of the data nearest to its end, where asked for. */
  nearest: Int32Array | null;
  field: Field | null;
  contours: Contours | null;
  path: Path | null;
  /** Points of what guidance is said to draw, where that is known. */
  target: Float32Array | null;
  sigma: number;
  scaled: boolean;
  axes: [number, number];
  show: { data: boolean; points: boolean; trails: boolean; grid: boolean; classes: boolean; nearest: boolean };
  label: number;
}

/** Where the points of a walk are at a noise level, x and y in turn, in view units. */
export function positionsAt(walked: Walked, sigma: number, scaled: boolean, axes: [number, number]): Float32Array {
  const { sigmas, points, count, dims } = walked;
  const { step, share } = placeIn(sigmas, sigma);
  const scale = scaled ? 1 / Math.sqrt(1 + sigma * sigma) : 1;
  const from = step * count * dims;
  const to = (step + 1) * count * dims;
  const out = new Float32Array(2 * count);
  for (let i = 0; i < count; i++)
    for (let k = 0; k < 2; k++) {
      const at = i * dims + axes[k];
      out[2 * i + k] = scale * (points[from + at] + share * (points[to + at] - points[from + at]));
    }
  return out;
}

/** Two columns of samples, x and y in turn. */
function columnsOf({ values, count, dims }: Live, axes: [number, number]): Float32Array {
  return Float32Array.from({ length: 2 * count }, (_, k) => values[(k >> 1) * dims + axes[k & 1]]);
}

/** Two canvases, one on the other: what stays as time goes on, and what moves. */
export class Painter {
  private context: CanvasRenderingContext2D;
  readonly #below: CanvasRenderingContext2D;
  readonly #above: CanvasRenderingContext2D;
  private splatter = new Splatter(1);
  private unit = 1;
  private size = 1;
  #shadeCanvas: HTMLCanvasElement | null = null;
  #shadeOf: Contours | null = null;
  #drawn: unknown[] = [];

  constructor(
    readonly base: HTMLCanvasElement,
    readonly top: HTMLCanvasElement,
    private palette: Palette,
  ) {
    this.#below = base.getContext('2d', { alpha: false })!;
    this.#above = top.getContext('2d')!;
    this.context = this.#below;
  }

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.#shadeOf = null;
    this.#drawn = [];
  }

  /** Make both canvases so many pixels wide; returns whether that is new. */
  resize(pixels: number): boolean {
    if (this.top.width === pixels && this.base.width === pixels) return false;
    for (const canvas of [this.base, this.top]) canvas.width = canvas.height = pixels;
    this.#drawn = [];
    return true;
  }

  #px(x: number): number {
    return (x / REACH + 1) * (this.size / 2);
  }

  #py(y: number): number {
    return (1 - y / REACH) * (this.size / 2);
  }

  draw(scene: Scene): void {
    this.size = this.top.width;
    this.unit = this.size / 560;
    if (this.splatter.size !== this.size) this.splatter = new Splatter(this.size);
    this.#drawBase(scene);
    this.context = this.#above;
    this.context.globalAlpha = 1;
    const walked = scene.walked && positionsAt(scene.walked, scene.sigma, scene.scaled, scene.axes);
    const now = scene.live ? columnsOf(scene.live, scene.axes) : walked;
    if (now && scene.show.points) this.#samples(scene, now);
    else this.context.clearRect(0, 0, this.size, this.size);
    if (now && scene.walked && scene.show.trails) this.#trails(scene, now);
    if (now && scene.show.nearest && scene.nearest) this.#nearest(scene, now);
    if (scene.path) this.#path(scene, scene.path);
  }

  /** Draw what lies below, if any of it has changed. */
  #drawBase(scene: Scene): void {
    const { show } = scene;
    const lattice = show.grid && scene.walked?.lattice ? [scene.walked, scene.sigma] : [];
    const layers = [scene.target, scene.contours, scene.field, scene.field && scene.sigma, scene.scaled, ...lattice];
    const look = [show.data, show.points, show.classes, scene.label, ...scene.axes];
    const wanted = [scene.data, this.palette, this.size, ...layers, ...look];
    if (wanted.length === this.#drawn.length && wanted.every((value, i) => value === this.#drawn[i])) return;
    this.#drawn = wanted;
    this.context = this.#below;
    const { context, palette } = this;
    context.globalAlpha = 1;
    context.fillStyle = palette.paper;
    context.fillRect(0, 0, this.size, this.size);
    this.#axes();
    if (scene.contours) this.#contours(scene.contours);
    if (lattice.length) this.#lattice(scene);
    if (scene.field) this.#field(scene);
    if (show.data) this.#data(scene);
    if (scene.target) this.#target(scene, scene.target);
  }

  #axes(): void {
    const { context, size } = this;
    context.strokeStyle = this.palette.line;
    context.lineWidth = Math.max(1, this.unit);
    context.beginPath();
    for (let k = -3; k <= 3; k++) {
      const [x, y] = [Math.round(this.#px(k)) + 0.5, Math.round(this.#py(k)) + 0.5];
      context.moveTo(x, 0);
      context.lineTo(x, size);
      context.moveTo(0, y);
      context.lineTo(size, y);
    }
    context.stroke();
  }

  #contours(contours: Contours): void {
    const { context, palette, size } = this;
    if (this.#shadeOf !== contours) {
      const cells = contours.cells;
      this.#shadeCanvas ??= document.createElement('canvas');
      this.#shadeCanvas.width = this.#shadeCanvas.height = cells;
      const image = new ImageData(cells, cells);
      const [r, g, b] = palette.shade;
      for (let j = 0; j < cells; j++)
        for (let i = 0; i < cells; i++) {
          const at = 4 * ((cells - 1 - j) * cells + i);
          const share = contours.shade[j * cells + i] / 255;
          image.data[at] = r;
          image.data[at + 1] = g;
          image.data[at + 2] = b;
          image.data[at + 3] = 120 * share ** 1.4;
        }
      this.#shadeCanvas.getContext('2d')!.putImageData(image, 0, 0);
      this.#shadeOf = contours;
    }
    context.imageSmoothingEnabled = true;
    context.drawImage(this.#shadeCanvas!, 0, 0, size, size);
    context.strokeStyle = palette.contour;
    context.lineWidth = Math.max(1, 0.9 * this.unit);
    contours.lines.forEach((line, k) => {
      context.globalAlpha = 0.75 - 0.15 * k;
      context.beginPath();
      for (let i = 0; i < line.length; i += 4) {
        context.moveTo(this.#px(line[i] * REACH), this.#py(line[i + 1] * REACH));
        context.lineTo(this.#px(line[i + 2] * REACH), this.#py(line[i + 3] * REACH));
      }
      context.stroke();
    });
    context.globalAlpha = 1;
  }

  #lattice(scene: Scene): void {
    const { context } = this;
    const walked = scene.walked!;
    const points = walked.lattice!;
    const count = points.length / walked.sigmas.length / 2;
    const carried: Walked = { ...walked, points, count, dims: 2 };
    const now = positionsAt(carried, scene.sigma, scene.scaled, [0, 1]);
    context.strokeStyle = this.palette.field;
    context.globalAlpha = 0.7;
    context.lineWidth = this.unit;
    context.beginPath();
    for (let i = 0; i < count; i++) {
      const [x, y] = [this.#px(now[2 * i]), this.#py(now[2 * i + 1])];
      if (i % LATTICE.along) context.lineTo(x, y);
      else context.moveTo(x, y);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  /** Arrows towards the denoised point; their length is the size of the predicted noise. */
  #field({ field, sigma, scaled }: Scene): void {
    const { context, unit } = this;
    const { x, denoised } = field!;
    const scale = scaled ? 1 / Math.sqrt(1 + sigma * sigma) : 1;
    const cell = this.size / Math.sqrt(x.length / 2);
    context.strokeStyle = this.palette.field;
    context.lineWidth = 1.2 * unit;
    context.beginPath();
    for (let i = 0; i < x.length; i += 2) {
      const [dx, dy] = [denoised[i] - x[i], denoised[i + 1] - x[i + 1]];
      const size = Math.hypot(dx, dy);
      if (!(size > 0)) continue;
      const length = 0.86 * cell * Math.tanh(size / Math.max(sigma, 0.02) / 1.6);
      const [ux, uy] = [dx / size, -dy / size];
      const [cx, cy] = [this.#px(scale * x[i]), this.#py(scale * x[i + 1])];
      const [ex, ey] = [cx + (ux * length) / 2, cy + (uy * length) / 2];
      const head = Math.min(0.34 * length, 4.5 * unit);
      context.moveTo(cx - (ux * length) / 2, cy - (uy * length) / 2);
      context.lineTo(ex, ey);
      context.moveTo(ex - head * (ux + 0.6 * uy), ey - head * (uy - 0.6 * ux));
      context.lineTo(ex, ey);
      context.lineTo(ex - head * (ux - 0.6 * uy), ey - head * (uy + 0.6 * ux));
    }
    context.stroke();
  }

  #radius(count: number, base: number): number {
    return Math.max(1, this.unit * Math.min(Math.max(base + 32 / Math.sqrt(count), 1.3), 3.4));
  }

  #data(scene: Scene): void {
    const { data, show, label } = scene;
    const { values, labels, dims } = data;
    const { context, palette } = this;
    const radius = this.#radius(labels.length, 0.5);
    const strong = show.points && !show.classes ? 0.6 : 0.9;
    const groups = show.classes ? palette.classes : [palette.data];
    for (const own of [false, true])
      groups.forEach((colour, group) => {
        context.fillStyle = colour;
        context.globalAlpha = own ? strong : 0.18;
        context.beginPath();
        for (let i = 0; i < labels.length; i++) {
          if ((label < 0 || labels[i] === label) !== own || (show.classes && labels[i] % 8 !== group)) continue;
          const [x, y] = [this.#px(values[i * dims + scene.axes[0]]), this.#py(values[i * dims + scene.axes[1]])];
          context.moveTo(x + radius, y);
          context.arc(x, y, radius, 0, 2 * Math.PI);
        }
        context.fill();
      });
    context.globalAlpha = 1;
  }

  /** Rings, so that samples on them are seen as well. */
  #target({ axes, data }: Scene, points: Float32Array): void {
    const { context, unit } = this;
    const { dims } = data;
    const radius = 3.2 * unit;
    context.strokeStyle = this.palette.probe;
    context.lineWidth = unit;
    context.globalAlpha = 0.7;
    context.beginPath();
    for (let i = 0; i < points.length; i += dims) {
      const [x, y] = [this.#px(points[i + axes[0]]), this.#py(points[i + axes[1]])];
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  #samples(scene: Scene, now: Float32Array): void {
    const { palette, splatter } = this;
    const count = now.length / 2;
    const radius = Math.round(4 * this.#radius(count, 0.75)) / 4;
    const { labels } = scene.data;
    const coloured = scene.show.classes && scene.nearest;
    const classes = palette.classes.map(rgb);
    const plain = rgb(palette.sample);
    splatter.clear();
    for (let i = 0; i < count; i++) {
      const [r, g, b] = coloured ? classes[labels[scene.nearest![i]] % 8] : plain;
      splatter.dot(this.#px(now[2 * i]), this.#py(now[2 * i + 1]), radius, r, g, b, palette.strength);
    }
    splatter.put(this.context);
  }

  #trails(scene: Scene, now: Float32Array): void {
    const { context } = this;
    const { sigmas, points, count, dims } = scene.walked!;
    const { step, share } = placeIn(sigmas, scene.sigma);
    const scales = sigmas.map((sigma) => (scene.scaled ? 1 / Math.sqrt(1 + sigma * sigma) : 1));
    const last = share >= 1 ? step + 1 : step;
    context.strokeStyle = this.palette.trail;
    context.lineWidth = 0.9 * this.unit;
    context.globalAlpha = 0.5;
    context.beginPath();
    for (let i = 0; i < Math.min(count, TRAILS); i++) {
      for (let k = 0; k <= last; k++) {
        const at = (k * count + i) * dims;
        const [x, y] = [
          this.#px(scales[k] * points[at + scene.axes[0]]),
          this.#py(scales[k] * points[at + scene.axes[1]]),
        ];
        if (k) context.lineTo(x, y);
        else context.moveTo(x, y);
      }
      context.lineTo(this.#px(now[2 * i]), this.#py(now[2 * i + 1]));
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  #nearest(scene: Scene, now: Float32Array): void {
    const { context } = this;
    const { values, dims } = scene.data;
    context.strokeStyle = this.palette.probe;
    context.globalAlpha = 0.55;
    context.lineWidth = 0.9 * this.unit;
    context.beginPath();
    for (let i = 0; i < Math.min(now.length / 2, LINES); i++) {
      const at = scene.nearest![i] * dims;
      context.moveTo(this.#px(now[2 * i]), this.#py(now[2 * i + 1]));
      context.lineTo(this.#px(values[at + scene.axes[0]]), this.#py(values[at + scene.axes[1]]));
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  /** The whole path of the dragged point, its place now, and its velocity. */
  #path(scene: Scene, { sigmas, points }: Path): void {
    const { context, palette, unit } = this;
    const dims = points.length / sigmas.length;
    const at = (k: number): [number, number] => {
      const scale = scene.scaled ? 1 / Math.sqrt(1 + sigmas[k] ** 2) : 1;
      return [this.#px(scale * points[k * dims + scene.axes[0]]), this.#py(scale * points[k * dims + scene.axes[1]])];
    };
    context.strokeStyle = context.fillStyle = palette.probe;
    context.lineWidth = 2 * unit;
    context.beginPath();
    for (let k = 0; k < sigmas.length; k++) context.lineTo(...at(k));
    context.stroke();
    for (let k = 1; k < sigmas.length; k++) {
      context.beginPath();
      context.arc(...at(k), (k === sigmas.length - 1 ? 4 : 2) * unit, 0, 2 * Math.PI);
      context.fill();
    }
    const walked: Walked = { sigmas, nfe: 0, count: 1, dims, points, lattice: null };
    const [x, y] = positionsAt(walked, scene.sigma, scene.scaled, scene.axes);
    const { step } = placeIn(sigmas, scene.sigma);
    const [a, b] = [at(step), at(step + 1)];
    const size = Math.hypot(b[0] - a[0], b[1] - a[1]);
    const [px, py] = [this.#px(x), this.#py(y)];
    if (size > 0) {
      const [ux, uy] = [(b[0] - a[0]) / size, (b[1] - a[1]) / size];
      const length = 34 * unit;
      const [ex, ey] = [px + ux * length, py + uy * length];
      context.strokeStyle = palette.ink;
      context.beginPath();
      context.moveTo(px, py);
      context.lineTo(ex, ey);
      context.moveTo(ex - 8 * unit * (ux + 0.6 * uy), ey - 8 * unit * (uy - 0.6 * ux));
      context.lineTo(ex, ey);
      context.lineTo(ex - 8 * unit * (ux - 0.6 * uy), ey - 8 * unit * (uy + 0.6 * ux));
      context.stroke();
    }
    context.fillStyle = palette.paper;
    context.strokeStyle = palette.probe;
    context.lineWidth = 3 * unit;
    context.beginPath();
    context.arc(px, py, 6.5 * unit, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}
