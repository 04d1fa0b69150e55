/** What the page holds: points, run, training; views ask it and are told of changes. */

import type { PanelName, Walked } from '../compute/messages.ts';
import type { Layer, Source } from '../compute/source.ts';
import { toBase64 } from '../files/packed.ts';
import { embeddedData, type Recipe, type RunFile } from '../files/run.ts';
import type { DatasetSpec, Registry } from '../math/registry.ts';
import { drawShape, HEART, type Points } from '../math/shapes.ts';
import { sigmaAt, timeOf } from '../math/time.ts';
import { connect, type Live, type Order, type ServerBlock } from '../server/protocol.ts';
import { Trainer, type Training } from '../server/training.ts';
import { Drawing, EMPTY, single } from './drawing.ts';
import type { Event, Held } from './held.ts';
import { Jobs } from './jobs.ts';
import { Layers } from './layers.ts';
import { denoiserIn, denoisers, problemOf, walkedOf } from './problems.ts';
import type { Learned } from './python.ts';
import { type Name, PROPERTIES, printOf, type State, type Store } from './state.ts';

export type Tool = 'drag' | 'spray' | 'line' | 'erase';

const LIVE_NFE = 10;
/** What is only shown otherwise: nothing is computed anew. */
const IDLE = 't speed probe lang theme data points trails field contours target'.split(' ');

export class App implements Held {
  data: Points = EMPTY;
  tool: Tool = 'drag';
  /** Points of one's own, and what is done to them. */
  readonly drawing: Drawing;
  recorded: Walked | null;
  /** The run that was written into this file, where it brings data or a recording along. */
  readonly file: RunFile | null;
  readonly trainer: Trainer;
  /** The last `model.pt` that the server sent. */
  model: Uint8Array<ArrayBuffer> | null = null;
  /** What the network of a training in this page was trained on. */
  trainedOn: Points | null = null;
  networks = 0;
  readonly #runData: Points | null;
  #print = 0;
  version = 0;
  /** What is drawn of the denoisers, and when what is computed. */
  readonly layers: Layers = new Layers(this);
  readonly jobs: Jobs = new Jobs(this, this.layers);
  readonly #listeners = new Map<Event, (() => void)[]>();

  constructor(
    readonly store: Store,
    readonly registry: Registry,
    public run: RunFile | null,
    readonly source: Source,
    own: Points | null,
    readonly server: ServerBlock | null = null,
  ) {
    this.drawing = new Drawing(
      own,
      () => (this.state.shape === '' ? null : this.data),
      () => this.#drawn(),
    );
    this.file = run?.recipe && !run.data ? null : run;
    const units = run && { columns: run.columns, mean: run.mean, scale: run.scale };
    this.#runData = run?.data ? { ...embeddedData(run.data), units: units ?? undefined } : null;
    this.recorded = run?.recorded ? walkedOf(run) : null;
    this.trainer = new Trainer(server && ((listener) => connect(server.token, listener)), {
      changed: (whole) => {
        if (whole) this.tell('figures');
        this.tell(whole ? 'training' : 'step');
        this.tell('picture');
      },
      took: (found, training) => this.#take(found, training),
      saved: (bytes) => {
        this.model = bytes;
        this.tell('model');
      },
    });
    if (!this.knows(this.state.shape)) store.set({ shape: PROPERTIES.shape.value });
    this.#refreshData();
    store.subscribe((changed) => this.#changed(changed));
  }

  get state(): State {
    return this.store.state;
  }

  on(event: Event, listener: () => void): void {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  }

  /** Forget who listens: the views are made anew. */
  silence(): void {
    this.#listeners.clear();
  }

  tell(event: Event): void {
    for (const listener of this.#listeners.get(event) ?? []) listener();
  }

  get panels(): PanelName[] {
    return this.state.compare ? ['a', 'b'] : ['a'];
  }

  get axes(): [number, number] {
    const [x, y] = this.state.axes.split(',').map(Number);
    const { dims } = this;
    return x < dims && y < dims && x >= 0 && y >= 0 ? [x, y] : [0, 1];
  }

  get dims(): number {
    return this.data.labels.length ? this.data.dims : (this.recorded?.dims ?? 2);
  }

  get classes(): number {
    return this.data.labels.reduce((most, label) => Math.max(most, label), 0) + 1;
  }

  shapes(): Record<string, DatasetSpec> {
    return { ...this.registry.datasets, heart: HEART };
  }

  /** Whether there are such points: an address may name any. */
  knows(shape: string): boolean {
    return shape === '' || Object.hasOwn(this.shapes(), shape) || (shape === 'run' && this.run !== null);
  }

  /** Noise of the shape in units of the window. */
  noise(): number {
    const spec = this.shapes()[this.state.shape];
    return this.state.noise >= 0 || !spec ? Math.max(this.state.noise, 0) : spec.noise / spec.scale;
  }

  draw(count: number, stream: number): Points | null {
    const spec = this.shapes()[this.state.shape];
    if (!spec) return null;
    const points = drawShape(spec, count, this.noise() * spec.scale, this.state.seed, stream);
    return { ...points, values: single(points.values) };
  }

  #refreshData(): void {
    const { shape, n } = this.state;
    this.data =
      shape === 'run'
        ? (this.#runData ?? EMPTY)
        : shape === ''
          ? (this.drawing.points ?? EMPTY)
          : (this.draw(n, 1) ?? EMPTY);
    this.#print = printOf(this.data);
    this.version++;
    this.jobs.moved();
  }

  /** The points of one's own are others now. */
  #drawn(): void {
    if (this.state.shape !== '') {
      this.store.set({ shape: '' });
      return;
    }
    this.#refreshData();
    if (this.state.class >= this.classes) this.store.set({ class: -1 });
    this.trainer.forget();
    this.tell('data');
    this.jobs.schedule();
    this.tell('picture');
  }

  #changed(changed: ReadonlySet<Name>): void {
    const has = (...names: Name[]) => names.some((name) => changed.has(name));
    if (has('shape', 'n', 'noise', 'seed')) {
      this.#refreshData();
      if (this.state.class >= this.classes) this.store.set({ class: -1 });
      this.tell('data');
    }
    this.tell('state');
    if (has('probe', 'compare') && !has('shape')) this.layers.ask();
    if ([...changed].some((name) => !IDLE.includes(name) && !name.startsWith('train.'))) {
      this.trainer.forget();
      this.jobs.schedule();
    }
    this.tell('picture');
  }

