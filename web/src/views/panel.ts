/** One panel: its settings, its picture, its figures; and what a hand or the keys do on the picture. */

import type { App } from '../app/app.ts';
import { canAsk } from '../app/problems.ts';
import { REACH } from '../compute/layers.ts';
import type { PanelName } from '../compute/messages.ts';
import { type Key, shown, t } from '../texts/i18n.ts';
import { type Option, select, slider } from './controls.ts';
import { h } from './dom.ts';
import type { Palette } from './palette.ts';
import { Painter, type Scene } from './scene.ts';

const MOST_PIXELS = 1400;
const FAMILIES = ['runge-kutta', 'multistep', 'singlestep', 'adaptive', 'stochastic'];

export function solverOptions(app: App): Option[] {
  const found: Option[] = [{ value: 'auto', text: t('solver.auto') }];
  for (const family of FAMILIES)
    for (const [name, spec] of Object.entries(app.registry.solvers)) {
      const own = spec.noises ? 'stochastic' : spec.family;
      if (own === family) found.push({ value: name, text: name, group: t(`family.${family}` as Key) });
    }
  return found;
}

/** One sentence about a solver, from the facts that Python tells. */
export function aboutSolver(app: App, name: string): string {
  if (name === 'auto') return t('about.auto');
  const spec = app.registry.solvers[name];
  if (!spec) return '';
  const calls = spec.calls === null ? t('about.adaptive') : t('about.calls', { n: spec.calls });
  return t('about.solver', { order: spec.order, calls, noise: spec.noises ? t('about.noise') : '' });
}

function figure(label: string, id: string): { item: HTMLElement; set: (text: string, note?: string) => void } {
  const value = h('span', { class: 'value' }, '–');
  const beside = h('span', { class: 'beside' });
  const item = h('div', { class: 'figure', 'data-figure': id }, h('dt', {}, label), h('dd', {}, value, beside));
  return {
    item,
    set(text, note = '') {
      value.textContent = text;
      beside.textContent = note;
    },
  };
}

function figures(app: App, panel: PanelName): HTMLElement {
  const nfe = figure(t('figure.nfe'), 'nfe');
  const w2 = figure(app.state.metric === 'sliced' ? t('figure.sliced') : t('figure.w2'), 'w2');
  const guided = figure(t('figure.guided'), 'guided');
  const error = figure(t('figure.error'), 'error');
  const copies = figure(t('figure.copies'), 'copies');
  const sync = () => {
    const f = panel === 'a' && app.live ? {} : app.figures[panel]; // they are of a walk
    nfe.set(f.nfe ? String(f.nfe) : '–');
    w2.item.querySelector('dt')!.textContent = app.state.metric === 'sliced' ? t('figure.sliced') : t('figure.w2');
    w2.set(
      typeof f.w2 === 'number' ? shown(f.w2) : '–',
      typeof f.floor === 'number' ? t(f.fresh ? 'figure.floor' : 'figure.floor.again', { value: shown(f.floor) }) : '',
    );
    guided.item.hidden = typeof f.guided !== 'number';
    if (typeof f.guided === 'number')
      guided.set(shown(f.guided), t('figure.guided.floor', { value: shown(f.guidedFloor ?? 0) }));
    error.set(typeof f.error === 'number' ? (f.error < 1e-6 ? '< 10⁻⁶' : shown(f.error)) : '–');
    copies.set(
      typeof f.copies === 'number' ? `${Math.round(100 * f.copies)} %` : '–',
      typeof f.copiesFresh === 'number' ? t('figure.fresh', { value: `${Math.round(100 * f.copiesFresh)} %` }) : '',
    );
  };
  app.on('figures', sync);
  app.on('state', sync);
  sync();
  return h('dl', { class: 'figures', 'aria-live': 'polite' }, nfe.item, w2.item, guided.item, error.item, copies.item);
}

export function sceneOf(app: App, panel: PanelName): Scene {
  const { state } = app;
  const live = panel === 'a' ? app.live : null;
  const wanted = !live && (state.nearest || state.classes);
  return {
    data: app.data,
    walked: live ? null : app.walked[panel],
    live,
    nearest: wanted ? app.jobs.nearestOf(panel) : null,
    field: state.field ? (app.layer(panel, 'field')?.field ?? null) : null,
    contours: state.contours ? (app.layer(panel, 'contours')?.contours ?? null) : null,
    path: live ? null : app.paths[panel],
    target: state.target && !live ? app.targets[panel] : null,
    sigma: app.sigma,
    scaled: state.view === 'scaled',
    axes: app.axes,
    show: state,
    label: state.class,
  };
}

