"""Distillation: a student learns to see what a frozen teacher sees, without annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cellvit_jax.models import ModelConfig
from cellvit_jax.models.vit import precise
from cellvit_jax.pretraining.teacher import Seen, Teacher, see
from cellvit_jax.training.losses import dice, mse, msge
from cellvit_jax.training.objective import Metrics
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Losses:
    """Weights of what a student is to learn from its teacher; 0 leaves a part out.

    `features` are the four skips; the teacher must have maps for the others. Binary and type maps
    are compared as probabilities at `temperature`: a higher one tells more of how likely the
    unlikely is (Hinton et al. 2015). Nuclei are few pixels, and would be learnt late by these
    alone: `overlap` is soft Dice of the binary map, `hv_gradients` the error of the distances'
    slopes inside the teacher's nuclei, as in training from annotations.
    """

    features: float = 1.0
    binary: float = 1.0
    overlap: float = 3.0
    hv: float = 5.0
    hv_gradients: float = 4.0
    types: float = 0.5
    temperature: float = 2.0

    @classmethod
    def of_features(cls) -> Losses:
        """What an encoder alone can teach."""
        return cls(binary=0.0, overlap=0.0, hv=0.0, hv_gradients=0.0, types=0.0)

    @property
    def maps(self) -> bool:
        """Whether the teacher's maps count."""
        return any((self.binary, self.overlap, self.hv, self.hv_gradients, self.types))


@dataclasses.dataclass(frozen=True, eq=False)
class Distillation:
    """The task of a student: `losses` between what it sees of an image and what `teacher` sees.

    For every skip it gets a linear layer to the teacher's width, which only training needs.
    """

    config: ModelConfig
    recipe: Recipe
    teacher: Teacher
    losses: Losses

    @property
    def given(self) -> Mapping[str, Any]:
        """The teacher's weights."""
        return {"teacher": self.teacher.weights}

    def network(self, rngs: nnx.Rngs) -> Any:
        """The student, with its linear layers as `widen`."""
        model = network(self.config, self.recipe, rngs)
        widths, dtype = (self.config.embed_dim, self.teacher.config.embed_dim), self.recipe.dtype
        model.widen = nnx.List(
            [nnx.Linear(*widths, dtype=precise(dtype), rngs=rngs) for _ in range(4)]
        )
        return model

    def loss(
        self, model: Any, batch: Mapping[str, Any], average: Callable[[], Any]
    ) -> tuple[jax.Array, Metrics]:
        """The weighted sum, and each term unweighted, for a batch of `image` (B,H,W,3) uint8."""
        teacher = self.teacher(batch["teacher"], batch["image"])
        student = see(model, batch["image"], maps=self.losses.maps)
        widened = [widen(z) for widen, z in zip(model.widen, student.skips, strict=True)]
        terms = self.terms(Seen(tuple(widened), student.maps), teacher)
        total = jnp.sum(jnp.stack([getattr(self.losses, name) * v for name, v in terms.items()]))
        return total, terms | {"loss": total}

    def terms(self, student: Seen, teacher: Seen) -> Metrics:
        """Every loss that counts, by the name of its weight."""

        def both(name: str) -> tuple[jax.Array, jax.Array]:
            return student.maps[name], teacher.maps[name]

        made: dict[str, Callable[[], jax.Array]] = {
            "features": lambda: feature_loss(student.skips, teacher.skips),
            "binary": lambda: soft_divergence(*both("nuclei_binary_map"), self.losses.temperature),
            "overlap": lambda: soft_dice(*both("nuclei_binary_map")),
            "hv": lambda: mse(*both("hv_map")),
            "hv_gradients": lambda: msge(*both("hv_map"), nuclei(teacher)),
            "types": lambda: soft_divergence(*both("nuclei_type_map"), self.losses.temperature),
        }
        return {name: loss() for name, loss in made.items() if getattr(self.losses, name)}


def nuclei(seen: Seen) -> jax.Array:
    """Where there are nuclei, (B,H,W) of 0 and 1."""
    return seen.maps["nuclei_binary_map"].argmax(-1).astype(jnp.float32)


def feature_loss(student: tuple[jax.Array, ...], teacher: tuple[jax.Array, ...]) -> jax.Array:
    """Mean squared error of skips (B,h,w,D), the teacher's resampled to the student's grid.

    The teacher's tokens are brought to mean 0 and variance 1 each, lest the few channels with large
    values be all that is learnt (Wei et al. 2022, "Contrastive learning rivals masked image
    modeling in fine-tuning via feature distillation").
    """
    pairs = zip(student, teacher, strict=True)
    return jnp.mean(jnp.stack([mse(s, whitened(resampled(t, s.shape[1:3]))) for s, t in pairs]))


def resampled(grid: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """A grid (B,h,w,D) at another `size` (h,w), linearly, averaged where it gets smaller."""
    if grid.shape[1:3] == size:
        return grid
    return jax.image.resize(grid, (len(grid), *size, grid.shape[-1]), "linear")


def whitened(tokens: jax.Array) -> jax.Array:
    """Tokens (…,D) with mean 0 and variance 1."""
    centred = tokens - tokens.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def soft_dice(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Soft Dice loss of the probabilities of two maps of logits (B,H,W,C), summed over classes."""
    return dice(jax.nn.softmax(logits), jax.nn.softmax(target))


def soft_divergence(logits: jax.Array, target: jax.Array, temperature: float) -> jax.Array:
    """Mean over pixels of KL(target ‖ student) of softened logits (B,H,W,C), times temperature².

    The factor keeps gradients of one size whatever the temperature (Hinton et al. 2015).
    """
    log_p, log_q = (jax.nn.log_softmax(z / temperature) for z in (target, logits))
    divergence = (jnp.exp(log_p) * (log_p - log_q)).sum(-1)
    return temperature**2 * jnp.mean(divergence)
