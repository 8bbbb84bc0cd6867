"""All that can be measured, by part and name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

from experiments.benchmark import cpc, forecast, gan, lenet, mlp, startup, trainer, transfer
from experiments.benchmark.measure import Measurement, Side
from torchdl.training.device import has_bf16_units

BF16 = "ours in bf16"
TRANSFER = "ten epochs"
COMPILED = "ours, compiled"
LIMIT = "the limit"  # products, convolutions and memory traffic alone

MEASUREMENTS = {
    "gan": {"gan": Measurement(gan.usual_gan, gan.our_gan, 3200, {"JAX": gan.jax_gan, LIMIT: gan.limit_gan})},
    "mlp": {"mlp": Measurement(mlp.usual_mlp, mlp.our_mlp, 3200, {"JAX": mlp.jax_mlp, LIMIT: mlp.limit_mlp})},
    "cpc": {
        "data": Measurement(cpc.usual_cpc_data, cpc.our_cpc_data, 320),
        "step": Measurement(
            cpc.usual_cpc_step,
            partial(cpc.our_cpc, resident=True),
            320,
            {"Keras on JAX": partial(cpc.usual_cpc_step, backend="jax"), LIMIT: cpc.limit_cpc},
        ),
        "data and step": Measurement(cpc.usual_cpc, cpc.our_cpc, 320),
    },
    "forecast": {"forecasts of 20 steps": Measurement(forecast.usual_forecasts, forecast.our_forecasts, 64)},
    "lenet": {
        "fp32": Measurement(
            lenet.usual_lenet, lenet.our_lenet, 3200, {"Keras on JAX": lenet.keras_lenet, LIMIT: lenet.limit_lenet}
        ),
        "against ImageFolder": Measurement(partial(lenet.usual_lenet, from_files=True), lenet.our_lenet, 3200),
        BF16: Measurement(lenet.usual_lenet, partial(lenet.our_lenet, precision="bf16"), 3200),
    },
    "trainer": {
        name: Measurement(
            partial(trainer.bare, work=work),
            partial(trainer.ours, work=work),
            least,
            {"Lightning": partial(trainer.lightning, work=work)},
        )
        for name, work, least in (("an empty step", trainer.empty, 640), ("a step of LenetLike", trainer.lenet, 3200))
    },
    "transfer": {
        TRANSFER: Measurement(partial(transfer.transfer, keep=False), partial(transfer.transfer, keep=True), 64)
    },
    "startup": {
        "import": Measurement(
            partial(startup.importing, "import torch"),
            # the names are imported lazily
            partial(startup.importing, "from torchdl import BatchLoader, GANTask, Trainer"),
            1,
        )
    },
}


def on_gpu(usual: Side, ours: Callable[..., Callable[[int], float]], graph: Side, least: int = 3200) -> Measurement:
    """Return what to measure on a GPU: the usual way, ours, ours as CUDA graphs, and the limit."""
    return Measurement(usual, ours, least, {COMPILED: partial(ours, compile=True), LIMIT: graph})


#: What ``--device cuda`` measures
ON_GPU = {
    "gan": {"gan": on_gpu(gan.usual_gan, gan.our_gan, gan.graph_gan)},
    "mlp": {"mlp": on_gpu(mlp.usual_mlp, mlp.our_mlp, mlp.graph_mlp)},
    "lenet": {
        "fp32": on_gpu(lenet.usual_lenet, lenet.our_lenet, lenet.graph_lenet),
        "ours in tf32": Measurement(lenet.usual_lenet, partial(lenet.our_lenet, precision="tf32"), 3200),
        BF16: Measurement(lenet.usual_lenet, partial(lenet.our_lenet, precision="bf16"), 3200),
    },
    "cpc": {"step": on_gpu(cpc.usual_cpc_loop, partial(cpc.our_cpc, resident=True), cpc.graph_cpc, 320)},
}

#: What the other sides are made with
PACKAGES = {"JAX": ("jax", "optax"), "Keras on JAX": ("keras", "jax"), "Lightning": ("lightning",)}


def why_not(name: str, device: str = "cpu") -> str:
    """Return why a measurement, or one of its other sides, cannot be made here; an empty string if it can."""
    if device == "cuda":
        return ""
    if name == BF16 and not has_bf16_units():
        return "this CPU has no units for bf16 and would emulate it about seven times slower than fp32"
    if name == TRANSFER and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        return "it needs a pretrained network: pip install -e '.[transfer]'"
    if name in ("step", "data and step") and importlib.util.find_spec("keras") is None:
        return "the original runs on Keras: pip install -e '.[test]'"
    missing = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    return f"{' and '.join(missing)} is not installed: pip install -e '.[bench]'" if missing else ""
