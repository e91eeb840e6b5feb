"""The weighted sum of losses that a CellViT is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cellvit_jax.models import CellViT, Encoder
from cellvit_jax.models.vit import precise
from cellvit_jax.training import losses

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights of the branches' losses; the defaults are the published recipe's.

    The terms of maps that a network has not, of tissues that are not known and of types that nobody
    annotated do not count. With `double_softmax` the two Tversky losses see probabilities that
    went through softmax twice, as the published networks were trained. `class_weights` weigh the
    classes, background first, in `type_focal_tversky`; without any they count alike.
    """

    binary_focal_tversky: float = 1.0
    binary_dice: float = 1.0
    hv_mse: float = 2.5
    hv_msge: float = 8.0
    type_cross_entropy: float = 0.5
    type_dice: float = 0.2
    type_focal_tversky: float = 0.5
    tissue_cross_entropy: float = 0.1
    regression_mse: float = 1.0
    class_weights: tuple[float, ...] = ()
    double_softmax: bool = True

    def __call__(self, model: CellViT, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        """The total and each unweighted term, for a batch as `data.pipeline.encode` makes it."""
        maps = model(normalise(model, batch["image"]))
        terms = self.terms(maps, batch)
        total = weighted(terms, self)
        return total, terms | {"loss": total}

    def terms(self, maps: Metrics, batch: Mapping[str, jax.Array]) -> Metrics:
        """Every loss by the name of its weight."""
        terms = self.nuclei(maps, batch) | self.types(maps["nuclei_type_map"], batch)
        if "regression_map" in maps:
            terms["regression_mse"] = losses.mse(maps["regression_map"], batch["regression"])
        if "tissue_types" in maps:
            tissue = losses.tissue_cross_entropy(maps["tissue_types"], batch["tissue"])
            terms["tissue_cross_entropy"] = tissue
        return terms

    def nuclei(self, maps: Metrics, batch: Mapping[str, jax.Array]) -> Metrics:
        """The losses of the binary and the hv branch."""
        nuclei = batch["nuclei"].astype(maps["hv_map"].dtype)
        true = jnp.stack([1 - nuclei, nuclei], axis=-1)
        binary = jax.nn.softmax(maps["nuclei_binary_map"])
        return {
            "binary_focal_tversky": losses.focal_tversky(self.again(binary), true),
            "binary_dice": losses.dice(binary, true),
            "hv_mse": losses.mse(maps["hv_map"], batch["hv"]),
            "hv_msge": losses.msge(maps["hv_map"], batch["hv"], nuclei),
        }

    def types(self, logits: jax.Array, batch: Mapping[str, jax.Array]) -> Metrics:
        """The losses of the type branch."""
        types, true = jax.nn.softmax(logits), jax.nn.one_hot(batch["types"], logits.shape[-1])
        valid = batch["typed"][:, None, None, None]
        weights = jnp.asarray(self.class_weights or 1.0, logits.dtype)
        return {
            "type_cross_entropy": losses.cross_entropy(types, true, valid),
            "type_dice": losses.dice(types, true, valid),
            "type_focal_tversky": losses.focal_tversky_per_class(
                self.again(types), true, weights, valid
            ),
        }

    def again(self, p: jax.Array) -> jax.Array:
        """What the Tversky losses see of probabilities."""
        return jax.nn.softmax(p) if self.double_softmax else p


def weighted(terms: Metrics, weights: object) -> jax.Array:
    """The sum of terms, each times the field of its name in `weights`."""
    return jnp.sum(jnp.stack([getattr(weights, name) * value for name, value in terms.items()]))


def normalise(model: CellViT | Encoder, images: jax.Array) -> jax.Array:
    """uint8 RGB to what the network sees, as its card says."""
    assert model.card is not None
    images = images.astype(precise(model.dtype)) / 255
    return (images - jnp.asarray(model.card.mean)) / jnp.asarray(model.card.std)
