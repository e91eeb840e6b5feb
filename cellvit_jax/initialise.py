"""New networks over known encoders: the encoder is loaded, everything above it is fresh."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from cellvit_jax import checkpoint, zoo
from cellvit_jax.card import CITATION, ModelCard, cell_classes, cited, numbered, tile
from cellvit_jax.errors import CheckpointError, InputError
from cellvit_jax.files import check_free
from cellvit_jax.inspection import Summary, inspect
from cellvit_jax.models import CellViT, EncoderConfig, ModelConfig, SamConfig

# what an encoder's weights do not hang on: its name, what is above it, what acts in training only
FREE = {
    "architecture",
    "skip_layers",
    "num_tissues",
    "drop_rate",
    "attention_drop_rate",
    "drop_path_rate",
    "any_size",
    "gate",
    "mlp_ratio",
}


class Source(NamedTuple):
    """A checkpoint with an encoder inside, which is a branch of its tree of weights."""

    path: Path
    config: checkpoint.Config
    card: ModelCard
    encoder: EncoderConfig
    branch: str

    @classmethod
    def find(cls, name: str | Path) -> Source:
        """Raises `InputError` where there is no checkpoint, or no encoder in it."""
        path = zoo.find(name)
        config, card = checkpoint.read_config(path)
        branch = checkpoint.kind(config).encoder
        if branch is None:
            raise InputError(f"{path} is a {config.architecture}: it has no encoder to start from")
        inside: Any = config.image_encoder if isinstance(config, SamConfig) else config
        values = {f.name: getattr(inside, f.name) for f in dataclasses.fields(EncoderConfig)}
        return cls(path, config, card, EncoderConfig(**values), branch)


def new_model(
    config: ModelConfig | None = None,
    *,
    encoder: str | Path,
    classes: Sequence[str] = (),
    tissues: Sequence[str] = (),
    seed: int = 0,
) -> CellViT:
    """A CellViT to be trained: the encoder of a checkpoint under a fresh decoder.

    `encoder` is a checkpoint directory of a foundation encoder, of a SAM or of a CellViT, or a
    bundled model's name. `classes` are the names of the cell types, without the background, and
    `tissues` those that a tissue head tells apart; where they are not given, numbers stand for the
    names that `config` wants. Without `config` the network is the published CellViT over that
    encoder, or the CellViT that has it. Decoder and tissue head are drawn from `seed`. The card has
    the encoder's normalisation, and says what the network was started from.

    Every parameter of the encoder comes from the checkpoint: raises `CheckpointError` with a diff
    where one is missing or would be left over, `InputError` for an encoder of other sizes than the
    config's, or another number of names. Warns where the config gates the encoder's MLPs otherwise
    than the checkpoint.
    """
    source = Source.find(encoder)
    if config is None:
        config = _config(source, classes, tissues)
    check_encoder(config, source)
    model = fill(config, source, seed)
    model.card = new_card(config, source, classes, tissues, seed)
    return model


def write_model(
    encoder: str | Path,
    out: Path,
    classes: Sequence[str],
    tissues: Sequence[str] = (),
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Write `new_model` as the checkpoint directory `out`; returns what it is.

    Raises `OutputError` where `out` exists and `overwrite` is not set.
    """
    check_free(out, overwrite and out.is_dir())
    model = new_model(encoder=encoder, classes=classes, tissues=tissues, seed=seed)
    weights = nnx.state(model, checkpoint.WEIGHTS)
    assert model.card is not None
    checkpoint.save(out, weights, model.config, model.card)
    return inspect(out)


def _config(source: Source, classes: Sequence[str], tissues: Sequence[str]) -> ModelConfig:
    if not classes:
        raise InputError("name the classes of cells that the new network shall tell apart")
    outputs: Any = {"num_classes": 1 + len(classes), "num_tissues": len(tissues)}
    if isinstance(source.config, ModelConfig):
        return dataclasses.replace(source.config, **outputs)
    return ModelConfig.over(source.encoder, **outputs)


