"""A wider network that computes what a narrow one does, to go on training from.

    python scripts/grow.py cellvit-tiny-consep grown

The narrow encoder's channels are all there twice. What comes from a channel is divided between its
two copies, by halves that differ by noise: the sums stay, and the copies learn different things
(Chen et al., Net2Net, 2016). The decoder's new channels see the others through random weights, and
are not yet seen by them. The result is a `cellvit_small` in the folder given last.
"""

from __future__ import annotations

import dataclasses
from itertools import accumulate
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx

import cellvit_jax as cj
from cellvit_jax import checkpoint
from cellvit_jax.models import CellViT, ModelConfig

NOISE = 0.5  # of a kernel's standard deviation


def main(narrow: tyro.conf.Positional[str], grown: tyro.conf.Positional[Path]) -> None:
    """Write the folder `grown`."""
    model = cj.load(narrow)
    config = ModelConfig.cellvit_small(num_classes=model.config.num_classes)
    rng = np.random.default_rng(0)
    fresh = nnx.state(CellViT(config, rngs=nnx.Rngs(0)), checkpoint.WEIGHTS)
    old = dict(nnx.to_flat_state(nnx.state(model, checkpoint.WEIGHTS)))
    for path, variable in nnx.to_flat_state(fresh):
        grow = in_encoder if path[0] == "encoder" else in_decoder
        name = ".".join(map(str, path))
        variable.set_value(
            jax.numpy.asarray(grow(name, *map(np.array, (old[path], variable)), rng))
        )
    provenance = f"{model.card.provenance}; widened by scripts/grow.py"
    checkpoint.save(grown, fresh, config, dataclasses.replace(model.card, provenance=provenance))


def in_encoder(name: str, old: np.ndarray, new: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every channel twice, the three parts of qkv each for itself."""
    parts = 3 if "qkv" in name else 1
    old = old.reshape(*old.shape[:-1], parts, -1)
    doubled = np.concatenate([old, old], -1).reshape(*old.shape[:-2], -1)
    takes_channels = name.endswith("kernel") and "patch_embed" not in name
    return divided(doubled, rng) if takes_channels else doubled


def divided(kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(…, I, O) for inputs that are there twice: (…, 2I, O)."""
    noise = NOISE * kernel.std() * rng.standard_normal(kernel.shape).astype(kernel.dtype)
    return np.concatenate([kernel / 2 + noise, kernel / 2 - noise], axis=-2)


def in_decoder(name: str, old: np.ndarray, new: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The old channels as they were, in front of the new ones, which they do not see."""
    outputs = np.arange(old.shape[-1])
    if not name.endswith("kernel"):
        new[outputs] = old
        return new
    if name.endswith(("up4.kernel", "layers.0.up.kernel")):  # from tokens
        old = divided(old, rng)
    inputs = seen(old.shape[-2], new.shape[-2], joined="trunks" in name and "layers.0" in name)
    new[..., outputs] = 0
    new[..., inputs[:, None], outputs] = old
    return new


def seen(old: int, new: int, *, joined: bool) -> np.ndarray:
    """Where the old inputs are among the new ones: in front, or in front of each of two halves."""
    parts = 2 if joined else 1
    starts = accumulate([0] + [new // parts] * (parts - 1))
    return np.concatenate([start + np.arange(old // parts) for start in starts])


if __name__ == "__main__":
    tyro.cli(main)
