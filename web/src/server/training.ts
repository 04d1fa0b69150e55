/** A training on the server, as far as the page knows: its state, losses, and the latest samples. */

import type { Walked } from '../compute/messages.ts';
import type { Recipe, RunFile } from '../files/run.ts';
import type { Points } from '../math/shapes.ts';
import {
  type Line,
  type Listener,
  type Live,
  type Order,
  readLive,
  type ServerState,
  type Told,
  type WalkOrder,
} from './protocol.ts';

export type Phase = 'idle' | ServerState | 'lost';

/** What was asked for: how to train, and on what. */
export interface Training {
  recipe: Recipe;
  points: Points;
}

export interface Trainee {
  /** Something is to be shown anew: the whole, or but the next step. */
  changed(whole: boolean): void;
  took(run: RunFile, training: Training): void;
  saved(bytes: Uint8Array<ArrayBuffer>): void;
}

const RUNNING: readonly Phase[] = ['starting', 'running', 'paused'];

export class Trainer implements Listener {
  phase: Phase = 'idle';
  step = 0;
  steps = 0;
  /** Loss of the exact optimum on the same draws. */
  optimal: number | null = null;
  losses: { step: number; loss: number }[] = [];
  message = '';
  /** Whether there is something to save. */
  any = false;
  #line: Line | null = null;
  #current: Training | null = null;
  #wanted: Training | null = null; // asked for, not started yet: what arrives is of the one before
  #frame: ArrayBuffer | null = null;
  #shown: Live | null = null;
  #since = { time: 0, step: 0 };
  #taken = -1;
  readonly #walks = new Map<number, { panel: number; done: (walked: Walked | null) => void }>();
  #walkNumber = 0;

  constructor(
    private readonly connect: ((listener: Listener) => Line) | null,
    private readonly trainee: Trainee,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Whether there is a server. */
  get able(): boolean {
    return this.connect !== null;
  }

  get active(): boolean {
    return RUNNING.includes(this.phase);
  }

  /** Samples of the network as it is, decoded when they are drawn: the latest frame wins. */
  get live(): Live | null {
    if (this.#frame) this.#shown = readLive(this.#frame) ?? this.#shown;
    this.#frame = null;
    return this.#shown;
  }

  get secondsLeft(): number | null {
    const done = this.step - this.#since.step;
    const passed = (this.now() - this.#since.time) / 1000;
    return this.phase === 'running' && done > 0 && passed > 0.5 ? ((this.steps - this.step) * passed) / done : null;
  }

  start(order: Order, training: Training): void {
    if (!this.connect) return;
    this.#line ??= this.connect(this);
    this.#wanted = training;
    this.message = '';
    this.#turn('starting');
    this.#line.send({ type: 'start', ...order });
  }

  ask(type: 'pause' | 'resume' | 'step' | 'stop' | 'save'): void {
    this.#line?.send({ type });
  }

  /** Let the library walk with the network; null where there is no server, it cannot, or a later walk is wanted. */
  walk(order: WalkOrder): Promise<Walked | null> {
    if (!this.connect) return Promise.resolve(null);
    for (const [id, { panel }] of this.#walks) if (panel === order.panel) this.#arrived(id, null);
    const id = ++this.#walkNumber;
    this.#line ??= this.connect(this);
    const line = this.#line;
    return new Promise((done) => {
      this.#walks.set(id, { panel: order.panel, done });
      line.send({ type: 'walk', id, ...order });
    });
  }

  #arrived(id: number, walked: Walked | null): void {
    this.#walks.get(id)?.done(walked);
    this.#walks.delete(id);
  }

  /** Let go of the samples that were shown, unless more are on their way. */
  forget(): void {
    if (this.active || !(this.#shown ?? this.#frame)) return;
    this.#frame = this.#shown = null;
    this.trainee.changed(true);
  }

  lost(reason = ''): void {
    if (reason) this.message = reason;
    this.#line = null;
    this.#wanted = null;
    for (const id of [...this.#walks.keys()]) this.#arrived(id, null);
    this.#turn('lost');
  }

  told(told: Told): void {
    if (told.type === 'walk') this.#arrived(told.id, told.walked);
    else if (told.type === 'refused') this.#arrived(told.id, null);
    else if (told.type === 'model') this.trainee.saved(told.bytes);
    else if (told.type === 'error') {
      this.message = told.message;
      if (this.#wanted) this.phase = 'stopped'; // refused: no state follows
      this.#wanted = null;
      this.trainee.changed(true);
    } else if (told.type === 'started') {
      this.#current = this.#wanted ?? this.#current;
      this.#wanted = null;
      Object.assign(this, {
        step: 0,
        steps: told.steps,
        optimal: told.optimal_loss ?? null,
        losses: [],
        taken: -1,
        any: true,
      });
      this.#frame = this.#shown = null;
      this.#since = { time: this.now(), step: 0 };
      this.trainee.changed(true);
    } else if (!this.#wanted) this.#during(told);
    else if (told.type === 'state' && told.state === 'died') {
      this.#wanted = null;
      this.#turn('died');
    }
  }

  #during(told: Exclude<Told, { type: 'model' | 'error' | 'started' | 'walk' | 'refused' }>): void {
    switch (told.type) {
      case 'state':
        this.step = Math.max(this.step, told.step);
        if (told.state === 'running' && this.phase !== 'running') this.#since = { time: this.now(), step: this.step };
        this.#turn(told.state);
        break;
      case 'live':
        // What was on its way while the network itself arrived shows no more than it does.
        if (told.step <= this.#taken) return;
        this.step = Math.max(this.step, told.step);
        this.trainee.changed(this.#show(told.bytes));
        break;
      case 'losses':
        for (const [i, step] of told.steps.entries())
          if (Number.isFinite(told.train[i])) this.losses.push({ step, loss: told.train[i] });
        this.trainee.changed(false);
        break;
      case 'run':
        this.step = Math.max(this.step, told.step);
        this.#taken = told.step;
        if (told.run.network) this.#frame = this.#shown = null;
        if (this.#current) this.trainee.took(told.run, this.#current);
        this.trainee.changed(true);
        break;
    }
  }

  /** Keep a frame until it is drawn; returns whether there was none before. */
  #show(frame: ArrayBuffer): boolean {
    const first = !(this.#shown ?? this.#frame);
    this.#frame = frame;
    return first;
  }

  #turn(phase: Phase): void {
    this.phase = phase;
    this.trainee.changed(true);
  }
}
