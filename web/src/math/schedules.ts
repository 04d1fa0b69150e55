/** Noise schedules: a strictly increasing sigma(t) on [0, 1], and the decreasing grid that a solver walks down. */

import type { ScheduleSpec } from './registry.ts';

type Curve = (t: number) => number;

/** Return sigma(t) of a schedule between two noise levels. */
export function curveOf(spec: ScheduleSpec, low: number, high: number, rho?: number): Curve {
  switch (spec.kind) {
    case 'karras': {
      const power = rho ?? spec.rho ?? 7;
      const [a, b] = [low ** (1 / power), high ** (1 / power)];
      return (t) => (a + t * (b - a)) ** power;
    }
    case 'log-linear':
      return (t) => low * (high / low) ** t;
    case 'rectified-flow':
      return native(
        low,
        high,
        (time) => time / (1 - time),
        (sigma) => sigma / (1 + sigma),
      );
    case 'cosine':
      return cosine(low, high, spec.offset ?? 0.008);
    case 'linear-beta':
      return linearBeta(low, high, spec);
  }
  throw new Error(`unknown kind of schedule: ${spec.kind}`);
}

/** A family's own time between two noise levels, at constant speed; the ends are exact. */
function native(low: number, high: number, sigmaOf: Curve, timeOf: Curve): Curve {
  const [start, end] = [timeOf(low), timeOf(high)];
  return (t) => (t <= 0 ? low : t >= 1 ? high : sigmaOf(start + t * (end - start)));
}

function cosine(low: number, high: number, offset: number): Curve {
  const first = ((Math.PI / 2) * offset) / (1 + offset);
  const sigmaOf: Curve = (time) => {
    const theta = ((Math.PI / 2) * (time + offset)) / (1 + offset);
    return Math.sqrt(Math.max(0, Math.sin(theta + first) * Math.sin(theta - first))) / Math.cos(theta);
  };
  const timeOf: Curve = (sigma) => {
    const theta = Math.atan2(Math.sqrt(Math.sin(first) ** 2 + sigma ** 2), Math.cos(first));
    return (2 / Math.PI) * (1 + offset) * theta - offset;
  };
  return native(low, high, sigmaOf, timeOf);
}

function linearBeta(low: number, high: number, spec: ScheduleSpec): Curve {
  const count = spec.num_timesteps ?? 1000;
  const [first, last] = [spec.beta_first ?? 1e-4, spec.beta_last ?? 0.02];
  const logs = new Float64Array(count);
  let sum = 0;
  for (let k = 0; k < count; k++) {
    sum -= Math.log1p(-(first + ((last - first) * k) / (count - 1)));
    logs[k] = Math.log(Math.expm1(sum)) / 2;
  }
  const sigmaOf: Curve = (time) => {
    const left = Math.min(Math.max(Math.floor(time), 0), count - 2);
    return Math.exp(logs[left] + (logs[left + 1] - logs[left]) * (time - left));
  };
  const timeOf: Curve = (sigma) => {
    const wanted = Math.log(sigma);
    let left = 0;
    while (left < count - 2 && logs[left + 1] <= wanted) left++;
    return left + (wanted - logs[left]) / (logs[left + 1] - logs[left]);
  };
  return native(low, high, sigmaOf, timeOf);
}

/** Return the grid of `numSteps` intervals from sigma_max over sigma_min to 0. */
export function grid(spec: ScheduleSpec, numSteps: number, low: number, high: number, rho?: number): number[] {
  const curve = curveOf(spec, low, high, rho);
  const levels = Array.from({ length: numSteps }, (_, i) => curve(numSteps === 1 ? 1 : 1 - i / (numSteps - 1)));
  return [...levels, 0];
}
