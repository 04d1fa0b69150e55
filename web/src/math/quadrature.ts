/**
 * The linear part of the flow solved exactly, the rest as a polynomial: d(x / r) = q dtau, so a step is
 * x' = (r' / r) x + sum of w_j q_j with weights that depend on the grid alone. `solvers/quadrature.py` has the table.
 */

import type { Registry } from './registry.ts';

export interface Form {
  quantity: string;
  variable: string;
  sigmaData: number;
  rho: number;
  eta: number;
}

export interface StepWeights {
  factor: number;
  weights: number[];
}

function variable(form: Form, s: number): number {
  switch (form.variable) {
    case 'log-sigma':
      return Math.log(s);
    case 'sigma':
      return s;
    case 'atan':
      return Math.atan(s / form.sigmaData);
    case 'flow':
      return s / (s + form.sigmaData);
    case 'power':
      return s ** (1 / form.rho);
  }
  throw new Error(`unknown variable: ${form.variable}`);
}

function scaleOf(form: Form, sigma: number): number {
  switch (form.quantity) {
    case 'eps':
      return 1;
    case 'denoised':
      return sigma ** (1 + form.eta);
    case 'velocity':
      return form.sigmaData + sigma;
    case 'F':
      return Math.hypot(sigma, form.sigmaData);
  }
  throw new Error(`unknown quantity: ${form.quantity}`);
}

/** r' times d tau / d log s. */
function density(form: Form, s: number, sigmaNext: number): number {
  const d = form.sigmaData;
  if (form.quantity === 'denoised') return -(1 + form.eta) * (sigmaNext / s) ** (1 + form.eta);
  if (form.quantity === 'eps') return s;
  const bottom = form.quantity === 'velocity' ? (d + s) ** 2 : s * s + d * d;
  return (scaleOf(form, sigmaNext) * d * s) / bottom;
}

/** The interpolated quantity at points. */
export function quantityOf(form: Form, x: Float64Array, denoised: Float64Array, sigma: number): Float64Array {
  if (form.quantity === 'denoised') return denoised;
  const d = form.sigmaData;
  const root = Math.hypot(sigma, d);
  const [own, other] =
    form.quantity === 'eps' ? [1, 1] : form.quantity === 'velocity' ? [1, 1 + sigma / d] : [d / root, root / d];
  const out = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) out[i] = (own * x[i] - other * denoised[i]) / sigma;
  return out;
}

/** Factor of x and weights of the quantity at the nodes, for a step from `sigma` down to `sigmaNext` above 0. */
export function stepWeights(
  form: Form,
  quadrature: Registry['quadrature'],
  sigma: number,
  sigmaNext: number,
  nodes: number[],
  rule: string,
): StepWeights {
  const [low, high] = [Math.log(sigmaNext), Math.log(sigma)];
  const places = quadrature.nodes.map((node) => Math.exp((low + high) / 2 + ((high - low) / 2) * node));
  let mass = places.map((s, i) => (-(high - low) / 2) * quadrature.weights[i] * density(form, s, sigmaNext));
  let u = places.map((s) => variable(form, s));
  const points = nodes.map((s) => variable(form, s));
  if (rule === 'midpoint' && nodes.length === 2) {
    u = [(variable(form, sigma) + variable(form, sigmaNext)) / 2];
    mass = [mass.reduce((a, b) => a + b, 0)];
  }
  const weights = points.map((node, j) => {
    const others = points.filter((_, k) => k !== j);
    const bottom = others.reduce((product, other) => product * (node - other), 1);
    let sum = 0;
    for (let i = 0; i < u.length; i++) {
      let basis = others.reduce((product, other) => product * (u[i] - other), 1) / bottom;
      if (rule === 'half-curvature' && nodes.length === 3) basis -= (u[i] - points[0]) ** 2 / (2 * bottom);
      sum += mass[i] * basis;
    }
    return sum;
  });
  return { factor: scaleOf(form, sigmaNext) / scaleOf(form, sigma), weights };
}

export function combine(x: Float64Array, { factor, weights }: StepWeights, values: Float64Array[]): Float64Array {
  const out = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    let sum = factor * x[i];
    for (let j = 0; j < weights.length; j++) sum += weights[j] * values[j][i];
    out[i] = sum;
  }
  return out;
}

/** Standard deviation of the noise that a step adds. */
export function noiseLevel(form: Form, sigma: number, sigmaNext: number): number {
  return form.eta ? sigmaNext * Math.sqrt(-Math.expm1(2 * form.eta * Math.log(sigmaNext / sigma))) : 0;
}
