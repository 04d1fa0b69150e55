/** What the page holds and when it computes: data, walks, figures, layers. Views ask it and are told of changes. */

import { Drawing, EMPTY, single } from './drawing.ts';
import { type Problem, planOf, startOf, type Walk } from './engine.ts';
import { nearest } from './math/metrics.ts';
import { drawShape, HEART, type Points } from './math/shapes.ts';
import type { Figures, Job, PanelJob, PanelName, Reply, Walked } from './messages.ts';
import { toBase64 } from './packed.ts';
import type { Learned } from './python.ts';
import type { DatasetSpec, Registry } from './registry.ts';
import { embeddedData, type Recipe, type RunFile, recordedPoints } from './run.ts';
import { connect, type Live, type Order, type ServerBlock, type WalkOrder } from './server.ts';
import type { Layer, Source } from './source.ts';
import { type Name, PROPERTIES, printOf, type State, type Store } from './state.ts';
import { sigmaAt, timeOf } from './time.ts';
import { Trainer, type Training } from './training.ts';
import { type Path, REACH } from './views/scene.ts';

export type Event =
  | 'state'
  | 'data'
  | 'walked'
  | 'figures'
  | 'progress'
  | 'picture'
  | 'problem'
  | 'training'
  | 'step'
  | 'model';
export type Tool = 'drag' | 'spray' | 'line' | 'erase';

/** One setting that was tried: a point of the work-precision plot. */
export interface Trial {
  problem: string;
  name: string;
  nfe: number;
  error: number;
}

const LEVELS = 64; // noise levels at which layers are computed
const FRESH = 1500;
const LIVE_NFE = 10;

