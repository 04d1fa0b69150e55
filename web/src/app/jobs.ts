/** When walks and figures are computed, and what has come of them. */

import type { Figures, Job, PanelName, Reply, Walked } from '../compute/messages.ts';
import { nearest } from '../math/metrics.ts';
import type { Held } from './held.ts';
import type { Layers } from './layers.ts';
import { denoiserIn, denoisers, endOf, jobOf, orderOf, panelKey, problemKey } from './problems.ts';

/** One setting that was tried: a point of the work-precision plot. */
export interface Trial {
  problem: string;
  name: string;
  nfe: number;
  error: number;
}

export class Jobs {
  walked: Record<PanelName, Walked | null> = { a: null, b: null };
  figures: Record<PanelName, Partial<Figures>> = { a: {}, b: {} };
  /** Points of what guidance is said to draw. */
  readonly targets: Record<PanelName, Float32Array | null> = { a: null, b: null };
  trials: Trial[] = [];
  progress = 1;
  problem = '';
  busy = false;
  #keys: Record<PanelName, string> = { a: '', b: '' };
  #ends: Record<PanelName, Int32Array | null> = { a: null, b: null };
  #timer = 0;
  #serial = 0;
  readonly #held: Held;
  readonly #layers: Layers;

  constructor(held: Held, layers: Layers) {
    this.#held = held;
    this.#layers = layers;
  }

  /** Start what has to be computed anew, after the changes of this moment are all in. */
  schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#start(), 40);
  }

  #start(): void {
    const held = this.#held;
    this.#layers.ask();
    const panels = held.panels.filter((panel) => panelKey(held, panel) !== this.#keys[panel]);
    if (!panels.length) return;
    if (!denoisers(held).length) {
      for (const panel of panels) this.walked[panel] = null;
      held.tell('walked');
      return;
    }
    const began = Object.fromEntries(panels.map((panel) => [panel, panelKey(held, panel)]));
    for (const panel of panels) {
      this.figures[panel] = {};
      this.targets[panel] = null;
      if (denoiserIn(held, panel) === 'recorded') this.#arrive(panel, held.recorded);
    }
    const job = jobOf(held, panels);
    this.problem = '';
    this.busy = true;
    this.progress = 0;
    held.tell('figures');
    held.tell('progress');
    const serial = ++this.#serial;
    const current = () => serial === this.#serial;
    const run = () => held.source.run(job, (reply) => current() && this.#hear(reply, began));
    const there = panels.filter((panel) => denoiserIn(held, panel) === 'network' && held.trainer.able && !job.lattice);
    if (!there.length) run();
    else
      Promise.all(there.map((panel) => held.trainer.walk(orderOf(held, panel)))).then((found) => {
        if (!current()) return;
        there.forEach((panel, i) => {
          this.#takeWalk(job, panel, found[i]);
        });
        run();
      });
  }

  /** Take a walk that the server made, so that it is only judged here; without one the page walks itself. */
  #takeWalk(job: Job, panel: PanelName, walked: Walked | null): void {
    const part = job.panels.find((each) => each.panel === panel);
    if (!walked || !part) return;
    this.#arrive(panel, walked);
    part.recorded = { end: endOf(walked), nfe: walked.nfe };
  }

  #arrive(panel: PanelName, walked: Walked | null): void {
    this.walked[panel] = walked;
    this.#ends[panel] = null;
    this.#held.tell('walked');
    this.#held.tell('picture');
  }

  #hear(reply: Reply, began: Record<string, string>): void {
    switch (reply.kind) {
      case 'progress':
        this.progress = reply.share;
        this.#held.tell('progress');
        break;
      case 'walked':
        this.#arrive(reply.panel, reply.walked);
        break;
      case 'target':
        this.targets[reply.panel] = reply.points;
        this.#held.tell('picture');
        break;
      case 'figures':
        this.figures[reply.panel] = { ...this.figures[reply.panel], ...reply.figures };
        if (typeof reply.figures.error === 'number') this.#note(reply.panel, reply.figures.error);
        this.#held.tell('figures');
        break;
      case 'done':
        for (const panel of Object.keys(began) as PanelName[]) this.#keys[panel] = began[panel];
        this.#rest();
        break;
      case 'failed':
        this.problem = reply.message;
        this.#rest();
        this.#held.tell('problem');
        break;
    }
  }

  #rest(): void {
    this.busy = false;
    this.progress = 1;
    this.#held.tell('progress');
  }

  #note(panel: PanelName, error: number): void {
    const { nfe } = this.figures[panel];
    if (!nfe || !(error > 0)) return;
    const name = this.#held.state[`${panel}.solver`];
    const trial = { problem: problemKey(this.#held, panel), name, nfe, error };
    this.trials = this.trials.filter((old) => old.name !== name || old.nfe !== nfe || old.problem !== trial.problem);
    this.trials.push(trial);
  }

  /** The data row nearest to where each sample ends. */
  nearestOf(panel: PanelName): Int32Array | null {
    const { data } = this.#held;
    const walked = this.walked[panel];
    if (!walked || !data.labels.length || walked.dims !== data.dims) return null;
    this.#ends[panel] ??= nearest(endOf(walked), data.values, walked.dims).index;
    return this.#ends[panel];
  }

  /** The points are others now. */
  moved(): void {
    this.#ends = { a: null, b: null };
  }
}
