/**
 * Solvers: one step down the noise levels of dx / dsigma = (x - D(x; sigma)) / sigma, or of a stochastic equation with
 * the same marginals. What each name means is read from the registry that Python writes.
 */

import { AdaptiveWalk } from './adaptive.ts';
import type { Denoiser } from './denoisers.ts';
import { combine, type Form, noiseLevel, quantityOf, stepWeights } from './quadrature.ts';
import type { MultistepChoices, Registry, SolverSpec, Tableau } from './registry.ts';

export type Noise = (step: number) => Float64Array;

export interface Stepper {
  /** Return the points at `sigmaNext`, which is 0 at the end. */
  step(denoiser: Denoiser, x: Float64Array, sigma: number, sigmaNext: number, noise: Float64Array | null): Float64Array;
}

function land(x: Float64Array, denoised: Float64Array, final: string): Float64Array {
  return final === 'denoise' ? denoised : denoised.map((value, i) => (x[i] + value) / 2);
}

function slopeOf(x: Float64Array, denoised: Float64Array, sigma: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) out[i] = (x[i] - denoised[i]) / sigma;
  return out;
}

function advance(x: Float64Array, width: number, weights: number[], slopes: Float64Array[]): Float64Array {
  const out = x.slice();
  weights.forEach((weight, j) => {
    if (weight) for (let i = 0; i < x.length; i++) out[i] += weight * width * slopes[j][i];
  });
  return out;
}

/** One step of an explicit Runge-Kutta method to a level above 0; `slope` is the one at `x`, already known. */
function rungeKutta(
  tableau: Tableau,
  denoiser: Denoiser,
  x: Float64Array,
  sigma: number,
  sigmaNext: number,
  slope: Float64Array,
): Float64Array {
  const width = sigmaNext - sigma;
  const slopes = [slope];
  for (const row of tableau.a) {
    const level = sigma + row.reduce((a, b) => a + b, 0) * width;
    const y = advance(x, width, row, slopes);
    slopes.push(slopeOf(y, denoiser.call(y, level), level));
  }
  return advance(x, width, tableau.b, slopes);
}

/** Landing at 0 as if the data near each row were one Gaussian, whose width the last two slopes tell. */
function landLocally(
  x: Float64Array,
  denoised: Float64Array,
  dims: number,
  sigma: number,
  eps: Float64Array,
  sigmaBefore: number,
  epsBefore: Float64Array,
  lowest: number,
): Float64Array {
  const out = new Float64Array(x.length);
  const ratio = sigma / sigmaBefore;
  for (let start = 0; start < x.length; start += dims) {
    let [product, square] = [0, 0];
    for (let i = start; i < start + dims; i++) {
      product += eps[i] * epsBefore[i];
      square += epsBefore[i] ** 2;
    }
    const share = Math.max(product / Math.max(square, 2.2250738585072014e-308), 0);
    const kept = Math.min(Math.max(share * share, ratio * ratio * (1 + 1e-4)), 1);
    const width = (1 - kept) / (kept - ratio * ratio); // s^2 / sigma^2
    const left = Math.min(lowest / sigma, 1) ** 2;
    const below = Math.sqrt((1 + width) * (width + left)) + width + left;
    const part = (width * (1 - left)) / Math.max(below, 2.2250738585072014e-308);
    for (let i = start; i < start + dims; i++) out[i] = denoised[i] + part * (x[i] - denoised[i]);
  }
  return out;
}

class Multistep implements Stepper {
  private readonly form: Form;
  #sigmas: number[] = [];
  #values: Float64Array[] = [];
  #before: Float64Array | null = null;
  #steps = 0;
  #eps: Float64Array | null = null;

  constructor(
    private readonly choices: MultistepChoices,
    private readonly registry: Registry,
    private readonly numSteps: number,
  ) {
    const { quantity, variable, rho, eta } = choices;
    this.form = { quantity, variable, rho, eta, sigmaData: choices.sigma_data ?? 1 };
  }

