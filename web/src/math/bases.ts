/** Networks that add to an exact denoiser, and averages of several: what `fit_table` makes. */

import type { Denoiser, Sigma } from './denoisers.ts';
import { Network, networkDenoiser, type PartSpec, type Weights } from './network.ts';

/** A Gaussian mixture: its moments as a whole, and its components, each with the axes of its covariance in columns. */
export interface Base {
  mean: number[];
  variances: number[];
  axes: number[];
  weights: number[];
  means: number[][];
  spreads: number[][];
  frames: number[][];
}

export interface Member {
  network: Network;
  base: Base | null;
}

/** Return the networks of a specification, of one or of an average, each with the base that it adds to. */
export function membersFrom(spec: PartSpec, weights: Weights, bases: Base[]): Member[] {
  if (spec.part !== 'average') return [{ network: new Network(spec, weights), base: bases[0] ?? null }];
  return (spec.members as PartSpec[]).map((member, k) => {
    const start = `members.${k}.`;
    const own = Object.entries(weights).filter(([name]) => name.startsWith(start));
    const named = Object.fromEntries(own.map(([name, value]) => [name.slice(start.length), value]));
    return { network: new Network(member, named), base: bases[k] ?? null };
  });
}

/** Return x less a centre along axes; `back` turns it round. */
function along(axes: number[], x: ArrayLike<number>, at: number, centre: number[]): Float64Array {
  const dims = centre.length;
  const out = new Float64Array(dims);
  for (let d = 0; d < dims; d++) for (let k = 0; k < dims; k++) out[k] += (x[at + d] - centre[d]) * axes[d * dims + k];
  return out;
}

function back(axes: number[], z: Float64Array): Float64Array {
  const dims = z.length;
  const out = new Float64Array(dims);
  for (let d = 0; d < dims; d++) for (let k = 0; k < dims; k++) out[d] += z[k] * axes[d * dims + k];
  return out;
}

/** The exact denoiser of the mixture at one point. */
function denoised(base: Base, x: Float64Array, at: number, sigma: number): Float64Array {
  const dims = base.mean.length;
  const logs: number[] = [];
  const ends = base.weights.map((weight, k) => {
    const z = along(base.frames[k], x, at, base.means[k]);
    let log = Math.log(weight);
    for (let d = 0; d < dims; d++) {
      const spread = base.spreads[k][d];
      const total = spread + sigma * sigma;
      log -= 0.5 * (Math.log(total) + (z[d] * z[d]) / total);
      z[d] *= spread / total;
    }
    logs.push(log);
    return back(base.frames[k], z);
  });
  const most = Math.max(...logs);
  const shares = logs.map((log) => Math.exp(log - most));
  const mass = shares.reduce((a, b) => a + b, 0);
  const out = new Float64Array(dims);
  ends.forEach((end, k) => {
    for (let d = 0; d < dims; d++) out[d] += (shares[k] / mass) * (base.means[k][d] + end[d]);
  });
  return out;
}

/** D = B + C_out F(C_in (x - mean)), with the square roots of the matrices that the covariance C of the base asks for. */
function beside(network: Network, base: Base, label: number): Denoiser {
  const { mean, variances, axes } = base;
  const { dims } = network;
  return {
    dims,
    cost: 1,
    call(x: Float64Array, sigma: Sigma): Float64Array {
      const rows = x.length / dims;
      const at = (row: number) => (typeof sigma === 'number' ? sigma : sigma[row]);
      const total = (row: number, d: number) => Math.hypot(Math.sqrt(variances[d]), at(row));
      const seen = new Float64Array(x.length);
      for (let row = 0; row < rows; row++) {
        const z = along(axes, x, row * dims, mean).map((value, d) => value / total(row, d));
        seen.set(back(axes, z), row * dims);
      }
      const c = typeof sigma === 'number' ? Float64Array.of(Math.log(sigma) / 4) : sigma.map((s) => Math.log(s) / 4);
      const said = network.forward(seen, c, label);
      const nowhere = mean.map(() => 0);
      const out = new Float64Array(x.length);
      for (let row = 0; row < rows; row++) {
        const z = along(axes, said, row * dims, nowhere);
        for (let d = 0; d < dims; d++) z[d] *= (at(row) * Math.sqrt(variances[d])) / total(row, d);
        const [more, exact] = [back(axes, z), denoised(base, x, row * dims, at(row))];
        for (let d = 0; d < dims; d++) out[row * dims + d] = exact[d] + more[d];
      }
      return out;
    },
  };
}

/** The denoiser of a trained model: of a network, of one beside its base, or the average of several. */
export function trainedDenoiser(members: Member[], sigmaData: number, label = -1): Denoiser {
  const parts = members.map(({ network, base }) =>
    base ? beside(network, base, label) : networkDenoiser(network, sigmaData, label),
  );
  if (parts.length === 1) return parts[0];
  return {
    dims: parts[0].dims,
    cost: 1,
    call(x, sigma) {
      const out = new Float64Array(x.length);
      for (const part of parts)
        part.call(x, sigma).forEach((value, i) => {
          out[i] += value / parts.length;
        });
      return out;
    },
  };
}
