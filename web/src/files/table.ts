/** Tables that a person hands in: CSV and NumPy's .npy, with an error in one sentence where they are none. */

import { subset } from '../math/random.ts';
import type { Points, Units } from '../math/shapes.ts';

export const LIMITS = { bytes: 20 * 2 ** 20, rows: 200_000, columns: 64 };

/** What went wrong, for the person: a key of the texts, and what stands in its gaps. */
export class TableError extends Error {
  constructor(
    readonly key: `error.${string}`,
    readonly gaps: Record<string, string | number> = {},
  ) {
    super(key);
  }
}

export interface Table {
  columns: string[];
  /** Numbers by columns; NaN where there is none. */
  numbers: Float64Array[];
  /** Cells as they were written, by rows, where they were texts. */
  texts: string[][] | null;
  rows: number;
  /** Rows of the file, where these are a part of them. */
  all?: number;
}

/** A table as a server sends it: cells are numbers, texts or null. */
export interface SentTable {
  columns: string[];
  rows: number;
  values: (number | string | null)[][];
}

export function fromServer({ columns, rows, values }: SentTable): Table {
  const numbers = columns.map((_, j) =>
    Float64Array.from(values, (row) => (typeof row[j] === 'number' ? row[j] : Number.NaN)),
  );
  const texts = values.map((row) => row.map((cell) => (cell === null ? '' : String(cell))));
  return { columns, numbers, texts, rows: values.length, all: rows };
}

/** Read a file by its name and its bytes. */
export function readTable(name: string, bytes: ArrayBuffer): Table {
  if (bytes.byteLength > LIMITS.bytes) throw new TableError('error.large', { most: '20 MB' });
  if (!bytes.byteLength) throw new TableError('error.empty');
  const magic = new Uint8Array(bytes, 0, Math.min(6, bytes.byteLength));
  if (magic[0] === 0x93 && String.fromCharCode(...magic.slice(1)) === 'NUMPY') return readNpy(bytes);
  if (/\.npy$/i.test(name)) throw new TableError('error.npy');
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new TableError('error.binary');
  }
  if (text.includes('\0')) throw new TableError('error.binary');
  return readCsv(text);
}

/** Split a line at a separator; quotes hold separators and doubled quotes. */
function splitLine(line: string, separator: string): string[] {
  if (separator === ' ') return line.trim().split(/\s+/);
  if (!line.includes('"')) return line.split(separator).map((cell) => cell.trim());
  const cells: string[] = [];
  let [cell, quoted] = ['', false];
  for (let i = 0; i < line.length; i++) {
    const letter = line[i];
    if (quoted && letter === '"' && line[i + 1] === '"') {
      cell += '"';
      i++;
    } else if (letter === '"') quoted = !quoted;
    else if (letter === separator && !quoted) {
      cells.push(cell.trim());
      cell = '';
    } else cell += letter;
  }
  return [...cells, cell.trim()];
}

const isNumber = (cell: string) => cell !== '' && Number.isFinite(Number(cell));

export function readCsv(text: string): Table {
  const lines = text.replace(/^\uFEFF/, '').split(/\r\n|\n|\r/);
  const filled = lines.map((line, i) => ({ line, place: i + 1 })).filter(({ line }) => line.trim() !== '');
  if (!filled.length) throw new TableError('error.empty');
  const first = filled[0].line;
  const separator = [',', ';', '\t'].find((sign) => first.includes(sign)) ?? ' ';
  const head = splitLine(first, separator);
  if (head.length > LIMITS.columns) throw new TableError('error.columns', { most: LIMITS.columns });
  if (head.length < 2) throw new TableError('error.narrow');
  const named = head.some((cell) => cell !== '' && !isNumber(cell));
  const body = named ? filled.slice(1) : filled;
  if (!body.length) throw new TableError('error.rowless');
  if (body.length > LIMITS.rows) throw new TableError('error.rows', { most: LIMITS.rows });
  const texts = body.map(({ line, place }) => {
    const cells = splitLine(line, separator);
    if (cells.length !== head.length)
      throw new TableError('error.ragged', { line: place, found: cells.length, wanted: head.length });
    return cells;
  });
  const columns = head.map((cell, i) => (named && cell ? cell : `column ${i + 1}`));
  const numbers = columns.map((_, j) =>
    Float64Array.from(texts, (row) => (isNumber(row[j]) ? Number(row[j]) : Number.NaN)),
  );
  return { columns, numbers, texts, rows: texts.length };
}

