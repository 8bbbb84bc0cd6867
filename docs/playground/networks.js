// Exported networks, run by ONNX Runtime from this site's own files. Each has a JSON file that describes it.

import * as ort from "./runtime/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // threads need headers that plain servers do not send
ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;

/** Read a file of this site. */
export async function read(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path} is missing`);
  return answer;
}

let before = Promise.resolve(); // the runtime computes one thing at a time

export class Network {
  constructor(session, description) {
    this.session = session;
    this.description = description;
    [this.input] = description.inputs;
  }

  static async load(name) {
    const [model, description] = await Promise.all([
      read(`networks/${name}.onnx`).then((answer) => answer.arrayBuffer()),
      read(`networks/${name}.onnx.json`).then((answer) => answer.json()),
    ]);
    return new Network(await ort.InferenceSession.create(model), description);
  }

  /** Compute the outputs, by name, of one image or vector. */
  run(values) {
    const [, ...shape] = this.input.shape;
    const size = shape.reduce((a, b) => a * b);
    const array = new (this.input.type === "uint8" ? Uint8Array : Float32Array)(size);
    for (let start = 0; start < size; start += values.length) array.set(values, start); // greys as three equal channels
    const tensor = new ort.Tensor(this.input.type, array, [1, ...shape]);
    before = before
      .catch(() => {})
      .then(() => this.session.run({ [this.input.name]: tensor }));
    return before.then((outputs) => Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data])));
  }
}
