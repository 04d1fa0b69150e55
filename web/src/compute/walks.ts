/** Walks from noise to data: what is asked of a denoiser, by which solver and grid; plain functions of plain data. */

import { plan } from '../math/auto.ts';
import { type Member, trainedDenoiser } from '../math/bases.ts';
import {
  type Denoiser,
  ExactDenoiser,
  guided,
  guidedMoments,
  type Moments,
  moments,
  noisyFactor,
  startFrom,
} from '../math/denoisers.ts';
import { normals } from '../math/random.ts';
import type { Registry, SolverSpec } from '../math/registry.ts';
import { grid } from '../math/schedules.ts';
import { counted, trajectory } from '../math/solvers.ts';

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