const KINDS: Record<string, [number, (view: DataView, at: number, little: boolean) => number]> = {
  f8: [8, (v, at, little) => v.getFloat64(at, little)],
  f4: [4, (v, at, little) => v.getFloat32(at, little)],
  i8: [8, (v, at, little) => Number(v.getBigInt64(at, little))],
  i4: [4, (v, at, little) => v.getInt32(at, little)],
  i2: [2, (v, at, little) => v.getInt16(at, little)],
  i1: [1, (v, at) => v.getInt8(at)],
  u8: [8, (v, at, little) => Number(v.getBigUint64(at, little))],
  u4: [4, (v, at, little) => v.getUint32(at, little)],
  u2: [2, (v, at, little) => v.getUint16(at, little)],
  u1: [1, (v, at) => v.getUint8(at)],
};

export function readNpy(bytes: ArrayBuffer): Table {
  const view = new DataView(bytes);
  if (bytes.byteLength < 12) throw new TableError('error.npy');
  const long = view.getUint8(6) >= 2;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = (long ? 12 : 10) + length;
  if (start > bytes.byteLength) throw new TableError('error.npy');
  const header = new TextDecoder('latin1').decode(new Uint8Array(bytes, long ? 12 : 10, length));
  const kind = /'descr':\s*'([<>|=])(\w+)'/.exec(header);
  const shape = /'shape':\s*\(([\d,\s]*)\)/
    .exec(header)?.[1]
    .split(',')
    .filter((part) => part.trim())
    .map(Number);
  if (!kind || !shape) throw new TableError('error.npy');
  const known = KINDS[kind[2]];
  if (!known) throw new TableError('error.kind', { kind: kind[2] });
  if (shape.length !== 2) throw new TableError('error.shape', { shape: `(${shape.join(', ')})` });
  const [rows, width] = shape;
  if (!rows) throw new TableError('error.rowless');
  if (rows > LIMITS.rows) throw new TableError('error.rows', { most: LIMITS.rows });
  if (width > LIMITS.columns) throw new TableError('error.columns', { most: LIMITS.columns });
  if (width < 2) throw new TableError('error.narrow');
  const [size, get] = known;
  if (start + rows * width * size > bytes.byteLength) throw new TableError('error.npy');
  const [fortran, little] = [/'fortran_order':\s*True/.test(header), kind[1] !== '>'];
  const numbers = Array.from({ length: width }, (_, j) =>
    Float64Array.from({ length: rows }, (_, i) =>
      get(view, start + size * (fortran ? j * rows + i : i * width + j), little),
    ),
  );
  return { columns: numbers.map((_, j) => `column ${j + 1}`), numbers, texts: null, rows };
}

/** Return the values of a column that may be classes, at most twelve, or null. */
export function classesOf(table: Table, column: number): string[] | null {
  const values = new Set<string>();
  for (let i = 0; i < table.rows && values.size <= 12; i++) values.add(cellOf(table, i, column));
  return values.size <= 12 ? [...values].sort() : null;
}

export function cellOf(table: Table, row: number, column: number): string {
  return table.texts ? table.texts[row][column] : String(table.numbers[column][row]);
}

/** Return two columns as points with mean 0 and variance 1, and the classes of a third; of many rows some. */
export function chosen(table: Table, x: number, y: number, label: number, most: number, seed: number): Points {
  const rows = subset(table.rows, most, seed);
  const values = new Float64Array(2 * rows.length);
  const units: Units = { columns: [table.columns[x], table.columns[y]], mean: [], scale: [] };
  [x, y].forEach((column, axis) => {
    const numbers = table.numbers[column];
    const bad = numbers.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0)
      throw new TableError('error.cell', {
        column: table.columns[column],
        cell: cellOf(table, bad, column).slice(0, 40) || '∅',
        row: bad + 1,
      });
    const mean = numbers.reduce((a, b) => a + b / numbers.length, 0);
    const spread = Math.sqrt(numbers.reduce((a, b) => a + (b - mean) ** 2 / numbers.length, 0));
    if (!(spread > 0 && Number.isFinite(spread)))
      throw new TableError('error.constant', { column: table.columns[column] });
    units.mean.push(mean);
    units.scale.push(spread);
    rows.forEach((row, i) => {
      values[2 * i + axis] = (numbers[row] - mean) / spread;
    });
  });
  const names = label >= 0 ? classesOf(table, label) : null;
  const labels = Int32Array.from(rows, (row) => (names ? names.indexOf(cellOf(table, row, label)) : 0));
  return { dims: 2, values, labels, units };
}
