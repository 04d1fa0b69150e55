/** The worker: one job at a time, the latest wins; it looks up between steps, so that nobody waits. */

import { encodeGif } from '../files/gif.ts';
import { membersOf } from '../files/run.ts';
import type { Registry } from '../math/registry.ts';
import { copiesOf, distanceOf, errorOf, exactEnds, floorOf, guidedTarget } from './figures.ts';
import { contoursAt, fieldAt, LATTICE, latticeStart } from './layers.ts';
import type { Job, LayerJob, PanelJob, Reply, Request } from './messages.ts';
import { rowsOfClass, type Trained, walkDown } from './walks.ts';

interface Scope {
  postMessage(message: Reply, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<Request>) => void) | null;
}

const FIELD_CELLS = 24;
const CONTOUR_CELLS = 80;
const TARGET = 500;
const PATIENCE = 24; // milliseconds between two looks at the messages

export function serve(scope: Scope): void {
  let registry: Registry;
  let trained: Trained | null = null;
  let current = 0;
  const exact = new Map<string, Float64Array>();
  const floors = new Map<string, number>();

  /** Let messages in; returns whether the job is still wanted. */
  const channel = new MessageChannel();
  const waiting: (() => void)[] = [];
  channel.port1.onmessage = () => waiting.shift()?.();
  const look = (id: number): Promise<boolean> =>
    new Promise((resolve) => {
      waiting.push(() => resolve(id === current));
      channel.port2.postMessage(null);
    });

  async function walk(id: number, part: PanelJob, job: Job, at: (share: number) => number) {
    let since = performance.now();
    const steps = walkDown(part.walk, registry, trained);
    for (;;) {
      const next = steps.next();
      if (next.done) {
        const { end, ...walked } = next.value;
        const lattice = job.lattice ? await carry(id, part, job.lattice) : null;
        const points = walked.points;
        const reply = { ...walked, dims: part.walk.dims, lattice };
        scope.postMessage({ kind: 'walked', id, panel: part.panel, walked: reply }, [
          points.buffer as ArrayBuffer,
          ...(lattice ? [lattice.buffer as ArrayBuffer] : []),
        ]);
        return { end, nfe: walked.nfe };
      }
      if (performance.now() - since > PATIENCE) {
        scope.postMessage({ kind: 'progress', id, share: at(next.value) });
        if (!(await look(id))) return null;
        since = performance.now();
      }
    }
  }

  /** Carry a lattice of lines down the same steps. */
  async function carry(id: number, part: PanelJob, reach: number): Promise<Float32Array | null> {
    if (part.walk.dims !== 2) return null;
    const given = latticeStart(reach, LATTICE.lines, LATTICE.along);
    const steps = walkDown({ ...part.walk, given }, registry, trained);
    for (;;) {
      const next = steps.next();
      if (next.done) return next.value.points;
      if (!(await look(id))) return null;
    }
  }

  function judge(id: number, part: PanelJob, job: Job, end: Float64Array, nfe: number | null): void {
    const { walk } = part;
    const whole = walk.label < 0;
    const data = whole ? walk.data : rowsOfClass(walk.data, walk.labels, walk.dims, walk.label);
    if (!data.length) {
      scope.postMessage({ kind: 'figures', id, panel: part.panel, figures: { nfe } });
      return;
    }
    const fresh = whole ? job.fresh : null;
    const distance = distanceOf(job.metric, walk.dims);
    const count = end.length / walk.dims;
    let floor = floors.get(job.floorKey);
    if (floor === undefined) {
      floor = floorOf(data, walk.dims, Math.min(count, 2000), fresh, distance);
      floors.set(job.floorKey, floor);
    }
    const figures = { nfe, w2: distance(end, data), floor, fresh: fresh !== null };
    scope.postMessage({
      kind: 'figures',
      id,
      panel: part.panel,
      figures: { ...figures, ...copiesOf(end, data, walk.dims, fresh) },
    });
  }

  /** Set the samples beside what guidance is said to draw. */
  function tilt(id: number, part: PanelJob, job: Job, end: Float64Array): void {
    const { walk } = part;
    if (walk.label < 0 || walk.guidance === 1) return;
    const count = Math.min(end.length / walk.dims, TARGET);
    const [target, again] = [1, 2].map((seed) => guidedTarget(walk, walk.sigmaMin, count, seed));
    if (!target || !again) return;
    const distance = distanceOf(job.metric, walk.dims);
    const figures = { guided: distance(end, target), guidedFloor: distance(again, target) };
    scope.postMessage({ kind: 'target', id, panel: part.panel, points: Float32Array.from(target) });
    scope.postMessage({ kind: 'figures', id, panel: part.panel, figures });
  }

  function measure(id: number, part: PanelJob, end: Float64Array): void {
    let ends = exact.get(part.key);
    if (!ends) {
      ends = exactEnds(part.walk, registry, trained);
      if (exact.size > 40) exact.clear();
      exact.set(part.key, ends);
    }
    const error = errorOf(end, ends, part.walk.dims);
    scope.postMessage({ kind: 'figures', id, panel: part.panel, figures: { error } });
  }

  async function run(id: number, job: Job): Promise<void> {
    const ends: (Float64Array | null)[] = [];
    const calls: (number | null)[] = [];
    for (const [i, part] of job.panels.entries()) {
      const share = (done: number) => (i + done) / job.panels.length;
      const found = part.recorded ?? (await walk(id, part, job, share));
      if (!found) return;
      ends.push(found.end);
      calls.push(found.nfe);
    }
    scope.postMessage({ kind: 'progress', id, share: 1 });
    for (const step of [judge, tilt, null]) {
      for (const [i, part] of job.panels.entries()) {
        if (!(await look(id))) return;
        if (step) step(id, part, job, ends[i]!, calls[i]);
        else if (part.key) measure(id, part, ends[i]!);
      }
    }
    scope.postMessage({ kind: 'done', id });
  }

  function layer(id: number, { problem, what, sigma, reach }: LayerJob): void {
    const field = what === 'field' ? fieldAt(problem, trained, sigma, reach, FIELD_CELLS) : null;
    const data =
      problem.label < 0 ? problem.data : rowsOfClass(problem.data, problem.labels, problem.dims, problem.label);
    const contours = what === 'contours' ? contoursAt(data, sigma, reach, CONTOUR_CELLS) : null;
    scope.postMessage({ kind: 'layer', id, field, contours });
  }

  scope.onmessage = ({ data: request }) => {
    const { id } = 'id' in request ? request : { id: 0 };
    const fail = (error: unknown) =>
      scope.postMessage({ kind: 'failed', id, message: error instanceof Error ? error.message : String(error) });
    try {
      switch (request.kind) {
        case 'setup':
          registry = request.registry;
          trained = null;
          if (request.network) {
            const { sigmaData, sigmaMin } = request;
            trained = { members: membersOf(request.network), sigmaData, sigmaMin };
          }
          break;
        case 'job':
          current = id;
          run(id, request.job).catch(fail);
          break;
        case 'layer':
          layer(id, request.job);
          break;
        case 'probe': {
          const paths = request.jobs.map(({ panel, walk }) => {
            const steps = walkDown(walk, registry, trained);
            for (;;) {
              const next = steps.next();
              if (next.done) return { panel, sigmas: next.value.sigmas, points: next.value.points };
            }
          });
          scope.postMessage({ kind: 'probe', id, paths });
          break;
        }
        case 'gif': {
          const bytes = encodeGif(request.frames, request.width, request.height, request.delay);
          scope.postMessage({ kind: 'gif', id, bytes }, [bytes.buffer as ArrayBuffer]);
          break;
        }
      }
    } catch (error) {
      fail(error);
    }
  };
}
