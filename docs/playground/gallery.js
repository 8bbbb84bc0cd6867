// Test digits with their codes by CPC's encoder, and which of them are nearest to a code.

import { read } from "./networks.js";

export class Gallery {
  constructor(labels, side, pixels, codes) {
    Object.assign(this, { labels, side, pixels, codes });
    this.codeSize = codes.length / labels.length;
    this.lengths = labels.map((_, i) => length(this.code(i)));
  }

  static async load() {
    const [{ labels, side }, pixels, codes] = await Promise.all([
      read("gallery/gallery.json").then((answer) => answer.json()),
      read("gallery/pixels.bin").then((answer) => answer.arrayBuffer()),
      read("gallery/codes.bin").then((answer) => answer.arrayBuffer()),
    ]);
    return new Gallery(labels, side, new Uint8Array(pixels), new Float32Array(codes));
  }

  code(index) {
    return this.codes.subarray(index * this.codeSize, (index + 1) * this.codeSize);
  }

  image(index) {
    return this.pixels.subarray(index * this.side ** 2, (index + 1) * this.side ** 2);
  }

  /** Return a random digit of a label, or of any if it is undefined; its index. */
  some(wanted) {
    const found = [...this.labels.keys()].filter((i) => wanted === undefined || this.labels[i] === String(wanted));
    return found[Math.floor(Math.random() * found.length)];
  }

  /** Return the `count` digits with the highest cosine similarity to a code, the nearest first. */
  nearest(code, count) {
    const own = length(code);
    const found = this.labels.map((label, index) => {
      const product = this.code(index).reduce((sum, value, i) => sum + value * code[i], 0);
      return { index, label, similarity: product / (own * this.lengths[index]) };
    });
    return found.sort((a, b) => b.similarity - a.similarity).slice(0, count);
  }
}

const length = (code) => Math.hypot(...code);
