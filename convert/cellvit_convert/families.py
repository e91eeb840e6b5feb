"""The architectures that are known, one line each."""

from collections.abc import Callable
from typing import NamedTuple

from cellvit_convert import sam, uni, virchow, vit256
from cellvit_convert.content import Content
from cellvit_convert.rules import Rule
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import ModelConfig


class Family(NamedTuple):
    """Architectures that share a table of names."""

    name: str
    recognise: Callable[[Content], bool]
    config: Callable[[Content], ModelConfig]
    rules: Callable[[ModelConfig], tuple[Rule, ...]]


FAMILIES = (
    Family("CellViT-256 and generic CellViT", vit256.recognise, vit256.config, vit256.rules),
    Family("CellViT-SAM", sam.recognise, sam.config, sam.rules),
    Family("CellViT-UNI", uni.recognise, uni.config, uni.rules),
    Family("CellViT-Virchow", virchow.recognise, virchow.config, uni.rules),
)


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
