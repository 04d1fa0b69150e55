/** Where the page's computing is done: workers of its own. */

import type { RunFile } from '../files/run.ts';
import type { Registry } from '../math/registry.ts';
import type { Contours } from './layers.ts';
import type { Field, Job, LayerJob, PanelName, ProbeJob, Reply, Request } from './messages.ts';

export interface Layer {
  field: Field | null;
  contours: Contours | null;
}

export type Paths = { panel: PanelName; sigmas: number[]; points: Float32Array }[];

export interface Source {
  /** Start a job in place of the one before; `tell` hears of it until the next one starts. */
  run(job: Job, tell: (reply: Reply) => void): void;
  layer(job: LayerJob): Promise<Layer>;
  /** Paths of single points; null if a later call came between. */
  probe(jobs: ProbeJob[]): Promise<Paths | null>;
  gif(frames: Uint8ClampedArray[], width: number, height: number, delay: number): Promise<Uint8Array>;
  /** Ask the network of this run from now on. */
  setup(run: RunFile | null): void;
}

type Handler = (reply: Reply) => void;

/** Two workers of this page's own script: one for long jobs, one that answers at once. */
export class WorkerSource implements Source {
  readonly #long: Worker;
  readonly #quick: Worker;
  #next = 1;
  #tell: Handler = () => {};
  #job = 0;
  #latestProbe = 0;
  readonly #waiting = new Map<number, Handler>();

  constructor(
    script: string,
    private readonly registry: Registry,
    run: RunFile | null,
  ) {
    const address = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
    [this.#long, this.#quick] = [new Worker(address), new Worker(address)];
    this.setup(run);
    this.#long.onmessage = ({ data: reply }: MessageEvent<Reply>) => {
      if (reply.id === this.#job) this.#tell(reply);
    };
    this.#quick.onmessage = ({ data: reply }: MessageEvent<Reply>) => {
      this.#waiting.get(reply.id)?.(reply);
      this.#waiting.delete(reply.id);
    };
  }

  setup(run: RunFile | null): void {
    const setup: Request = {
      kind: 'setup',
      registry: this.registry,
      network: run?.network ?? null,
      sigmaData: run?.sigma_data ?? 1,
      sigmaMin: run?.sigma_min ?? 0.01,
    };
    for (const worker of [this.#long, this.#quick]) worker.postMessage(setup);
  }

  run(job: Job, tell: Handler): void {
    this.#tell = tell;
    this.#job = this.#next++;
    this.#long.postMessage({ kind: 'job', id: this.#job, job } satisfies Request);
  }

  #ask(request: (id: number) => Request): Promise<Reply> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (reply) => (reply.kind === 'failed' ? reject(new Error(reply.message)) : resolve(reply)));
      this.#quick.postMessage(request(id));
    });
  }

  async layer(job: LayerJob): Promise<Layer> {
    const reply = await this.#ask((id) => ({ kind: 'layer', id, job }));
    return reply.kind === 'layer' ? reply : { field: null, contours: null };
  }

  async probe(jobs: ProbeJob[]): Promise<Paths | null> {
    const mine = ++this.#latestProbe;
    const reply = await this.#ask((id) => ({ kind: 'probe', id, jobs }));
    return reply.kind === 'probe' && mine === this.#latestProbe ? reply.paths : null;
  }

  async gif(frames: Uint8ClampedArray[], width: number, height: number, delay: number): Promise<Uint8Array> {
    const reply = await this.#ask((id) => ({ kind: 'gif', id, frames, width, height, delay }));
    if (reply.kind !== 'gif') throw new Error('the worker gave no picture');
    return reply.bytes;
  }
}
