"""What the original code can build, and how its checkpoints say so."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cellvit_jax.card import ModelCard
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import ModelConfig


class Original(NamedTuple):
    """A class of the originals, the backbone that its config names, and its architecture here."""

    arch: str
    backbone: str
    preset: Callable[..., ModelConfig]
    has_shared: bool = False  # is there a variant with one trunk, called `arch + "Shared"`?


ORIGINALS = {
    "cellvit": Original("CellViT", "default", ModelConfig.cellvit, True),
    "cellvit_256": Original("CellViT256", "ViT256", ModelConfig.cellvit_256, True),
    "cellvit_sam_b": Original("CellViTSAM", "SAM-B", ModelConfig.cellvit_sam_b, True),
    "cellvit_sam_l": Original("CellViTSAM", "SAM-L", ModelConfig.cellvit_sam_l, True),
    "cellvit_sam_h": Original("CellViTSAM", "SAM-H", ModelConfig.cellvit_sam_h, True),
    "cellvit_uni": Original("CellViTUNI", "UNI", ModelConfig.cellvit_uni),
    "cellvit_virchow": Original("CellViTVirchow", "Virchow", ModelConfig.cellvit_virchow),
    "cellvit_virchow2": Original("CellViTVirchow2", "Virchow2", ModelConfig.cellvit_virchow2),
}

# what can be chosen in every class of the originals, and in the generic one alone
CHOICES = (
    "num_classes",
    "num_tissues",
    "regression_loss",
    "shared_trunk",
    "drop_rate",
    "attention_drop_rate",
    "drop_path_rate",
)
SIZES = ("embed_dim", "depth", "num_heads", "skip_layers")


def arch(config: ModelConfig) -> str:
    """The class that builds this network in the original code.

    Raises `CheckpointError`, with what is different, where there is none.
    """
    original = ORIGINALS.get(config.architecture)
    if original is None:
        raise CheckpointError(
            f"the original code has no {config.architecture}: it builds {', '.join(ORIGINALS)}"
        )
    chosen = CHOICES + (SIZES if config.architecture == "cellvit" else ())
    nearest = original.preset(**{name: getattr(config, name) for name in chosen})
    different = [
        f"{field.name} is {getattr(nearest, field.name)}, not {getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(nearest, field.name) != getattr(config, field.name)
    ]
    if config.shared_trunk and not original.has_shared:
        different.append("every branch has its own trunk")
    if different:
        raise CheckpointError(
            f"the original code cannot build this {config.architecture}: in its "
            f"{original.arch} {'; '.join(different)}"
        )
    return original.arch + ("Shared" if config.shared_trunk else "")


def value(
    state: OrderedDict[str, np.ndarray],
    config: ModelConfig,
    card: ModelCard,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """What the file of a network holds."""
    return wrapped(arch(config), state, flat_config(config, card), origin)


def wrapped(
    arch: str,
    state: OrderedDict[str, np.ndarray],
    flat_config: dict[str, Any],
    origin: dict[str, Any],
) -> dict[str, Any]:
    """A state dict among what the original code wants to know of it."""
    return {
        "arch": arch,
        "epoch": origin.get("epoch"),
        "model_state_dict": state,
        "config": flat_config,
    }


def flat_config(config: ModelConfig, card: ModelCard) -> dict[str, Any]:
    """The entries with dotted keys from which the original code rebuilds a network."""
    return {
        "data.num_nuclei_classes": config.num_classes,
        "data.num_tissue_classes": config.num_tissues,
        "model.backbone": ORIGINALS[config.architecture].backbone,
        "model.embed_dim": config.embed_dim,
        "model.depth": config.depth,
        "model.num_heads": config.num_heads,
        "model.extract_layers": list(config.skip_layers),
        "model.regression_loss": config.regression_loss,
        "model.shared_decoders": config.shared_trunk,
        "training.drop_rate": config.drop_rate,
        "training.attn_drop_rate": config.attention_drop_rate,
        "training.drop_path_rate": config.drop_path_rate,
        "training.mixed_precision": False,
        "transformations.normalize.mean": list(card.mean),
        "transformations.normalize.std": list(card.std),
        **{f"dataset_config.nuclei_types.{c.name}": i for i, c in enumerate(card.classes)},
        **{f"dataset_config.tissue_types.{name}": i for i, name in enumerate(card.tissues)},
    }
