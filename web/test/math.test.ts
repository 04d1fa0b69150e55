/** The page's mathematics against the library: fixtures are written by `tests/web_fixtures.py`, named by FIXTURES. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { guidedTarget } from '../src/compute/figures.ts';
import { startOf, type Walk } from '../src/compute/walks.ts';
import { plan } from '../src/math/auto.ts';
import { membersFrom, trainedDenoiser } from '../src/math/bases.ts';
import { ExactDenoiser, guided, guidedMoments, moments, noisyFactor, startFrom } from '../src/math/denoisers.ts';
import { nearest, slicedWasserstein2, wasserstein2 } from '../src/math/metrics.ts';
import { halfToNumber, Network, type Weights } from '../src/math/network.ts';
import { normals } from '../src/math/random.ts';
import { complete, type Registry } from '../src/math/registry.ts';
import { grid } from '../src/math/schedules.ts';
import { counted, exactFlow, trajectory } from '../src/math/solvers.ts';

assert.ok(process.env.FIXTURES, 'FIXTURES must name the file that tests/web_fixtures.py writes');
const truth = JSON.parse(readFileSync(process.env.FIXTURES, 'utf8'));
const registry: Registry = complete(truth.registry);
const denoiser = new ExactDenoiser(Float64Array.from(truth.points), 2);
const SINGLE = 1e-5; // float32, relative to numbers of size 1

function close(found: ArrayLike<number>, wanted: ArrayLike<number>, tolerance: number): void {
  assert.equal(found.length, wanted.length);
  for (let i = 0; i < found.length; i++) {
    const allowed = tolerance * Math.max(1, Math.abs(wanted[i]));
    assert.ok(Math.abs(found[i] - wanted[i]) <= allowed, `number ${i}: ${found[i]}, not ${wanted[i]}`);
  }
}

function last(denoise: ExactDenoiser, start: number[], sigmas: number[], spec: Registry['solvers'][string]) {
  const recorder = counted(denoise);
  let x: Float64Array = new Float64Array();
  const noise = (step: number) => normals(truth.solvers.seed, 1000 + step, start.length);
  for (x of trajectory(recorder, Float64Array.from(start), sigmas, spec, registry, noise));
  return { x, nfe: recorder.nfe };
}

test('normal numbers are those that Python makes', () => {
  close(normals(11, 4, 1001), truth.normals, 1e-12);
});

test('the exact denoiser agrees', () => {
  const { x, sigmas, found } = truth.denoised;
  close(denoiser.call(Float64Array.from(x), Float64Array.from(sigmas)), found, 1e-9);
  const wide = new ExactDenoiser(Float64Array.from(truth.wide.points), 3);
  close(
    wide.call(
      Float64Array.from(truth.wide.points, (v: number) => 1.5 * v),
      0.4,
    ),
    truth.wide.found,
    1e-9,
  );
});

test('the start is the Gaussian of the noisy data', () => {
  const { mean, covariance } = moments(Float64Array.from(truth.points), 2);
  close(startFrom(Float64Array.from(truth.start.z), mean, noisyFactor(covariance, 2, 10)), truth.start.x, 1e-12);
});

test('guided sampling starts where the guided flow is', () => {
  for (const { means, covariances, scale, sigma, mean, covariance } of truth.guided_starts) {
    const [target, base] = [0, 1].map((i) => ({
      mean: Float64Array.from(means[i]),
      covariance: Float64Array.from(covariances[i]),
    }));
    const found = guidedMoments(target, base, scale, sigma);
    close(found.mean, mean, 2e-7);
    close(found.covariance, covariance, 2e-7);
  }
});

test('the start of a walk is that of its class and strength', () => {
  // classes of standard deviation 1 in each column, around (0, 0) and (3, 0): at strength w the mean is w times 3
  const corners = [1, 1, 1, -1, -1, 1, -1, -1].map((v) => v * Math.sqrt(3 / 4));
  const shifted = corners.map((v, i) => v + (i % 2 ? 0 : 3));
  const walk: Walk = {
    dims: 2,
    data: Float64Array.from([...corners, ...shifted]),
    labels: Int32Array.of(0, 0, 0, 0, 1, 1, 1, 1),
    denoiser: 'exact',
    label: 1,
    trainedLabel: 1,
    guidance: 1,
    solver: 'euler',
    schedule: 'karras',
    steps: 5,
    sigmaMin: 0.01,
    sigmaMax: 2,
    rho: 7,
    given: null,
    count: 4000,
    seed: 1,
    covariance: null,
    classMoments: null,
  };
  const all = moments(walk.data, 2);
  const z = normals(1, 2, 8000);
  const drawn = (change: Partial<Walk>) => startOf({ ...walk, ...change });
  const from = (mean: ArrayLike<number>, covariance: ArrayLike<number>) =>
    startFrom(z, Float64Array.from(mean), noisyFactor(Float64Array.from(covariance), 2, 2));
  const own = moments(Float64Array.from(shifted), 2);
  close(own.covariance, [1, 0, 0, 1], 1e-12);
  close(drawn({}), from([3, 0], [1, 0, 0, 1]), 1e-12);
  close(drawn({ guidance: 0 }), drawn({ label: -1 }), 0);
  close(drawn({ label: -1, guidance: 3 }), from(all.mean, all.covariance), 0);
  const guidedTo = guidedMoments(own, all, 3, 2);
  close(drawn({ guidance: 3 }), startFrom(z, guidedTo.mean, noisyFactor(guidedTo.covariance, 2, 0)), 1e-12);
  const classMoments = { mean: [1, 2], covariance: [0.5, 0.1, 0.1, 0.3] };
  close(drawn({ denoiser: 'network', classMoments }), from([1, 2], [0.5, 0.1, 0.1, 0.3]), 1e-12);
  close(drawn({ denoiser: 'network' }), from(all.mean, all.covariance), 0);
});

test('guidance is one formula', () => {
  const other = new ExactDenoiser(Float64Array.of(1, 1), 2);
  const x = Float64Array.of(0.3, -0.2);
  const [target, base] = [other.call(x, 1), denoiser.call(x, 1)];
  const strong = guided(other, denoiser, 3);
  close(strong.call(x, 1), [base[0] + 3 * (target[0] - base[0]), base[1] + 3 * (target[1] - base[1])], 1e-15);
  assert.equal(strong.cost, 2);
});

for (const [name, grids] of Object.entries<Record<string, number[]>>(truth.schedules))
  test(`schedule ${name} agrees`, () => {
    for (const [steps, sigmas] of Object.entries(grids))
      close(grid(registry.schedules[name], Number(steps), 0.01, 20), sigmas, 1e-9);
  });

for (const [name, wanted] of Object.entries<{ x: number[]; nfe: number }>(truth.solvers.found))
  test(`solver ${name} agrees`, () => {
    const { x, nfe } = last(denoiser, truth.solvers.start, truth.solvers.sigmas, registry.solvers[name]);
    close(x, wanted.x, SINGLE);
    // adaptive rows that have arrived are not asked again here
    if (registry.solvers[name].family !== 'adaptive') assert.equal(nfe, wanted.nfe);
  });

test('the plan of auto agrees', () => {
  for (const { nfe, sigma_max, low, sigmas, x } of truth.auto) {
    const found = plan(registry.auto, nfe, sigma_max, low);
    close(found.sigmas, sigmas, 1e-9);
    close(last(denoiser, truth.solvers.start.slice(0, 200), found.sigmas, found.solver).x, x, SINGLE);
  }
});

test('the exact flow agrees', () => {
  close(exactFlow(denoiser, Float64Array.from(truth.flow.x), 10, registry), truth.flow.found, SINGLE);
});

for (const { name, spec, sigma_data, label, sigmas, each, scalar, x, weights, bases } of truth.networks)
  test(`network ${name} agrees`, () => {
    const own: Weights = {};
    for (const [key, value] of Object.entries<{ shape: number[]; values: number[] }>(weights))
      own[key] = { shape: value.shape, values: Float64Array.from(value.values) };
    const network = trainedDenoiser(membersFrom(spec, own, bases), sigma_data, label);
    const points = Float64Array.from(x);
    close(network.call(points, Float64Array.from(sigmas)), each, SINGLE);
    close(network.call(points, 0.3), scalar, SINGLE);
  });

test('a network of other parts is refused', () => {
  assert.throws(() => new Network({ part: 'residual-mlp', points: { part: 'other' } }, {}), /fourier-features/);
});

test('half precision is read', () => {
  const bits: [number, number][] = [
    [0x3c00, 1],
    [0xc000, -2],
    [0x3555, 0.333251953125],
    [0x0001, 2 ** -24],
    [0x7bff, 65504],
    [0x8000, 0],
  ];
  for (const [half, number] of bits) assert.equal(halfToNumber(half) + 0, number);
});

test('distances agree', () => {
  const [a, b] = [Float64Array.from(truth.distances.a), Float64Array.from(truth.distances.b)];
  close([wasserstein2(a, b, 2)], [truth.distances.w2], 1e-9);
  close(nearest(a, b, 2).distance, truth.distances.nearest, 1e-9);
});

test('the sliced distance of a shift is its length over the root of two', () => {
  const a = normals(1, 3, 400);
  const b = a.map((value, i) => value + (i % 2 ? 0 : 2));
  close([slicedWasserstein2(a, b)], [2 / Math.SQRT2], 1e-9);
});

test('the guided target is that of rejection by the posterior', () => {
  // two classes on a line, blurred: the mean under p(x|c) p(c|x)^(w-1), by quadrature and by the points
  const problem = { dims: 2, data: Float64Array.of(-1, 0, 1, 0), labels: Int32Array.of(0, 1), label: 0 };
  const density = (x: number, at: number) => Math.exp(-((x - at) ** 2) / (2 * 0.8 ** 2));
  for (const guidance of [0.5, 3, 8]) {
    let [mass, first] = [0, 0];
    for (let x = -8; x < 8; x += 0.001) {
      const own = density(x, -1);
      const weight = own * (own / (own + density(x, 1))) ** (guidance - 1);
      mass += weight;
      first += weight * x;
    }
    const found = guidedTarget({ ...problem, guidance, denoiser: 'exact', trainedLabel: 0 }, 0.8, 4000, 1)!;
    assert.equal(found.length, 8000);
    let mean = 0;
    for (let i = 0; i < found.length; i += 2) mean += found[i] / 4000;
    assert.ok(Math.abs(mean - first / mass) < (5 * 0.9) / Math.sqrt(4000), `w ${guidance}: ${mean}, ${first / mass}`);
  }
  const none = { ...problem, label: 7, guidance: 3, denoiser: 'exact', trainedLabel: -1 };
  assert.equal(guidedTarget(none, 0.8, 10, 1), null);
});
