/**
 * The state of the page: one table of properties. What differs from its default is written to the address after `#`,
 * so that a link restores it; drawn points are quantised.
 */

import type { Setting } from '../math/registry.ts';
import type { Points } from '../math/shapes.ts';

interface NumberProperty {
  kind: 'number';
  value: number;
  low: number;
  high: number;
  step: number;
  /** Whether a slider moves in the logarithm; a step of 0 then means two digits. */
  log?: boolean;
}
interface ChoiceProperty {
  kind: 'choice';
  value: string;
  /** What may be chosen, where the table knows. */
  choices?: readonly string[];
}
interface FlagProperty {
  kind: 'flag';
  value: boolean;
}
export type Property = NumberProperty | ChoiceProperty | FlagProperty;

const number = (value: number, low: number, high: number, step: number, log = false): NumberProperty => ({
  kind: 'number',
  value,
  low,
  high,
  step,
  log,
});
const choice = (value: string): ChoiceProperty => ({ kind: 'choice', value });
const flag = (value: boolean): FlagProperty => ({ kind: 'flag', value });

const OWN = {
  shape: choice('swiss-roll'), // '' for points of one's own
  n: number(500, 20, 2000, 10, true),
  noise: number(-1, 0, 0.4, 0.005), // in units of the window; -1 is the shape's own
  seed: number(1, 1, 9999, 1),
  samples: number(600, 50, 5000, 10, true),
  start: number(1, 0, 9999, 1), // seed of the noise; 0 is the noise of an exported run
  smax: number(10, 2, 80, 0.1, true),
  smin: number(0.01, 0.002, 0.2, 0.001, true),
  rho: number(7, 1, 12, 0.5),
  class: number(-1, -1, 99, 1),
  guidance: number(1, 0, 8, 0.1),
  compare: flag(false),
  'a.denoiser': choice('exact'),
  'a.solver': choice('heun'),
  'a.schedule': choice('karras'),
  'a.steps': number(20, 1, 100, 1, true),
  'b.denoiser': choice('exact'),
  'b.solver': choice('euler'),
  'b.schedule': choice('karras'),
  'b.steps': number(8, 1, 100, 1, true),
  data: flag(true),
  points: flag(true),
  trails: flag(false),
  field: flag(false),
  contours: flag(true),
  grid: flag(false),
  classes: flag(false),
  nearest: flag(false),
  target: flag(true),
  view: choice('scaled'),
  metric: choice('exact'),
  t: number(0, 0, 1, 0.001),
  speed: number(1, 0.25, 4, 0.25),
  probe: choice(''),
  axes: choice('0,1'),
  lang: choice(''),
  theme: choice(''),
  'train.seed': number(0, 0, 9999, 1),
} as const satisfies Record<string, Property>;

type OwnName = keyof typeof OWN;
/** A setting of training, which the registry brings into the table. */
export type SettingName = `train.${string}`;
export type Name = OwnName | SettingName;
type Value<P> = P extends { kind: 'number' } ? number : P extends { kind: 'flag' } ? boolean : string;
type Named<Kind> = { [K in OwnName]: (typeof OWN)[K] extends { kind: Kind } ? K : never }[OwnName];
export type State = { -readonly [K in OwnName]: Value<(typeof OWN)[K]> } & { [K in SettingName]: number | string };
export type NumberName = Named<'number'> | SettingName;
export type FlagName = Named<'flag'>;
export type ChoiceName = Exclude<OwnName, Named<'number'> | FlagName> | SettingName;

export const PROPERTIES: typeof OWN & Record<SettingName, Property> = { ...OWN };
export const NAMES = Object.keys(OWN) as Name[];

/** Bring the settings of training into the table, no higher than a server allows. */
export function adoptSettings(settings: Record<string, Setting>, limits: Record<string, number> = {}): void {
  for (const [key, setting] of Object.entries(settings)) {
    const name: SettingName = `train.${key}`;
    if (!NAMES.includes(name)) NAMES.push(name);
    if (setting.kind === 'choice') {
      PROPERTIES[name] = { kind: 'choice', value: String(setting.value), choices: setting.choices ?? [] };
      continue;
    }
    const value = Number(setting.value);
    const low = Math.min(setting.low ?? 0, value);
    const high = Math.max(Math.min(setting.high ?? value, limits[key] ?? Number.POSITIVE_INFINITY), low);
    const log = Boolean(setting.log) && low > 0;
    const step = setting.kind === 'whole' ? 1 : log ? 0 : stepOf(value, high - low);
    PROPERTIES[name] = { kind: 'number', value: Math.min(value, high), low, high, step, log };
  }
}

/** Return a power of ten that a range has at least a hundred of, and of which a value is a multiple. */
function stepOf(value: number, range: number): number {
  let power = Math.floor(Math.log10(range / 100));
  while (power > -6 && Math.abs(value / 10 ** power - Math.round(value / 10 ** power)) > 1e-6) power--;
  return 10 ** power;
}

