"""Build a page that runs trained networks in the browser, as a folder of files for any web server.

It needs Node.js (for ONNX Runtime's files, from npm) and torchdl[export]. The page asks no other server for anything.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # torchdl of this clone, installed or not

import torch
from torch import Tensor

from torchdl import load_images
from torchdl.cli.finished_runs import find_predictor
from torchdl.cli.main import run_script
from torchdl.data import ImageDataset
from torchdl.errors import InputError, require
from torchdl.files import write_json
from torchdl.models import GAN
from torchdl.predict import ImageClassifier, ImageEmbedder, ImageGenerator, ImageReconstructor, Predictor, export
from torchdl.predict.loading import of_kind

PAGE = ("index.html", "style.css", "page.js", "paper.js", "networks.js", "gallery.js", "digit.js", "planes.js")
NONE = Path("none")
HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "node_modules" / "onnxruntime-web"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")  # for CPUs, the smallest
SIDE = 28  # pixels of a prepared digit
STARTS, DIRECTIONS = 32, 8  # of the GAN's noise
AROUND = 16  # samples around which the directions are found


@dataclass(frozen=True)
class Config:
    """Build the playground from trained runs, or from the models that come with torchdl."""

    out: Path = Path("site/playground")
    """The folder for the page."""
    classifier: Path = Path("pretrained:lenet-mnist")
    """The run of a classifier of digits, or pretrained:NAME for one that comes with torchdl; none for no such part."""
    autoencoder: Path = Path("pretrained:autoencoder-mnist")
    """The run of an autoencoder of digits, pretrained:NAME, or none."""
    encoder: Path = Path("pretrained:cpc-grey")
    """The run of CPC on digits, pretrained:NAME, or none."""
    gan: Path = Path("pretrained:gan-conv-mnist")
    """The run of a GAN of digits, pretrained:NAME, or none."""
    dataset: Literal["mnist", "mnist_5k"] = "mnist"
    """Where the gallery's test digits are from; mnist_5k needs no download."""
    data_root: Path | None = None
    """The folder of the datasets. If not given: $TORCHDL_DATA, the system's folders, ~/.cache/torchdl, a download."""
    gallery: int = 1000
    """The number of test digits in the gallery."""


def main(config: Config) -> None:
    """Export the networks, make the gallery, and copy the page and its runtime."""
    require(config.gallery >= 10, f"gallery must be at least 10, not {config.gallery}")
    chosen = {
        "classifier": find(config.classifier, ImageClassifier),
        "autoencoder": find(config.autoencoder, ImageReconstructor),
        "encoder": find(config.encoder, ImageEmbedder),
        "generator": find(config.gan, ImageGenerator),
    }
    predictors = {name: predictor for name, predictor in chosen.items() if predictor is not None}
    require(bool(predictors), "there is no network for the page: name a run")
    for name, predictor in predictors.items():
        exported = export(predictor, config.out / "networks" / f"{name}.onnx")
        print(f"{exported.path}: within {exported.difference:.1e} of the network")
    if isinstance(chosen["generator"], ImageGenerator):
        write_json(config.out / "noise.json", noise_of(chosen["generator"]))
    digits = draw_gallery(load_images(config.dataset, "test", config.data_root), config.gallery)
    print(f"gallery: {len(digits):,} of {digits.origin}")
    save_gallery(digits, chosen["encoder"], config.out / "gallery")
    copy_page(config.out)
    write_json(config.out / "page.json", {"networks": list(predictors)})
    print(f"{config.out}: look at it with: python -m http.server -d {config.out}")


def find(source: Path, cls: type[Predictor[Any]]) -> Predictor[Any] | None:
    """Load the predictor of a run, or one that comes with torchdl; None for none. It must take prepared digits."""
    if source == NONE:
        return None
    predictor = of_kind(cls, find_predictor(source, "cpu"), source)
    images = getattr(predictor.settings, "images", None)
    digits = images is None or (images.prepare == "digit" and images.height == SIDE)
    require(digits, f"{source} does not take handwritten digits of {SIDE} pixels: name a run of MNIST")
    return predictor


def draw_gallery(data: ImageDataset, count: int) -> ImageDataset:
    """Return the first digits of a data set, equally many of every class."""
    assert data.labels is not None
    each = count // len(data.classes)
    return data.subset(torch.cat([data.labels.eq(label).nonzero()[:each, 0] for label in range(len(data.classes))]))


def save_gallery(digits: ImageDataset, encoder: Predictor[Any] | None, folder: Path) -> None:
    """Save digits (N, 1, H, W) as bytes, their codes (N, D) as float32, and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    codes = encoder.embed(digits.images) if isinstance(encoder, ImageEmbedder) else torch.zeros(len(digits), 0)
    (folder / "pixels.bin").write_bytes(digits.images.numpy().tobytes())
    (folder / "codes.bin").write_bytes(codes.numpy().astype("<f4").tobytes())
    assert digits.labels is not None
    labels = [digits.classes[label] for label in digits.labels.tolist()]
    write_json(folder / "gallery.json", {"labels": labels, "side": SIDE, "origin": digits.origin})


def noise_of(predictor: ImageGenerator) -> dict[str, list[list[float]]]:
    """Return noise to start from, which is that of seed 0, and the directions that change the images most."""
    gan = predictor.model
    assert isinstance(gan, GAN)
    with predictor.ready():
        starts, directions = gan.noise(STARTS), find_directions(gan, gan.noise(AROUND, seed=1))
    return {"starts": rounded(starts), "directions": rounded(directions[:DIRECTIONS])}


def find_directions(gan: GAN, noise: Tensor) -> Tensor:
    """Return orthonormal directions (Z, Z) of the noise, as rows: the one first along which the images change most.

    They are the eigenvectors of the mean of J J^T around samples (N, Z), J being the Jacobian of the image.
    """
    step = 1e-2 * torch.eye(noise.shape[1])
    jacobians = [(gan(z + step) - gan(z - step)).flatten(1) / 2e-2 for z in noise]  # each (Z, C * H * W)
    squares = torch.stack([jacobian @ jacobian.T for jacobian in jacobians]).mean(0)  # (Z, Z)
    return torch.linalg.eigh(squares).eigenvectors.flip(1).T  # columns, the weakest first -> rows, the strongest first


def rounded(rows: Tensor) -> list[list[float]]:
    """Return rows of numbers with four decimals, for JSON."""
    return [[round(value, 4) for value in row] for row in rows.tolist()]


def copy_page(out: Path) -> None:
    """Copy the page, and the runtime from npm's package, which is installed if it is missing."""
    if not PACKAGE.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            raise InputError("the page needs ONNX Runtime's package for browsers: install Node.js, which brings npm")
        done = subprocess.run([npm, "ci", "--ignore-scripts"], cwd=HERE, capture_output=True, text=True)
        require(done.returncode == 0, f"npm ci has failed in {HERE}: {done.stderr.strip()[-200:]}")
    for name in PAGE:
        shutil.copyfile(HERE / name, out / name)
    (out / "runtime").mkdir(exist_ok=True)
    for name in RUNTIME:
        shutil.copyfile(PACKAGE / "dist" / name, out / "runtime" / name)


if __name__ == "__main__":
    run_script(main, Config)
