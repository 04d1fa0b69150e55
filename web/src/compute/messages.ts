/** What page and worker say to each other. */

import type { RunFile } from '../files/run.ts';
import type { Registry } from '../math/registry.ts';
import type { Contours } from './layers.ts';
import type { Problem, Walk } from './walks.ts';

export type PanelName = 'a' | 'b';

/** One panel's share of a job: a walk to make, or one that was recorded and is judged only. */
export interface PanelJob {
  panel: PanelName;
  walk: Walk;
  recorded: { end: Float64Array; nfe: number | null } | null;
  /** What the exact ends depend on; equal keys share them. */
  key: string;
}

export interface Job {
  panels: PanelJob[];
  /** Fresh points of the same distribution, where there are any. */
  fresh: Float64Array | null;
  /** What the floor depends on. */
  floorKey: string;
  metric: string;
  /** Half width of the window in the points' own scale at the start, where a lattice is to be carried along, or 0. */
  lattice: number;
}

export interface LayerJob {
  problem: Problem;
  what: 'field' | 'contours';
  sigma: number;
  reach: number;
}

export interface ProbeJob {
  panel: PanelName;
  walk: Walk;
}

export type Request =
  | { kind: 'setup'; registry: Registry; network: RunFile['network']; sigmaData: number; sigmaMin: number }
  | { kind: 'job'; id: number; job: Job }
  | { kind: 'layer'; id: number; job: LayerJob }
  | { kind: 'probe'; id: number; jobs: ProbeJob[] }
  | { kind: 'gif'; id: number; frames: Uint8ClampedArray[]; width: number; height: number; delay: number };

export interface Field {
  x: Float32Array;
  denoised: Float32Array;
}

/** The path of a single point. */
export interface Path {
  sigmas: number[];
  points: Float32Array;
}

export interface Walked {
  sigmas: number[];
  nfe: number;
  count: number;
  dims: number;
  points: Float32Array;
  lattice: Float32Array | null;
}

export interface Figures {
  nfe: number | null;
  w2: number | null;
  floor: number | null;
  /** Whether the floor is of fresh points. */
  fresh: boolean;
  copies: number | null;
  copiesFresh: number | null;
  /** W2 to what guidance is said to draw, and that of such points among themselves. */
  guided: number | null;
  guidedFloor: number | null;
  /** Distance to the exact solution; undefined until it is known. */
  error: number | null;
}

export type Reply =
  | { kind: 'progress'; id: number; share: number }
  | { kind: 'walked'; id: number; panel: PanelName; walked: Walked }
  | { kind: 'figures'; id: number; panel: PanelName; figures: Partial<Figures> }
  | { kind: 'target'; id: number; panel: PanelName; points: Float32Array }
  | { kind: 'done'; id: number }
  | { kind: 'layer'; id: number; field: Field | null; contours: Contours | null }
  | { kind: 'probe'; id: number; paths: { panel: PanelName; sigmas: number[]; points: Float32Array }[] }
  | { kind: 'gif'; id: number; bytes: Uint8Array }
  | { kind: 'failed'; id: number; message: string };
