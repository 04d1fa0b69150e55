/** What each panel asks, and of which denoiser. */

import { REACH } from '../compute/layers.ts';
import type { Job, PanelJob, PanelName, Walked } from '../compute/messages.ts';
import { type Problem, planOf, startOf, type Walk } from '../compute/walks.ts';
import { toBase64 } from '../files/packed.ts';
import { type RunFile, recordedPoints } from '../files/run.ts';
import type { WalkOrder } from '../server/protocol.ts';
import type { Held } from './held.ts';
import type { Name } from './state.ts';

const FRESH = 1500;

export function denoiserIn(held: Held, panel: PanelName): string {
  const wanted = held.state[`${panel}.denoiser`];
  const options = denoisers(held);
  return options.includes(wanted) ? wanted : (options[0] ?? 'exact');
}

/** What may denoise here: the exact optimum where there are points, the trained network in an exported page. */
export function denoisers(held: Held): string[] {
  const found: string[] = [];
  if (held.recorded?.dims === held.dims) found.push('recorded');
  if (held.run?.network && held.run.columns.length === held.dims) found.push('network');
  if (held.data.labels.length) found.push('exact');
  return found;
}

/** Whether a panel's denoiser can be asked anything, or is known by a recording alone. */
export function canAsk(held: Held, panel: PanelName): boolean {
  const name = denoiserIn(held, panel);
  return name === 'exact' ? held.data.labels.length > 0 : Boolean(held.run?.network);
}

/** Whether a layer has anything to show here. */
export function canShow(held: Held, name: Name): boolean {
  const some = held.data.labels.length > 0;
  switch (name) {
    case 'contours':
      return some && held.dims === 2;
    case 'target':
      return held.state.class >= 0 && held.state.guidance !== 1;
    case 'data':
    case 'nearest':
      return some;
    case 'classes':
      return some && held.classes > 1;
    case 'field':
    case 'grid':
      return held.dims === 2 && held.panels.some((panel) => canAsk(held, panel));
  }
  return true;
}

export function problemOf(held: Held, panel: PanelName): Problem {
  const { data } = held;
  const denoiser = denoiserIn(held, panel);
  const label = held.state.class;
  return {
    dims: held.dims,
    data: data.values,
    labels: data.labels,
    denoiser: denoiser === 'exact' ? 'exact' : 'network',
    label,
    // The server sorts the classes that there are, and leaves no gaps.
    trainedLabel: held.run?.recipe ? held.run.classes.indexOf(String(label)) : label,
    guidance: held.state.guidance,
  };
}

export function walkOf(held: Held, panel: PanelName, given: Float64Array | null = null): Walk {
  const { state, recorded } = held;
  const fromRun = state.start === 0 && recorded?.dims === held.dims && recorded;
  const problem = problemOf(held, panel);
  return {
    ...problem,
    solver: state[`${panel}.solver`],
    schedule: state[`${panel}.schedule`],
    steps: state[`${panel}.steps`],
    sigmaMin: state.smin,
    sigmaMax: fromRun ? recorded.sigmas[0] : state.smax,
    rho: state.rho,
    given: given ?? (fromRun ? Float64Array.from(recorded.points.subarray(0, recorded.count * recorded.dims)) : null),
    count: state.samples,
    seed: state.start,
    covariance: held.run?.covariance ?? null,
    classMoments: held.run?.class_moments?.[problem.trainedLabel] ?? null,
  };
}

/** What the flow depends on, without its discretisation. */
export function problemKey(held: Held, panel: PanelName): string {
  const { start, smax, class: label, guidance, samples } = held.state;
  const count = Math.min(samples, 200);
  const denoiser = denoiserIn(held, panel);
  const known = denoiser === 'exact' ? denoiser : [denoiser, held.networks];
  return JSON.stringify([held.version, known, start, smax, label, label < 0 ? 1 : guidance, count]);
}

export function panelKey(held: Held, panel: PanelName): string {
  const { state } = held;
  const { samples, smin, rho, metric, grid, view } = state;
  const own = denoiserIn(held, panel) === 'recorded' ? [] : ['solver', 'schedule', 'steps'];
  const mine = own.map((name) => state[`${panel}.${name}` as Name]);
  return JSON.stringify([problemKey(held, panel), mine, samples, smin, rho, metric, grid && view]);
}

/** Where a walk ends. */
export function endOf({ points, sigmas, count, dims }: Walked): Float64Array {
  return Float64Array.from(points.subarray((sigmas.length - 1) * count * dims));
}

function panelJob(held: Held, panel: PanelName): PanelJob {
  const walk = walkOf(held, panel);
  if (denoiserIn(held, panel) !== 'recorded' || !held.recorded) {
    return { panel, walk, recorded: null, key: problemKey(held, panel) };
  }
  return { panel, walk, recorded: { end: endOf(held.recorded), nfe: held.run?.recorded?.nfe ?? null }, key: '' };
}

/** What the workers are asked for. */
export function jobOf(held: Held, panels: PanelName[]): Job {
  const { state } = held;
  const { samples, metric, grid, view, smax } = state;
  return {
    panels: panels.map((panel) => panelJob(held, panel)),
    fresh: held.draw(FRESH, 2)?.values ?? null,
    floorKey: JSON.stringify([held.version, state.class, metric, Math.min(samples, 2000)]),
    metric,
    lattice: grid ? (view === 'scaled' ? REACH * 0.95 * Math.sqrt(1 + smax ** 2) : REACH * 0.95) : 0,
  };
}

/** A panel's walk as the server is asked for it. */
export function orderOf(held: Held, panel: PanelName): WalkOrder {
  const walk = walkOf(held, panel);
  const start = new Uint8Array(Float32Array.from(startOf(walk)).buffer);
  const { solver, dims, trainedLabel: label, guidance, seed } = walk;
  const { sigmas } = planOf(walk, held.registry, null);
  const network = held.run?.recipe ? 'trained' : 'given';
  return { panel: panel === 'a' ? 0 : 1, network, x: toBase64(start), dims, solver, sigmas, label, guidance, seed };
}

/** The recording of a run, as a walk. */
export function walkedOf(run: RunFile): Walked {
  const { shape, sigmas, nfe } = run.recorded!;
  return {
    sigmas,
    nfe: nfe ?? 0,
    count: shape[1],
    dims: shape[2],
    points: recordedPoints(run.recorded!),
    lattice: null,
  };
}
