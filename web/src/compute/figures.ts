/** Figures of samples: distances and their floor, copies, errors of a solver, and points of what guidance targets. */

import { copyRadius, copyShare, rmsDistance, slicedWasserstein2, wasserstein2 } from '../math/metrics.ts';
import { Random, subset } from '../math/random.ts';
import type { Registry } from '../math/registry.ts';
import { exactFlow } from '../math/solvers.ts';
import { denoiserOf, type Problem, startOf, type Trained, type Walk } from './walks.ts';

const COMPARED = 500;
const FLOORS = 3;

function some(points: Float64Array, dims: number, count: number, seed: number): Float64Array {
  const rows = subset(points.length / dims, count, seed);
  const out = new Float64Array(rows.length * dims);
  rows.forEach((row, i) => {
    out.set(points.subarray(row * dims, (row + 1) * dims), i * dims);
  });
  return out;
}

/** Return rows drawn again with replacement. */
function again(points: Float64Array, dims: number, count: number, seed: number): Float64Array {
  const random = new Random(seed, 77);
  const rows = points.length / dims;
  const out = new Float64Array(count * dims);
  for (let i = 0; i < count; i++) {
    const row = random.integer(rows);
    out.set(points.subarray(row * dims, (row + 1) * dims), i * dims);
  }
  return out;
}

export type Distance = (a: Float64Array, b: Float64Array) => number;

/** Return the distance that is asked for, of as many points as it can take. */
export function distanceOf(metric: string, dims: number): Distance {
  if (metric === 'sliced' && dims === 2) return (a, b) => slicedWasserstein2(a, b);
  return (a, b) => {
    const count = Math.min(COMPARED, a.length / dims, b.length / dims);
    return wasserstein2(some(a, dims, count, 1), some(b, dims, count, 2), dims);
  };
}

/** The floor: the same distance for fresh points, or for rows of the data drawn again where there is nothing fresh. */
export function floorOf(
  data: Float64Array,
  dims: number,
  count: number,
  fresh: Float64Array | null,
  distance: Distance,
): number {
  let sum = 0;
  for (let k = 0; k < FLOORS; k++) {
    const size = Math.min(count, fresh ? Math.floor(fresh.length / dims / FLOORS) : count);
    const draw = fresh ? fresh.slice(k * size * dims, (k + 1) * size * dims) : again(data, dims, size, k + 1);
    sum += distance(draw, data) / FLOORS;
  }
  return sum;
}

export function copiesOf(end: Float64Array, data: Float64Array, dims: number, fresh: Float64Array | null) {
  const radius = copyRadius(data, dims);
  return {
    copies: copyShare(end, data, dims, radius),
    copiesFresh: fresh ? copyShare(fresh, data, dims, radius) : null,
  };
}

/** Root mean square distance of the first rows to where the flow itself takes them. */
export function errorOf(end: Float64Array, exact: Float64Array, dims: number): number {
  return rmsDistance(end.subarray(0, exact.length), exact, dims);
}

/** Where the flow itself takes the first rows: of the exact denoiser 200, of a network, which is slower, 24. */
export function exactEnds(walk: Walk, registry: Registry, trained: Trained | null): Float64Array {
  const network = walk.denoiser === 'network' && trained;
  const start = startOf(walk).slice(0, (network ? 24 : 200) * walk.dims);
  const denoiser = denoiserOf(walk, trained);
  return network
    ? exactFlow(denoiser, start, walk.sigmaMax, registry, 'dormand-prince', 1e-5, trained.sigmaMin)
    : exactFlow(denoiser, start, walk.sigmaMax, registry, 'dop853', 1e-7, 1e-4);
}

const TRIES = 400;

/**
 * Points of what guidance of strength w is said to draw, p(x|c) p(c|x)^(w - 1) of the data blurred by sigma; exact, by
 * rejection: proposed from the class and kept with probability p(c|x)^(w - 1), or, where w is below 1, from all data and
 * kept with probability p(c|x)^w. Null where hardly any are kept.
 */
export function guidedTarget(problem: Problem, sigma: number, count: number, seed: number): Float64Array | null {
  const { data, labels, dims, label, guidance } = problem;
  const rows = Array.from(labels.keys()).filter((i) => guidance < 1 || labels[i] === label);
  if (!rows.length || !labels.includes(label)) return null;
  const power = guidance < 1 ? guidance : guidance - 1;
  const random = new Random(seed, 55);
  const out: number[] = [];
  const x = new Float64Array(dims);
  for (let tries = 0; tries < TRIES * count && out.length < count * dims; tries++) {
    const row = rows[random.integer(rows.length)];
    for (let d = 0; d < dims; d++) x[d] = data[row * dims + d] + sigma * random.normal();
    if (random.uniform() < posterior(problem, x, sigma) ** power) out.push(...x);
  }
  return out.length < (count * dims) / 2 ? null : Float64Array.from(out);
}

/** The share of the class in the blurred data at a point. */
function posterior({ data, labels, dims, label }: Problem, x: Float64Array, sigma: number): number {
  const squares = Float64Array.from(labels, (_, i) => {
    let sum = 0;
    for (let d = 0; d < dims; d++) sum += (x[d] - data[i * dims + d]) ** 2;
    return sum;
  });
  const least = squares.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  let [own, all] = [0, 0];
  for (let i = 0; i < labels.length; i++) {
    const weight = Math.exp((least - squares[i]) / (2 * sigma * sigma));
    all += weight;
    if (labels[i] === label) own += weight;
  }
  return own / all;
}
