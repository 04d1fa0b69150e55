/** What the worker computes: walks, figures, fields and contours, as plain functions of plain data. */

import { plan } from './math/auto.ts';
import { type Member, trainedDenoiser } from './math/bases.ts';
import {
  type Denoiser,
  ExactDenoiser,
  guided,
  guidedMoments,
  type Moments,
  moments,
  noisyFactor,
  startFrom,
} from './math/denoisers.ts';
import { copyRadius, copyShare, rmsDistance, slicedWasserstein2, wasserstein2 } from './math/metrics.ts';
import { normals, Random, subset } from './math/random.ts';
import { grid } from './math/schedules.ts';
import { counted, exactFlow, trajectory } from './math/solvers.ts';
import type { Registry, SolverSpec } from './registry.ts';

/** What is asked of a denoiser. */
export interface Problem {
  dims: number;
  data: Float64Array;
  labels: Int32Array;
  denoiser: string;
  label: number;
  /** The class as the network counts it: of the classes that it was trained with. */
  trainedLabel: number;
  guidance: number;
}

export interface Walk extends Problem {
  solver: string;
  schedule: string;
  steps: number;
  sigmaMin: number;
  sigmaMax: number;
  rho: number;
  /** Points to start from; null to draw `count` by the seed. */
  given: Float64Array | null;
  count: number;
  seed: number;
  /** Covariance of the data where there are no rows, with mean 0. */
  covariance: number[] | null;
  /** Moments of the class as the network's own run knows them. */
  classMoments: PlainMoments | null;
}

export interface PlainMoments {
  mean: number[];
  covariance: number[];
}

export interface Trained {
  members: Member[];
  sigmaData: number;
  sigmaMin: number;
}

const NOISE_STREAM = 1000;

export function rowsOfClass(data: Float64Array, labels: Int32Array, dims: number, label: number): Float64Array {
  const rows: number[] = [];
  for (let i = 0; i < labels.length; i++)
    if (labels[i] === label) for (let d = 0; d < dims; d++) rows.push(data[i * dims + d]);
  return Float64Array.from(rows);
}

/** Return the denoiser of a problem: exact or trained, of all data or of a class, guided or not. */
export function denoiserOf(problem: Problem, trained: Trained | null): Denoiser {
  const { dims, data, labels, label, trainedLabel, guidance } = problem;
  if (problem.denoiser === 'network') {
    if (!trained) throw new Error('there is no trained network in this page');
    const { members, sigmaData } = trained;
    const known = trainedLabel >= 0 && trainedLabel < members[0].network.classes;
    const target = trainedDenoiser(members, sigmaData, known ? trainedLabel : -1);
    return known ? guided(target, trainedDenoiser(members, sigmaData), guidance) : target;
  }
  const all = new ExactDenoiser(data, dims);
  if (label < 0) return all;
  const own = rowsOfClass(data, labels, dims, label);
  return own.length ? guided(new ExactDenoiser(own, dims), all, guidance) : all;
}

/** Whether a step asks two denoisers: that of a class, and that of all data. */
function isGuided({ denoiser, label, classMoments, labels, guidance }: Walk): boolean {
  if (label < 0 || guidance === 0 || guidance === 1) return false;
  return denoiser === 'network' ? classMoments !== null : labels.includes(label);
}

export function startOf(walk: Walk): Float64Array {
  if (walk.given) return walk.given;
  const { dims, guidance, sigmaMax } = walk;
  const all = walk.data.length
    ? moments(walk.data, dims)
    : { mean: new Float64Array(dims), covariance: Float64Array.from(walk.covariance ?? [1, 0, 0, 1]) };
  const own = momentsOfClass(walk);
  const z = normals(walk.seed, 2, walk.count * dims);
  if (!own || guidance === 0) return startFrom(z, all.mean, noisyFactor(all.covariance, dims, sigmaMax));
  if (guidance === 1) return startFrom(z, own.mean, noisyFactor(own.covariance, dims, sigmaMax));
  const found = guidedMoments(own, all, guidance, sigmaMax);
  return startFrom(z, found.mean, noisyFactor(found.covariance, dims, 0));
}

/** Moments of the class that is asked for, as far as its denoiser knows it; null for none. */
function momentsOfClass({ denoiser, label, classMoments, data, labels, dims }: Walk): Moments | null {
  if (label < 0) return null;
  if (denoiser === 'network') {
    if (!classMoments) return null;
    return { mean: Float64Array.from(classMoments.mean), covariance: Float64Array.from(classMoments.covariance) };
  }
  const rows = rowsOfClass(data, labels, dims, label);
  return rows.length ? moments(rows, dims) : null;
}

/** Steps of `auto` in a budget of evaluations: half as many where guidance asks twice a step. */
export function autoSteps(evaluations: number, cost: number): number {
  return Math.max(1, Math.floor(evaluations / cost));
}

/** Return solver and grid. For `auto`, `steps` is the number of evaluations. */
export function planOf(
  walk: Walk,
  registry: Registry,
  trained: Trained | null,
): { solver: SolverSpec; sigmas: number[] } {
  const network = walk.denoiser === 'network' && trained;
  if (walk.solver === 'auto') {
    const steps = autoSteps(walk.steps, isGuided(walk) ? 2 : 1);
    return plan(registry.auto, steps, walk.sigmaMax, network ? trained.sigmaMin : 0);
  }
  const solver = registry.solvers[walk.solver];
  const schedule = registry.schedules[walk.schedule];
  if (!solver || !schedule) throw new Error(`there is no ${solver ? walk.schedule : walk.solver}`);
  const low = Math.min(walk.sigmaMin, walk.sigmaMax / 2);
  return { solver, sigmas: grid(schedule, walk.steps, low, walk.sigmaMax, walk.rho) };
}

export interface Walked {
  sigmas: number[];
  nfe: number;
  count: number;
  /** (steps + 1, B, D) */
  points: Float32Array;
  end: Float64Array;
}

/** Walk from noise to data, a step at a time; yields the share that is done. */
export function* walkDown(walk: Walk, registry: Registry, trained: Trained | null): Generator<number, Walked> {
  const { solver, sigmas } = planOf(walk, registry, trained);
  const denoiser = counted(denoiserOf(walk, trained));
  const start = startOf(walk);
  const noise = (step: number) => normals(walk.seed, NOISE_STREAM + step, start.length);
  const points = new Float32Array(sigmas.length * start.length);
  let k = 0;
  let end = start;
  for (end of trajectory(denoiser, start, sigmas, solver, registry, noise)) {
    points.set(end, k * start.length);
    k++;
    yield k / sigmas.length;
  }
  return { sigmas, nfe: denoiser.nfe, count: start.length / walk.dims, points, end };
}

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
