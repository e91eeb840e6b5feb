"""What waits in memory between a forward pass and the gradients, without and with `remat`.

    python benchmarks/held_activations.py [--presets cellvit_256 cellvit_sam_h] [--batches 1 4 16]

Shapes alone, for the published recipe: nothing runs, so networks of any size can be asked.
Parameters are part of it. An order of operations may need more than that, and none can do with
less.
"""

import dataclasses

import jax
import numpy as np
import tyro
from collectives import card
from communication import zeros

from cellvit_jax.models import ModelConfig
from cellvit_jax.sharding import make_mesh
from cellvit_jax.training.recipes import pannuke
from cellvit_jax.training.state import Layout, new_layout
from cellvit_jax.training.step import parted, streams_at

GIB = 2**30


def main(
    presets: tuple[str, ...] = ("cellvit_256", "cellvit_sam_h"),
    batches: tuple[int, ...] = (1, 2, 4, 8, 16),
) -> None:
    """Print the table, as Markdown: GiB on a device by the tiles that it looks at."""
    print(f"| GiB, by tiles | {' | '.join(map(str, batches))} |\n| --- |{' ---: |' * len(batches)}")
    for preset in presets:
        for rests in (True, False):
            for remat in (False, True):
                cells = [f"{held(preset, rests, remat, batch) / GIB:.1f}" for batch in batches]
                name = f"{preset}, {'encoder at rest' if rests else 'all trained'}"
                print(f"| {name}{', `remat`' * remat} | {' | '.join(cells)} |", flush=True)


def held(preset: str, encoder_rests: bool, remat: bool, batch: int) -> int:
    """Bytes."""
    recipe = dataclasses.replace(pannuke(), steps_per_epoch=1, remat=remat, batch_size=batch)
    config = getattr(ModelConfig, preset)()
    layout = new_layout(config, card(config), recipe, make_mesh(devices=jax.devices()[:1]))
    resting, moving = parted(layout.abstract.params, encoder_rests)
    backward = jax.eval_shape(
        lambda *arrays: jax.vjp(loss_of(layout, *arrays[1:]), arrays[0])[1],
        moving,
        resting | layout.abstract.rest,
        zeros(recipe),
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def loss_of(layout: Layout, others: dict, batch: dict):
    """The loss as a function of the parameters that move."""
    streams = streams_at(layout, np.int32(0))
    objective = layout.recipe.objective
    return lambda moving: objective(layout.merge(moving, others, streams), batch)[0]


if __name__ == "__main__":
    tyro.cli(main)
