"""What a network costs by XLA's own reckoning, where there is no accelerator to measure it on.

    python benchmarks/cost_analysis.py [--peak 788]

FLOPs and bytes of the programs for a tile, in bfloat16, lowered for CUDA and not optimised: shapes
alone, nothing is compiled or run. The baseline of the inference form is the readable one. The bound
is tiles a second if the readable form's products took all of the time, at a peak in TFLOP/s (788:
what an H200's matmul reaches). Attention is counted whole, also where it runs by blocks or in a
kernel of cuDNN: XLA counts the body of a loop once, and a kernel as nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from flax import nnx

from cellvit_jax.models import CellViT, ModelConfig, folded
from cellvit_jax.models.attention import whole

PRESETS = ("cellvit_256", "cellvit_sam_b", "cellvit_sam_h")
FORMS: dict[str, Callable[[CellViT], Any]] = {
    "readable": lambda model: nnx.view(model, deterministic=True, use_running_average=True),
    "inference": lambda model: nnx.eval_shape(folded, model),
}


def main(
    presets: tuple[str, ...] = PRESETS, tiles: tuple[int, ...] = (256, 1024), peak: float = 788
) -> None:
    """Print the table, as Markdown."""
    columns = [f"{what}, {form}" for what in ("TFLOP", "GB") for form in FORMS]
    print("| network | tile |", " | ".join([*columns, "bound, tiles/s"]), "|")
    print("| --- | --- |" + " ---: |" * (len(columns) + 1))
    for preset in presets:
        for side in tiles:
            print(row(preset, side, peak), flush=True)


def row(preset: str, side: int, peak: float) -> str:
    """A line of the table."""
    config = getattr(ModelConfig, preset)()
    model = nnx.eval_shape(lambda: CellViT(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    readable, inference = (costs(form(model), (1, side, side, 3)) for form in FORMS.values())
    cells = [preset, f"{side}²"]
    for name, unit in (("flops", 1e12), ("bytes accessed", 1e9)):
        cells += [f"{readable[name] / unit:.3g}", f"{inference[name] / unit:.3g}"]
    return f"| {' | '.join(cells)} | {peak * 1e12 / readable['flops']:.0f} |"


def costs(model: CellViT, shape: tuple[int, ...]) -> dict[str, float]:
    """XLA's analysis of a call with images of that shape, attention being whole."""
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    for block in model.encoder.blocks:
        block.attn.kernel = whole  # of the inference form; the readable one has no other
    call = jax.jit(lambda model, images: model(images))
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return call.trace(model, images).lower(lowering_platforms=("cuda",)).cost_analysis()


if __name__ == "__main__":
    tyro.cli(main)
