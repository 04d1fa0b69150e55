/** The slider of time: from noise to data and back, by hand, by keys, or playing. */

import type { App } from '../app/app.ts';
import { shown, t } from '../texts/i18n.ts';
import { help } from './controls.ts';
import { h, icon } from './dom.ts';

const SECONDS = 7; // from noise to data at speed 1
const SPEEDS = [0.25, 0.5, 1, 2, 4];
const TICKS = 1000;

export class Timeline {
  readonly element: HTMLElement;
  playing = false;
  #before = 0;
  #frame = 0;
  readonly #button: HTMLButtonElement;
  readonly #input: HTMLInputElement;

  constructor(private readonly app: App) {
    this.#button = h('button', { type: 'button', class: 'play', id: 'play', onclick: () => this.toggle() });
    this.#input = h('input', {
      type: 'range',
      id: 'time',
      min: 0,
      max: TICKS,
      step: 1,
      'aria-label': t('name.time'),
      oninput: () => {
        this.stop();
        app.store.set({ t: Number(this.#input.value) / TICKS });
      },
    });
    this.#input.addEventListener('keydown', (event) => {
      if (this.key(event)) event.stopPropagation();
    });
    const level = h('output', { class: 'sigma', for: 'time' });
    const speed = h(
      'select',
      { id: 'speed', 'aria-label': t('name.speed'), onchange: () => app.store.set({ speed: Number(speed.value) }) },
      ...SPEEDS.map((value) => h('option', { value }, `${value}×`)),
    );
    const end = (name: string, value: number) =>
      h(
        'button',
        {
          type: 'button',
          class: 'icon',
          'aria-label': t(`time.${name}` as 'time.first'),
          title: t(`time.${name}` as 'time.first'),
          id: `time-${name}`,
          onclick: () => {
            this.stop();
            app.store.set({ t: value });
          },
        },
        icon(name),
      );
    const about = help('time');
    const bar = h(
      'div',
      { class: 'bar', role: 'progressbar', 'aria-label': t('computing'), 'aria-valuemin': 0, 'aria-valuemax': 100 },
      h('span'),
    );
    this.element = h(
      'div',
      { class: 'timeline card', id: 'timeline' },
      bar,
      h('div', { class: 'buttons' }, end('first', 0), this.#button, end('last', 1)),
      h(
        'div',
        { class: 'track' },
        this.#input,
        h(
          'div',
          { class: 'ends', 'aria-hidden': 'true' },
          h('span', {}, t('time.noise')),
          h('span', {}, t('time.data')),
        ),
      ),
      level,
      h('div', { class: 'select small' }, speed),
      about?.button ?? null,
      about?.text ?? null,
    );
    const sync = () => {
      const place = String(Math.round(app.state.t * TICKS));
      if (this.#input.value !== place) this.#input.value = place;
      this.#input.style.setProperty('--fill', `${app.state.t * 100}%`);
      level.textContent = `σ = ${shown(app.sigma)}`;
      this.#input.setAttribute('aria-valuetext', t('time.level', { sigma: shown(app.sigma) }));
      speed.value = String(app.state.speed);
    };
    app.on('state', sync);
    app.on('walked', sync);
    app.on('progress', () => {
      bar.hidden = !app.busy || app.jobs.progress >= 1;
      bar.setAttribute('aria-valuenow', String(Math.round(100 * app.jobs.progress)));
      (bar.firstChild as HTMLElement).style.width = `${100 * app.jobs.progress}%`;
    });
    bar.hidden = true;
    sync();
    this.#face();
  }

  #face(): void {
    this.#button.replaceChildren(icon(this.playing ? 'pause' : 'play'));
    this.#button.setAttribute('aria-label', t(this.playing ? 'pause' : 'play'));
    this.#button.title = t(this.playing ? 'pause' : 'play');
    this.#button.setAttribute('aria-pressed', String(this.playing));
  }

  toggle(): void {
    if (this.playing) this.stop();
    else this.play();
  }

  play(): void {
    if (this.app.state.t >= 1) this.app.store.set({ t: 0 });
    this.playing = true;
    this.#before = 0;
    this.#face();
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame((now) => this.#advance(now));
  }

  stop(): void {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.#frame);
    this.#face();
  }

  #advance(now: number): void {
    if (!this.playing) return;
    const passed = this.#before ? Math.min(now - this.#before, 100) : 0;
    this.#before = now;
    const { app } = this;
    // Nothing moves on before there is something to see.
    const ready = app.panels.some((panel) => app.walked[panel]);
    const next = Math.min(1, app.state.t + (ready ? (passed / 1000 / SECONDS) * app.state.speed : 0));
    app.store.set({ t: next });
    if (next >= 1) this.stop();
    else this.#frame = requestAnimationFrame((time) => this.#advance(time));
  }

  /** Keys that move time; returns whether this was one. */
  key(event: KeyboardEvent): boolean {
    if (event.altKey || event.ctrlKey || event.metaKey) return false;
    const { app } = this;
    const stops = app.stops();
    const now = app.state.t;
    const moves: Record<string, () => number> = {
      ArrowRight: () => stops.find((stop) => stop > now + 1e-6) ?? 1,
      ArrowLeft: () => [...stops].reverse().find((stop) => stop < now - 1e-6) ?? 0,
      Home: () => 0,
      End: () => 1,
    };
    if (event.key in moves) {
      this.stop();
      app.store.set({ t: moves[event.key]() });
    } else if (event.key === ' ') this.toggle();
    else return false;
    event.preventDefault();
    return true;
  }
}
