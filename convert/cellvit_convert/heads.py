"""Cell classifier heads, the `LinearClassifier` of CellViT++."""

import warnings
from collections import OrderedDict
from typing import Any

import numpy as np

from cellvit_convert.card import provenance
from cellvit_convert.content import Content
from cellvit_convert.originals import wrapped
from cellvit_convert.rules import LINEAR, Rule, same
from cellvit_jax import label_map
from cellvit_jax.card import ModelCard, cell_classes, numbered
from cellvit_jax.errors import InputError
from cellvit_jax.models import HeadConfig

ARCH = "LinearClassifier"
CITATION = "Hörst et al., CellViT++, 2025, arXiv:2501.05269"
LABEL = "data.label_map."


def rules(config: HeadConfig, prefix: str = "") -> tuple[Rule, ...]:
    """The table of a head's names."""
    return same("fc1", LINEAR), same("fc2", LINEAR)


def recognise(content: Content) -> bool:
    """Whether this is a head and nothing else, by its keys."""
    return content.has(r"fc1\.weight") and content.has(r"fc2\.weight")


def config(content: Content) -> HeadConfig:
    """The sizes, from shapes."""
    return HeadConfig(
        token_dim=content.size(r"fc1\.weight", axis=1),
        hidden_dim=content.size(r"fc1\.(weight|bias)"),
        num_classes=content.size(r"fc2\.(weight|bias)"),
        drop_rate=content.rate("training.drop_rate"),
    )


def card(content: Content, config: HeadConfig) -> ModelCard:
    """The classes as the config names them, counted from 1: 0 is the background here."""
    names = _names(content, config.num_classes)
    return ModelCard(cell_classes(*names), provenance=provenance(content), citation=CITATION)


def _names(content: Content, count: int) -> tuple[str, ...]:
    """What a label map of so many classes calls them, whatever it counts from; else numbers."""
    named = {
        key.removeprefix(LABEL): name
        for key, name in content.config.items()
        if isinstance(key, str) and key.startswith(LABEL) and isinstance(name, str)
    }
    problem = f"has {len(named)} names for {count} classes"
    try:
        _, names = label_map.counted("the label map", named) if named else (0, ())
    except InputError as error:
        names, problem = (), str(error).removeprefix("the label map ")
    if len(names) == count:
        return names
    if named:
        warnings.warn(f"the label map {problem}: they are called class 1, …", stacklevel=2)
    return numbered("class", 1, 1 + count)


def arch(config: HeadConfig) -> str:
    """The class that builds a head in the original code."""
    return ARCH


def value(
    state: OrderedDict[str, np.ndarray],
    config: HeadConfig,
    card: ModelCard,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """What the file of a head holds."""
    return wrapped(arch(config), state, _flat_config(config, card), origin)


def _flat_config(config: HeadConfig, card: ModelCard) -> dict[str, Any]:
    """The entries with dotted keys from which the original code rebuilds a head."""
    return {
        "data.num_classes": config.num_classes,
        "model.hidden_dim": config.hidden_dim,
        "training.drop_rate": config.drop_rate,
        "training.mixed_precision": False,
        **{f"{LABEL}{i}": cell.name for i, cell in enumerate(card.classes[1:])},
    }
