"""Cell classifier heads, the `LinearClassifier` of CellViT++."""

from collections import OrderedDict
from typing import Any

import numpy as np

from cellvit_convert.card import provenance
from cellvit_convert.content import Content
from cellvit_convert.originals import wrapped
from cellvit_convert.rules import LINEAR, Rule, same
from cellvit_jax.card import ModelCard, cell_classes
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
    named = (content.config.get(f"{LABEL}{i}") for i in range(config.num_classes))
    names = (n if isinstance(n, str) else f"class {i}" for i, n in enumerate(named, start=1))
    return ModelCard(cell_classes(*names), provenance=provenance(content), citation=CITATION)


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