export class PanelView {
  readonly element: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  /** Milliseconds that the last draws took. */
  readonly times: number[] = [];
  readonly #painter: Painter;
  readonly #readout = h('p', { class: 'readout', 'aria-live': 'polite' });
  readonly #hint = h('p', { class: 'hint' }, t('hint'));
  #cursor: [number, number] = [0, 0];
  readonly #live = h('p', { class: 'live', hidden: true });
  private readonly cross = h('span', { class: 'cross', hidden: true, 'aria-hidden': 'true' });

  constructor(
    private readonly app: App,
    readonly panel: PanelName,
    palette: Palette,
  ) {
    this.canvas = h('canvas', { class: 'canvas', tabindex: 0, role: 'img', id: `canvas-${panel}` });
    const base = h('canvas', { class: 'base', 'aria-hidden': 'true' });
    this.#painter = new Painter(base, this.canvas, palette);
    this.element = h(
      'article',
      { class: 'panel card', id: `panel-${panel}`, 'aria-label': t('panel', { name: panel.toUpperCase() }) },
      this.#head(),
      h('div', { class: 'picture' }, base, this.canvas, this.cross, this.#hint, this.#live),
      this.#readout,
      figures(app, panel),
    );
    this.#hands();
    this.#keys();
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  #head(): HTMLElement {
    const { app, panel } = this;
    const solver = select(app, `${panel}.solver`, () => solverOptions(app));
    const schedule = select(app, `${panel}.schedule`, () =>
      Object.keys(app.registry.schedules).map((name) => ({ value: name, text: name })),
    );
    const steps = slider(app, `${panel}.steps`);
    const denoiser = select(
      app,
      `${panel}.denoiser`,
      () => app.denoisers().map((name) => ({ value: name, text: t(`denoiser.${name}` as Key) })),
      () => app.denoiser(panel),
    );
    const about = h('p', { class: 'note about' });
    const sync = () => {
      const recorded = app.denoiser(panel) === 'recorded';
      for (const control of [solver, schedule, steps]) control.hidden = recorded;
      schedule.hidden ||= app.state[`${panel}.solver`] === 'auto';
      denoiser.hidden = app.denoisers().length < 2;
      const run = app.run?.recorded;
      about.textContent =
        recorded && run
          ? t('recorded', { name: run.name, n: run.sigmas.length - 1 })
          : aboutSolver(app, app.state[`${panel}.solver`]);
    };
    app.on('state', sync);
    app.on('data', sync);
    sync();
    return h(
      'div',
      { class: 'panel-head' },
      h('span', { class: `badge badge-${panel}`, 'aria-hidden': 'true' }, panel.toUpperCase()),
      denoiser,
      solver,
      schedule,
      steps,
      about,
    );
  }

  setPalette(palette: Palette): void {
    this.#painter.setPalette(palette);
  }

  #resize(): void {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const pixels = Math.min(Math.round(width * Math.min(devicePixelRatio || 1, 2)), MOST_PIXELS);
    if (this.#painter.resize(pixels)) this.draw();
  }

  draw(): void {
    const { app } = this;
    if (this.canvas.clientWidth === 0) return;
    const began = performance.now();
    this.#painter.draw(sceneOf(app, this.panel));
    this.times.push(performance.now() - began);
    if (this.times.length > 400) this.times.splice(0, 200);
    this.#tell();
  }

  #tell(): void {
    const { app, panel } = this;
    const live = panel === 'a' ? app.live : null;
    const step = live ? t('train.live', { step: live.step }) : '';
    this.#live.hidden = !live;
    if (this.#live.textContent !== step) this.#live.textContent = step;
    const label = live
      ? t('canvas.live', { samples: live.count, data: app.data.labels.length })
      : t('canvas', {
          samples: app.walked[panel]?.count ?? 0,
          data: app.data.labels.length,
          sigma: shown(app.sigma),
        });
    if (this.canvas.getAttribute('aria-label') !== label) this.canvas.setAttribute('aria-label', label);
    this.canvas.dataset.tool = app.tool;
    this.#hint.hidden =
      app.tool !== 'drag' ||
      panel !== 'a' ||
      live !== null ||
      app.probe !== null ||
      app.dims !== 2 ||
      !canAsk(app, panel);
    const path = app.paths[panel];
    let text = '';
    if (path && path.points.length === 2 * path.sigmas.length) {
      const last = path.sigmas.length - 1;
      const k = Math.min(
        path.sigmas.findIndex((_s, i) => i === last || path.sigmas[i + 1] <= app.sigma),
        last - 1,
      );
      const slope = [0, 1].map(
        (d) => (path.points[2 * k + d] - path.points[2 * k + 2 + d]) / (path.sigmas[k] - path.sigmas[k + 1]),
      );
      const at = (i: number) => `(${path.points[2 * i].toFixed(2)}, ${path.points[2 * i + 1].toFixed(2)})`;
      text = t('probe', { start: at(0), end: at(last), slope: `(${slope.map((v) => v.toFixed(2)).join(', ')})` });
    }
    if (this.#readout.textContent !== text) this.#readout.textContent = text;
  }

  #place(event: PointerEvent): [number, number] {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * 2 * REACH - REACH,
      REACH - ((event.clientY - box.top) / box.height) * 2 * REACH,
    ];
  }

