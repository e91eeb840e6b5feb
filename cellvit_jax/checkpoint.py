"""A checkpoint is a directory: Orbax weights, and the config that rebuilds the model.

DIR/config.json    format_version, model (its config), card (ModelCard), perhaps origin
DIR/weights/       parameters, batch statistics and constants, as a nested dictionary
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from orbax.checkpoint import v1 as ocp

from cellvit_jax import hosts, zoo
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import CheckpointError, InputError, OutputError
from cellvit_jax.files import replacing_directory
from cellvit_jax.models import (
    Abmil,
    AbmilConfig,
    CellClassifier,
    CellViT,
    Encoder,
    EncoderConfig,
    HeadConfig,
    LinearProbe,
    LinearProbeConfig,
    ModelConfig,
    Sam,
    SamConfig,
)
from cellvit_jax.models.prompt_encoder import Constant

FORMAT_VERSION = 1
# what is stored; random streams and the like are not
WEIGHTS = (nnx.Param, nnx.BatchStat, Constant)
Config = ModelConfig | EncoderConfig | HeadConfig | LinearProbeConfig | AbmilConfig | SamConfig


class Kind(NamedTuple):
    """Checkpoints whose architecture has that pattern: what rebuilds them, and what they become.

    `encoder` is the part of the network that can serve as the encoder of another.
    """

    architecture: str
    config: Any
    network: Any
    encoder: str | None = None


KINDS = (
    Kind(HeadConfig.architecture, HeadConfig, CellClassifier),
    Kind(LinearProbeConfig.architecture, LinearProbeConfig, LinearProbe),
    Kind(AbmilConfig.architecture, AbmilConfig, Abmil),
    Kind(r"\w+_encoder", EncoderConfig, Encoder, "encoder"),
    Kind(r"sam(_med2d)?(_[blh])?", SamConfig, Sam, "image_encoder"),
    Kind(r".*", ModelConfig, CellViT, "encoder"),
)


def save(
    path: str | Path,
    weights: nnx.State,
    config: Config,
    card: ModelCard,
    *,
    origin: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint directory, atomically; an existing one at `path` is replaced.

    `weights` holds the model's parameters and batch statistics: `nnx.state(model, WEIGHTS)`;
    `origin` is what a converter notes of its source, in plain values. The processes of one run all
    call this, with whole arrays on the host. Raises `OutputError` where the directory cannot be
    written.
    """
    values = {
        "format_version": FORMAT_VERSION,
        "model": config.to_dict(),
        "card": card.to_dict(),
    }
    if origin is not None:
        values["origin"] = origin
    path = Path(path)
    if path.exists() and not (path / "config.json").exists() and any(path.iterdir()):
        raise OutputError(f"{path} exists and is not a checkpoint: choose another name")
    with contextlib.ExitStack() as stack:
        folder = hosts.by_first(lambda: stack.enter_context(replacing_directory(path)))
        if hosts.is_first():
            (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")
        with _storage():  # a process alone would wait for the others
            ocp.save(folder / "weights", nnx.to_pure_dict(weights))
        hosts.by_first(stack.close)


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    """One file an array, as it is: nothing is copied, compressed or collected on the way to disk.

    Weights hardly compress. Orbax's other form, few large files, holds all of them in memory.
    """
    context = ocp.Context()
    context.array_options.saving.use_ocdbt = False
    context.array_options.saving.use_zarr3 = False  # whose files Orbax does not see without OCDBT
    context.array_options.saving.use_compression = False
    context.memory_options.deepcopy_host_arrays = False
    log = logging.getLogger("absl")
    log.addFilter(_is_news)
    try:
        with context:
            yield
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "Skipping merge of OCDBT" not in record.getMessage()  # there is nothing to merge


def read_config(path: str | Path) -> tuple[Config, ModelCard]:
    """Architecture and card of the checkpoint at `path`, without its weights."""
    values = _read_json(path)
    try:
        return _config(values["model"]), ModelCard.from_dict(values["card"])
    except (ValueError, KeyError, TypeError, InputError) as error:
        raise CheckpointError(f"{path} is not a checkpoint directory: {error}") from error


def _config(values: dict[str, Any]) -> Config:
    kinds = (k for k in KINDS if re.fullmatch(k.architecture, values["architecture"]))
    return next(kinds).config.from_dict(values)


def read_origin(path: str | Path) -> dict[str, Any]:
    """What was noted of the file that the checkpoint was converted from; empty if it was not."""
    return _read_json(path).get("origin", {})


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        values = json.loads((Path(path) / "config.json").read_text())
        version = values["format_version"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not a checkpoint directory: no config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint directory: {error}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {version}, this version reads format {FORMAT_VERSION}"
        )
    return values


def network(config: Config, *, dtype: DTypeLike = np.float32) -> Any:
    """The network of a config, without values: an abstract tree of shapes and types."""
    make = kind(config).network
    return nnx.eval_shape(lambda: make(config, dtype=dtype, rngs=abstract_rngs()))


def kind(config: Config) -> Kind:
    """The kind of checkpoint that a config describes."""
    return next(k for k in KINDS if k.config is type(config))


def abstract_rngs() -> nnx.Rngs:
    """Random numbers for a network that shall hold no values, quick to count."""
    rngs = nnx.Rngs(0)
    rngs.params = _OneKey(0, tag="params")
    return rngs


class _OneKey(nnx.RngStream):
    """For networks that hold no values: counting keys takes the square of their number in time."""

    def __call__(self) -> jax.Array:
        return self.key[...]


def load(path: str | Path, *, dtype: DTypeLike = np.float32) -> Any:
    """The network at `path`, a folder or a bundled model's name, ready for inference.

    It is a `CellViT`, or an `Encoder`, a `CellClassifier`, a `LinearProbe`, an `Abmil` or a `Sam`
    where the folder holds one.
    Its card is `model.card`; `dtype` is the compute type. Raises `InputError` for an unknown name,
    `CheckpointError` where the weights do not fit the config: its text is a diff of names.
    """
    path = zoo.find(path)
    config, card = read_config(path)
    model = network(config, dtype=dtype)
    abstract = _on_one_device(nnx.to_pure_dict(nnx.state(model, WEIGHTS)))
    weights = load_weights(path.resolve() / "weights", abstract)
    nnx.update(model, weights)
    return for_inference(model, card)


def for_inference(model: Any, card: ModelCard) -> Any:
    """The network with its card, in inference mode and without the random streams of training."""
    _drop_random_streams(model)
    model.card = card
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def _on_one_device(abstract: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )


def _drop_random_streams(model: nnx.Module) -> None:
    """Dropout's streams are still abstract after loading, and inference has no use for them."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout):
            module.rngs = None


def load_weights(path: Path, abstract: Any) -> Any:
    """The stored tree, which must have exactly the names and shapes of `abstract`."""
    _check(path, _stored(path), abstract)
    return _read(path, abstract)


def load_branch(path: Path, name: str, abstract: Any, *, without: Sequence[str] = ()) -> Any:
    """A branch of the weights of the checkpoint at `path`, all others left unread.

    It must have exactly the names and shapes of `abstract`, but for its own branches `without`.
    Raises `CheckpointError` with a diff where it does not.
    """
    path, abstract = path.resolve() / "weights", {name: _on_one_device(abstract)}
    stored = {key: leaf for key, leaf in _stored(path)[name].items() if key not in without}
    _check(path, {name: stored}, abstract)
    return _read(path, abstract, partial=True)[name]


def _check(path: Path, stored: Any, abstract: Any) -> None:
    differences = diff(_shapes(stored), _shapes(abstract))
    if differences:
        raise CheckpointError(f"{path} does not fit its config:\n" + "\n".join(differences))


def _read(path: Path, abstract: Any, *, partial: bool = False) -> Any:
    with _silent_collection():
        try:
            with _reading(abstract, partial):
                return ocp.load(path, abstract)
        except Exception as error:
            message = f"{path} is damaged: {error}"
        gc.collect()
    raise CheckpointError(message)


@contextlib.contextmanager
def _silent_collection() -> Iterator[None]:
    """Orbax leaves the reads behind that it gave up: each would print its own traceback."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _reading(abstract: Any, partial: bool) -> ocp.Context:
    """Few arrays at a time are in memory twice, as the file and as the device has them.

    A process waits for no other process of its run.
    """
    context, index = ocp.Context(), jax.process_index()
    context.multiprocessing_options.primary_host = index
    context.multiprocessing_options.active_processes = {index}
    context.pytree.loading.partial_load = partial
    largest = max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
    context.memory_options.read_concurrent_bytes = 4 * largest  # less than one would be an error
    return context


def read_types(path: str | Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the weights of the checkpoint at `path`, by dotted name."""
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in leaves(_stored(Path(path).resolve() / "weights")).items()
    }


def _stored(path: Path) -> Any:
    try:
        return ocp.metadata(path).metadata
    except Exception as error:  # Orbax raises many kinds for a damaged or missing folder
        raise CheckpointError(f"{path} holds no readable Orbax weights: {error}") from error


def diff(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> list[str]:
    """One line for every name or shape that differs: `+` surplus, `-` missing, `!` shape."""
    surplus = [f"+ {name}: in the checkpoint, not in the model" for name in found.keys() - wanted]
    missing = [f"- {name}: in the model, not in the checkpoint" for name in wanted.keys() - found]
    shapes = [
        f"! {name}: {found[name]}, the model has {wanted[name]}"
        for name in found.keys() & wanted
        if found[name] != wanted[name]
    ]
    return sorted(surplus) + sorted(missing) + sorted(shapes)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in leaves(tree).items()}


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their dotted names."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in found}
