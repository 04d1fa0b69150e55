/** What is asked of a denoiser beside its walks: layers at a noise level, and the paths of a point. */

import { REACH } from '../compute/layers.ts';
import type { PanelName, Path } from '../compute/messages.ts';
import type { Layer } from '../compute/source.ts';
import { sigmaAt } from '../math/time.ts';
import type { Held } from './held.ts';
import { canAsk, denoisers, problemKey, problemOf, walkOf } from './problems.ts';

const LEVELS = 64; // noise levels at which layers are computed

export class Layers {
  paths: Record<PanelName, Path | null> = { a: null, b: null };
  readonly #layers = new Map<string, Layer>();
  readonly #shown = new Map<string, Layer>();
  readonly #pending = new Set<string>();

  readonly #held: Held;

  constructor(held: Held) {
    this.#held = held;
  }

  /** A layer at about the current noise level: the one that is known, while the right one is on its way. */
  layer(panel: PanelName, what: 'field' | 'contours'): Layer | null {
    const held = this.#held;
    const drawable = held.dims === 2 && (what === 'field' ? canAsk(held, panel) : held.data.labels.length > 0);
    if (!drawable) return null;
    const scaled = held.state.view === 'scaled';
    const base = JSON.stringify([problemKey(held, panel), what, scaled]);
    const place = Math.round(held.state.t * LEVELS);
    const found = this.#layers.get(`${base}${place}`);
    if (found) this.#shown.set(panel + what, found);
    else this.#fetchLayer(panel, what, base, place, scaled);
    return this.#shown.get(panel + what) ?? null;
  }

  #fetchLayer(panel: PanelName, what: 'field' | 'contours', base: string, place: number, scaled: boolean): void {
    const line = panel + what;
    if (this.#pending.has(line)) return;
    this.#pending.add(line);
    const sigma = sigmaAt(place / LEVELS, this.#held.sigmaMax);
    const reach = scaled ? REACH * Math.sqrt(1 + sigma * sigma) : REACH;
    this.#held.source.layer({ problem: problemOf(this.#held, panel), what, sigma, reach }).then(
      (layer) => {
        if (this.#layers.size > 600) this.#layers.clear();
        this.#layers.set(`${base}${place}`, layer);
        this.#pending.delete(line);
        this.#held.tell('picture');
      },
      () => this.#pending.delete(line),
    );
  }

  /** Wait for a layer at the current noise level. */
  async exactly(panel: PanelName, what: 'field' | 'contours'): Promise<void> {
    for (let k = 0; k < 400; k++) {
      const before = this.#layers.size;
      if (!this.layer(panel, what) && !this.#pending.has(panel + what)) return;
      if (!this.#pending.has(panel + what) && before === this.#layers.size) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Ask for the paths of the point. */
  async ask(): Promise<void> {
    const held = this.#held;
    const { probe } = held;
    if (!probe || held.dims !== 2 || !denoisers(held).length) {
      this.paths = { a: null, b: null };
      held.tell('picture');
      return;
    }
    const scale = held.state.view === 'scaled' ? Math.sqrt(1 + held.sigmaMax ** 2) : 1;
    const given = Float64Array.from(probe, (value) => scale * value);
    try {
      const able = held.panels.filter((panel) => canAsk(held, panel));
      const jobs = able.map((panel) => ({ panel, walk: walkOf(held, panel, given) }));
      const paths = await held.source.probe(jobs);
      if (!paths) return;
      this.paths = { a: null, b: null };
      for (const { panel, sigmas, points } of paths) this.paths[panel] = { sigmas, points };
    } catch {
      this.paths = { a: null, b: null };
    }
    held.tell('picture');
  }
}
