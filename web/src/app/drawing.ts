/** Points of one's own: sprayed, drawn, erased, loaded; and the way back and forth. */

import type { Points } from '../math/shapes.ts';

const MOST_UNDO = 60;
export const MOST_OWN = 2000;
export const EMPTY: Points = { dims: 2, values: new Float64Array(), labels: new Int32Array() };

/** Round to single precision, in which the points are written into scripts. */
export const single = (values: Float64Array) => Float64Array.from(Float32Array.from(values));

export class Drawing {
  brush = { size: 0.35, class: 0 };
  #done: Points[] = [];
  #undone: Points[] = [];

  constructor(
    public points: Points | null,
    /** What is shown if it is not one's own, to go on from. */
    private readonly other: () => Points | null,
    private readonly changed: () => void,
  ) {}

  get full(): boolean {
    return (this.points?.labels.length ?? 0) >= MOST_OWN;
  }

  get canUndo(): boolean {
    return this.#done.length > 0;
  }

  get canRedo(): boolean {
    return this.#undone.length > 0;
  }

  /** Make the shown points one's own, to be drawn on. */
  #take(): Points {
    const other = this.other();
    if (other) this.points = other.dims === 2 ? other : EMPTY;
    this.points ??= EMPTY;
    return this.points;
  }

  #put(points: Points): void {
    this.points = points;
    this.changed();
  }

  /** Remember the points, so that what comes next can be undone. */
  checkpoint(): void {
    this.#done.push(this.#take());
    if (this.#done.length > MOST_UNDO) this.#done.shift();
    this.#undone = [];
  }

  undo(): void {
    const before = this.#done.pop();
    if (!before) return;
    this.#undone.push(this.#take());
    this.#put(before);
  }

  redo(): void {
    const after = this.#undone.pop();
    if (!after) return;
    this.#done.push(this.#take());
    this.#put(after);
  }

  clear(): void {
    this.checkpoint();
    this.#put(EMPTY);
  }

  /** Replace the points by a table's. */
  replace(points: Points): void {
    this.checkpoint();
    this.#put({ ...points, values: single(points.values) });
  }

  add(values: number[]): void {
    const { values: before, labels, units } = this.#take();
    const extra = values.slice(0, 2 * Math.max(0, MOST_OWN - labels.length));
    const all = new Float64Array(before.length + extra.length);
    all.set(before);
    all.set(extra.map(Math.fround), before.length);
    const marks = new Int32Array(all.length / 2).fill(this.brush.class);
    marks.set(labels);
    this.#put({ dims: 2, values: all, labels: marks, units });
  }

  erase(x: number, y: number): void {
    const { values, labels, units } = this.#take();
    const kept: number[] = [];
    for (let i = 0; i < labels.length; i++)
      if (Math.hypot(values[2 * i] - x, values[2 * i + 1] - y) > this.brush.size) kept.push(i);
    if (kept.length === labels.length) return;
    this.#put({
      dims: 2,
      values: Float64Array.from(kept.flatMap((i) => [values[2 * i], values[2 * i + 1]])),
      labels: Int32Array.from(kept, (i) => labels[i]),
      units,
    });
  }
}
