/**
 * Denoisers: D(x; sigma) = E[x_0 | x_0 + sigma eps = x]. Points are rows in one Float64Array; sigma is one number for
 * all rows or one for each.
 */

export type Sigma = number | Float64Array;

export interface Denoiser {
  dims: number;
  /** Evaluations that one call counts for. */
  cost: number;
  call(x: Float64Array, sigma: Sigma): Float64Array;
}

const DROPPED = 40; // e^-40 of the nearest point's weight: below the last digit of float64
const PER_UNIT = 64;
const POWERS = Float64Array.from({ length: DROPPED * PER_UNIT + 2 }, (_, i) => Math.exp(-i / PER_UNIT));

/** e^-y for y in [0, 40], to 1e-13, in a third of the time of Math.exp: a table, and five terms of the series. */
export function decay(y: number): number {
  const i = (y * PER_UNIT) | 0;
  const r = i / PER_UNIT - y;
  return POWERS[i] * (1 + r * (1 + r * (0.5 + r * (1 / 6 + r * (1 / 24 + r / 120)))));
}

/** The exact optimum on a finite set: the mean of its points, weighted by how likely each made x. */
export class ExactDenoiser implements Denoiser {
  readonly cost = 1;
  private readonly count: number;
  private readonly squares: Float64Array;

  constructor(
    private readonly points: Float64Array,
    readonly dims: number,
  ) {
    this.count = points.length / dims;
    if (!this.count) throw new Error('the exact denoiser needs at least one point');
    this.squares = new Float64Array(this.count);
  }

  call(x: Float64Array, sigma: Sigma): Float64Array {
    const out = new Float64Array(x.length);
    const rows = x.length / this.dims;
    for (let row = 0; row < rows; row++) {
      const level = typeof sigma === 'number' ? sigma : sigma[row];
      if (this.dims === 2) this.#plane(x, out, row, level);
      else this.#any(x, out, row, level);
    }
    return out;
  }

  #plane(x: Float64Array, out: Float64Array, row: number, sigma: number): void {
    const { points, squares, count } = this;
    const px = x[2 * row];
    const py = x[2 * row + 1];
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      const dx = points[2 * i] - px;
      const dy = points[2 * i + 1] - py;
      const square = dx * dx + dy * dy;
      squares[i] = square;
      if (square < least) least = square;
    }
    const scale = 0.5 / (sigma * sigma);
    let mass = 0;
    let sumX = 0;
    let sumY = 0;
    for (let i = 0; i < count; i++) {
      const y = (squares[i] - least) * scale;
      if (y > DROPPED) continue;
      const weight = decay(y);
      mass += weight;
      sumX += weight * points[2 * i];
      sumY += weight * points[2 * i + 1];
    }
    out[2 * row] = sumX / mass;
    out[2 * row + 1] = sumY / mass;
  }

  #any(x: Float64Array, out: Float64Array, row: number, sigma: number): void {
    const { points, squares, count, dims } = this;
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      let square = 0;
      for (let d = 0; d < dims; d++) square += (points[i * dims + d] - x[row * dims + d]) ** 2;
      squares[i] = square;
      if (square < least) least = square;
    }
    const scale = -0.5 / (sigma * sigma);
    let mass = 0;
    for (let i = 0; i < count; i++) {
      const weight = Math.exp((squares[i] - least) * scale);
      mass += weight;
      for (let d = 0; d < dims; d++) out[row * dims + d] += weight * points[i * dims + d];
    }
    for (let d = 0; d < dims; d++) out[row * dims + d] /= mass;
  }
}

/** Guidance: base + scale (target - base); 1 is the target alone, 0 the base. */
export function guided(target: Denoiser, base: Denoiser, scale: number): Denoiser {
  if (scale === 1) return target;
  if (scale === 0) return base;
  return {
    dims: target.dims,
    cost: target.cost + base.cost,
    call(x, sigma) {
      const wanted = target.call(x, sigma);
      const away = base.call(x, sigma);
      for (let i = 0; i < wanted.length; i++) wanted[i] = away[i] + scale * (wanted[i] - away[i]);
      return wanted;
    },
  };
}

/** Mean and covariance (row-major) of points. */
export interface Moments {
  mean: Float64Array;
  covariance: Float64Array;
}

/** Return mean and covariance of points. */
export function moments(points: Float64Array, dims: number): Moments {
  const count = points.length / dims;
  const mean = new Float64Array(dims);
  const covariance = new Float64Array(dims * dims);
  for (let i = 0; i < points.length; i++) mean[i % dims] += points[i] / count;
  for (let i = 0; i < count; i++)
    for (let a = 0; a < dims; a++)
      for (let b = 0; b < dims; b++)
        covariance[a * dims + b] +=
          ((points[i * dims + a] - mean[a]) * (points[i * dims + b] - mean[b])) / Math.max(count - 1, 1);
  return { mean, covariance };
}

/** Lower Cholesky factor of a covariance with sigma^2 added to its diagonal. */
export function noisyFactor(covariance: Float64Array, dims: number, sigma: number): Float64Array {
  const factor = new Float64Array(dims * dims);
  for (let i = 0; i < dims; i++)
    for (let j = 0; j <= i; j++) {
      let sum = covariance[i * dims + j] + (i === j ? sigma * sigma : 0);
      for (let k = 0; k < j; k++) sum -= factor[i * dims + k] * factor[j * dims + k];
      factor[i * dims + j] = i === j ? Math.sqrt(Math.max(sum, 1e-300)) : sum / factor[j * dims + j];
    }
  return factor;
}

