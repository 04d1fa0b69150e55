/** What the page holds, as those see it who compute with it. */

import type { PanelName, Walked } from '../compute/messages.ts';
import type { Source } from '../compute/source.ts';
import type { RunFile } from '../files/run.ts';
import type { Registry } from '../math/registry.ts';
import type { Points } from '../math/shapes.ts';
import type { Trainer } from '../server/training.ts';
import type { State } from './state.ts';

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

export interface Held {
  readonly state: State;
  readonly registry: Registry;
  readonly source: Source;
  readonly trainer: Trainer;
  readonly run: RunFile | null;
  readonly recorded: Walked | null;
  readonly data: Points;
  readonly dims: number;
  readonly classes: number;
  readonly panels: PanelName[];
  readonly sigmaMax: number;
  /** How often there were other points, and another network: a part of the keys of what depends on them. */
  readonly version: number;
  readonly networks: number;
  /** Where a point of noise lies that a person put there, in view units, or null. */
  readonly probe: [number, number] | null;
  /** Draw points of the shape. */
  draw(count: number, stream: number): Points | null;
  tell(event: Event): void;
}
