"""The weighted sum of losses that a CellViT is trained on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from cellvit_jax.models import CellViT
from cellvit_jax.training import losses

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights of the branches' losses; the defaults are the published recipe's.

    `mean` and `std` normalise the pixels. With `double_softmax` the two Tversky losses see
    probabilities that went through softmax twice, as the published networks were trained.
    """

    binary_focal_tversky: float = 1.0
    binary_dice: float = 1.0
    hv_mse: float = 2.5
    hv_msge: float = 8.0
    type_cross_entropy: float = 0.5
    type_dice: float = 0.2
    type_focal_tversky: float = 0.5
    double_softmax: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, model: CellViT, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        """The total and each unweighted term, for a batch as `data.pipeline.encode` makes it."""
        maps = model(self.normalise(batch["image"]))
        terms = self.terms(maps, batch, model.config.num_classes)
        total = jnp.sum(jnp.stack([getattr(self, name) * value for name, value in terms.items()]))
        return total, terms | {"loss": total}

    def normalise(self, images: jax.Array) -> jax.Array:
        """uint8 RGB to what the network sees."""
        images = images.astype(jnp.float32) / 255
        return (images - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def terms(self, maps: Metrics, batch: dict[str, jax.Array], num_classes: int) -> Metrics:
        """Every loss by the name of its weight."""
        nuclei = batch["nuclei"].astype(jnp.float32)
        true_binary = jnp.stack([1 - nuclei, nuclei], axis=-1)
        true_types = jax.nn.one_hot(batch["types"], num_classes)
        valid = batch["typed"][:, None, None, None]
        binary = jax.nn.softmax(maps["nuclei_binary_map"])
        types = jax.nn.softmax(maps["nuclei_type_map"])
        again = jax.nn.softmax if self.double_softmax else (lambda p: p)
        return {
            "binary_focal_tversky": losses.focal_tversky(again(binary), true_binary),
            "binary_dice": losses.dice(binary, true_binary),
            "hv_mse": losses.mse(maps["hv_map"], batch["hv"]),
            "hv_msge": losses.msge(maps["hv_map"], batch["hv"], nuclei),
            "type_cross_entropy": losses.cross_entropy(types, true_types, valid),
            "type_dice": losses.dice(types, true_types, valid),
            "type_focal_tversky": losses.focal_tversky_per_class(
                again(types), true_types, valid=valid
            ),
        }
