"""What devices say to each other in the compiled network call: every collective, with its bytes.

    python benchmarks/collectives.py [--preset cellvit_tiny] [--tile 256]

For one device and for eight simulated ones, a tile each. Below it, what leaves the devices for the
host, of raw maps and of what `reduced` makes of them.
"""

import re

import jax
import numpy as np
import tyro
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.inference import Predictor
from cellvit_jax.models import CellViT, ModelConfig

COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
SHAPE = re.compile(r"(pred|[a-z]+)(\d*)\[([\d,]*)\]")
MOST = 8


def main(preset: str = "cellvit_tiny", tile: int = 256) -> None:
    """Print two tables, as Markdown."""
    jax.config.update("jax_num_cpu_devices", MOST)
    config = getattr(ModelConfig, preset)()
    model = filled(config)
    print("| devices | collectives | bytes | flops a device |\n| ---: | ---: | ---: | ---: |")
    for devices in (1, MOST):
        predictor = Predictor(model, card(config), batch_size=devices)
        program = predictor.compiled(tile)
        found = COLLECTIVE.findall(program.as_text())
        size = sum(bytes_of(shape) for shape, _ in found)
        flops = program.cost_analysis()["flops"]
        print(f"| {devices} | {len(found)} | {size} | {flops:.3e} |", flush=True)
    print("\n| to the host | bytes a pixel |\n| --- | ---: |")
    raw = jax.eval_shape(model, np.zeros((1, tile, tile, 3), np.float32))
    kept = jax.tree.leaves(program.out_info)
    raw_bytes = sum(x.size * x.dtype.itemsize for x in raw.values() if x.ndim == 4)
    kept_bytes = sum(x.size * x.dtype.itemsize for x in kept) / MOST
    print(f"| raw maps | {raw_bytes / tile**2:g} |\n| reduced | {kept_bytes / tile**2:g} |")


def filled(config: ModelConfig) -> CellViT:
    """A network of zeros: values are no matter here."""
    model = checkpoint.network(config)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nnx.state(model))
    nnx.update(model, zeros)
    return nnx.view(model, deterministic=True, use_running_average=True)


def card(config: ModelConfig) -> ModelCard:
    return ModelCard(cell_classes(*"abcdefgh"[: config.num_classes - 1]))


def bytes_of(shapes: str) -> int:
    """Of an HLO shape, or a tuple of them."""
    found = SHAPE.findall(shapes)
    return sum(
        np.prod([int(n) for n in dims.split(",") if n], dtype=int) * max(1, int(bits or 8) // 8)
        for _, bits, dims in found
    )


if __name__ == "__main__":
    tyro.cli(main)
