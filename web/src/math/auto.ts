/** The best known solver and grid for a budget of evaluations; `auto.py` tells where the tables come from. */

import type { AutoCandidate, Registry, SolverSpec } from '../registry.ts';

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

function between(table: Record<string, number[]>, nfe: number): number[] {
  const known = Object.keys(table).map(Number);
  const below = Math.max(...known.filter((n) => n <= nfe));
  const above = Math.min(...known.filter((n) => n >= nfe));
  const share = (nfe - below) / Math.max(above - below, 1);
  const [low, high] = [below, above].map((n) => resampled([START, ...table[n]].map(Math.log), nfe));
  return low.map((value, i) => Math.exp(value + share * (high[i] - value))).slice(1);
}

function spec(choice: AutoCandidate): SolverSpec {
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
  };
}

/** Return solver and grid for `nfe` evaluations; `lowest` is the least noise level a network may be asked, else 0. */
export function plan(
  auto: Registry['auto'],
  nfe: number,
  sigmaMax: number,
  lowest = 0,
): { solver: SolverSpec; sigmas: number[] } {
  const learned = Object.fromEntries(Object.entries(auto.learned).map(([n, { sigmas }]) => [n, sigmas]));
  const most = (table: Record<string, unknown>) => Math.max(...Object.keys(table).map(Number));
  const network = auto.learned_on_networks;
  let choice: AutoCandidate;
  let levels: number[];
  if (lowest && nfe >= Math.min(...Object.keys(network).map(Number))) {
    choice = { ...auto.candidates['velocity-4 corrected'], final: 'denoise' };
    levels =
      nfe <= most(network)
        ? between(network, nfe)
        : powers(nfe, Math.max(lowest, 0.3 / nfe), Math.min(1, 0.75 + nfe / 200));
  } else if (nfe === 1) {
    choice = auto.candidates['angular-3'];
    levels = [];
  } else if (nfe > most(learned)) {
    choice = auto.candidates['velocity-4 corrected'];
    levels = powers(nfe, 0.02 * Math.min(1, 50 / nfe), 0.7);
  } else {
    const below = Math.max(
      ...Object.keys(learned)
        .map(Number)
        .filter((n) => n <= nfe),
    );
    choice = auto.candidates[auto.learned[below].solver];
    levels = between(learned, nfe);
  }
  const ratio = Math.log(sigmaMax) / Math.log(START);
  const least = levels.length ? levels[levels.length - 1] : 1;
  const under = least < lowest ? Math.log(lowest) / Math.log(least) : 1;
  return { solver: spec(choice), sigmas: [sigmaMax, ...levels.map((s) => (s > 1 ? s ** ratio : s ** under)), 0] };
}
