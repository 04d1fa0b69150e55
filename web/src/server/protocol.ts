/** What page and server say to each other: `pointdiffusion play` serves the page, and trains behind one WebSocket. */

import type { Walked } from '../compute/messages.ts';
import type { RunFile } from '../files/run.ts';
import { fromServer, type SentTable, type Table } from '../files/table.ts';

/** The block of the page that a server fills in. */
export interface ServerBlock {
  token: string | null;
  limits: Record<string, number>;
  table: SentTable | null;
}

export interface Order {
  seed: number;
  data: {
    /** Little-endian single precision, by rows, in base64. */
    points: string;
    dims: number;
    labels: number[] | null;
    columns: string[];
    mean: number[];
    scale: number[];
  };
  settings: Record<string, number | string>;
  live: { count: number; nfe: number; seed: number };
}

/** A walk of the trained network, by the library. */
export interface WalkOrder {
  panel: 0 | 1;
  /** The network that was trained on this connection, or the one that the server began with. */
  network: 'trained' | 'given';
  /** Where it starts: little-endian single precision, by rows, in base64. */
  x: string;
  dims: number;
  solver: string;
  sigmas: number[];
  label: number;
  guidance: number;
  seed: number;
}

export type Ask =
  | ({ type: 'start' } & Order)
  | ({ type: 'walk'; id: number } & WalkOrder)
  | { type: 'pause' | 'resume' | 'step' | 'stop' | 'save' };

const STATES = ['starting', 'running', 'paused', 'stopped', 'finished', 'died'] as const;
export type ServerState = (typeof STATES)[number];

/** Samples of a network in training, (B, D), in the page's own units. */
export interface Live {
  step: number;
  count: number;
  dims: number;
  /** When it was drawn, in milliseconds of the clock modulo 2^32. */
  time: number;
  values: Float32Array;
}

export type Told =
  | { type: 'started'; steps: number; optimal_loss: number | null }
  | { type: 'state'; state: ServerState; step: number }
  | { type: 'losses'; steps: number[]; train: number[] }
  | { type: 'run'; step: number; run: RunFile }
  | { type: 'error'; message: string }
  | { type: 'live'; step: number; bytes: ArrayBuffer }
  | { type: 'walk'; id: number; walked: Walked }
  | { type: 'refused'; id: number; message: string }
  | { type: 'model'; step: number; bytes: Uint8Array<ArrayBuffer> };

const HEAD = 16;
const MODEL_HEAD = 8;

/** Return what a message says; null for what this page does not know. */
export function read(message: string | ArrayBuffer): Told | null {
  if (typeof message !== 'string') return readBytes(message);
  let told: Told;
  try {
    told = JSON.parse(message) as Told;
  } catch {
    return null;
  }
  switch (told?.type) {
    case 'started':
      return Number.isFinite(told.steps) ? told : null;
    case 'state':
      return STATES.includes(told.state) ? told : null;
    case 'losses':
      return told.steps?.length === told.train?.length ? told : null;
    case 'run':
      return told.run ? told : null;
    case 'refused':
      return Number.isFinite(told.id) ? told : null;
    case 'error':
      return { type: 'error', message: String(told.message) };
  }
  return null;
}

function readBytes(bytes: ArrayBuffer): Told | null {
  if (bytes.byteLength < MODEL_HEAD) return null;
  const view = new DataView(bytes);
  if (view.getUint8(1) !== 1) return null; // another version
  const step = view.getUint32(4, true);
  if (view.getUint8(0) === 2) return { type: 'model', step, bytes: new Uint8Array(bytes, MODEL_HEAD) };
  if (view.getUint8(0) === 3) return readWalk(bytes, view);
  return view.getUint8(0) === 1 ? { type: 'live', step, bytes } : null;
}

const WALK_HEAD = 24;

/** Return the points of a walk at all its noise levels. */
function readWalk(bytes: ArrayBuffer, view: DataView): Told | null {
  if (bytes.byteLength < WALK_HEAD) return null;
  const dims = view.getUint16(2, true);
  const [id, count, levels, nfe] = [4, 8, 12, 16].map((at) => view.getUint32(at, true));
  if (!dims || levels < 2 || bytes.byteLength !== WALK_HEAD + 4 * levels * (1 + count * dims)) return null;
  const sigmas = [...new Float32Array(bytes, WALK_HEAD, levels)];
  const points = new Float32Array(bytes, WALK_HEAD + 4 * levels);
  return { type: 'walk', id, walked: { sigmas, nfe, count, dims, points, lattice: null } };
}

/** Return the samples of a frame: 16 bits a coordinate, between the lowest and the highest of each column. */
export function readLive(bytes: ArrayBuffer): Live | null {
  if (bytes.byteLength < HEAD) return null;
  const view = new DataView(bytes);
  const [dims, step, count] = [view.getUint16(2, true), view.getUint32(4, true), view.getUint32(8, true)];
  const start = HEAD + 8 * dims;
  if (!dims || bytes.byteLength !== start + 2 * count * dims) return null;
  const ends = new Float32Array(bytes, HEAD, 2 * dims);
  const raw = new Uint16Array(bytes, start);
  const values = Float32Array.from(raw, (q, i) => {
    const low = ends[i % dims];
    return low + ((ends[dims + (i % dims)] - low) * q) / 65535;
  });
  return { step, count, dims, time: view.getUint32(12, true), values };
}

/** Whoever hears what a server says. */
export interface Listener {
  told(told: Told): void;
  /** The connection is gone, by no wish of the page; why, in the words of the server, if it said so. */
  lost(reason?: string): void;
}

export interface Line {
  send(ask: Ask): void;
}

const query = (token: string | null) => (token ? `?token=${encodeURIComponent(token)}` : '');

/** Open a connection; what is sent before it stands, waits. */
export function connect(token: string | null, listener: Listener): Line {
  const address = new URL(`ws${query(token)}`, location.href).href;
  const socket = new WebSocket(address.replace(/^http/, 'ws'));
  socket.binaryType = 'arraybuffer';
  const waiting: string[] = [];
  socket.onopen = () => {
    for (const text of waiting.splice(0)) socket.send(text);
  };
  socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
    const told = read(data);
    if (told) listener.told(told);
  };
  socket.onclose = ({ code, reason }) => listener.lost(reason && `${reason} (${code})`);
  return {
    send(ask) {
      const text = JSON.stringify(ask);
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
      else waiting.push(text);
    },
  };
}

const SENT: [RegExp, string][] = [
  [/\.parquet$/i, 'parquet'],
  [/\.npz$/i, 'npz'],
  [/\.tsv(\.gz)?$/i, 'tsv'],
];

/** Return what kind of table a server reads a file as; null for one that the page reads itself. */
export function kindFor(name: string): string | null {
  return SENT.find(([ending]) => ending.test(name))?.[1] ?? null;
}

/** Why a server gave no table, in its own words; none if it did not answer. */
export class Refusal extends Error {}

/** Let the server read a table. */
export async function askTable(token: string | null, kind: string, file: Blob): Promise<Table> {
  const address = `api/table${query(token)}${token ? '&' : '?'}kind=${kind}`;
  const none = (): never => {
    throw new Refusal();
  };
  const answer = await fetch(address, { method: 'POST', body: file }).catch(none);
  const found = await answer.json().catch(none);
  if (!answer.ok) throw new Refusal(String(found.detail));
  return fromServer(found as SentTable);
}
