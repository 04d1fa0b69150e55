/** What is drawn behind the points: fields, contours, and the lattice that is carried along. */

import { denoiserOf, type Problem, type Trained } from './walks.ts';

export const REACH = 2.8; // half width of the window
export const LATTICE = { lines: 13, along: 49 };

/** Denoised points on a square lattice of the window at one noise level. */
export function fieldAt(
  problem: Problem,
  trained: Trained | null,
  sigma: number,
  reach: number,
  cells: number,
): { x: Float32Array; denoised: Float32Array } {
  const x = new Float64Array(2 * cells * cells);
  for (let i = 0; i < cells * cells; i++) {
    x[2 * i] = reach * (((i % cells) + 0.5) * (2 / cells) - 1);
    x[2 * i + 1] = reach * ((Math.floor(i / cells) + 0.5) * (2 / cells) - 1);
  }
  const denoised = denoiserOf(problem, trained).call(x, Math.max(sigma, 1e-3));
  return { x: Float32Array.from(x), denoised: Float32Array.from(denoised) };
}

const SHARES = [0.25, 0.5, 0.75, 0.95];

export interface Contours {
  cells: number;
  /** Share of the mass that lies where it is denser than here, 0 to 255 in each cell. */
  shade: Uint8Array;
  /** Lines around the shares of mass, as pairs of ends in [-1, 1]. */
  lines: Float32Array[];
}

/** The density of the noisy data on a grid, by outer products, and the lines around shares of its mass. */
export function contoursAt(data: Float64Array, sigma: number, reach: number, cells: number): Contours {
  const density = new Float64Array(cells * cells);
  const width = Math.max(sigma, (1.2 * reach) / cells);
  const places = Float64Array.from({ length: cells }, (_, i) => reach * ((i + 0.5) * (2 / cells) - 1));
  const [across, down] = [new Float64Array(cells), new Float64Array(cells)];
  for (let k = 0; k < data.length; k += 2) {
    for (let i = 0; i < cells; i++) {
      across[i] = Math.exp(-0.5 * ((places[i] - data[k]) / width) ** 2);
      down[i] = Math.exp(-0.5 * ((places[i] - data[k + 1]) / width) ** 2);
    }
    for (let j = 0; j < cells; j++) {
      if (down[j] < 1e-9) continue;
      const at = j * cells;
      for (let i = 0; i < cells; i++) density[at + i] += down[j] * across[i];
    }
  }
  const order = Array.from(density.keys()).sort((a, b) => density[b] - density[a]);
  const total = density.reduce((a, b) => a + b, 0) || 1;
  const shade = new Uint8Array(cells * cells);
  const thresholds: number[] = [];
  let mass = 0;
  for (const cell of order) {
    shade[cell] = Math.round(255 * (1 - mass / total));
    mass += density[cell];
    if (thresholds.length < SHARES.length && mass >= SHARES[thresholds.length] * total) thresholds.push(density[cell]);
  }
  return { cells, shade, lines: thresholds.map((level) => isolines(density, cells, level)) };
}

/** Marching squares: the line on which a grid of values crosses a level. */
export function isolines(values: Float64Array, cells: number, level: number): Float32Array {
  const out: number[] = [];
  const place = (i: number) => (i + 0.5) * (2 / cells) - 1;
  for (let j = 0; j + 1 < cells; j++)
    for (let i = 0; i + 1 < cells; i++) {
      const corner = [
        values[j * cells + i],
        values[j * cells + i + 1],
        values[(j + 1) * cells + i + 1],
        values[(j + 1) * cells + i],
      ];
      const above = corner.map((value) => value > level);
      if (above.every(Boolean) || !above.some(Boolean)) continue;
      const ends: [number, number][] = [];
      for (let edge = 0; edge < 4; edge++) {
        const [p, q] = [edge, (edge + 1) % 4];
        if (above[p] === above[q]) continue;
        const share = (level - corner[p]) / (corner[q] - corner[p]);
        const at = (c: number): [number, number] => [c === 1 || c === 2 ? 1 : 0, c >= 2 ? 1 : 0];
        const [a, b] = [at(p), at(q)];
        ends.push([place(i + a[0] + share * (b[0] - a[0])), place(j + a[1] + share * (b[1] - a[1]))]);
      }
      for (let k = 0; k + 1 < ends.length; k += 2) out.push(...ends[k], ...ends[k + 1]);
    }
  return Float32Array.from(out);
}

/** Vertices of a square lattice of lines in the window at the start, by lines: `lines` each way, `along` on each. */
export function latticeStart(reach: number, lines: number, along: number): Float64Array {
  const out: number[] = [];
  const place = (i: number, n: number) => reach * ((2 * i) / (n - 1) - 1);
  for (let i = 0; i < lines; i++) for (let j = 0; j < along; j++) out.push(place(i, lines), place(j, along));
  for (let i = 0; i < lines; i++) for (let j = 0; j < along; j++) out.push(place(j, along), place(i, lines));
  return Float64Array.from(out);
}
