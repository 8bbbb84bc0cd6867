// A drawing or photograph of a digit, prepared as MNIST's digits were: a port of torchdl/data/photographed_digits.py,
// function by function. tests/docs/test_preparation.py holds both equal.

import { Plane, gaussian, label, median, opening, quantile, resize, roundHalfEven } from "./planes.js";

const BOX = 20; // pixels: MNIST's digits fit in 20 x 20 of 28 x 28
export const SIDE = 28;
const CENTRE = 14; // row and column of the pixel at MNIST's centres of mass
const LARGEST = 800; // pixels: a larger photograph is reduced first
const LEAST_CONTRAST = 0.08; // of ink, as a share of the paper's brightness

/**
 * Turn a picture of one digit into an image like MNIST's.
 *
 * @param {ArrayLike<number>} greys - Its pixels in rows, 0 (black) to 255 (white).
 * @returns {Uint8Array | null} A white digit on black in 28 x 28 pixels; null if there is no ink.
 */
export function prepareDigit(greys, height, width) {
  const picture = new Plane(height, width, Float32Array.from(greys));
  const ink = findInk(resize(picture, Math.min(LARGEST, picture.longer)).map((grey) => grey / 255));
  if (ink === null) return null;
  let box = resize(cropped(ink), BOX);
  const largest = box.data.reduce((a, b) => Math.max(a, b));
  box = box.map((value) => value / largest);
  const top = offset(box);
  const left = offset(box.transposed());
  const digit = new Uint8Array(SIDE * SIDE);
  for (let row = 0; row < box.height; row++) {
    for (let column = 0; column < box.width; column++) {
      const value = roundHalfEven(Math.fround(255 * box.data[row * box.width + column]));
      digit[(top + row) * SIDE + left + column] = value;
    }
  }
  return digit;
}

/** Return the ink on a picture in [0, 1]: 0 on the background and 1 in its strokes; null if there is none. */
function findInk(greys) {
  const least = Math.max(LEAST_CONTRAST, 3 * noiseOf(greys));
  const sign = isBright(greys) ? 1 : -1; // of bright ink, or of dark ink
  const background = backgroundOf(greys.map((grey) => sign * grey)).map((grey) => sign * grey);
  const blurred = gaussian(greys, greys.longer / 400);
  let contrast = greys.map((_, i) => sign * Math.fround(blurred.data[i] - background.data[i]));
  if (sign < 0) {
    const floor = Math.fround(0.2); // in a shadow, paper and ink are darker by the same factor
    contrast = contrast.map((value, i) => value / Math.max(background.data[i], floor));
  }
  const lowest = quantile(contrast.data, 0.25); // an opening is as dark as the darkest noise
  contrast = contrast.map((value) => value - lowest);
  const seen = inside(contrast, least, least);
  const values = contrast.data.filter((_, i) => seen[i]);
  if (values.length === 0) return null;
  const level = quantile(values, 0.9); // of ink
  const strokes = inside(contrast, Math.max(level / 3, least), 0.7 * level);
  return contrast.map((value, i) => (strokes[i] ? Math.min(1, Math.max(0, value / level)) : 0));
}

/** Return the median difference between neighbours in a column. */
function noiseOf({ height, width, data }) {
  if (height < 2) return 0;
  const differences = data.slice(0, (height - 1) * width).map((grey, i) => Math.abs(data[i + width] - grey));
  return quantile(differences, 0.5);
}

/** Return whether the ink is brighter than what surrounds it: in the whole picture, or in its middle. */
function isBright(greys) {
  const skewness = (part) => {
    const small = resize(part, Math.min(part.longer, 64));
    const middle = median(small, Math.max(1, Math.floor(small.longer / 2)));
    return small.data.reduce((sum, value, i) => sum + (value - middle.data[i]) ** 3, 0) / small.data.length;
  };
  const { height, width } = greys;
  const [top, left] = [Math.floor(height / 6), Math.floor(width / 6)];
  const whole = skewness(greys);
  const middle = skewness(greys.crop(top, left, height - 2 * top, width - 2 * left));
  if (whole * middle > 0 || Math.abs(middle) < 0.1 * Math.abs(whole)) return whole > 0;
  return quantile(greys.data, 0.5) < (quantile(greys.data, 0.01) + quantile(greys.data, 0.99)) / 2;
}

/** Return a mask of the parts with contrast above `least` that are neither specks nor reach the border. */
function inside({ height, width, data }, least, strong) {
  const { parts, count } = label(data.map((value) => value > least), height, width);
  const sizes = new Float64Array(count + 1);
  parts.forEach((part, i) => (sizes[part] += data[i] > strong ? 1 : 0));
  sizes[0] = 0;
  const inner = sizes.slice();
  for (let column = 0; column < width; column++) inner[parts[column]] = inner[parts[(height - 1) * width + column]] = 0;
  for (let row = 0; row < height; row++) inner[parts[row * width]] = inner[parts[(row + 1) * width - 1]] = 0;
  const largest = (numbers) => numbers.reduce((a, b) => Math.max(a, b));
  const chosen = largest(inner) > 1e-3 * data.length ? inner : sizes;
  const least_ = 0.05 * largest(chosen);
  return Array.from(parts, (part) => chosen[part] > least_);
}

/** Return a picture without what is brighter and narrower than a quarter of it. */
function backgroundOf(greys) {
  const reduced = resize(greys, Math.min(greys.longer, 128));
  const size = Math.max(3, Math.floor(reduced.longer / 3));
  const opened = opening(padded(reduced, size), size).crop(size, size, reduced.height, reduced.width);
  return resize(opened, greys.longer, greys.height, greys.width);
}

/** Repeat the pixels at the border `size` times. */
function padded(plane, size) {
  const result = new Plane(plane.height + 2 * size, plane.width + 2 * size);
  const clamp = (place, length) => Math.min(Math.max(place - size, 0), length - 1);
  for (let row = 0; row < result.height; row++) {
    for (let column = 0; column < result.width; column++) {
      const from = clamp(row, plane.height) * plane.width + clamp(column, plane.width);
      result.data[row * result.width + column] = plane.data[from];
    }
  }
  return result;
}

/** Cut off the empty rows and columns around the ink. */
function cropped(ink) {
  const filled = (plane) => {
    const rows = [];
    for (let row = 0; row < plane.height; row++) {
      if (plane.data.subarray(row * plane.width, (row + 1) * plane.width).some((value) => value > 0)) rows.push(row);
    }
    return [rows[0], rows.at(-1) - rows[0] + 1];
  };
  const [top, height] = filled(ink);
  const [left, width] = filled(ink.transposed());
  return ink.crop(top, left, height, width);
}

/** Return where a box begins for the centre of mass of its rows to be at MNIST's. */
function offset(box) {
  let [sum, moment] = [0, 0];
  box.data.forEach((value, i) => {
    sum += value;
    moment += value * Math.floor(i / box.width);
  });
  const begin = roundHalfEven(Math.round(1e4 * (CENTRE - moment / sum)) / 1e4); // see the original on rounding twice
  return Math.min(Math.max(begin, 0), SIDE - box.height);
}
