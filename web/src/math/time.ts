/** The time of the slider: 0 is noise, 1 is data; even in arsinh(sigma), so that every octave gets its share. */

const UNIT = 0.03;

export function sigmaAt(t: number, sigmaMax: number): number {
  return t >= 1 ? 0 : UNIT * Math.sinh(Math.asinh(sigmaMax / UNIT) * (1 - t));
}

export function timeOf(sigma: number, sigmaMax: number): number {
  return Math.min(1, Math.max(0, 1 - Math.asinh(sigma / UNIT) / Math.asinh(sigmaMax / UNIT)));
}

/** Return the interval of a decreasing grid that a level lies in, and how far it is through it, linear in sigma. */
export function placeIn(sigmas: ArrayLike<number>, sigma: number): { step: number; share: number } {
  const last = sigmas.length - 1;
  if (sigma >= sigmas[0]) return { step: 0, share: 0 };
  if (sigma <= sigmas[last]) return { step: Math.max(last - 1, 0), share: 1 };
  let step = 0;
  while (sigmas[step + 1] > sigma) step++;
  return { step, share: (sigmas[step] - sigma) / (sigmas[step] - sigmas[step + 1]) };
}