def check_encoder(config: ModelConfig, source: Source) -> None:
    """Raises `InputError` where a config's encoder is not the one that is inside a checkpoint."""
    inside = source.encoder
    names = [f.name for f in dataclasses.fields(EncoderConfig) if f.name not in FREE]
    different = {
        name: (getattr(config, name), getattr(inside, name))
        for name in (*names, "mlp_width")
        if getattr(config, name) != getattr(inside, name)
    }
    if bool(config.gate) != bool(inside.gate):
        different["gate"] = (config.gate, inside.gate)
    if different:
        wanted, found = (
            ", ".join(f"{name} {values[i]}" for name, values in different.items()) for i in (0, 1)
        )
        raise InputError(
            f"{config.architecture} has an encoder of {wanted}; the {inside.architecture} in "
            f"{source.path} has {found}"
        )
    if config.gate != inside.gate:
        warnings.warn(
            f"the MLPs of the encoder in {source.path} are gated by {inside.gate}, "
            f"{config.architecture} gates them by {config.gate}: give its config "
            f"gate={inside.gate!r} to keep what the encoder has learnt",
            stacklevel=3,
        )


def fill(config: ModelConfig, source: Source, seed: int) -> CellViT:
    """The network with the encoder from a checkpoint, and all else drawn from a seed.

    It starts without values. None are drawn for the encoder: what the checkpoint does not give
    stays empty, and that is an error.
    """
    model = nnx.eval_shape(lambda: CellViT(config, rngs=nnx.Rngs(seed)))
    draw = jax.jit(_drawn, static_argnames="config", compiler_options=quick_compilation())
    nnx.update(model, draw(config, jax.random.key(seed)))
    empty = nnx.to_pure_dict(nnx.filter_state(nnx.state(model), _is_loaded))["encoder"]
    loaded = checkpoint.load_branch(source.path, source.branch, empty, without=("head",))
    nnx.update(model, {"encoder": loaded})
    for name, leaf in checkpoint.leaves(nnx.state(model)).items():
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise CheckpointError(f"{source.path} left {name} without a value")
    return model


def quick_compilation() -> dict[str, str] | None:
    """Options for a program that runs once: draws take LLVM ten times longer to optimise than run.

    The seed must be an argument of such a program: XLA would fold the draws of a constant one.
    """
    return {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else None


def _drawn(config: ModelConfig, key: jax.Array) -> nnx.State:
    """Values for everything that is not loaded; compiled, the encoder's are never made."""
    model = CellViT(config, rngs=nnx.Rngs(key))
    return nnx.filter_state(nnx.state(model), nnx.Not(_is_loaded))


def _is_loaded(path: tuple, variable: Any) -> bool:
    """Whether a variable is a weight of the encoder, of which the tissue head is no part."""
    return path[0] == "encoder" and path[1] != "head" and isinstance(variable, checkpoint.WEIGHTS)


def new_card(
    config: ModelConfig,
    source: Source,
    classes: Sequence[str],
    tissues: Sequence[str],
    seed: int,
) -> ModelCard:
    """What there is to say of a new network over the encoder of a checkpoint."""
    names = _names("class", classes, config.num_classes, first=1)
    side = config.position_grid * config.patch_size
    return ModelCard(
        cell_classes(*names),
        tissues=_names("tissue", tissues, config.num_tissues),
        mean=source.card.mean,
        std=source.card.std,
        tile=min(tile(config.architecture), side if config.encoder == "sam" else ModelCard.tile),
        provenance=f"Started from the encoder of {source.path.resolve().name} "
        f"({source.card.provenance.rstrip('.')}), with a decoder drawn from seed {seed}.",
        license=source.card.license,
        citation=cited(CITATION, source.card.citation),
    )


def _names(what: str, given: Sequence[str], stop: int, first: int = 0) -> tuple[str, ...]:
    if not given:
        return numbered(what, first, stop)
    if len(given) != stop - first:
        raise InputError(f"the config says {stop - first} × {what}, and {len(given)} are named")
    return tuple(given)
