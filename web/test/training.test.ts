/** A training as the page follows it: frames, messages, the table of settings, scales, and how steps are split. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { epochsOf } from '../src/app/python.ts';
import { adoptSettings, defaults, fromAddress, NAMES, PROPERTIES, printOf, toAddress } from '../src/app/state.ts';
import { opened, toBase64 } from '../src/files/packed.ts';
import type { RunFile } from '../src/files/run.ts';
import { chosen, fromServer } from '../src/files/table.ts';
import type { Setting } from '../src/math/registry.ts';
import { type Ask, kindFor, type Listener, type Order, read, readLive } from '../src/server/protocol.ts';
import { type Trainee, Trainer, type Training } from '../src/server/training.ts';
import { scaleOf } from '../src/views/losses.ts';

function frame(step: number, low: number[], high: number[], places: number[]): ArrayBuffer {
  const dims = low.length;
  const bytes = new ArrayBuffer(16 + 8 * dims + 2 * places.length);
  const view = new DataView(bytes);
  view.setUint8(0, 1);
  view.setUint8(1, 1);
  view.setUint16(2, dims, true);
  view.setUint32(4, step, true);
  view.setUint32(8, places.length / dims, true);
  view.setUint32(12, 4_000_000_000, true);
  [...low, ...high].forEach((value, i) => {
    view.setFloat32(16 + 4 * i, value, true);
  });
  places.forEach((value, i) => {
    view.setUint16(16 + 8 * dims + 2 * i, value, true);
  });
  return bytes;
}

test('a frame of samples is read, and one that is cut off is not', () => {
  const bytes = frame(340, [-1, 10, 0], [1, 20, 0], [0, 65535, 7, 65535, 0, 9]);
  assert.deepEqual(read(bytes), { type: 'live', step: 340, bytes });
  const live = readLive(bytes)!;
  assert.deepEqual([live.step, live.count, live.dims, live.time], [340, 2, 3, 4_000_000_000]);
  assert.deepEqual([...live.values], [-1, 20, 0, 1, 10, 0]);
  for (const wrong of [bytes.slice(0, -2), bytes.slice(0, 12), new ArrayBuffer(16)])
    assert.equal(readLive(wrong), null);
});

test('a model is what stands behind its head', () => {
  const bytes = Uint8Array.of(2, 1, 0, 0, 7, 1, 0, 0, 80, 75);
  const told = read(bytes.buffer);
  assert.ok(told?.type === 'model');
  assert.deepEqual([told.step, ...told.bytes], [263, 80, 75]);
});

test('a walk is read with its noise levels, and one that is cut off is not', () => {
  const bytes = new ArrayBuffer(24 + 4 * (2 + 2 * 3 * 2));
  const view = new DataView(bytes);
  for (const [at, value] of [3, 1].entries()) view.setUint8(at, value);
  view.setUint16(2, 2, true);
  for (const [k, value] of [17, 3, 2, 40].entries()) view.setUint32(4 + 4 * k, value, true);
  const values = [10, 0.5, ...Array.from({ length: 12 }, (_, i) => i)];
  for (const [i, value] of values.entries()) view.setFloat32(24 + 4 * i, value, true);
  const told = read(bytes);
  assert.ok(told?.type === 'walk' && told.id === 17);
  const { sigmas, nfe, count, dims, points } = told.walked;
  assert.deepEqual([sigmas, nfe, count, dims], [[10, 0.5], 40, 3, 2]);
  assert.deepEqual([...points], values.slice(2));
  assert.equal(read(bytes.slice(0, -4)), null);
  assert.equal(read(bytes.slice(0, 20)), null);
});

test('what is no message of this protocol is passed over', () => {
  for (const nonsense of [
    '{"type":"hello"}',
    '{"type":"state","state":"dancing","step":1}',
    '{"type":"losses","steps":[1],"train":[]}',
    '{"type":"run","run":null}',
    '{"type":"started"}',
    'null',
    '{"type":"losses","steps":[1],"train":[NaN]}',
    '3',
  ])
    assert.equal(read(nonsense), null);
  assert.equal(read(Uint8Array.of(1, 2, 0, 0, 0, 0, 0, 0).buffer), null); // another version
  assert.equal(read(new ArrayBuffer(3)), null);
  assert.deepEqual(read('{"type":"error","message":"<b>no</b>"}'), { type: 'error', message: '<b>no</b>' });
});

const SETTINGS: Record<string, Setting> = {
  steps: { kind: 'whole', value: 2000, low: 10, high: 100_000, log: true, main: true, help: '' },
  learning_rate: { kind: 'number', value: 1e-3, low: 1e-5, high: 0.1, log: true, help: '' },
  ema_decay: { kind: 'number', value: 0.999, low: 0, high: 0.9999, help: '' },
  loss: { kind: 'choice', value: 'karras', choices: ['karras', 'x0'], help: '' },
};

test('settings of training join the table, within the limits of the server', () => {
  const before = NAMES.length;
  adoptSettings(SETTINGS, { steps: 5000, sessions: 2 });
  adoptSettings(SETTINGS, { steps: 5000 });
  assert.equal(NAMES.length, before + 4);
  assert.equal(defaults()['train.steps'], 2000);
  const steps = PROPERTIES['train.steps'];
  assert.ok(steps.kind === 'number' && steps.high === 5000 && steps.step === 1);
  const decay = PROPERTIES['train.ema_decay'];
  assert.ok(decay.kind === 'number' && decay.step === 0.001); // so that its default can be reached
  const state = { ...defaults(), 'train.steps': 777, 'train.learning_rate': 0.00025, 'train.loss': 'x0' };
  assert.deepEqual(fromAddress(toAddress(state, null)).state, state);
  const { state: read } = fromAddress('train.steps=1e9&train.loss=none&train.ema_decay=x&train.other=3');
  assert.deepEqual(read, { ...defaults(), 'train.steps': 5000 });
  assert.equal(fromAddress('train.steps=99.7').state['train.steps'], 100);
});

test('points are known again by their print, as exactly as a link holds them', () => {
  const values = Float64Array.of(0.1, -0.2, 1.5, 2);
  const labels = Int32Array.of(0, 1);
  const print = printOf({ dims: 2, values, labels });
  assert.equal(printOf({ dims: 2, values: values.map((v) => v + 1e-5), labels }), print);
  assert.notEqual(printOf({ dims: 2, values: values.map((v) => v + 0.01), labels }), print);
  assert.notEqual(printOf({ dims: 2, values, labels: Int32Array.of(1, 0) }), print);
});

test('a block is opened whether it is packed or plain', async () => {
  const value = { text: '样本 <b>', list: [1, 2.5] };
  assert.deepEqual(await opened(JSON.stringify(value)), value);
  const stream = new Blob([JSON.stringify(value)]).stream().pipeThrough(new CompressionStream('deflate'));
  const packed = toBase64(new Uint8Array(await new Response(stream).arrayBuffer()));
  assert.deepEqual(await opened(packed), value);
});

test('steps are split into epochs as the server splits them', () => {
  assert.deepEqual([2000, 30, 1999, 402, 1].map(epochsOf), [
    [10, 200],
    [1, 30],
    [1999, 1],
    [3, 134],
    [1, 1],
  ]);
});

test('losses are drawn between ticks, in the logarithm where that can be', () => {
  const wide = scaleOf([1, 0.001, 0.3]);
  assert.ok(wide.log && wide.low < 0.001 && wide.high > 1);
  assert.deepEqual(wide.ticks, [0.001, 0.01, 0.1, 1]);
  assert.deepEqual(scaleOf([0.9, 0.13]).ticks, [0.1, 0.2, 0.5]);
  for (const values of [[0.21, 0.2], [0.5], [0, 0.3], [-1, 2]]) {
    const { low, high, ticks } = scaleOf(values);
    assert.ok(ticks.length >= 2 && ticks.every((tick) => tick >= low && tick <= high), String(values));
  }
  assert.deepEqual(scaleOf([Number.NaN]).ticks, []);
});

test('a table of the server is like one that the page has read', () => {
  const table = fromServer({
    columns: ['x', 'y', 'kind'],
    rows: 9000,
    values: [
      [1, 5, 'a'],
      [3, 7, null],
    ],
  });
  assert.equal(table.all, 9000);
  const { values, units } = chosen(table, 0, 1, -1, 10, 1);
  assert.deepEqual([...values].map(Math.abs), [1, 1, 1, 1]);
  assert.deepEqual(units, { columns: ['x', 'y'], mean: [2, 6], scale: [1, 1] });
  assert.throws(() => chosen(table, 0, 2, -1, 10, 1));
  assert.deepEqual(['a.parquet', 'A.NPZ', 'b.tsv.gz', 'b.csv', 'b.npy'].map(kindFor), [
    'parquet',
    'npz',
    'tsv',
    null,
    null,
  ]);
});

class Watch implements Trainee {
  asks: Ask[] = [];
  runs: number[] = [];
  whole = 0;
  lines = 0;
  time = 0;
  readonly trainer = new Trainer(
    (_listener: Listener) => {
      this.lines++;
      return { send: (ask) => this.asks.push(ask) };
    },
    this,
    () => this.time,
  );

  changed(whole: boolean): void {
    this.whole += Number(whole);
  }

  took(_run: RunFile, training: Training): void {
    this.runs.push(training.recipe.seed);
  }

  saved(): void {}

  get shown(): number | null {
    return this.trainer.live?.step ?? null;
  }

  start(seed = 1): void {
    const points = { dims: 2, values: new Float64Array(2), labels: new Int32Array(1) };
    const recipe = { seed, settings: {}, print: 0, labelled: false };
    this.trainer.start({ seed } as Order, { recipe, points });
  }

  begin(seed = 1): void {
    this.start(seed);
    this.trainer.told({ type: 'state', state: 'starting', step: 0 });
    this.trainer.told({ type: 'started', steps: 100, optimal_loss: 0.1 });
    this.trainer.told({ type: 'state', state: 'running', step: 0 });
  }

  live(step: number): void {
    this.trainer.told({ type: 'live', step, bytes: frame(step, [0], [1], [step]) });
  }

  run(step: number, network = true): void {
    this.trainer.told({ type: 'run', step, run: { network: network ? {} : null } as RunFile });
  }
}

test('of many frames the latest is decoded, and what comes after the network is too late', () => {
  const watch = new Watch();
  watch.begin();
  const before = watch.whole;
  for (let step = 1; step <= 50; step++) watch.live(step);
  assert.equal(watch.whole, before + 1); // the rest of the page hears of the first one alone
  assert.equal(watch.shown, 50);
  watch.run(50);
  assert.equal(watch.shown, null);
  watch.live(50);
  assert.equal(watch.shown, null);
  watch.live(51);
  assert.equal(watch.shown, 51);
  watch.run(52, false); // a network that cannot be asked: its samples stay
  assert.equal(watch.shown, 51);
});

test('what is said of the training before is not taken for the next one', () => {
  const watch = new Watch();
  watch.begin(1);
  watch.start(2);
  watch.live(99);
  watch.run(99);
  watch.trainer.told({ type: 'state', state: 'stopped', step: 99 });
  assert.deepEqual([watch.trainer.phase, watch.shown, watch.runs], ['starting', null, []]);
  watch.trainer.told({ type: 'started', steps: 10, optimal_loss: null });
  watch.run(10);
  assert.deepEqual(watch.runs, [2]);
  assert.equal(watch.trainer.step, 10);
});

test('refused, died, lost, and begun again', () => {
  const watch = new Watch();
  watch.start();
  watch.trainer.told({ type: 'error', message: 'No.' });
  assert.deepEqual([watch.trainer.phase, watch.trainer.message], ['stopped', 'No.']);
  watch.begin();
  assert.equal(watch.trainer.message, '');
  watch.live(4);
  watch.trainer.told({ type: 'state', state: 'died', step: 4 });
  assert.equal(watch.trainer.active, false);
  assert.equal(watch.shown, 4);
  watch.begin();
  assert.equal(watch.lines, 1); // the line still stands
  watch.live(3);
  watch.trainer.lost();
  assert.deepEqual([watch.trainer.phase, watch.shown], ['lost', 3]);
  watch.begin();
  assert.equal(watch.lines, 2);
  watch.trainer.told({ type: 'state', state: 'stopped', step: 5 });
  watch.live(6);
  watch.trainer.forget();
  assert.equal(watch.shown, null);
});

test('why a server closes the connection is shown until training begins anew', () => {
  const watch = new Watch();
  watch.start();
  watch.trainer.lost('too many pages are open (1013)');
  assert.deepEqual([watch.trainer.phase, watch.trainer.message], ['lost', 'too many pages are open (1013)']);
  watch.begin();
  watch.trainer.told({ type: 'error', message: 'No.' });
  watch.trainer.lost();
  assert.deepEqual([watch.trainer.phase, watch.trainer.message], ['lost', 'No.']);
});

test('the time that is left is that of the steps since training went on', () => {
  const watch = new Watch();
  watch.begin();
  watch.time = 2000;
  watch.live(20);
  assert.equal(watch.trainer.secondsLeft, 8);
  watch.trainer.told({ type: 'state', state: 'paused', step: 20 });
  assert.equal(watch.trainer.secondsLeft, null);
  watch.time = 100_000;
  watch.trainer.told({ type: 'state', state: 'running', step: 20 });
  watch.time = 101_000;
  watch.live(40);
  assert.equal(watch.trainer.secondsLeft, 3);
});