  #hands(): void {
    const { app, canvas } = this;
    let last: [number, number] | null = null;
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      last = this.#place(event);
      this.#cursor = last;
      if (app.tool !== 'drag') app.drawing.checkpoint();
      this.#act(last, last);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!last) return;
      const next = this.#place(event);
      this.#act(last, next);
      last = this.#cursor = next;
    });
    for (const name of ['pointerup', 'pointercancel'] as const)
      canvas.addEventListener(name, () => {
        last = null;
      });
  }

  /** Drag the point, spray, draw a line or erase between two places. */
  #act(from: [number, number], to: [number, number]): void {
    const { app } = this;
    const [x, y] = to.map((value) => Math.min(Math.max(value, -REACH), REACH));
    if (app.tool === 'drag') app.store.set({ probe: `${x.toFixed(3)},${y.toFixed(3)}` });
    else if (app.tool === 'erase') app.drawing.erase(x, y);
    else if (app.tool === 'spray') {
      const points: number[] = [];
      for (let i = 0; i < 6; i++) {
        const [radius, angle] = [app.drawing.brush.size * Math.sqrt(Math.random()), 2 * Math.PI * Math.random()];
        points.push(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
      }
      app.drawing.add(points);
    } else {
      const length = Math.hypot(x - from[0], y - from[1]);
      const count = Math.max(1, Math.round(length / (0.15 * app.drawing.brush.size + 0.02)));
      app.drawing.add(
        Array.from({ length: count }, (_, i) => (i + 1) / count).flatMap((s) => [
          from[0] + s * (x - from[0]),
          from[1] + s * (y - from[1]),
        ]),
      );
    }
  }

  /** On the focused picture arrows move a cross, and Space or Enter does there what a hand would do. */
  #keys(): void {
    const { app, canvas, cross } = this;
    const show = () => {
      cross.hidden = false;
      cross.style.left = `${50 * (1 + this.#cursor[0] / REACH)}%`;
      cross.style.top = `${50 * (1 - this.#cursor[1] / REACH)}%`;
    };
    canvas.addEventListener('blur', () => {
      cross.hidden = true;
    });
    canvas.addEventListener('keydown', (event) => {
      const step = event.shiftKey ? 0.5 : 0.1;
      const move: [number, number] | undefined = (
        { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] } as Record<
          string,
          [number, number]
        >
      )[event.key];
      if (move) {
        const before = this.#cursor;
        this.#cursor = [0, 1].map((d) => Math.min(Math.max(before[d] + move[d], -REACH), REACH)) as [number, number];
        show();
        if (app.tool === 'drag' && app.probe) this.#act(before, this.#cursor);
      } else if (event.key === ' ' || event.key === 'Enter') {
        show();
        if (app.tool !== 'drag') app.drawing.checkpoint();
        this.#act(this.#cursor, this.#cursor);
      } else if (event.key === 'Escape' || event.key === 'Delete') {
        app.store.set({ probe: '' });
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
}
