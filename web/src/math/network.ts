/** The network of a trained model: the parts of `pointdiffusion.networks`, forward only. */

import type { Denoiser, Sigma } from './denoisers.ts';

export interface PartSpec {
  part: string;
  [argument: string]: unknown;
}

export type Weights = Record<string, { shape: number[]; values: Float64Array }>;

/** x (B, n) times weight (m, n) transposed, plus bias (m): four rows at a time share each weight that is read. */
function linear(x: Float64Array, weight: Float64Array, bias: Float64Array, inputs: number): Float64Array {
  const outputs = bias.length;
  const rows = x.length / inputs;
  const out = new Float64Array(rows * outputs);
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    const [a, b, c, d] = [row * inputs, (row + 1) * inputs, (row + 2) * inputs, (row + 3) * inputs];
    for (let j = 0; j < outputs; j++) {
      const start = j * inputs;
      let s0 = bias[j];
      let s1 = s0;
      let s2 = s0;
      let s3 = s0;
      for (let i = 0; i < inputs; i++) {
        const w = weight[start + i];
        s0 += w * x[a + i];
        s1 += w * x[b + i];
        s2 += w * x[c + i];
        s3 += w * x[d + i];
      }
      const at = row * outputs + j;
      out[at] = s0;
      out[at + outputs] = s1;
      out[at + 2 * outputs] = s2;
      out[at + 3 * outputs] = s3;
    }
  }
  for (; row < rows; row++)
    for (let j = 0; j < outputs; j++) {
      let sum = bias[j];
      for (let i = 0; i < inputs; i++) sum += weight[j * inputs + i] * x[row * inputs + i];
      out[row * outputs + j] = sum;
    }
  return out;
}

function silu(x: Float64Array): Float64Array {
  for (let i = 0; i < x.length; i++) x[i] /= 1 + Math.exp(-x[i]);
  return x;
}

type Block = (h: Float64Array, embedding: Float64Array) => Float64Array;

/** A `residual-mlp`, as its specification and its weights describe it. */
export class Network {
  readonly dims: number;
  readonly classes: number;
  readonly #hidden: number;
  readonly #features: number;
  readonly #blocks: Block[];
  readonly #condition: PartSpec | null;

  constructor(
    spec: PartSpec,
    private readonly weights: Weights,
  ) {
    const [points, noise] = [spec.points as PartSpec, spec.noise as PartSpec];
    if (spec.part !== 'residual-mlp' || points?.part !== 'fourier-features' || noise?.part !== 'noise-embedding')
      throw new Error('the page knows the network residual-mlp with fourier-features and noise-embedding alone');
    this.dims = spec.n_dims as number;
    this.#hidden = spec.hidden_dim as number;
    this.#features = noise.num_features as number;
    this.#condition = (spec.condition as PartSpec | null | undefined) ?? null;
    if (this.#condition && this.#condition.part !== 'condition-embedding')
      throw new Error(`the page does not know the part ${this.#condition.part}`);
    this.classes = this.#condition ? (this.#condition.num_classes as number) : 0;
    this.#blocks = (spec.blocks as PartSpec[]).map((block, i) => this.#block(block.part, `blocks.${i}.`));
  }

  #get(name: string): Float64Array {
    const found = this.weights[name];
    if (!found) throw new Error(`the weights ${name} are missing`);
    return found.values;
  }

