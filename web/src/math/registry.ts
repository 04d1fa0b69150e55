/** What Python tells the page about the library; `pointdiffusion.web.registry` writes it. */

export interface Tableau {
  a: number[][];
  b: number[];
  order: number;
}

export interface Pair {
  a: number[][];
  b: number[];
  c: number[];
  errors: number[][];
  order: number;
  error_order: number;
}

export interface MultistepChoices {
  points: number;
  quantity: string;
  variable: string;
  eta: number;
  rho: number;
  corrector: boolean;
  rule: string;
  start: string;
  lower_order_final: boolean;
  final: string;
  sigma_data?: number;
  /** Lowest noise level that the denoiser may be asked at, where the end is local. */
  sigma_min?: number;
}

interface Facts {
  order: number;
  noises: number;
  final: string;
  /** Evaluations a step; null where the solver decides. */
  calls: number | null;
}

export type SolverSpec = Facts &
  (
    | { family: 'runge-kutta'; tableau: string }
    | ({ family: 'multistep' } & MultistepChoices)
    | { family: 'singlestep'; stages: number; quantity: string }
    | { family: 'adaptive'; pair: string; rtol: number; atol: number; max_steps: number }
    | { family: 'ddim'; eta: number }
    | { family: 'ito'; eta: number; exact_noise: boolean }
    | { family: 'churn'; s_churn: number; s_min: number; s_max: number; s_noise: number }
  );

export interface ScheduleSpec {
  kind: string;
  rho?: number;
  offset?: number;
  num_timesteps?: number;
  beta_first?: number;
  beta_last?: number;
}

export interface DatasetSpec {
  kind: string;
  noise: number;
  classes: number;
  centre: [number, number];
  scale: number;
  scaling_factor?: number;
  radii?: number[];
  centres?: [number, number][];
  weights?: number[];
  means?: [number, number][];
  factors?: number[][][];
}

export interface AutoCandidate {
  order: number;
  quantity: string;
  variable: string;
  corrector?: boolean;
  final: string;
}

/** A setting of training, and how it is shown. */
export interface Setting {
  kind: 'number' | 'whole' | 'choice';
  value: number | string;
  low?: number;
  high?: number;
  choices?: string[];
  log?: boolean;
  /** Whether it is shown at once; others are folded away. */
  main?: boolean;
  help: string;
}

export interface Registry {
  version: string;
  defaults: { solver: string; num_steps: number; schedule: string; sigma_min: number; sigma_max: number; rho: number };
  tableaus: Record<string, Tableau>;
  pairs: Record<string, Pair>;
  quadrature: { nodes: number[]; weights: number[] };
  /** What a solver chooses where its entry says nothing. */
  usual: Record<string, unknown>;
  solvers: Record<string, SolverSpec>;
  schedules: Record<string, ScheduleSpec>;
  datasets: Record<string, DatasetSpec>;
  auto: {
    candidates: Record<string, AutoCandidate>;
    learned: Record<string, { solver: string; sigmas: number[] }>;
    usual_on_networks: Record<string, string>;
    learned_on_networks: Record<string, Record<string, number[]>>;
  };
  /** Settings of training, by name, in order of display. */
  training?: Record<string, Setting>;
}

/** Fill in what the entries of solvers leave out. */
export function complete(raw: Registry): Registry {
  const solvers = Object.entries(raw.solvers).map(([name, spec]) => [name, { ...raw.usual, ...spec } as SolverSpec]);
  return { ...raw, solvers: Object.fromEntries(solvers) };
}
