"""Self-distillation: a student sees parts of a tile, its own average all of it (DINO).

Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cellvit_jax.models import EncoderConfig
from cellvit_jax.models.vit import precise
from cellvit_jax.pretraining.pooling import Pool, Projector, unit, vectors
from cellvit_jax.training.objective import Metrics
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import network


class Prototypes(nnx.Module):
    """Logits (…,count): cosine similarities of vectors to directions that are learnt."""

    def __init__(self, dim: int, count: int, *, rngs: nnx.Rngs):
        self.directions = nnx.Param(jax.random.normal(rngs.params(), (dim, count)))

    def __call__(self, x: jax.Array, *, rest: jax.Array) -> jax.Array:
        """With `rest` () bool the directions get no gradient."""
        directions = self.directions[...]
        directions = jnp.where(rest, jax.lax.stop_gradient(directions), directions)
        return unit(x) @ unit(directions.astype(x.dtype), axis=0)


@dataclasses.dataclass(frozen=True)
class SelfDistillation:
    """The task: batches of `whole` (B,G,H,W,3) and `parts` (B,L,h,w,3), views in uint8.

    A head of three layers `hidden` wide, then `bottleneck`, and of `prototypes` is left behind when
    training ends. The teacher is the network with averaged weights (`Recipe.ema_decay`, which is
    needed), head and all. Its temperature rises from the first to the second of
    `teacher_temperature` over the first `warmup_steps`; for `rest_steps` prototypes are not learnt.
    """

    config: EncoderConfig
    recipe: Recipe
    pool: Pool = "cls"
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65536
    temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    warmup_steps: int = 0
    rest_steps: int = 0
    centre_momentum: float = 0.9

    @property
    def given(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def network(self, rngs: nnx.Rngs) -> Any:
        """The encoder, with its head, and with the centre and the number of steps made."""
        model = network(self.config, self.recipe, rngs)
        widths = (self.config.embed_dim, self.hidden, self.hidden, self.bottleneck)
        model.projector = Projector(*widths, dtype=self.recipe.dtype, rngs=rngs)
        model.prototypes = Prototypes(self.bottleneck, self.prototypes, rngs=rngs)
        model.centre = nnx.BatchStat(jnp.zeros(self.prototypes, precise(self.recipe.dtype)))
        model.steps = nnx.BatchStat(jnp.zeros((), precise(self.recipe.dtype)))
        return model

    def loss(
        self, model: Any, batch: Mapping[str, Any], average: Callable[[], Any]
    ) -> tuple[jax.Array, Metrics]:
        """`cross_entropy`, and the entropies (nats) of what the teacher says and of its mean.

        A collapse shows in these: either both are 0, or both are the logarithm of `prototypes`.
        """
        views = [batch[name] for name in ("whole", "parts") if name in batch]
        student = jnp.concatenate([self.logits(model, view) for view in views], axis=1)
        raw = jax.lax.stop_gradient(self.logits(average(), batch["whole"]))
        sharp = self.sharpness(model.steps[...])
        teacher = jax.nn.softmax((raw - model.centre[...]) / sharp)
        loss = cross_entropy(student / self.temperature, teacher)
        model.centre[...] = moved(model.centre[...], raw, self.centre_momentum)
        model.steps[...] += 1
        mean = entropy(teacher.mean((0, 1)))
        return loss, {"loss": loss, "teacher": entropy(teacher).mean(), "teacher_mean": mean}

    def logits(self, model: Any, views: jax.Array) -> jax.Array:
        """(B,V,prototypes) of views (B,V,H,W,3)."""
        projected = model.projector(vectors(model, views, self.pool))
        return model.prototypes(projected, rest=model.steps[...] < self.rest_steps)

    def sharpness(self, step: jax.Array) -> jax.Array:
        """The teacher's temperature."""
        first, last = self.teacher_temperature
        return first + (last - first) * jnp.minimum(step / max(self.warmup_steps, 1), 1)


def cross_entropy(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean over images and pairs of unlike views of −Σ teacher · log softmax(student).

    `student` (B,V,K) are logits, of which the first G are of the views that the teacher saw;
    `teacher` (B,G,K) are probabilities, which get no gradient.
    """
    seen = teacher.shape[1]
    teacher, log = jax.lax.stop_gradient(teacher), jax.nn.log_softmax(student)
    all_pairs = jnp.sum(teacher.sum(1) * log.sum(1), -1)
    like = jnp.sum(teacher * log[:, :seen], (1, 2))
    return jnp.mean(like - all_pairs) / (seen * (student.shape[1] - 1))


def moved(centre: jax.Array, logits: jax.Array, momentum: float) -> jax.Array:
    """The centre (K,) after the teacher gave `logits` (B,G,K): those of the global batch."""
    return momentum * centre + (1 - momentum) * logits.mean((0, 1))


def entropy(p: jax.Array) -> jax.Array:
    """In nats, of distributions along the last axis."""
    return -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-12)), -1)
