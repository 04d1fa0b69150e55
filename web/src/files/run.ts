/** A run that `pointdiffusion.web.export` wrote into the page. */

import { type Base, type Member, membersFrom } from '../math/bases.ts';
import { halfToNumber, type PartSpec, type Weights } from '../math/network.ts';
import { bytesOf } from './packed.ts';

export interface RunFile {
  title: string;
  version: string;
  columns: string[];
  mean: number[];
  scale: number[];
  /** Covariance of the data in standard units, by rows. */
  covariance: number[];
  sigma_data: number;
  sigma_min: number;
  sigma_max: number;
  classes: string[];
  /** Mean and covariance of each class in standard units, by rows; pages written before have none. */
  class_moments?: { mean: number[]; covariance: number[] }[];
  recorded: {
    name: string;
    shape: [number, number, number];
    sigmas: number[];
    nfe: number | null;
    low: number[][];
    high: number[][];
    values: string;
  } | null;
  network: {
    spec: PartSpec;
    dtype: 'float16' | 'float32';
    weights: Record<string, { shape: number[]; values: string }>;
    /** What each network adds to, if anything. */
    bases?: Base[];
  } | null;
  data: { shape: [number, number]; low: number[]; high: number[]; values: string; labels: number[] | null } | null;
  /** Rows that the model was trained on, where known; told when none are inside. */
  rows: number | null;
  figures: Record<string, number | string>;
  /** How it was trained, where that was done in the page. */
  recipe?: Recipe;
}

export interface Recipe {
  seed: number;
  settings: Record<string, number | string>;
  /** By which the points are known again. */
  print: number;
  labelled: boolean;
}

function uint16(text: string): Uint16Array {
  return new Uint16Array(bytesOf(text).buffer);
}

/** Return the recorded points, (steps + 1, B, D), in standard units. */
export function recordedPoints({ shape, low, high, values }: NonNullable<RunFile['recorded']>): Float32Array {
  const [steps, rows, dims] = shape;
  const raw = uint16(values);
  const out = new Float32Array(raw.length);
  for (let k = 0; k < steps; k++)
    for (let i = 0; i < rows * dims; i++) {
      const d = i % dims;
      out[k * rows * dims + i] = low[k][d] + ((high[k][d] - low[k][d]) * raw[k * rows * dims + i]) / 65535;
    }
  return out;
}

/** Return the embedded rows in standard units. */
export function embeddedData({ shape, low, high, values, labels }: NonNullable<RunFile['data']>) {
  const [rows, dims] = shape;
  const raw = uint16(values);
  const points = new Float64Array(rows * dims);
  for (let i = 0; i < points.length; i++)
    points[i] = low[i % dims] + ((high[i % dims] - low[i % dims]) * raw[i]) / 65535;
  return { dims, values: points, labels: labels ? Int32Array.from(labels) : new Int32Array(rows) };
}

/** Return the networks of a run, each with the base that it adds to. */
export function membersOf({ spec, dtype, weights, bases = [] }: NonNullable<RunFile['network']>): Member[] {
  const read: Weights = {};
  for (const [name, { shape, values }] of Object.entries(weights)) {
    const raw = dtype === 'float16' ? Float64Array.from(uint16(values), halfToNumber) : float32(values);
    read[name] = { shape, values: raw };
  }
  return membersFrom(spec, read, bases);
}

function float32(text: string): Float64Array {
  return Float64Array.from(new Float32Array(bytesOf(text).buffer));
}