const GUIDED_STEPS = 64;

/**
 * Mean and covariance of noisy points under the guided flow of two Gaussians, `guided_gaussian` of the library: where
 * guided sampling starts. In y = x / sigma and s = 1 / sigma the flow is smooth and affine from s = 0, where y is
 * standard normal; the matrices N and K of its map are followed up to s = 1 in units of sigma.
 */
export function guidedMoments(target: Moments, base: Moments, scale: number, sigma: number): Moments {
  const dims = target.mean.length;
  const shares = [scale, 1 - scale];
  const spreads = [target, base].map(({ covariance }) => covariance.map((value) => value / sigma ** 2));
  // At s: the sum of w_i C_i (I + s^2 C_i)^-1, and w_1 (I + s^2 C_1)^-1.
  const at = (s: number): [Float64Array, Float64Array] => {
    const pull = new Float64Array(dims * dims);
    let push = pull;
    spreads.forEach((c, i) => {
      const inverse = inverted(
        c.map((value, k) => s * s * value + (k % (dims + 1) ? 0 : 1)),
        dims,
      );
      const product = times(c, inverse, dims);
      for (let k = 0; k < pull.length; k++) pull[k] += shares[i] * product[k];
      if (i === 0) push = inverse.map((value) => scale * value);
    });
    return [pull, push];
  };
  const slope = (s: number, [pull, push]: [Float64Array, Float64Array], [n, k]: Float64Array[]): Float64Array[] => [
    times(pull, n, dims).map((value) => s * value),
    times(pull, k, dims).map((value, i) => s * value + push[i]),
  ];
  const moved = (from: Float64Array[], change: Float64Array[], h: number) =>
    from.map((part, i) => part.map((value, j) => value + h * change[i][j]));
  const eye = Float64Array.from({ length: dims * dims }, (_, k) => (k % (dims + 1) ? 0 : 1));
  let state = [eye, new Float64Array(dims * dims)];
  const h = 1 / GUIDED_STEPS;
  let parts = at(0);
  for (let step = 0; step < GUIDED_STEPS; step++) {
    const s = step * h;
    const [middle, end] = [at(s + h / 2), at(s + h)];
    const a = slope(s, parts, state);
    const b = slope(s + h / 2, middle, moved(state, a, h / 2));
    const c = slope(s + h / 2, middle, moved(state, b, h / 2));
    const d = slope(s + h, end, moved(state, c, h));
    const all = a.map((part, i) => part.map((value, j) => value + 2 * b[i][j] + 2 * c[i][j] + d[i][j]));
    state = moved(state, all, h / 6);
    parts = end;
  }
  const [n, k] = state;
  const mean = base.mean.map((value, i) => {
    let sum = value;
    for (let j = 0; j < dims; j++) sum += k[i * dims + j] * (target.mean[j] - base.mean[j]);
    return sum;
  });
  const covariance = new Float64Array(dims * dims);
  for (let i = 0; i < dims; i++)
    for (let j = 0; j < dims; j++)
      for (let l = 0; l < dims; l++) covariance[i * dims + j] += sigma ** 2 * n[i * dims + l] * n[j * dims + l];
  return { mean, covariance };
}

/** The product of two square matrices. */
function times(a: Float64Array, b: Float64Array, dims: number): Float64Array {
  const out = new Float64Array(dims * dims);
  for (let i = 0; i < dims; i++)
    for (let k = 0; k < dims; k++) {
      const factor = a[i * dims + k];
      for (let j = 0; j < dims; j++) out[i * dims + j] += factor * b[k * dims + j];
    }
  return out;
}

/** The inverse of a symmetric positive definite matrix, by its Cholesky factor. */
function inverted(matrix: Float64Array, dims: number): Float64Array {
  const factor = noisyFactor(matrix, dims, 0);
  const out = new Float64Array(dims * dims);
  const column = new Float64Array(dims);
  for (let c = 0; c < dims; c++) {
    for (let i = 0; i < dims; i++) {
      let sum = i === c ? 1 : 0;
      for (let k = 0; k < i; k++) sum -= factor[i * dims + k] * column[k];
      column[i] = sum / factor[i * dims + i];
    }
    for (let i = dims - 1; i >= 0; i--) {
      let sum = column[i];
      for (let k = i + 1; k < dims; k++) sum -= factor[k * dims + i] * column[k];
      column[i] = sum / factor[i * dims + i];
      out[i * dims + c] = column[i];
    }
  }
  return out;
}

/** Where the data are lost in noise: the Gaussian with mean and covariance of the noisy data, from normal numbers. */
export function startFrom(z: Float64Array, mean: Float64Array, factor: Float64Array): Float64Array {
  const dims = mean.length;
  const out = new Float64Array(z.length);
  for (let row = 0; row < z.length / dims; row++)
    for (let i = 0; i < dims; i++) {
      let sum = mean[i];
      for (let j = 0; j <= i; j++) sum += factor[i * dims + j] * z[row * dims + j];
      out[row * dims + i] = sum;
    }
  return out;
}
