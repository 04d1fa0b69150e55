/** What the page is made of, beside the mathematics: tables, addresses, time, films, isolines. */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { decodePoints, defaults, encodePoints, fromAddress, toAddress } from '../src/app/state.ts';
import { contoursAt, isolines } from '../src/compute/layers.ts';
import { encodeGif } from '../src/files/gif.ts';
import { chosen, classesOf, LIMITS, readCsv, readTable, TableError } from '../src/files/table.ts';
import { subset } from '../src/math/random.ts';
import { complete, type Registry } from '../src/math/registry.ts';
import { drawShape } from '../src/math/shapes.ts';
import { placeIn, sigmaAt, timeOf } from '../src/math/time.ts';

const text = (content: string) => new TextEncoder().encode(content).buffer as ArrayBuffer;
const refused = (key: string) => (error: unknown) => error instanceof TableError && error.key === key;

test('separators, quotes, names and their absence', () => {
  for (const separator of [',', ';', '\t', ' ']) {
    const table = readCsv(['x', 'y'].join(separator) + '\n' + ['1', '-2.5e1'].join(separator) + '\r\n');
    assert.deepEqual(table.columns, ['x', 'y']);
    assert.deepEqual([...table.numbers[1]], [-25]);
  }
  const quoted = readCsv('"a, ""b""",c\n1,2\n');
  assert.deepEqual(quoted.columns, ['a, "b"', 'c']);
  assert.deepEqual(readCsv('1,2\n3,4').columns, ['column 1', 'column 2']);
  assert.equal(readCsv('\uFEFFx,y\n\n1,2\n\n').rows, 1);
});

test('limits of tables', () => {
  assert.throws(() => readTable('a.csv', new ArrayBuffer(LIMITS.bytes + 1)), refused('error.large'));
  assert.throws(() => readCsv('1,2\n'.repeat(LIMITS.rows + 1)), refused('error.rows'));
  assert.throws(() => readTable('a.csv', new ArrayBuffer(0)), refused('error.empty'));
  assert.equal(readTable('a.csv', text('1,2\n'.repeat(1000))).rows, 1000);
});

test('columns are chosen, standardised, and checked', () => {
  const table = readCsv('x,y,kind\n1,5,a\n2,5,b\n3,5,a\n');
  assert.deepEqual(classesOf(table, 2), ['a', 'b']);
  assert.throws(() => chosen(table, 0, 1, -1, 10, 1), refused('error.constant'));
  assert.throws(() => chosen(table, 0, 2, -1, 10, 1), refused('error.cell'));
  const points = chosen(table, 0, 0, 2, 10, 1);
  assert.deepEqual([...points.labels], [0, 1, 0]);
  assert.ok(Math.abs(points.values[0] + Math.sqrt(1.5)) < 1e-12);
  assert.equal(chosen(readCsv('1,2\n'.repeat(50) + '2,3\n'.repeat(50)), 0, 1, -1, 30, 1).labels.length, 30);
});

test('a state comes back from its address', () => {
  const state = { ...defaults(), shape: 'moons', n: 123, compare: true, 'b.solver': 'unipc-2', t: 0.25, guidance: 2.5 };
  assert.deepEqual(fromAddress(`#${toAddress(state, null)}`), { state, own: null });
  assert.equal(toAddress(defaults(), null), '');
});

test('drawn points come back to a quarter of a hundredth', () => {
  const values = Float64Array.from({ length: 100 }, (_, i) => Math.sin(i * 12.9) * 3);
  const labels = Int32Array.from({ length: 50 }, (_, i) => i % 6);
  const again = decodePoints(encodePoints({ dims: 2, values, labels }))!;
  assert.deepEqual(again.labels, labels);
  again.values.forEach((value, i) => {
    assert.ok(Math.abs(value - values[i]) <= 4 / 4095 + 1e-12);
  });
  const many = { dims: 2, values: new Float64Array(4000), labels: new Int32Array(2000) };
  assert.equal(encodePoints(many).length, 2500);
  assert.equal(decodePoints(encodePoints(many, 2000))!.labels.length, 2000);
  for (const nonsense of ['', 'ab', '!!!!!', '%00%00%00']) assert.equal(decodePoints(nonsense), null);
});

test('nonsense in an address is left out or brought into range', () => {
  const { state } = fromAddress('#n=-4&samples=1e300&t=NaN&compare=maybe&shape=%3Cb%3E&rho=&seed=Infinity');
  assert.deepEqual(state, { ...defaults(), n: 20, samples: 5000 });
});

test('time and noise level are inverse, and steps are found', () => {
  for (const t of [0, 0.2, 0.77, 1]) assert.ok(Math.abs(timeOf(sigmaAt(t, 10), 10) - t) < 1e-12);
  assert.deepEqual(placeIn([10, 4, 1, 0], 2.5), { step: 1, share: 0.5 });
  assert.deepEqual(placeIn([10, 4, 1, 0], 20), { step: 0, share: 0 });
  assert.deepEqual(placeIn([10, 4, 1, 0], 0), { step: 2, share: 1 });
});

test('a subset has no row twice', () => {
  const rows = subset(100, 40, 3);
  assert.equal(new Set(rows).size, 40);
  assert.ok(Math.min(...rows) >= 0 && Math.max(...rows) < 100);
});

test('an isoline of a cone is a circle', () => {
  const cells = 80;
  const place = (i: number) => (i + 0.5) * (2 / cells) - 1;
  const cone = Float64Array.from(
    { length: cells * cells },
    (_, k) => -Math.hypot(place(k % cells), place(Math.floor(k / cells))),
  );
  const line = isolines(cone, cells, -0.5);
  let length = 0;
  for (let i = 0; i < line.length; i += 4) {
    length += Math.hypot(line[i] - line[i + 2], line[i + 1] - line[i + 3]);
    assert.ok(Math.abs(Math.hypot(line[i], line[i + 1]) - 0.5) < 0.01);
  }
  assert.ok(Math.abs(length - Math.PI) < 0.02);
});

test('the line around half of the mass of one Gaussian lies at its median radius', () => {
  const { lines } = contoursAt(Float64Array.of(0, 0), 0.3, 1.5, 80);
  const radii = Array.from(
    { length: lines[1].length / 2 },
    (_, i) => 1.5 * Math.hypot(lines[1][2 * i], lines[1][2 * i + 1]),
  );
  for (const radius of radii) assert.ok(Math.abs(radius - 0.3 * Math.sqrt(2 * Math.log(2))) < 0.02);
});

test('shapes and films are written for Python to look at', () => {
  const folder = process.env.OUT;
  assert.ok(folder, 'OUT must name a folder');
  const registry: Registry = complete(JSON.parse(readFileSync(process.env.FIXTURES!, 'utf8')).registry);
  const drawn: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(registry.datasets)) {
    const noise = spec.kind === 'Pinwheel' ? 0 : Math.max(spec.noise, 0.05 * spec.scale);
    const { values, labels } = drawShape(spec, 1500, noise, 3);
    drawn[name] = { noise, values: [...values], labels: [...labels], centre: spec.centre, scale: spec.scale };
  }
  writeFileSync(`${folder}/shapes.json`, JSON.stringify(drawn));
  const frames = [0, 1].map((k) =>
    Uint8ClampedArray.from({ length: 4 * 60 * 40 }, (_, i) => (i % 4 === k ? (i * 7) % 256 : 40 * k)),
  );
  writeFileSync(`${folder}/film.gif`, encodeGif(frames, 60, 40, 5));
  frames.forEach((frame, k) => {
    writeFileSync(`${folder}/frame-${k}.rgba`, frame);
  });
});
