"""The families of checkpoints that are known."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cellvit_convert import cellvit, foundation, heads, originals, sam_whole
from cellvit_convert.card import model_card
from cellvit_convert.content import Content
from cellvit_convert.rules import Rule
from cellvit_jax.card import ModelCard
from cellvit_jax.checkpoint import Config
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import EncoderConfig, HeadConfig, ModelConfig, SamConfig

State = OrderedDict[str, np.ndarray]


class Family(NamedTuple):
    """Checkpoints that are described by one class of configs, and how they go both ways.

    There: `recognise` tells them by their keys, `config` and `card` describe them. Back: `arch` is
    the class that builds them in the original code, an error where none does, and `value` what the
    file holds around a state dict. `rules` has the names for both, behind an encoder's prefix.
    """

    name: str
    kind: type
    recognise: Callable[[Content], bool]
    config: Callable[[Content], Any]
    card: Callable[[Content, Any], ModelCard]
    rules: Callable[[Any, str], tuple[Rule, ...]]
    arch: Callable[[Any], str]
    value: Callable[[State, Any, ModelCard, dict[str, Any]], dict[str, Any]]


FAMILIES = (
    Family(
        "CellViT over a plain ViT, SAM, UNI or Virchow",
        ModelConfig,
        cellvit.recognise,
        cellvit.config,
        model_card,
        cellvit.rules,
        originals.arch,
        originals.value,
    ),
    Family(
        "SAM and SAM-Med2D",
        SamConfig,
        sam_whole.recognise,
        sam_whole.config,
        sam_whole.card,
        sam_whole.rules,
        sam_whole.arch,
        sam_whole.value,
    ),
    Family(
        "such encoders alone",
        EncoderConfig,
        foundation.recognise,
        foundation.config,
        foundation.card,
        foundation.rules,
        foundation.arch,
        foundation.value,
    ),
    Family(
        "cell classifier heads",
        HeadConfig,
        heads.recognise,
        heads.config,
        heads.card,
        heads.rules,
        heads.arch,
        heads.value,
    ),
)


def of(config: Config) -> Family:
    """The family that a config describes."""
    return next(family for family in FAMILIES if family.kind is type(config))


def rules(config: Config, prefix: str = "") -> tuple[Rule, ...]:
    """The table of names of an architecture, for both directions."""
    return of(config).rules(config, prefix)


def identify(content: Content) -> Family:
    """The family of a checkpoint, from its keys: neither the file's name nor `arch` decides.

    Raises `CheckpointError`, with what was found, for an unknown one.
    """
    for family in FAMILIES:
        if family.recognise(content):
            return family
    says = f"its arch is {content.arch!r}, " if content.arch else ""
    keys = ", ".join(list(content.tensors)[:4])
    known = "; ".join(family.name for family in FAMILIES)
    raise CheckpointError(
        f"this architecture is not known: {says}its {len(content.tensors)} tensors start with "
        f"{keys} (known: {known})"
    )