  /** Samples of the network in training, where they are to be seen. */
  get live(): Live | null {
    const { live } = this.trainer;
    return live?.dims === this.dims ? live : null;
  }

  /** Train a network on the points that are shown. */
  train(): void {
    const { data, state } = this;
    const settings: Recipe['settings'] = { sigma_min: Math.min(state.smin, state.smax / 2), sigma_max: state.smax };
    for (const key of Object.keys(this.registry.training ?? {})) settings[key] = state[`train.${key}`];
    const labels = this.classes > 1 ? [...data.labels] : null;
    const units = data.units ?? { columns: ['x', 'y'], mean: [0, 0], scale: [1, 1] };
    const points = toBase64(new Uint8Array(Float32Array.from(data.values).buffer));
    const order: Order = {
      seed: state['train.seed'],
      data: { points, dims: data.dims, labels, ...units },
      settings,
      live: { count: state.samples, nfe: LIVE_NFE, seed: Math.max(state.start, 1) },
    };
    const recipe = { seed: order.seed, settings, print: this.#print, labelled: labels !== null };
    this.trainer.start(order, { recipe, points: data });
    this.store.set({ t: 1, points: true });
  }

  /** Take what was trained in place of the network that was here, and set it beside the exact optimum. */
  #take(found: RunFile, { recipe, points }: Training): void {
    const { state } = this;
    const { data = null, rows = null, figures = {} } = this.run ?? {};
    this.run = { ...found, data, rows, figures, recorded: null, recipe };
    this.recorded = null;
    this.trainedOn = points;
    this.networks++;
    this.source.setup(this.run);
    if (found.network) {
      const beside: Partial<State> = {
        compare: true,
        'b.denoiser': 'exact',
        'b.solver': state['a.solver'],
        'b.schedule': state['a.schedule'],
        'b.steps': state['a.steps'],
      };
      const low = Math.min(Math.max(found.sigma_min, PROPERTIES.smin.low), PROPERTIES.smin.high);
      this.store.set({
        ...(state.compare ? {} : beside),
        'a.denoiser': 'network',
        smin: Math.max(state.smin, low), // a network knows no lower noise
      });
    }
    this.tell('data');
    this.jobs.schedule();
  }

  /** How the network of the page was trained, and on what, where that is known. */
  get learned(): Omit<Learned, 'panels'> | null {
    const recipe = this.run?.recipe;
    const points = this.trainedOn ?? (this.strange ? null : this.data);
    return recipe && points ? { recipe, points, label: problemOf(this, 'a').trainedLabel } : null;
  }

  /** Whether the network was trained in the page, on other points than those that are shown. */
  get strange(): boolean {
    return this.run?.recipe !== undefined && this.run.recipe.print !== this.#print;
  }

  get busy(): boolean {
    return this.jobs.busy;
  }

  get walked(): Jobs['walked'] {
    return this.jobs.walked;
  }

  get figures(): Jobs['figures'] {
    return this.jobs.figures;
  }

  get targets(): Jobs['targets'] {
    return this.jobs.targets;
  }

  get paths(): Layers['paths'] {
    return this.layers.paths;
  }

  layer(panel: PanelName, what: 'field' | 'contours'): Layer | null {
    return this.layers.layer(panel, what);
  }

  denoiser(panel: PanelName): string {
    return denoiserIn(this, panel);
  }

  denoisers(): string[] {
    return denoisers(this);
  }

  get sigmaMax(): number {
    return this.state.start === 0 && this.recorded ? this.recorded.sigmas[0] : this.state.smax;
  }

  get sigma(): number {
    return sigmaAt(this.state.t, this.sigmaMax);
  }

  /** Where a point of noise lies that a person put there, in view units, or null. */
  get probe(): [number, number] | null {
    const [x, y] = this.state.probe.split(',').map(Number);
    return this.state.probe && Number.isFinite(x) && Number.isFinite(y) ? [x, y] : null;
  }

  /** Times of the slider at which the first panel has a noise level. */
  stops(): number[] {
    const sigmas = this.walked.a?.sigmas ?? [this.sigmaMax, 0];
    return sigmas.map((sigma) => timeOf(sigma, this.sigmaMax));
  }
}
