/** "Show Python": a script that makes with the library what the page shows, number for number. */

import type { Points } from './math/shapes.ts';
import type { PanelName } from './messages.ts';
import { toBase64 } from './packed.ts';
import type { Recipe } from './run.ts';
import type { State } from './state.ts';

/** A network that was trained in the page, and which panels ask it. */
export interface Learned {
  panels: PanelName[];
  recipe: Recipe;
  points: Points;
  /** The class to draw, as the network counts it. */
  label: number;
}

function base64(values: Float64Array | Int32Array): string {
  const floats = values instanceof Float64Array ? Float32Array.from(values) : Uint8Array.from(values);
  return toBase64(new Uint8Array(floats.buffer));
}

function lines(text: string): string {
  return (text.match(/.{1,100}/g) ?? ['']).map((part) => `    "${part}"`).join('\n');
}

const MOST_STEPS = 200; // of an epoch

/** Return epochs and their steps, as the server splits a number of steps. */
export function epochsOf(steps: number): [number, number] {
  let each = Math.min(MOST_STEPS, steps);
  while (steps % each) each--;
  return [steps / each, each];
}

/** Train the network again. */
function fitting({ recipe, points: { labels, units, dims, values }, label }: Learned, guidance: number): string {
  const { steps, hidden_dim, num_layers, ...others } = recipe.settings;
  const [epochs, epoch_steps] = epochsOf(Number(steps));
  const settings = Object.entries({ epochs, epoch_steps, ...others }).map(
    ([name, value]) => `        ${name}=${typeof value === 'string' ? JSON.stringify(value) : value},`,
  );
  const { mean, scale } = units ?? { mean: [0, 0], scale: [1, 1] };
  const classes = recipe.labelled ? `, num_classes=${new Set(labels).size}` : '';
  const given = recipe.labelled
    ? '\n    labels=np.frombuffer(base64.b64decode(TRAINED_LABELS), dtype=np.uint8).tolist(),'
    : '';
  const own = `Bound(network, labels=${label})`;
  return `

TRAINED = (
${lines(base64(values))}
)${recipe.labelled ? `\nTRAINED_LABELS = (\n${lines(base64(labels))}\n)` : ''}
mean, scale = np.array(${JSON.stringify(mean)}), np.array(${JSON.stringify(scale)})
trained = np.frombuffer(base64.b64decode(TRAINED), dtype="<f4").astype(float).reshape(-1, ${dims})
model = ptd.fit(
    mean + scale * trained,
    ptd.TrainingConfig(
${settings.join('\n')}
    ),
    backbone=lambda _: default_network(${dims}, ${hidden_dim}, ${num_layers}${classes}),
    standardiser=ptd.Standardiser(mean, scale),${given}
    seed=${recipe.seed},
)
torch.set_grad_enabled(False)
network = model.denoiser.cpu().double().eval()  # the page walks in double precision${
    label < 0 ? '' : `\nnetwork = ${guidance === 1 ? own : `ptd.Guided(${own}, network, ${guidance})`}`
  }
lowest = model.inference.sigma_min  # the network knows no lower noise
exact_network = ptd.exact_flow(network, x_T[:24], SIGMA_MAX, lowest, tolerance=1e-6).x
exact_network = network(exact_network, torch.tensor(lowest, dtype=x_T.dtype))`;
}

function sampling(state: State, panel: PanelName, trained: boolean): string {
  const solver = state[`${panel}.solver`];
  const steps = state[`${panel}.steps`];
  const schedule = state[`${panel}.schedule`];
  const low = Math.min(state.smin, state.smax / 2);
  const rho = schedule === 'karras' ? `, rho=${state.rho}` : '';
  const title = `${panel.toUpperCase()}: ${solver}, ${steps} ${solver === 'auto' ? 'evaluations' : 'steps'}`;
  const how =
    solver === 'auto'
      ? `nfe=${steps}, sigma_max=SIGMA_MAX${trained ? ', sigma_min=lowest' : ''}`
      : `ptd.SCHEDULES["${schedule}"](${low}, SIGMA_MAX${rho}).sigmas(${steps}), solver="${solver}", noise=noise`;
  const [asked, ends] = trained ? ['network', 'exact_network'] : ['denoiser', 'exact'];
  return `report("${title}", ptd.trajectory(${asked}, x_T, ${how}), ${ends})`;
}

/** Return the script for the exact denoiser of the points that are shown, and a network that was trained here. */
export function scriptOf(state: State, { values, labels }: Points, learned: Learned | null = null): string {
  const conditional = state.class >= 0 && labels.includes(state.class);
  const panels: PanelName[] = state.compare ? ['a', 'b'] : ['a'];
  const label = conditional
    ? `
labels = np.frombuffer(base64.b64decode(LABELS), dtype=np.uint8)
own = ptd.EmpiricalDenoiser(points[torch.from_numpy(labels == ${state.class})])
denoiser = ${state.guidance === 1 ? 'own' : `ptd.Guided(own, denoiser, ${state.guidance})`}`
    : '';
  const given = conditional ? `\nLABELS = (\n${lines(base64(labels))}\n)` : '';
  return `"""What the playground of pointdiffusion showed, computed again by the library."""

import base64

import numpy as np
import torch

import pointdiffusion as ptd
${learned ? `${learned.label < 0 ? '' : 'from pointdiffusion.guidance import Bound\n'}from pointdiffusion.networks import default_network\n` : ''}
SEED, NUM_SAMPLES, SIGMA_MAX = ${state.start}, ${state.samples}, ${state.smax}
POINTS = (
${lines(base64(values))}
)${given}


def mix(x):
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def normals(seed, stream, count):
    """The page's own normal numbers: a hash of seed, stream and index, then Box and Muller."""
    seed = np.array([(seed + 0x9E3779B9) & 0xFFFFFFFF], dtype=np.uint32)
    key = mix(mix(seed) + np.uint32(((stream + 1) * 0x85EBCA6B) & 0xFFFFFFFF))
    index = np.arange(count + count % 2, dtype=np.uint32)
    u = (mix(mix(index * np.uint32(0x9E3779B9) + key) ^ key) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]


points = torch.from_numpy(np.frombuffer(base64.b64decode(POINTS), dtype="<f4").astype(float).reshape(-1, 2))
denoiser = ptd.EmpiricalDenoiser(points)${label}

# The start: the Gaussian with the mean and the covariance of the noisy data.
z = torch.from_numpy(normals(SEED, 2, 2 * NUM_SAMPLES)).reshape(-1, 2)
factor = torch.linalg.cholesky(torch.cov(points.T) + SIGMA_MAX**2 * torch.eye(2, dtype=z.dtype))
x_T = points.mean(dim=0) + z @ factor.T
exact = ptd.exact_flow(denoiser, x_T[:200], SIGMA_MAX, 0.0, tolerance=1e-8).x${learned ? fitting(learned, state.guidance) : ''}


def noise(step, draws):
    return torch.from_numpy(normals(SEED, 1000 + step, draws * x_T.numel())).reshape(draws, *x_T.shape)


def report(title, steps, ends):
    *_, last = steps
    error = (last.x[: len(ends)] - ends).square().sum(dim=1).mean().sqrt()
    print(f"{title}: {last.nfe} evaluations, distance to the exact flow {error:.6f}")
    samples[title[0]] = last.x


samples = {}
${panels.map((panel) => sampling(state, panel, learned?.panels.includes(panel) ?? false)).join('\n')}
`;
}
