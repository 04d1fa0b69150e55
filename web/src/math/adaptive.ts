/** Embedded Runge-Kutta pairs in arsinh(sigma / sigma_data), with step sizes that are each row's own. */

import type { Denoiser } from './denoisers.ts';
import type { Pair } from './registry.ts';

export interface Tolerance {
  rtol: number;
  atol: number;
  maxSteps: number;
}

interface Walk {
  width: Float64Array;
  error: Float64Array;
}

/** Integrate one interval after the other; keeps the step sizes between them. */
export class AdaptiveWalk {
  #walk: Walk | null = null;

  constructor(
    private readonly pair: Pair,
    private readonly tolerance: Tolerance,
    private readonly sigmaData = 1,
  ) {}

  step(denoiser: Denoiser, x: Float64Array, sigma: number, sigmaNext: number): Float64Array {
    const rows = x.length / denoiser.dims;
    const [start, end] = [Math.asinh(sigma / this.sigmaData), Math.asinh(sigmaNext / this.sigmaData)];
    this.#walk ??= { width: new Float64Array(rows).fill(0.05), error: new Float64Array(rows).fill(1) };
    return this.#integrate(denoiser, x.slice(), new Float64Array(rows).fill(start), end, this.#walk);
  }

  #integrate(denoiser: Denoiser, x: Float64Array, v: Float64Array, end: number, walk: Walk): Float64Array {
    const { dims } = denoiser;
    const sign = end > v[0] ? 1 : -1;
    const slope = this.#slope(denoiser, x, v);
    const exponent = 1 / (this.pair.error_order + 1);
    for (let count = 0; count < this.tolerance.maxSteps; count++) {
      const active: number[] = [];
      for (let row = 0; row < v.length; row++) if (v[row] !== end) active.push(row);
      if (!active.length) return x;
      const taken = Float64Array.from(active, (row) => {
        const left = Math.abs(end - v[row]);
        const wanted = Math.min(walk.width[row], left);
        return left - wanted < 1e-3 * wanted ? left : wanted; // no sliver at the end
      });
      const tried = this.#attempt(
        denoiser,
        rowsOf(x, active, dims),
        active,
        v,
        taken,
        sign,
        rowsOf(slope, active, dims),
      );
      active.forEach((row, i) => {
        const error = tried.error[i];
        if (!Number.isFinite(error)) throw new Error('the denoiser returned numbers that are not finite');
        const fits = error <= 1;
        const ratio = Math.max(error, 1e-10);
        const change = fits
          ? clamp(0.9 * ratio ** (-0.7 * exponent) * Math.max(walk.error[row], 1e-10) ** (0.4 * exponent), 0.2, 6)
          : clamp(0.9 * ratio ** -exponent, 0.1, 0.9);
        const cut = fits && taken[i] < walk.width[row];
        if (fits) {
          x.set(tried.x.subarray(i * dims, (i + 1) * dims), row * dims);
          slope.set(tried.slope.subarray(i * dims, (i + 1) * dims), row * dims);
          v[row] = taken[i] === Math.abs(end - v[row]) ? end : v[row] + sign * taken[i];
        }
        // A step cut short by the end of the interval says nothing about the size of the next.
        if (!cut) walk.width[row] = taken[i] * change;
        if (fits && !cut) walk.error[row] = ratio;
      });
    }
    throw new Error(`the tolerance ${this.tolerance.rtol} cannot be met in ${this.tolerance.maxSteps} steps`);
  }

  /** dx / dv. */
  #slope(denoiser: Denoiser, x: Float64Array, v: Float64Array): Float64Array {
    const denoised = denoiser.call(
      x,
      v.map((place) => this.sigmaData * Math.sinh(place)),
    );
    const { dims } = denoiser;
    for (let i = 0; i < x.length; i++) {
      const place = v[(i / dims) | 0];
      denoised[i] = (x[i] - denoised[i]) / Math.tanh(place);
    }
    return denoised;
  }

  #attempt(
    denoiser: Denoiser,
    x: Float64Array,
    rows: number[],
    v: Float64Array,
    taken: Float64Array,
    sign: number,
    slope: Float64Array,
  ): { x: Float64Array; slope: Float64Array; error: Float64Array } {
    const { dims } = denoiser;
    const { a, b, c, errors } = this.pair;
    const slopes = [slope];
    const place = (share: number) => Float64Array.from(rows, (row, i) => v[row] + share * sign * taken[i]);
    const advanced = (weights: number[]) => {
      const out = x.slice();
      for (let i = 0; i < x.length; i++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) if (weights[j]) sum += weights[j] * slopes[j][i];
        out[i] += sign * taken[(i / dims) | 0] * sum;
      }
      return out;
    };
    a.forEach((row, j) => {
      slopes.push(this.#slope(denoiser, advanced(row), place(c[j + 1])));
    });
    const next = advanced(b);
    slopes.push(this.#slope(denoiser, next, place(1)));
    const norms = errors.map((weights) => {
      const out = new Float64Array(rows.length);
      for (let i = 0; i < x.length; i++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) if (weights[j]) sum += weights[j] * slopes[j][i];
        const allowed = this.tolerance.atol + this.tolerance.rtol * Math.max(Math.abs(x[i]), Math.abs(next[i]));
        out[(i / dims) | 0] += ((taken[(i / dims) | 0] * sum) / allowed) ** 2 / dims;
      }
      return out;
    });
    const error = norms[0].map((norm, i) =>
      norms.length === 1 ? Math.sqrt(norm) : norm / Math.max(Math.sqrt(norm + 0.01 * norms[1][i]), 1e-300),
    );
    return { x: next, slope: slopes[slopes.length - 1], error };
  }
}

function rowsOf(x: Float64Array, rows: number[], dims: number): Float64Array {
  const out = new Float64Array(rows.length * dims);
  rows.forEach((row, i) => {
    out.set(x.subarray(row * dims, (row + 1) * dims), i * dims);
  });
  return out;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