/** Return the state in which nothing was touched. */
export function defaults(): State {
  return Object.fromEntries(NAMES.map((name) => [name, PROPERTIES[name].value])) as unknown as State;
}

/** Return a value that is allowed, or null for nonsense: whoever writes an address can write anything. */
function read(name: Name, text: string): string | number | boolean | null {
  const property: Property = PROPERTIES[name];
  if (property.kind === 'flag') return text === '1' ? true : text === '0' ? false : null;
  if (property.kind === 'choice') {
    const known = !property.choices || property.choices.includes(text);
    return known && /^[\w,.\- ]{0,40}$/.test(text) ? text : null;
  }
  const value = Number(text);
  if (!text.trim() || !Number.isFinite(value)) return null;
  if (value === property.value) return value;
  const whole = name.startsWith('train.') && property.step === 1;
  return Math.min(Math.max(whole ? Math.round(value) : value, property.low), property.high);
}

/** Return the state as it stands in the address, drawn points included. */
export function toAddress(state: State, own: Points | null, most = MOST_SHARED): string {
  const parts = new URLSearchParams();
  const base = defaults();
  for (const name of NAMES) {
    const value = state[name];
    if (value === base[name]) continue;
    parts.set(name, typeof value === 'boolean' ? String(Number(value)) : String(value));
  }
  if (state.shape === '' && own) parts.set('drawn', encodePoints(own, most));
  return parts.toString();
}

/** Read what `toAddress` wrote; what makes no sense is left at its default. */
export function fromAddress(text: string): { state: State; own: Points | null } {
  const state = defaults();
  const parts = new URLSearchParams(text.replace(/^#/, ''));
  for (const name of NAMES) {
    const given = parts.get(name);
    const value = given === null ? null : read(name, given);
    if (value !== null) (state as Record<Name, unknown>)[name] = value;
  }
  const own = decodePoints(parts.get('drawn') ?? '');
  if (!own && state.shape === '') state.shape = PROPERTIES.shape.value;
  if (own) state.shape = '';
  return { state, own };
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const REACH = 4; // a drawn point lies in [-4, 4]
const CELLS = 4096;
/** Most points that a link holds, and most that one is read for: a saved page holds more. */
export const MOST_SHARED = 500;
const MOST_READ = 2000;

const cell = (value: number) =>
  Math.min(Math.max(Math.round(((value + REACH) / (2 * REACH)) * (CELLS - 1)), 0), CELLS - 1);

/** Return up to `most` points as five letters each: 12 bits a coordinate, 6 for the class. */
export function encodePoints({ values, labels }: Points, most = MOST_SHARED): string {
  const count = labels.length;
  const kept = Math.min(count, most);
  let text = '';
  for (let k = 0; k < kept; k++) {
    const i = Math.floor((k * count) / kept);
    const [x, y] = [cell(values[2 * i]), cell(values[2 * i + 1])];
    for (const six of [x >> 6, x & 63, y >> 6, y & 63, Math.min(Math.max(labels[i], 0), 63)]) text += LETTERS[six];
  }
  return text;
}

/** Return a number by which points are known again, as exact as a link holds them. */
export function printOf({ values, labels }: Points): number {
  let print = 0x811c9dc5;
  const add = (value: number) => {
    print = Math.imul(print ^ value, 0x01000193) >>> 0;
  };
  values.forEach((value) => {
    add(cell(value));
  });
  labels.forEach(add);
  return print;
}

export function decodePoints(text: string): Points | null {
  const count = Math.min(Math.floor(text.length / 5), MOST_READ);
  if (!count || !/^[\w-]*$/.test(text)) return null;
  const values = new Float64Array(2 * count);
  const labels = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const [a, b, c, d, label] = [...text.slice(5 * i, 5 * i + 5)].map((letter) => LETTERS.indexOf(letter));
    values[2 * i] = ((a * 64 + b) / (CELLS - 1)) * 2 * REACH - REACH;
    values[2 * i + 1] = ((c * 64 + d) / (CELLS - 1)) * 2 * REACH - REACH;
    labels[i] = label;
  }
  return { dims: 2, values, labels };
}

/** Told about each change, with the names that changed. */
type Listener = (changed: ReadonlySet<Name>) => void;

/** The state, and who wants to know of its changes. */
export class Store {
  state: State;
  readonly #listeners: Listener[] = [];

  constructor(state: State) {
    this.state = state;
  }

  subscribe(listener: Listener): void {
    this.#listeners.push(listener);
  }

  set(changes: Partial<State>): void {
    const changed = new Set<Name>();
    for (const name of Object.keys(changes) as Name[]) {
      const value = changes[name];
      if (value === undefined || this.state[name] === value) continue;
      (this.state as Record<Name, unknown>)[name] = value;
      changed.add(name);
    }
    if (changed.size) for (const listener of this.#listeners) listener(changed);
  }
}
