/** Distances between point sets, beside what fresh data of the same number would get. */

/** Exact 2-Wasserstein distance of two sets of one size, by the assignment of least cost (shortest augmenting paths). */
export function wasserstein2(a: Float64Array, b: Float64Array, dims: number): number {
  const n = a.length / dims;
  if (a.length !== b.length || !n) throw new Error('two sets of one size are needed');
  const cost = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      let square = 0;
      for (let d = 0; d < dims; d++) square += (a[i * dims + d] - b[j * dims + d]) ** 2;
      cost[i * n + j] = square;
    }
  const assigned = assignment(cost, n);
  let sum = 0;
  for (let j = 0; j < n; j++) sum += cost[assigned[j] * n + j];
  return Math.sqrt(sum / n);
}

/** Return for each column the row that it is assigned to, at least total cost. */
function assignment(cost: Float64Array, n: number): Int32Array {
  const u = new Float64Array(n);
  const v = new Float64Array(n + 1);
  const rowOf = new Int32Array(n + 1).fill(-1); // column n is where a search starts
  const way = new Int32Array(n);
  const slack = new Float64Array(n);
  const used = new Uint8Array(n + 1);
  for (let row = 0; row < n; row++) {
    rowOf[n] = row;
    let column = n;
    slack.fill(Number.POSITIVE_INFINITY);
    used.fill(0);
    while (rowOf[column] >= 0) {
      used[column] = 1;
      const here = rowOf[column];
      let least = Number.POSITIVE_INFINITY;
      let next = -1;
      for (let j = 0; j < n; j++) {
        if (used[j]) continue;
        const reduced = cost[here * n + j] - u[here] - v[j];
        if (reduced < slack[j]) {
          slack[j] = reduced;
          way[j] = column;
        }
        if (slack[j] < least) {
          least = slack[j];
          next = j;
        }
      }
      for (let j = 0; j <= n; j++) {
        if (used[j]) {
          u[rowOf[j]] += least;
          v[j] -= least;
        } else if (j < n) slack[j] -= least;
      }
      column = next;
    }
    while (column !== n) {
      const previous = way[column];
      rowOf[column] = rowOf[previous];
      column = previous;
    }
  }
  return rowOf.slice(0, n);
}

/** Sliced 2-Wasserstein distance in the plane: the root mean square over directions; the numbers of points may differ. */
export function slicedWasserstein2(a: Float64Array, b: Float64Array, directions = 64): number {
  const count = Math.min(a.length, b.length) / 2;
  let sum = 0;
  for (let k = 0; k < directions; k++) {
    const angle = (Math.PI * (k + 0.5)) / directions;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const [p, q] = [a, b].map((x) => {
      const line = new Float64Array(x.length / 2);
      for (let i = 0; i < line.length; i++) line[i] = c * x[2 * i] + s * x[2 * i + 1];
      return line.sort();
    });
    let square = 0;
    for (let i = 0; i < count; i++) {
      const share = (i + 0.5) / count;
      square += (quantile(p, share) - quantile(q, share)) ** 2;
    }
    sum += square / count;
  }
  return Math.sqrt(sum / directions);
}

function quantile(sorted: Float64Array, share: number): number {
  const place = share * sorted.length - 0.5;
  const left = Math.min(Math.max(Math.floor(place), 0), sorted.length - 1);
  const right = Math.min(left + 1, sorted.length - 1);
  return sorted[left] + (sorted[right] - sorted[left]) * Math.min(Math.max(place - left, 0), 1);
}

/** Index of the nearest reference row of each point, and the distance. */
export function nearest(
  points: Float64Array,
  reference: Float64Array,
  dims: number,
  others = false,
): { index: Int32Array; distance: Float64Array } {
  const count = points.length / dims;
  const size = reference.length / dims;
  const index = new Int32Array(count);
  const distance = new Float64Array(count).fill(Number.POSITIVE_INFINITY);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < size; j++) {
      if (others && i === j) continue;
      let square = 0;
      for (let d = 0; d < dims; d++) square += (points[i * dims + d] - reference[j * dims + d]) ** 2;
      if (square < distance[i]) {
        distance[i] = square;
        index[i] = j;
      }
    }
    distance[i] = Math.sqrt(distance[i]);
  }
  return { index, distance };
}

/** Share of points that lie nearer than `radius` to a reference row. */
export function copyShare(points: Float64Array, reference: Float64Array, dims: number, radius: number): number {
  const { distance } = nearest(points, reference, dims);
  return distance.reduce((sum, value) => sum + (value < radius ? 1 : 0), 0) / Math.max(distance.length, 1);
}

/** A tenth of the mean distance of a point to its nearest neighbour: nearer than that is a copy. */
export function copyRadius(reference: Float64Array, dims: number): number {
  if (reference.length < 2 * dims) return 0;
  const { distance } = nearest(reference, reference, dims, true);
  return (0.1 * distance.reduce((a, b) => a + b, 0)) / distance.length;
}

/** Root mean square distance of rows. */
export function rmsDistance(a: Float64Array, b: Float64Array, dims: number): number {
  const rows = Math.min(a.length, b.length) / dims;
  let sum = 0;
  for (let i = 0; i < rows * dims; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum / rows);
}