  #apply(name: string, x: Float64Array): Float64Array {
    const bias = this.#get(`${name}.bias`);
    const weight = this.#get(`${name}.weight`);
    return linear(x, weight, bias, weight.length / bias.length);
  }

  #block(part: string, at: string): Block {
    const hidden = this.#hidden;
    if (part === 'residual-block') {
      return (h, embedding) => {
        const modulation = this.#apply(`${at}modulation`, embedding);
        const shared = embedding.length === this.#features;
        const inner = this.#apply(`${at}first`, rmsNorm(h, hidden));
        for (let i = 0; i < inner.length; i++) {
          const column = i % hidden;
          const start = shared ? 0 : 2 * (i - column);
          inner[i] = modulation[start + hidden + column] + inner[i] * (1 + modulation[start + column]);
        }
        return added(h, this.#apply(`${at}second`, silu(inner)));
      };
    }
    if (part === 'plain-block') {
      return (h, embedding) => {
        const shift = this.#apply(`${at}shift`, embedding);
        const inner = this.#apply(`${at}first`, h);
        for (let i = 0; i < inner.length; i++) inner[i] += shift[shift.length === hidden ? i % hidden : i];
        return added(h, this.#apply(`${at}second`, silu(inner)));
      };
    }
    throw new Error(`the page does not know the part ${part}`);
  }

  #embed(c: Float64Array, label: number): Float64Array {
    const frequencies = this.#get('noise.frequencies');
    const half = frequencies.length;
    const waves = new Float64Array(c.length * this.#features);
    for (let row = 0; row < c.length; row++)
      for (let i = 0; i < half; i++) {
        waves[row * this.#features + i] = Math.cos(c[row] * frequencies[i]);
        waves[row * this.#features + half + i] = Math.sin(c[row] * frequencies[i]);
      }
    const embedding = silu(this.#apply('noise.linear', waves));
    if (!this.#condition) return embedding;
    const bias = this.#get('condition.first.bias');
    const width = this.#get('condition.first.weight').length / bias.length;
    const told = new Float64Array(c.length * width); // context is unknown: zeros
    for (let row = 0; row < c.length; row++) {
      told.set(embedding.subarray(row * this.#features, (row + 1) * this.#features), row * width);
      if (label >= 0) told[row * width + this.#features + label] = 1;
    }
    return added(embedding, this.#apply('condition.second', silu(this.#apply('condition.first', told))));
  }

  /** Map points (B, D) and one number for all, or for each, to (B, D). */
  forward(x: Float64Array, c: Float64Array, label = -1): Float64Array {
    const embedding = this.#embed(c, label);
    const { dims } = this;
    const frequencies = this.#get('points.frequencies'); // (D, F)
    const count = frequencies.length / dims;
    const width = dims + 2 * count;
    const rows = x.length / dims;
    const features = new Float64Array(rows * width);
    for (let row = 0; row < rows; row++) {
      const at = row * width;
      for (let d = 0; d < dims; d++) features[at + d] = x[row * dims + d];
      for (let j = 0; j < count; j++) {
        let angle = 0;
        for (let d = 0; d < dims; d++) angle += x[row * dims + d] * frequencies[d * count + j];
        features[at + dims + j] = Math.SQRT2 * Math.cos(angle);
        features[at + dims + count + j] = Math.SQRT2 * Math.sin(angle);
      }
    }
    let h = this.#apply('first', features);
    for (const block of this.#blocks) h = block(h, embedding);
    return this.#apply('last', silu(h));
  }
}

function rmsNorm(h: Float64Array, width: number): Float64Array {
  const out = new Float64Array(h.length);
  for (let start = 0; start < h.length; start += width) {
    let square = 0;
    for (let i = 0; i < width; i++) square += h[start + i] ** 2;
    const scale = 1 / Math.sqrt(square / width + 1.1920929e-7); // the smallest step of float32, as PyTorch adds
    for (let i = 0; i < width; i++) out[start + i] = h[start + i] * scale;
  }
  return out;
}

function added(a: Float64Array, b: Float64Array): Float64Array {
  for (let i = 0; i < b.length; i++) b[i] += a[i];
  return b;
}

/** Karras' preconditioning: D = c_skip x + c_out F(c_in x, ln(sigma) / 4). */
export function networkDenoiser(network: Network, sigmaData: number, label = -1): Denoiser {
  return {
    dims: network.dims,
    cost: 1,
    call(x: Float64Array, sigma: Sigma): Float64Array {
      const { dims } = network;
      const at = (row: number) => (typeof sigma === 'number' ? sigma : sigma[row]);
      const scaled = new Float64Array(x.length);
      for (let i = 0; i < x.length; i++) scaled[i] = x[i] / Math.hypot(at((i / dims) | 0), sigmaData);
      const c = typeof sigma === 'number' ? Float64Array.of(Math.log(sigma) / 4) : sigma.map((s) => Math.log(s) / 4);
      const out = network.forward(scaled, c, label);
      for (let i = 0; i < x.length; i++) {
        const level = at((i / dims) | 0);
        const total = level * level + sigmaData * sigmaData;
        out[i] = ((sigmaData * sigmaData) / total) * x[i] + ((level * sigmaData) / Math.sqrt(total)) * out[i];
      }
      return out;
    },
  };
}

/** Read an IEEE half-precision number. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
