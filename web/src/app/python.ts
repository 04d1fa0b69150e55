/** "Show Python": a script that makes with the library what the page shows, number for number. */

import type { PanelName } from '../compute/messages.ts';
import { autoSteps } from '../compute/walks.ts';
import { toBase64 } from '../files/packed.ts';
import type { Recipe } from '../files/run.ts';
import type { Points } from '../math/shapes.ts';
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
  const own = `ptd.bind(network, labels=${label})`;
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
    label < 0 || guidance === 0
      ? ''
      : `\nnetwork = ${guidance === 1 ? own : `ptd.Guided(${own}, network, ${guidance})`}`
  }
x_network = start(${
    label < 0
      ? 'whole'
      : `(model.conditions.means[${label + 1}], model.conditions.covariances[${label + 1}]), ${guidance}`
  })
lowest = model.inference.sigma_min  # the network knows no lower noise
exact_network = ptd.exact_flow(network, x_network[:24], SIGMA_MAX, lowest, tolerance=1e-6).x
exact_network = network(exact_network, torch.tensor(lowest, dtype=x_T.dtype))`;
}

function sampling(state: State, panel: PanelName, trained: boolean, guided: boolean): string {
  const solver = state[`${panel}.solver`];
  const steps = state[`${panel}.steps`];
  const schedule = state[`${panel}.schedule`];
  const low = Math.min(state.smin, state.smax / 2);
  const rho = schedule === 'karras' ? `, rho=${state.rho}` : '';
  const title = `${panel.toUpperCase()}: ${solver}, ${steps} ${solver === 'auto' ? 'evaluations' : 'steps'}`;
  const nfe = autoSteps(steps, guided ? 2 : 1);
  // The server walks by the plan that is tried on the model, and the page, which carries the lattice, by the usual one.
  const planned = trained && !state.grid;
  const plan = `plan = model.plan(${guided ? 2 * nfe : nfe}, sigma_max=SIGMA_MAX${guided ? ', guided=True' : ''})\n`;
  const how =
    solver === 'auto'
      ? planned
        ? 'plan.sigmas, solver=plan.solver'
        : `nfe=${nfe}, sigma_max=SIGMA_MAX${trained ? ', sigma_min=lowest' : ''}`
      : `ptd.SCHEDULES["${schedule}"](${low}, SIGMA_MAX${rho}).sigmas(${steps}), solver="${solver}", noise=noise`;
  const [asked, from, ends] = trained ? ['network', 'x_network', 'exact_network'] : ['denoiser', 'x_T', 'exact'];
  return `${planned && solver === 'auto' ? plan : ''}report("${title}", ptd.trajectory(${asked}, ${from}, ${how}), ${ends})`;
}

/** Return the script for the exact denoiser of the points that are shown, and a network that was trained here. */
export function scriptOf(state: State, { values, labels }: Points, learned: Learned | null = null): string {
  const conditional = state.class >= 0 && labels.includes(state.class);
  const twice = state.guidance !== 0 && state.guidance !== 1;
  const panels: PanelName[] = state.compare ? ['a', 'b'] : ['a'];
  const label = conditional
    ? `
labels = np.frombuffer(base64.b64decode(LABELS), dtype=np.uint8)
rows = points[torch.from_numpy(labels == ${state.class})]
own = ptd.EmpiricalDenoiser(rows)
denoiser = ${state.guidance === 1 ? 'own' : state.guidance === 0 ? 'denoiser' : `ptd.Guided(own, denoiser, ${state.guidance})`}`
    : '';
  const given = conditional ? `\nLABELS = (\n${lines(base64(labels))}\n)` : '';
  return `"""What the playground of pointdiffusion showed, computed again by the library."""

import base64

import numpy as np
import torch

import pointdiffusion as ptd
${learned ? 'from pointdiffusion.networks import default_network\n' : ''}
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


def moments(x):
    centred = x - x.mean(dim=0)
    return x.mean(dim=0), centred.T @ centred / max(len(x) - 1, 1)


def start(own, guidance=1.0):
    """Draw from the Gaussian with the mean and the covariance of the noisy data, of a class as it is guided."""
    mean, covariance = ptd.guided_gaussian(*own, *whole, guidance, SIGMA_MAX)
    return mean + z @ torch.linalg.cholesky(covariance).T


z = torch.from_numpy(normals(SEED, 2, 2 * NUM_SAMPLES)).reshape(-1, 2)
whole = moments(points)
x_T = start(${conditional ? `moments(rows), ${state.guidance}` : 'whole'})
exact = ptd.exact_flow(denoiser, x_T[:200], SIGMA_MAX, 0.0, tolerance=1e-8).x${learned ? fitting(learned, state.guidance) : ''}


def noise(step, draws):
    return torch.from_numpy(normals(SEED, 1000 + step, draws * x_T.numel())).reshape(draws, *x_T.shape)


def report(title, steps, ends):
    *_, last = steps
    error = (last.x[: len(ends)] - ends).square().sum(dim=1).mean().sqrt()
    print(f"{title}: {last.nfe} evaluations, distance to the exact flow {error:.6f}")
    samples[title[0]] = last.x


samples = {}
${panels
  .map((panel) => {
    const trained = learned?.panels.includes(panel) ?? false;
    return sampling(state, panel, trained, twice && (trained ? (learned?.label ?? -1) >= 0 : conditional));
  })
  .join('\n')}
`;
}
