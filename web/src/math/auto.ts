/** The best known solver and grid for a budget of evaluations; `auto.py` tells where the tables come from. */

import type { AutoCandidate, Registry, SolverSpec } from './registry.ts';

const START = 10;

function powers(nfe: number, low: number, power: number): number[] {
  const levels = Array.from({ length: nfe }, (_, i) => (nfe === 1 ? 1 : 1 - i / (nfe - 1)) ** power);
  return levels.map((ramp) => low * (START / low) ** ramp).slice(1);
}

function resampled(values: number[], count: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    const place = count === 1 ? 0 : (i * (values.length - 1)) / (count - 1);
    const left = Math.min(Math.floor(place), Math.max(values.length - 2, 0));
    const right = Math.min(left + 1, values.length - 1);
    return values[left] + (values[right] - values[left]) * (place - left);
  });
}

const budgets = (table: Record<string, unknown>) => Object.keys(table).map(Number);

/** The largest known budget that is not above `nfe`; the least one where there is none. */
function below(table: Record<string, unknown>, nfe: number): number {
  const known = budgets(table);
  return Math.max(Math.min(...known), ...known.filter((n) => n <= nfe));
}

function between(table: Record<string, number[]>, nfe: number): number[] {
  const least = below(table, nfe);
  const higher = budgets(table).filter((n) => n >= nfe);
  const above = higher.length ? Math.min(...higher) : least;
  const share = (nfe - least) / Math.max(above - least, 1);
  const [low, high] = [least, above].map((n) => resampled([START, ...table[n]].map(Math.log), nfe));
  return low.map((value, i) => Math.exp(value + share * (high[i] - value))).slice(1);
}

/** Name of the solver and inner noise levels, in standard deviations of the data. */
function exactly(auto: Registry['auto'], nfe: number): [string, number[]] {
  const { learned } = auto;
  if (nfe > Math.max(...budgets(learned)))
    return ['velocity-4 corrected', powers(nfe, 0.02 * Math.min(1, 50 / nfe), 0.7)];
  const table = Object.fromEntries(Object.entries(learned).map(([n, { sigmas }]) => [n, sigmas]));
  return [learned[below(learned, nfe)].solver, between(table, nfe)];
}

/** The same for a network that may be asked down to `lowest`. */
function onNetwork(auto: Registry['auto'], nfe: number, lowest: number): [string, number[]] {
  const name = auto.usual_on_networks[below(auto.usual_on_networks, nfe)];
  const table = auto.learned_on_networks[name];
  const levels = between(table, nfe);
  if (nfe <= Math.max(...budgets(table))) return [name, levels];
  const last = levels[levels.length - 1];
  const deeper = Math.log(Math.max(lowest, Math.min(last, 0.35 / nfe))) / Math.log(last);
  return [name, levels.map((level) => (level < 1 ? level ** deeper : level))];
}

function spec(choice: AutoCandidate, lowest: number): SolverSpec {
  return {
    family: 'multistep',
    order: choice.order,
    noises: 0,
    calls: 1,
    points: choice.order,
    quantity: choice.quantity,
    variable: choice.variable,
    eta: 0,
    rho: 7,
    corrector: choice.corrector ?? false,
    rule: 'exact',
    start: 'ramp',
    lower_order_final: false,
    final: choice.final,
    sigma_min: lowest,
  };
}

/** Return solver and grid for `nfe` evaluations; `lowest` is the least noise level a network may be asked, else 0. */
export function plan(
  auto: Registry['auto'],
  nfe: number,
  sigmaMax: number,
  lowest = 0,
): { solver: SolverSpec; sigmas: number[] } {
  const [name, levels] = lowest ? onNetwork(auto, nfe, lowest) : exactly(auto, nfe);
  const ratio = Math.log(sigmaMax) / Math.log(START);
  const least = levels.length ? levels[levels.length - 1] : 1;
  const under = least < lowest ? Math.log(lowest) / Math.log(least) : 1;
  return {
    solver: spec(auto.candidates[name], lowest),
    sigmas: [sigmaMax, ...levels.map((s) => (s > 1 ? s ** ratio : s ** under)), 0],
  };
}
