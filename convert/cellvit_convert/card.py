"""The model card of a converted checkpoint, from the config that CellViT stores."""

from typing import Any

from cellvit_convert.content import Content
from cellvit_jax.card import (
    CITATION,
    PANNUKE_CLASSES,
    PANNUKE_TISSUES,
    CellClass,
    ModelCard,
    cell_classes,
    numbered,
    tile,
)
from cellvit_jax.models import ModelConfig


def model_card(content: Content, config: ModelConfig) -> ModelCard:
    """Classes, tissues and normalisation as the checkpoint's config names them.

    Where it does not, a model of PanNuke's numbers of classes and tissues has PanNuke's names,
    and any other has numbers for names.
    """
    return ModelCard(
        classes=_classes(content, config.num_classes),
        tissues=_tissues(content, config.num_tissues),
        mean=_rgb(content, "transformations.normalize.mean"),
        std=_rgb(content, "transformations.normalize.std"),
        tile=tile(config.architecture),
        provenance=provenance(content),
        citation=CITATION,
    )


def _classes(content: Content, count: int) -> tuple[CellClass, ...]:
    named = _names(content, "dataset_config.nuclei_types.")
    for first in (0, 1):  # with or without the background
        if [i for i, _ in named] == [*range(first, count)]:
            return cell_classes(*(name for i, name in named if i > 0))
    if count == len(PANNUKE_CLASSES):
        return PANNUKE_CLASSES
    return cell_classes(*numbered("class", 1, count))


def _tissues(content: Content, count: int) -> tuple[str, ...]:
    named = _names(content, "dataset_config.tissue_types.")
    if [i for i, _ in named] == [*range(count)]:
        return tuple(name for _, name in named)
    return PANNUKE_TISSUES if count == len(PANNUKE_TISSUES) else numbered("tissue", 0, count)


def _names(content: Content, prefix: str) -> list[tuple[int, str]]:
    """(id, name) in the order of the ids, from entries `prefix + name: id`."""
    return sorted(
        (value, key.removeprefix(prefix))
        for key, value in content.config.items()
        if isinstance(key, str) and key.startswith(prefix) and type(value) is int
    )


def _rgb(content: Content, key: str) -> tuple[float, float, float]:
    value: Any = content.config.get(key)
    if isinstance(value, list | tuple) and [type(v) for v in value] == [float] * 3:
        return tuple(value)
    return (0.5, 0.5, 0.5)


def provenance(content: Content) -> str:
    """Where converted weights come from, in a sentence."""
    epoch = "" if content.epoch is None else f", epoch {content.epoch}"
    part = f"the {content.part} of a training with DINO" if content.part else "a bare state dict"
    return f"Converted from a PyTorch checkpoint ({content.arch or part}{epoch})."