export class App {
  data: Points = EMPTY;
  walked: Record<PanelName, Walked | null> = { a: null, b: null };
  figures: Record<PanelName, Partial<Figures>> = { a: {}, b: {} };
  /** Points of what guidance is said to draw. */
  readonly targets: Record<PanelName, Float32Array | null> = { a: null, b: null };
  paths: Record<PanelName, Path | null> = { a: null, b: null };
  trials: Trial[] = [];
  progress = 1;
  problem = '';
  busy = false;
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
  private networks = 0;
  private readonly runData: Points | null;
  private print = 0;
  private version = 0;
  private keys: Record<PanelName, string> = { a: '', b: '' };
  private ends: Record<PanelName, Int32Array | null> = { a: null, b: null };
  private readonly layers = new Map<string, Layer>();
  private readonly shown = new Map<string, Layer>();
  private pending = new Set<string>();
  private timer = 0;
  private serial = 0;
  private readonly listeners = new Map<Event, (() => void)[]>();

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
      () => this.drawn(),
    );
    this.file = run?.recipe && !run.data ? null : run;
    const units = run && { columns: run.columns, mean: run.mean, scale: run.scale };
    this.runData = run?.data ? { ...embeddedData(run.data), units: units ?? undefined } : null;
    this.recorded = run?.recorded ? walkedOf(run) : null;
    this.trainer = new Trainer(server && ((listener) => connect(server.token, listener)), {
      changed: (whole) => {
        if (whole) this.tell('figures');
        this.tell(whole ? 'training' : 'step');
        this.tell('picture');
      },
      took: (found, training) => this.take(found, training),
      saved: (bytes) => {
        this.model = bytes;
        this.tell('model');
      },
    });
    if (!this.knows(this.state.shape)) store.set({ shape: PROPERTIES.shape.value });
    this.refreshData();
    store.subscribe((changed) => this.changed(changed));
  }

  get state(): State {
    return this.store.state;
  }

  on(event: Event, listener: () => void): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  /** Forget who listens: the views are made anew. */
  silence(): void {
    this.listeners.clear();
  }

  tell(event: Event): void {
    for (const listener of this.listeners.get(event) ?? []) listener();
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

  private draw(count: number, stream: number): Points | null {
    const spec = this.shapes()[this.state.shape];
    if (!spec) return null;
    const points = drawShape(spec, count, this.noise() * spec.scale, this.state.seed, stream);
    return { ...points, values: single(points.values) };
  }

  private refreshData(): void {
    const { shape, n } = this.state;
    this.data =
      shape === 'run'
        ? (this.runData ?? EMPTY)
        : shape === ''
          ? (this.drawing.points ?? EMPTY)
          : (this.draw(n, 1) ?? EMPTY);
    this.print = printOf(this.data);
    this.version++;
    this.ends = { a: null, b: null };
  }

  /** The points of one's own are others now. */
  private drawn(): void {
    if (this.state.shape !== '') {
      this.store.set({ shape: '' });
      return;
    }
    this.refreshData();
    if (this.state.class >= this.classes) this.store.set({ class: -1 });
    this.trainer.forget();
    this.tell('data');
    this.schedule();
    this.tell('picture');
  }

  private changed(changed: ReadonlySet<Name>): void {
    const has = (...names: Name[]) => names.some((name) => changed.has(name));
    if (has('shape', 'n', 'noise', 'seed')) {
      this.refreshData();
      if (this.state.class >= this.classes) this.store.set({ class: -1 });
      this.tell('data');
    }
    this.tell('state');
    if (has('probe', 'compare') && !has('shape')) this.ask();
    const idle: Name[] = [
      't',
      'speed',
      'probe',
      'lang',
      'theme',
      'data',
      'points',
      'trails',
      'field',
      'contours',
      'target',
    ];
    if ([...changed].some((name) => !idle.includes(name) && !name.startsWith('train.'))) {
      this.trainer.forget();
      this.schedule();
    }
    this.tell('picture');
  }

  /** Start what has to be computed anew, after the changes of this moment are all in. */
  schedule(): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.start(), 40);
  }

  denoiser(panel: PanelName): string {
    const wanted = this.state[`${panel}.denoiser`];
    const options = this.denoisers();
    return options.includes(wanted) ? wanted : (options[0] ?? 'exact');
  }

  /** What may denoise here: the exact optimum where there are points, the trained network in an exported page. */
  denoisers(): string[] {
    const found: string[] = [];
    if (this.recorded?.dims === this.dims) found.push('recorded');
    if (this.run?.network && this.run.columns.length === this.dims) found.push('network');
    if (this.data.labels.length) found.push('exact');
    return found;
  }

  /** Whether a panel's denoiser can be asked anything, or is known by a recording alone. */
  canAsk(panel: PanelName): boolean {
    const name = this.denoiser(panel);
    return name === 'exact' ? this.data.labels.length > 0 : Boolean(this.run?.network);
  }

  /** Whether a layer has anything to show here. */
  canShow(name: Name): boolean {
    const some = this.data.labels.length > 0;
    switch (name) {
      case 'contours':
        return some && this.dims === 2;
      case 'target':
        return this.state.class >= 0 && this.state.guidance !== 1;
      case 'data':
      case 'nearest':
        return some;
      case 'classes':
        return some && this.classes > 1;
      case 'field':
      case 'grid':
        return this.dims === 2 && this.panels.some((panel) => this.canAsk(panel));
    }
    return true;
  }

  problemOf(panel: PanelName): Problem {
    const { data } = this;
    const denoiser = this.denoiser(panel);
    const label = this.state.class;
    return {
      dims: this.dims,
      data: data.values,
      labels: data.labels,
      denoiser: denoiser === 'exact' ? 'exact' : 'network',
      label,
      // The server sorts the classes that there are, and leaves no gaps.
      trainedLabel: this.run?.recipe ? this.run.classes.indexOf(String(label)) : label,
      guidance: this.state.guidance,
    };
  }

  walkOf(panel: PanelName, given: Float64Array | null = null): Walk {
    const { state, recorded } = this;
    const fromRun = state.start === 0 && recorded?.dims === this.dims && recorded;
    const problem = this.problemOf(panel);
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
      covariance: this.run?.covariance ?? null,
      classMoments: this.run?.class_moments?.[problem.trainedLabel] ?? null,
    };
  }

  /** What the flow depends on, without its discretisation. */
  problemKey(panel: PanelName): string {
    const { start, smax, class: label, guidance, samples } = this.state;
    const count = Math.min(samples, 200);
    const denoiser = this.denoiser(panel);
    const known = denoiser === 'exact' ? denoiser : [denoiser, this.networks];
    return JSON.stringify([this.version, known, start, smax, label, label < 0 ? 1 : guidance, count]);
  }

  private panelKey(panel: PanelName): string {
    const { state } = this;
    const { samples, smin, rho, metric, grid, view } = state;
    const own = this.denoiser(panel) === 'recorded' ? [] : ['solver', 'schedule', 'steps'];
    const mine = own.map((name) => state[`${panel}.${name}` as Name]);
    return JSON.stringify([this.problemKey(panel), mine, samples, smin, rho, metric, grid && view]);
  }

  private panelJob(panel: PanelName): PanelJob {
    const walk = this.walkOf(panel);
    if (this.denoiser(panel) !== 'recorded' || !this.recorded) {
      return { panel, walk, recorded: null, key: this.problemKey(panel) };
    }
    const { points, count, dims, sigmas } = this.recorded;
    const end = Float64Array.from(points.subarray((sigmas.length - 1) * count * dims));
    return { panel, walk, recorded: { end, nfe: this.run?.recorded?.nfe ?? null }, key: '' };
  }

  private start(): void {
    const { state } = this;
    this.ask();
    const panels = this.panels.filter((panel) => this.panelKey(panel) !== this.keys[panel]);
    if (!panels.length) return;
    if (!this.denoisers().length) {
      for (const panel of panels) this.walked[panel] = null;
      this.tell('walked');
      return;
    }
    const began = Object.fromEntries(panels.map((panel) => [panel, this.panelKey(panel)]));
    for (const panel of panels) {
      this.figures[panel] = {};
      this.targets[panel] = null;
      if (this.denoiser(panel) === 'recorded') this.arrive(panel, this.recorded);
    }
    const scale = Math.sqrt(1 + state.smax ** 2);
    const job: Job = {
      panels: panels.map((panel) => this.panelJob(panel)),
      fresh: this.draw(FRESH, 2)?.values ?? null,
      floorKey: JSON.stringify([this.version, state.class, state.metric, Math.min(state.samples, 2000)]),
      metric: state.metric,
      lattice: state.grid ? (state.view === 'scaled' ? REACH * 0.95 * scale : REACH * 0.95) : 0,
    };
    this.problem = '';
    this.busy = true;
    this.progress = 0;
    this.tell('figures');
    this.tell('progress');
    const serial = ++this.serial;
    const hear = (reply: Reply) => {
      if (serial === this.serial) this.hear(reply, began);
    };
    const there = panels.filter((panel) => this.denoiser(panel) === 'network' && this.trainer.able && !state.grid);
    if (!there.length) {
      this.source.run(job, hear);
      return;
    }
    Promise.all(there.map((panel) => this.trainer.walk(this.orderOf(panel)))).then((found) => {
      if (serial !== this.serial) return;
      for (const [i, panel] of there.entries()) {
        const walked = found[i];
        const part = job.panels.find((each) => each.panel === panel);
        if (!walked || !part) continue; // the page walks itself
        this.arrive(panel, walked);
        const end = Float64Array.from(walked.points.subarray((walked.sigmas.length - 1) * walked.count * walked.dims));
        part.recorded = { end, nfe: walked.nfe };
      }
      this.source.run(job, hear);
    });
  }

  /** A panel's walk as the server is asked for it. */
  private orderOf(panel: PanelName): WalkOrder {
    const walk = this.walkOf(panel);
    const start = new Uint8Array(Float32Array.from(startOf(walk)).buffer);
    const { solver, dims, trainedLabel: label, guidance, seed } = walk;
    const { sigmas } = planOf(walk, this.registry, null);
    const network = this.run?.recipe ? 'trained' : 'given';
    return { panel: panel === 'a' ? 0 : 1, network, x: toBase64(start), dims, solver, sigmas, label, guidance, seed };
  }

  private arrive(panel: PanelName, walked: Walked | null): void {
    this.walked[panel] = walked;
    this.ends[panel] = null;
    this.tell('walked');
    this.tell('picture');
  }

  private hear(reply: Reply, began: Record<string, string>): void {
    switch (reply.kind) {
      case 'progress':
        this.progress = reply.share;
        this.tell('progress');
        break;
      case 'walked':
        this.arrive(reply.panel, reply.walked);
        break;
      case 'target':
        this.targets[reply.panel] = reply.points;
        this.tell('picture');
        break;
      case 'figures':
        this.figures[reply.panel] = { ...this.figures[reply.panel], ...reply.figures };
        if (typeof reply.figures.error === 'number') this.note(reply.panel, reply.figures.error);
        this.tell('figures');
        break;
      case 'done':
        for (const panel of Object.keys(began) as PanelName[]) this.keys[panel] = began[panel];
        this.rest();
        break;
      case 'failed':
        this.problem = reply.message;
        this.rest();
        this.tell('problem');
        break;
    }
  }

  private rest(): void {
    this.busy = false;
    this.progress = 1;
    this.tell('progress');
  }

  private note(panel: PanelName, error: number): void {
    const { nfe } = this.figures[panel];
    if (!nfe || !(error > 0)) return;
    const name = this.state[`${panel}.solver`];
    const trial = { problem: this.problemKey(panel), name, nfe, error };
    this.trials = this.trials.filter((old) => old.name !== name || old.nfe !== nfe || old.problem !== trial.problem);
    this.trials.push(trial);
  }

  // ------------------------------------------------------------------------------------------------------- training

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
    const recipe = { seed: order.seed, settings, print: this.print, labelled: labels !== null };
    this.trainer.start(order, { recipe, points: data });
    this.store.set({ t: 1, points: true });
  }

  /** Take what was trained in place of the network that was here, and set it beside the exact optimum. */
  private take(found: RunFile, { recipe, points }: Training): void {
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
    this.schedule();
  }

  /** How the network of the page was trained, and on what, where that is known. */
  get learned(): Omit<Learned, 'panels'> | null {
    const recipe = this.run?.recipe;
    const points = this.trainedOn ?? (this.strange ? null : this.data);
    return recipe && points ? { recipe, points, label: this.problemOf('a').trainedLabel } : null;
  }

  /** Whether the network was trained in the page, on other points than those that are shown. */
  get strange(): boolean {
    return this.run?.recipe !== undefined && this.run.recipe.print !== this.print;
  }

  // -------------------------------------------------------------------------------------------------- what is shown

  get sigmaMax(): number {
    return this.state.start === 0 && this.recorded ? this.recorded.sigmas[0] : this.state.smax;
  }

  get sigma(): number {
    return sigmaAt(this.state.t, this.sigmaMax);
  }

  /** The data row nearest to where each sample ends. */
  nearestOf(panel: PanelName): Int32Array | null {
    const walked = this.walked[panel];
    if (!walked || !this.data.labels.length || walked.dims !== this.data.dims) return null;
    const end = walked.points.subarray((walked.sigmas.length - 1) * walked.count * walked.dims);
    this.ends[panel] ??= nearest(Float64Array.from(end), this.data.values, walked.dims).index;
    return this.ends[panel];
  }

  /** A layer at about the current noise level: the one that is known, while the right one is on its way. */
  layer(panel: PanelName, what: 'field' | 'contours'): Layer | null {
    const drawable = this.dims === 2 && (what === 'field' ? this.canAsk(panel) : this.data.labels.length > 0);
    if (!drawable) return null;
    const scaled = this.state.view === 'scaled';
    const base = JSON.stringify([this.problemKey(panel), what, scaled]);
    const place = Math.round(this.state.t * LEVELS);
    const found = this.layers.get(`${base}${place}`);
    if (found) this.shown.set(panel + what, found);
    else this.fetchLayer(panel, what, base, place, scaled);
    return this.shown.get(panel + what) ?? null;
  }

  private fetchLayer(panel: PanelName, what: 'field' | 'contours', base: string, place: number, scaled: boolean): void {
    const line = panel + what;
    if (this.pending.has(line)) return;
    this.pending.add(line);
    const sigma = sigmaAt(place / LEVELS, this.sigmaMax);
    const reach = scaled ? REACH * Math.sqrt(1 + sigma * sigma) : REACH;
    this.source.layer({ problem: this.problemOf(panel), what, sigma, reach }).then(
      (layer) => {
        if (this.layers.size > 600) this.layers.clear();
        this.layers.set(`${base}${place}`, layer);
        this.pending.delete(line);
        this.tell('picture');
      },
      () => this.pending.delete(line),
    );
  }

  /** Wait for a layer at the current noise level. */
  async exactly(panel: PanelName, what: 'field' | 'contours'): Promise<void> {
    for (let k = 0; k < 400; k++) {
      const before = this.layers.size;
      if (!this.layer(panel, what) && !this.pending.has(panel + what)) return;
      if (!this.pending.has(panel + what) && before === this.layers.size) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Where a point of noise lies that a person put there, in view units, or null. */
  get probe(): [number, number] | null {
    const [x, y] = this.state.probe.split(',').map(Number);
    return this.state.probe && Number.isFinite(x) && Number.isFinite(y) ? [x, y] : null;
  }

  /** Ask for the paths of the point. */
  private async ask(): Promise<void> {
    const { probe } = this;
    if (!probe || this.dims !== 2 || !this.denoisers().length) {
      this.paths = { a: null, b: null };
      this.tell('picture');
      return;
    }
    const scale = this.state.view === 'scaled' ? Math.sqrt(1 + this.sigmaMax ** 2) : 1;
    const given = Float64Array.from(probe, (value) => scale * value);
    try {
      const able = this.panels.filter((panel) => this.canAsk(panel));
      const jobs = able.map((panel) => ({ panel, walk: this.walkOf(panel, given) }));
      const paths = await this.source.probe(jobs);
      if (!paths) return;
      this.paths = { a: null, b: null };
      for (const { panel, sigmas, points } of paths) this.paths[panel] = { sigmas, points };
    } catch {
      this.paths = { a: null, b: null };
    }
    this.tell('picture');
  }

  /** Times of the slider at which the first panel has a noise level. */
  stops(): number[] {
    const sigmas = this.walked.a?.sigmas ?? [this.sigmaMax, 0];
    return sigmas.map((sigma) => timeOf(sigma, this.sigmaMax));
  }
}

function walkedOf(run: RunFile): Walked {
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
