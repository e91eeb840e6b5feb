"""The encoder that a run begins with: an architecture, or what is inside of a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import InputError, hint
from cellvit_jax.initialise import Source
from cellvit_jax.models import EncoderConfig
from cellvit_jax.models.config import ENCODER_SUFFIX

PRESETS = {
    "vit-tiny": EncoderConfig.tiny,
    "vit-256": EncoderConfig.hipt_256,
    "sam-b": EncoderConfig.sam_b,
    "sam-l": EncoderConfig.sam_l,
    "sam-h": EncoderConfig.sam_h,
    "uni": EncoderConfig.uni,
    "virchow": EncoderConfig.virchow,
    "virchow2": EncoderConfig.virchow2,
}


class Start(NamedTuple):
    """An encoder to be trained; without `weights` they are drawn."""

    config: EncoderConfig
    card: ModelCard
    weights: dict[str, Any]  # by the dotted names of the network's variables
    news: str


def find(name: str, *, mpp: float, tile: int, how: str) -> Start:
    """The encoder that `name` stands for; `how` it is trained goes into its card.

    Raises `InputError`, with the nearest name, for what is none.
    """
    if name in PRESETS:
        config = PRESETS[name]()
        card = ModelCard((), mpp=mpp, tile=tile, provenance=f"{how}, from random weights.")
        return Start(config, card, {}, f"encoder      {name}, random weights")
    try:
        source = Source.find(name)
    except InputError as error:
        raise InputError(
            f"{error}. Encoders with random weights{hint(name, PRESETS)}: {', '.join(PRESETS)}"
        ) from error
    card = dataclasses.replace(
        source.card,
        classes=(),
        tissues=(),
        mpp=mpp,
        tile=tile,
        provenance=f"{source.card.provenance.rstrip('.')}. {how}.".lstrip(". "),
    )
    return Start(alone(source.encoder), card, weights(source), f"encoder      that of {name}")


def alone(config: EncoderConfig) -> EncoderConfig:
    """The encoder without what is above it."""
    name = config.architecture.removesuffix(ENCODER_SUFFIX) + ENCODER_SUFFIX
    return dataclasses.replace(config, architecture=name, skip_layers=(), num_tissues=0)


def weights(source: Source) -> dict[str, Any]:
    """The encoder's weights, which must be all of them."""
    abstract = nnx.to_pure_dict(nnx.state(checkpoint.network(alone(source.encoder))))["encoder"]
    branch = checkpoint.load_branch(source.path, source.branch, abstract, without=("head",))
    return checkpoint.leaves({"encoder": branch})
