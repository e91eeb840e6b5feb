"""What a run starts from: an architecture, the weights of a CellViT, or an encoder."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from flax import nnx

from cellvit_jax import checkpoint, zoo
from cellvit_jax.card import CITATION, ModelCard, Stain, cell_classes, cited
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.errors import InputError, hint
from cellvit_jax.initialise import new_model
from cellvit_jax.models import ModelConfig

PRESETS = {
    name.replace("_", "-"): getattr(ModelConfig, name)
    for name in (
        "cellvit_nano",
        "cellvit_tiny",
        "cellvit_256",
        "cellvit_sam_b",
        "cellvit_sam_l",
        "cellvit_sam_h",
        "cellvit_uni",
        "cellvit_virchow",
        "cellvit_virchow2",
    )
}
Weights = dict[str, Any]  # arrays by the dotted names of the network's variables


class Start(NamedTuple):
    """A network to be trained; what `weights` lack is drawn. `news` are sentences for people."""

    config: ModelConfig
    card: ModelCard
    weights: Weights
    news: tuple[str, ...]

    def with_stain(self, stain: Stain) -> Start:
        """For images in the colours of one staining."""
        return self._replace(card=dataclasses.replace(self.card, stain=stain))


def is_preset(model: str) -> bool:
    """Whether a name stands for an architecture with random weights."""
    return model.replace("_", "-") in PRESETS


def find(model: str, data: Dataset, *, tile: int, seed: int = 0) -> Start:
    """The network that `model` stands for, with outputs for the classes and tissues of `data`.

    Raises `InputError`, with the nearest name, for what is no network.
    """
    if not data.classes:
        raise InputError(f"{data.name} has no classes: name them in its classes.yaml")
    if is_preset(model):
        return _preset(model, data, tile)
    try:
        path = zoo.find(model)
    except InputError as error:
        near, known = hint(model, PRESETS), ", ".join(PRESETS)
        raise InputError(
            f"{error}. Architectures to train from random weights{near}: {known}"
        ) from error
    config, card = checkpoint.read_config(path)
    if isinstance(config, ModelConfig):
        return _trained(model, config, card, data)
    return _over_encoder(model, data, seed)


def _preset(model: str, data: Dataset, tile: int) -> Start:
    config = PRESETS[model.replace("_", "-")](1 + len(data.classes), len(data.tissues))
    card = ModelCard(
        cell_classes(*data.classes),
        tissues=data.tissues,
        mpp=data.mpp,
        tile=tile,
        provenance=f"Trained from random weights on {data.name}.",
        license=data.license,
        citation=cited(CITATION, data.citation),
    )
    return Start(config, card, {}, (f"model        {config.architecture}, random weights",))


def _over_encoder(model: str, data: Dataset, seed: int) -> Start:
    network = new_model(encoder=model, classes=data.classes, tissues=data.tissues, seed=seed)
    assert network.card is not None
    card = dataclasses.replace(network.card, mpp=data.mpp)
    news = f"model        {network.config.architecture} over the encoder of {model}, fresh decoder"
    return Start(network.config, card, _weights(network), (news,))


def _trained(model: str, config: ModelConfig, card: ModelCard, data: Dataset) -> Start:
    weights = _weights(checkpoint.load(model))
    news = [f"model        {config.architecture}, weights of {model}"]
    names = tuple(one.name for one in card.classes[1:])
    if names != data.classes:
        fresh = dataclasses.replace(config, num_classes=1 + len(data.classes))
        weights = _without(weights, config, "num_classes")
        news.append(
            f"note         {model} knows {_listed(names)}; the data has {_listed(data.classes)}: "
            "the layer of types begins anew"
        )
        config, card = fresh, dataclasses.replace(card, classes=cell_classes(*data.classes))
    if data.tissues and data.tissues != card.tissues:
        weights = _without(weights, config, "num_tissues")
        config = dataclasses.replace(config, num_tissues=len(data.tissues))
        card = dataclasses.replace(card, tissues=data.tissues)
        news.append("note         the data has other tissues: their layer begins anew")
    if abs(data.mpp / card.mpp - 1) > 0.05:
        news.append(
            f"note         {model} was trained at {card.mpp:g} µm per pixel, the data has "
            f"{data.mpp:g}, which the new weights are for"
        )
    provenance = f"{card.provenance.rstrip('.')}. Trained further on {data.name}.".lstrip(". ")
    card = dataclasses.replace(
        card,
        mpp=data.mpp,
        provenance=provenance,
        citation=cited(card.citation, data.citation),
    )
    return Start(config, card, weights, tuple(news))


def _weights(network: nnx.Module) -> Weights:
    return checkpoint.leaves(nnx.to_pure_dict(nnx.state(network, checkpoint.WEIGHTS)))


def _without(weights: Weights, config: ModelConfig, outputs: str) -> Weights:
    """The weights whose shapes do not hang on a number of outputs."""
    more = dataclasses.replace(config, **{outputs: getattr(config, outputs) + 1})
    there, other = _shapes(config), _shapes(more)
    return {name: value for name, value in weights.items() if there[name] == other.get(name)}


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    state = nnx.to_pure_dict(nnx.state(checkpoint.network(config), checkpoint.WEIGHTS))
    return jax.tree.map(lambda leaf: tuple(leaf.shape), checkpoint.leaves(state))


def _listed(names: tuple[str, ...]) -> str:
    return f"{len(names)} class{'es' * (len(names) != 1)} ({', '.join(names)})"
