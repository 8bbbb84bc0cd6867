// The page: a drawing goes through the networks, and what they return is shown.

import { prepareDigit, SIDE } from "./digit.js";
import { Gallery } from "./gallery.js";
import { Network, read } from "./networks.js";
import { Paper } from "./paper.js";

const NEAREST = 10;
const LIMIT = 3; // standard deviations that a slider moves the noise

const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Show greys or colours (channels, height, width), 0 to 255, on a canvas. */
function show(canvas, values, height = SIDE, width = SIDE) {
  Object.assign(canvas, { height, width });
  const area = height * width;
  const image = new ImageData(width, height);
  for (let i = 0; i < area; i++) {
    const at = (channel) => values[values.length > area ? channel * area + i : i];
    image.data.set([at(0), at(1), at(2), 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const toPixels = (images) => Uint8Array.from(images, (value) => Math.round(255 * Math.min(1, Math.max(0, value))));

/** Name the most probable class, or two if the network is not sure. */
function verdict(probabilities, classes) {
  const order = [...classes.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const [first, second] = order.map((i) => `${classes[i]} (${percent(probabilities[i])})`);
  return probabilities[order[0]] > 0.6 ? `It looks like ${first}.` : `It could be ${first} or ${second}.`;
}

// What each network does with a drawing

function classification(network) {
  const { classes } = network.description.settings;
  const rows = classes.map((name) => {
    const bar = element("span", { className: "bar" });
    const share = element("span", { className: "share", textContent: "–" });
    const track = element("span", { className: "track", ariaHidden: "true" }, bar);
    $("bars").append(element("li", {}, element("span", { textContent: name }), track, share));
    return { bar, share };
  });
  $("classes").hidden = false;
  return async (digit) => {
    const probabilities = digit && (await network.run(digit)).probabilities;
    $("verdict").textContent = digit ? verdict(probabilities, classes) : "There is no digit on the paper.";
    rows.forEach(({ bar, share }, i) => {
      bar.style.width = digit ? `${100 * probabilities[i]}%` : "0";
      share.textContent = digit ? percent(probabilities[i]) : "–";
    });
  };
}

function reconstruction(network) {
  const blank = new Uint8Array(SIDE * SIDE);
  const introduction = $("error").textContent;
  $("reconstruction").hidden = false;
  return async (digit) => {
    const { images, codes } = digit ? await network.run(digit) : { images: blank };
    show($("seen"), digit ?? blank);
    show($("decoded"), toPixels(images));
    if (codes) $("code-size").textContent = `reconstructed from ${codes.length} numbers`;
    const error = digit && images.reduce((sum, value, i) => sum + (value - digit[i] / 255) ** 2, 0) / images.length;
    $("error").textContent = digit ? `Mean squared error: ${error.toFixed(4)} (pixels in [0, 1]).` : introduction;
  };
}

function neighbours(network, gallery, paper) {
  $("neighbours").hidden = false;
  $("gallery-note").textContent =
    `Among ${gallery.labels.length} test digits, by the cosine similarity of the ${gallery.codeSize} numbers that an ` +
    "encoder of contrastive predictive coding makes of each. It has learned from the order of digits alone. Choose " +
    "one to draw it.";
  return async (digit) => {
    const found = digit ? gallery.nearest((await network.run(digit)).embeddings, NEAREST) : [];
    const items = found.map(({ index, label, similarity }) => {
      const canvas = element("canvas", { ariaHidden: "true" });
      show(canvas, gallery.image(index), gallery.side, gallery.side);
      const button = element("button", { type: "button" }, canvas, `${label} · ${similarity.toFixed(2)}`);
      button.setAttribute("aria-label", `${label}, similarity ${similarity.toFixed(2)}. Draw it`);
      button.addEventListener("click", () => paper.write(gallery.image(index), gallery.side));
      return element("li", {}, button);
    });
    $("nearest").replaceChildren(...items);
  };
}

function generation(network, noise, classifier) {
  const { channels, height, width } = network.description.settings;
  const classes = classifier?.description.settings.classes;
  const isJudged = classifier?.input.shape.slice(1).join() === [channels, height, width].join();
  let start = 0;
  let latest = 0;
  const sliders = noise.directions.map((_, i) => {
    const input = element("input", { type: "range", min: -LIMIT, max: LIMIT, step: 0.1, value: 0 });
    const output = element("output", { textContent: "0.0" });
    input.addEventListener("input", draw);
    $("sliders").append(element("label", {}, `Direction ${i + 1}`, input, output));
    return { input, output };
  });
  $("generator").hidden = false;
  $("noise-note").textContent =
    `The noise has ${noise.starts[0].length} dimensions. The sliders move it along the ${sliders.length} directions ` +
    "that change the pictures most, by up to three standard deviations.";

  async function draw() {
    const own = ++latest;
    const z = noise.starts[start].slice();
    sliders.forEach(({ input, output }, i) => {
      output.textContent = Number(input.value).toFixed(1);
      noise.directions[i].forEach((value, j) => (z[j] += input.value * value));
    });
    const pixels = toPixels((await network.run(z)).images);
    if (own !== latest) return; // a slider has moved on
    show($("generated"), pixels, height, width);
    if (!isJudged) return;
    const { probabilities } = await classifier.run(pixels);
    if (own === latest) $("generated-verdict").textContent = verdict(probabilities, classes);
  }

  const reset = () => sliders.forEach(({ input }) => (input.value = 0));
  $("reset").addEventListener("click", () => (reset(), draw()));
  $("other").addEventListener("click", () => {
    start = (start + 1) % noise.starts.length;
    reset();
    draw();
  });
  return draw();
}

async function main() {
  const parts = [];
  let [latest, isReady] = [0, false];
  let gallery;
  const paper = new Paper($("paper"), $("pen"), $("pen-status"), look, write); // to draw on while the networks load
  $("clear").addEventListener("click", () => paper.clear());
  $("example").addEventListener("click", () => write());

  async function look() {
    const own = ++latest;
    if (!isReady) return;
    const digit = prepareDigit(paper.greys, paper.side, paper.side);
    for (const part of parts) if (own === latest) await part(digit); // a newer drawing goes first
    if (own === latest && !paper.timer) $("paper").ariaBusy = "false";
  }

  function write(label) {
    if (gallery) paper.write(gallery.image(gallery.some(label)), gallery.side);
  }

  const { networks } = await (await read("page.json")).json();
  const load = (name) => (networks.includes(name) ? Network.load(name) : null);
  const names = ["classifier", "autoencoder", "encoder", "generator"];
  const [classifier, autoencoder, encoder, generator] = await Promise.all(names.map(load));
  gallery = await Gallery.load();
  if (classifier) parts.push(classification(classifier));
  if (autoencoder) {
    parts.push(reconstruction(autoencoder));
    await parts.at(-1)(null); // blank pictures
  }
  if (encoder) parts.push(neighbours(encoder, gallery, paper));
  if (generator) await generation(generator, await (await read("noise.json")).json(), classifier);
  $("status").hidden = true;
  isReady = true;
  document.body.dataset.ready = "yes";
  if (latest) await look(); // at what was drawn before
}

main().catch((error) => {
  $("status").textContent = `The networks cannot be loaded: ${error.message}`;
  throw error;
});