  #weights(sigma: number, sigmaNext: number, nodes: number[]) {
    return stepWeights(this.form, this.registry.quadrature, sigma, sigmaNext, nodes, this.choices.rule);
  }

  step(
    denoiser: Denoiser,
    given: Float64Array,
    sigma: number,
    sigmaNext: number,
    noise: Float64Array | null,
  ): Float64Array {
    const { choices, form } = this;
    let x = given;
    const denoised = denoiser.call(x, sigma);
    const value = quantityOf(form, x, denoised, sigma);
    if (choices.corrector && this.#before)
      x = combine(this.#before, this.#weights(this.#sigmas[0], sigma, [sigma, ...this.#sigmas]), [
        value,
        ...this.#values,
      ]);
    const eps = choices.final === 'local' ? slopeOf(x, denoised, sigma) : null;
    if (sigmaNext === 0) {
      if (eps && this.#eps) {
        const lowest = choices.sigma_min ?? 0;
        return landLocally(x, denoised, denoiser.dims, sigma, eps, this.#sigmas[0], this.#eps, lowest);
      }
      return land(x, denoised, choices.final);
    }
    let count = Math.min(choices.points, this.#steps + 1);
    if (choices.lower_order_final) count = Math.min(count, this.numSteps - this.#steps);
    const nodes = [sigma, ...this.#sigmas].slice(0, count);
    const values = [value, ...this.#values].slice(0, count);
    const starting = choices.start === 'runge-kutta' && this.#steps + 1 < choices.points;
    let next: Float64Array;
    if (starting) {
      const order = Math.max(1, choices.points + Number(choices.corrector) - 1);
      const tableau = this.registry.tableaus[['euler', 'midpoint', 'kutta3', 'rk4'][order - 1]];
      next = rungeKutta(tableau, denoiser, x, sigma, sigmaNext, slopeOf(x, denoised, sigma));
    } else {
      next = combine(x, this.#weights(sigma, sigmaNext, nodes), values);
      const level = noiseLevel(form, sigma, sigmaNext);
      if (level && noise) for (let i = 0; i < next.length; i++) next[i] += level * noise[i];
    }
    const correctable = choices.corrector && !starting;
    this.#sigmas = correctable ? nodes : [sigma, ...this.#sigmas].slice(0, choices.points);
    this.#values = correctable ? values : [value, ...this.#values].slice(0, choices.points);
    this.#before = correctable ? x : null;
    this.#steps += 1;
    this.#eps = eps;
    return next;
  }
}

function singlestep(spec: SolverSpec & { family: 'singlestep' }, registry: Registry): Stepper {
  const form: Form = { quantity: spec.quantity, variable: 'log-sigma', sigmaData: 1, rho: 7, eta: 0 };
  return {
    step(denoiser, x, sigma, sigmaNext) {
      const denoised = denoiser.call(x, sigma);
      if (sigmaNext === 0) return land(x, denoised, spec.final);
      const ratio = sigmaNext / sigma;
      const first = quantityOf(form, x, denoised, sigma);
      const to = (share: number, values: Float64Array[], nodes: number[], rule = 'exact') =>
        combine(x, stepWeights(form, registry.quadrature, sigma, sigma * ratio ** share, nodes, rule), values);
      const value = (share: number, y: Float64Array) => {
        const level = sigma * ratio ** share;
        return quantityOf(form, y, denoiser.call(y, level), level);
      };
      if (spec.stages === 2) {
        const half = value(0.5, to(0.5, [first], [sigma]));
        return to(1, [first, half], [sigma, sigma * Math.sqrt(ratio)], 'midpoint');
      }
      const [one, two] = [sigma * ratio ** (1 / 3), sigma * ratio ** (2 / 3)];
      const value1 = value(1 / 3, to(1 / 3, [first], [sigma]));
      const value2 = value(2 / 3, to(2 / 3, [first, value1], [sigma, one]));
      return to(1, [first, value2], [sigma, two]);
    },
  };
}

/** Solvers that ask for noise in each step. */
function stochastic(spec: SolverSpec, registry: Registry, numSteps: number): Stepper {
  return {
    step(denoiser, x, sigma, sigmaNext, noise) {
      const z = noise ?? new Float64Array(x.length);
      if (spec.family === 'churn') {
        const inside = spec.s_min <= sigma && sigma <= spec.s_max;
        const share = inside ? Math.min(spec.s_churn / numSteps, Math.SQRT2 - 1) : 0;
        const raised = sigma * (1 + share);
        const added = Math.sqrt(raised ** 2 - sigma ** 2) * spec.s_noise;
        const y = share ? x.map((value, i) => value + added * z[i]) : x;
        const denoised = denoiser.call(y, raised);
        if (sigmaNext === 0) return land(y, denoised, spec.final);
        const slope = slopeOf(y, denoised, raised);
        return rungeKutta(registry.tableaus.heun, denoiser, y, raised, sigmaNext, slope);
      }
      const denoised = denoiser.call(x, sigma);
      if (sigmaNext === 0) return land(x, denoised, spec.final);
      if (spec.family === 'ddim') {
        const fresh = spec.eta * sigmaNext * Math.sqrt(1 - (sigmaNext / sigma) ** 2);
        const old = Math.sqrt(sigmaNext ** 2 - fresh ** 2);
        return denoised.map((value, i) => value + (old / sigma) * (x[i] - value) + fresh * z[i]);
      }
      if (spec.family !== 'ito') throw new Error(`unknown family of solvers: ${spec.family}`);
      const variance = spec.exact_noise ? sigma ** 2 - sigmaNext ** 2 : 2 * sigma * (sigma - sigmaNext);
      const drift = ((1 + spec.eta ** 2) * (sigmaNext - sigma)) / sigma;
      return x.map((value, i) => value + drift * (value - denoised[i]) + spec.eta * Math.sqrt(variance) * z[i]);
    },
  };
}

/** Return a solver at the start of a walk of `numSteps` steps. */
export function makeStepper(spec: SolverSpec, registry: Registry, numSteps: number): Stepper {
  switch (spec.family) {
    case 'runge-kutta': {
      const tableau = registry.tableaus[spec.tableau];
      return {
        step(denoiser, x, sigma, sigmaNext) {
          const denoised = denoiser.call(x, sigma);
          if (sigmaNext === 0) return land(x, denoised, spec.final);
          return rungeKutta(tableau, denoiser, x, sigma, sigmaNext, slopeOf(x, denoised, sigma));
        },
      };
    }
    case 'multistep':
      return new Multistep(spec, registry, numSteps);
    case 'singlestep':
      return singlestep(spec, registry);
    case 'adaptive': {
      const { rtol, atol, max_steps: maxSteps } = spec;
      const walk = new AdaptiveWalk(registry.pairs[spec.pair], { rtol, atol, maxSteps });
      return {
        step: (denoiser, x, sigma, sigmaNext) =>
          sigmaNext === 0 ? land(x, denoiser.call(x, sigma), spec.final) : walk.step(denoiser, x, sigma, sigmaNext),
      };
    }
    default:
      return stochastic(spec, registry, numSteps);
  }
}

/** Count the calls of a denoiser. */
export function counted(denoiser: Denoiser): Denoiser & { nfe: number } {
  const recorder = {
    dims: denoiser.dims,
    cost: denoiser.cost,
    nfe: 0,
    call(x: Float64Array, sigma: number | Float64Array) {
      recorder.nfe += denoiser.cost;
      return denoiser.call(x, sigma);
    },
  };
  return recorder;
}

/** Yield the points at every noise level of the grid, the given ones first. */
export function* trajectory(
  denoiser: Denoiser,
  start: Float64Array,
  sigmas: number[],
  spec: SolverSpec,
  registry: Registry,
  noise: Noise | null = null,
): Generator<Float64Array> {
  const stepper = makeStepper(spec, registry, sigmas.length - 1);
  let x = start;
  yield x;
  for (let k = 0; k + 1 < sigmas.length; k++) {
    x = stepper.step(denoiser, x, sigmas[k], sigmas[k + 1], spec.noises && noise ? noise(k) : null);
    yield x;
  }
}

/** The flow itself: solved to a tolerance with steps of each row's own, then the denoised point at the end. */
export function exactFlow(
  denoiser: Denoiser,
  x: Float64Array,
  sigmaMax: number,
  registry: Registry,
  pair = 'dop853',
  tolerance = 1e-8,
  floor = 1e-4,
): Float64Array {
  const walk = new AdaptiveWalk(registry.pairs[pair], { rtol: tolerance, atol: tolerance, maxSteps: 20000 });
  return denoiser.call(walk.step(denoiser, x, sigmaMax, floor), floor);
}
