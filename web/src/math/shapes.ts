/** Named point sets, drawn from the distributions of `pointdiffusion.data`, then moved and scaled to fit the window. */

import { Random } from './random.ts';
import type { DatasetSpec } from './registry.ts';

export interface Points {
  dims: number;
  values: Float64Array;
  labels: Int32Array;
  /** What takes the values to a person's own: mean + scale * value. */
  units?: Units | undefined;
}

export interface Units {
  columns: string[];
  mean: number[];
  scale: number[];
}

type Draw = (random: Random, spec: DatasetSpec) => [number, number, number];

/** The heart is the page's own. */
export const HEART: DatasetSpec = { kind: 'Heart', noise: 0, classes: 1, centre: [0, 0.1], scale: 0.62 };

function pick(random: Random, weights: number[]): number {
  let left = random.uniform() * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < weights.length; i++) if ((left -= weights[i]) <= 0) return i;
  return weights.length - 1;
}

const DRAWS: Record<string, Draw> = {
  SwissRoll(random, spec) {
    const t = random.uniform(1.5 * Math.PI, 4.5 * Math.PI);
    const unit = spec.scaling_factor ?? 1;
    return [(t * Math.cos(t)) / unit, (t * Math.sin(t)) / unit, 0];
  },
  SCurve(random) {
    const t = random.uniform(-1.5 * Math.PI, 1.5 * Math.PI);
    return [Math.sin(t), Math.sign(t) * (Math.cos(t) - 1), 0];
  },
  Moons(random) {
    const angle = random.uniform(0, Math.PI);
    const lower = random.integer(2);
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return lower ? [1 - c, 0.5 - s, 1] : [c, s, 0];
  },
  Spirals(random) {
    const t = 3 * Math.PI * Math.sqrt(random.uniform());
    const arm = random.integer(2);
    const sign = (1 - 2 * arm) / 3;
    return [sign * t * Math.cos(t), sign * t * Math.sin(t), arm];
  },
  Circles(random, spec) {
    const angle = random.uniform(0, 2 * Math.PI);
    const circle = random.integer(spec.radii!.length);
    return [spec.radii![circle] * Math.cos(angle), spec.radii![circle] * Math.sin(angle), circle];
  },
  Checkerboard(random) {
    const column = random.integer(4);
    const row = 2 * random.integer(2) + (column % 2);
    return [column - 2 + random.uniform(), row - 2 + random.uniform(), 0];
  },
  Pinwheel(random) {
    const [x, y] = [2 + 0.6 * random.normal(), 0.2 * random.normal()];
    const arm = random.integer(5);
    const angle = (2 * Math.PI * arm) / 5 + Math.exp(Math.hypot(x, y) / 2) / 4;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return [c * x - s * y, s * x + c * y, arm];
  },
  Dots(random, spec) {
    const dot = random.integer(spec.centres!.length);
    return [spec.centres![dot][0], spec.centres![dot][1], dot];
  },
  Mixture(random, spec) {
    const part = pick(random, spec.weights!);
    const [factor, mean] = [spec.factors![part], spec.means![part]];
    const [a, b] = [random.normal(), random.normal()];
    return [mean[0] + factor[0][0] * a, mean[1] + factor[1][0] * a + factor[1][1] * b, part];
  },
  Heart(random) {
    const t = random.uniform(0, 2 * Math.PI);
    const size = 1 - 0.12 * random.uniform() ** 2;
    const y = 13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t);
    return [(size * Math.sin(t) ** 3) as number, (size * y) / 16, 0];
  },
};

/** Draw points of a set; `noise` is in its own units. Rows are independent, so the first rows do not depend on `count`. */
export function drawShape(spec: DatasetSpec, count: number, noise: number, seed: number, stream = 1): Points {
  const random = new Random(seed, stream);
  const values = new Float64Array(2 * count);
  const labels = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const [x, y, label] = DRAWS[spec.kind](random, spec);
    values[2 * i] = (x + noise * random.normal() - spec.centre[0]) / spec.scale;
    values[2 * i + 1] = (y + noise * random.normal() - spec.centre[1]) / spec.scale;
    labels[i] = label;
  }
  const units = { columns: ['x', 'y'], mean: spec.centre, scale: [spec.scale, spec.scale] };
  return { dims: 2, values, labels, units };
}
