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
from cellvit_jax.training.losses import mse
from cellvit_jax.training.objective import Metrics, weighted
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Losses:
    """Weights of what a student is to learn from its teacher; 0 leaves a part out.

    `features` are the four skips; the teacher must have maps for the others. `found` is the
    recipe's objective, which what the teacher finds takes part in as annotations do. Binary and
    type maps are also compared as probabilities at `temperature`: a higher one tells more of how
    likely the unlikely is (Hinton et al. 2015).
    """

    features: float = 1.0
    found: float = 1.0
    binary: float = 1.0
    types: float = 0.5
    temperature: float = 2.0

    @classmethod
    def of_features(cls) -> Losses:
        """What an encoder alone can teach."""
        return cls(found=0.0, binary=0.0, types=0.0)

    @property
    def maps(self) -> bool:
        """Whether the teacher's maps count."""
        return any((self.found, self.binary, self.types))


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
        total = weighted(terms, self.losses)
        return total, terms | {"loss": total}

    def terms(self, student: Seen, teacher: Seen) -> Metrics:
        """Every loss that counts, by the name of its weight."""
        made: dict[str, Callable[[], jax.Array]] = {
            "features": lambda: feature_loss(student.skips, teacher.skips),
            "found": lambda: self.found(student.maps, teacher.maps),
            "binary": lambda: self.divergence("nuclei_binary_map", student, teacher),
            "types": lambda: self.divergence("nuclei_type_map", student, teacher),
        }
        return {name: loss() for name, loss in made.items() if getattr(self.losses, name)}

    def found(self, student: Metrics, teacher: Metrics) -> jax.Array:
        """The objective of maps; types count where those of both networks are the same."""
        objective, batch = self.recipe.objective, as_annotations(teacher)
        terms = objective.nuclei(student, batch)
        if self.losses.types:
            terms |= objective.types(student["nuclei_type_map"], batch)
        return weighted(terms, objective)

    def divergence(self, name: str, student: Seen, teacher: Seen) -> jax.Array:
        """That of a map of logits."""
        return soft_divergence(student.maps[name], teacher.maps[name], self.losses.temperature)


def as_annotations(maps: Metrics) -> Metrics:
    """What a network finds, as a batch has what people found."""
    return {
        "nuclei": maps["nuclei_binary_map"].argmax(-1),
        "hv": maps["hv_map"],
        "types": maps["nuclei_type_map"].argmax(-1),
        "typed": jnp.ones(len(maps["hv_map"])),
    }


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


def soft_divergence(logits: jax.Array, target: jax.Array, temperature: float) -> jax.Array:
    """Mean over pixels of KL(target ‖ student) of softened logits (B,H,W,C), times temperature².

    The factor keeps gradients of one size whatever the temperature (Hinton et al. 2015).
    """
    log_p, log_q = (jax.nn.log_softmax(z / temperature) for z in (target, logits))
    divergence = (jnp.exp(log_p) * (log_p - log_q)).sum(-1)
    return temperature**2 * jnp.mean(divergence)
