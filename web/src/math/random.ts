/**
 * Random numbers as a function of (seed, stream, index), so that a script in Python can make the same ones, and the
 * first hundred are the same whether a hundred or a thousand are asked for.
 */

function mix(value: number): number {
  let x = value;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Return the key of a stream. */
export function keyOf(seed: number, stream: number): number {
  return mix((mix((seed + 0x9e3779b9) | 0) + Math.imul(stream + 1, 0x85ebca6b)) | 0);
}

/** Return number `index` of a stream, uniform in (0, 1). */
export function uniformAt(key: number, index: number): number {
  return (mix(mix((Math.imul(index, 0x9e3779b9) + key) | 0) ^ key) + 0.5) / 4294967296;
}

/** Return `count` standard normal numbers of a stream, by pairs (Box and Muller). */
export function normals(seed: number, stream: number, count: number): Float64Array {
  const key = keyOf(seed, stream);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniformAt(key, i)));
    const angle = 2 * Math.PI * uniformAt(key, i + 1);
    out[i] = radius * Math.cos(angle);
    if (i + 1 < count) out[i + 1] = radius * Math.sin(angle);
  }
  return out;
}

/** One number after the other of a stream. */
export class Random {
  #index = 0;
  readonly #key: number;

  constructor(seed: number, stream: number) {
    this.#key = keyOf(seed, stream);
  }

  uniform(low = 0, high = 1): number {
    return low + (high - low) * uniformAt(this.#key, this.#index++);
  }

  integer(count: number): number {
    return Math.min(count - 1, Math.floor(this.uniform() * count));
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }
}

/** Return `count` of the numbers 0..total-1 without repetition, in order, the same for the same seed. */
export function subset(total: number, count: number, seed: number): number[] {
  const all = Array.from({ length: total }, (_, i) => i);
  if (count >= total) return all;
  const random = new Random(seed, 99);
  for (let i = 0; i < count; i++) {
    const j = i + random.integer(total - i);
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all.slice(0, count).sort((a, b) => a - b);
}
