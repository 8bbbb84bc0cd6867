// Pictures of greys, and the filters that Python's preparation takes from Pillow and SciPy: resize (BOX, BILINEAR),
// gaussian_filter, grey_opening, median_filter, label, and NumPy's quantile. All of them keep float32, as there.

/** Greys in rows: `height` x `width` float32. */
export class Plane {
  constructor(height, width, data = new Float32Array(height * width)) {
    this.height = height;
    this.width = width;
    this.data = data;
  }

  get longer() {
    return Math.max(this.height, this.width);
  }

  map(function_) {
    return new Plane(this.height, this.width, this.data.map(function_));
  }

  crop(top, left, height, width) {
    const part = new Plane(height, width);
    for (let row = 0; row < height; row++) {
      const start = (top + row) * this.width + left;
      part.data.set(this.data.subarray(start, start + width), row * width);
    }
    return part;
  }

  transposed() {
    const { height, width, data } = this;
    const turned = new Plane(width, height);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) turned.data[column * height + row] = data[row * width + column];
    }
    return turned;
  }
}

/** Apply `filter(line, out)` to each row of a plane; rows of the result have `width` numbers. */
function alongRows(plane, width, filter) {
  const result = new Plane(plane.height, width);
  for (let row = 0; row < plane.height; row++) {
    const line = plane.data.subarray(row * plane.width, (row + 1) * plane.width);
    filter(line, result.data.subarray(row * width, (row + 1) * width));
  }
  return result;
}

const alongColumns = (plane, height, filter) => alongRows(plane.transposed(), height, filter).transposed();

/** Round as Python does: halves to the even neighbour. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Resize so that the longer side has `side` pixels, averaging; `height` and `width` are the exact result. */
export function resize(plane, side, height, width) {
  const scale = side / plane.longer;
  height ??= Math.max(1, roundHalfEven(scale * plane.height));
  width ??= Math.max(1, roundHalfEven(scale * plane.width));
  const [kernel, radius] =
    scale <= 1 ? [(x) => (x > -0.5 && x <= 0.5 ? 1 : 0), 0.5] : [(x) => Math.max(0, 1 - Math.abs(x)), 1];
  let result = plane;
  if (width !== plane.width) result = alongRows(result, width, resampling(plane.width, width, kernel, radius));
  if (height !== plane.height) result = alongColumns(result, height, resampling(plane.height, height, kernel, radius));
  return result;
}

function resampling(from, to, kernel, radius) {
  const scale = from / to;
  const stretch = Math.max(1, scale); // a smaller picture averages
  const taps = Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - radius * stretch + 0.5));
    const last = Math.min(from, Math.trunc(centre + radius * stretch + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(kernel((x - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
  return (line, out) => {
    taps.forEach(({ first, weights }, place) => {
      let sum = 0;
      for (let x = 0; x < weights.length; x++) sum += line[first + x] * weights[x];
      out[place] = sum;
    });
  };
}

/** Index into `length` numbers that are mirrored at both ends, the last one twice: SciPy's mode "reflect". */
function mirrored(place, length) {
  const period = 2 * length;
  const inside = ((place % period) + period) % period;
  return inside < length ? inside : period - 1 - inside;
}

/** Return a line with `before` and `after` mirrored numbers around it. */
function extended(line, before, after) {
  const longer = new Float32Array(before + line.length + after);
  for (let place = 0; place < longer.length; place++) longer[place] = line[mirrored(place - before, line.length)];
  return longer;
}

/** Blur by a Gaussian of `sigma` pixels, cut at four of them. */
export function gaussian(plane, sigma) {
  const radius = Math.trunc(4 * sigma + 0.5);
  const weights = Array.from({ length: 2 * radius + 1 }, (_, x) => Math.exp((-0.5 * (x - radius) ** 2) / sigma ** 2));
  const sum = weights.reduce((a, b) => a + b, 0);
  const blur = (line, out) => {
    const longer = extended(line, radius, radius);
    for (let place = 0; place < out.length; place++) {
      let value = 0;
      for (let x = 0; x < weights.length; x++) value += longer[place + x] * (weights[x] / sum);
      out[place] = value;
    }
  };
  return alongRows(alongColumns(plane, plane.height, blur), plane.width, blur);
}

/** Remove what is brighter than its surroundings and narrower than `size` pixels. */
export function opening(plane, size) {
  const half = Math.floor(size / 2);
  const eroded = extreme(plane, half, size - 1 - half, Math.min);
  return extreme(eroded, size - 1 - half, half, Math.max);
}

/** Return the extreme of `before` + 1 + `after` neighbours in both directions. */
function extreme(plane, before, after, choose) {
  const filter = (line, out) => {
    const longer = extended(line, before, after);
    for (let place = 0; place < out.length; place++) {
      let value = longer[place];
      for (let x = 1; x <= before + after; x++) value = choose(value, longer[place + x]);
      out[place] = value;
    }
  };
  return alongRows(alongColumns(plane, plane.height, filter), plane.width, filter);
}

/** Return the median (of an even number, the upper one) of the `size` x `size` pixels around each pixel. */
export function median(plane, size) {
  const { height, width, data } = plane;
  const order = Array.from(data.keys()).sort((a, b) => data[a] - data[b]);
  const ranks = new Uint32Array(data.length);
  order.forEach((place, rank) => (ranks[place] = rank));
  const block = Math.ceil(Math.sqrt(data.length));
  const half = Math.floor(size / 2);
  const result = new Plane(height, width);
  for (let row = 0; row < height; row++) {
    // a histogram of the ranks in the window, which moves along the row; and the sums of its blocks
    const counts = new Int32Array(data.length);
    const blocks = new Int32Array(block + 1);
    const add = (column, sign) => {
      const x = mirrored(column, width);
      for (let y = row - half; y < row - half + size; y++) {
        const rank = ranks[mirrored(y, height) * width + x];
        counts[rank] += sign;
        blocks[Math.floor(rank / block)] += sign;
      }
    };
    for (let column = -half; column < size - half; column++) add(column, 1);
    for (let column = 0; column < width; column++) {
      let left = Math.floor((size * size) / 2);
      let part = 0;
      while (left >= blocks[part]) left -= blocks[part++];
      let rank = part * block;
      while (left >= counts[rank]) left -= counts[rank++];
      result.data[row * width + column] = data[order[rank]];
      add(column - half, -1);
      add(column - half + size, 1);
    }
  }
  return result;
}

/** Number the parts of a mask that are connected, also by corners, from 1; the background is 0. */
export function label(mask, height, width) {
  const parts = new Int32Array(mask.length);
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || parts[start]) continue;
    parts[start] = ++count;
    const open = [start];
    while (open.length) {
      const place = open.pop();
      const row = Math.floor(place / width);
      const column = place % width;
      for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
          const next = y * width + x;
          if (mask[next] && !parts[next]) {
            parts[next] = count;
            open.push(next);
          }
        }
      }
    }
  }
  return { parts, count };
}

/** Return the quantile `share` of numbers, between two neighbours in proportion. */
export function quantile(numbers, share) {
  const sorted = Float32Array.from(numbers).sort();
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return Math.fround(sorted[low] + (sorted[high] - sorted[low]) * (place - low));
}
