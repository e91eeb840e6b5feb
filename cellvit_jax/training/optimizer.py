"""The optimizer that a recipe asks for, composed from optax."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from cellvit_jax.training.recipes import Recipe, Schedule


def optimizer(recipe: Recipe, *, encoder_rests: bool) -> optax.GradientTransformation:
    """AdamW on every parameter, whose names are the keys of a dictionary.

    Its state has the same form whether or not the encoder rests: a run goes from one to the other.
    """
    transforms = {"encoder": adamw(recipe, start=thaw(recipe)), "rest": adamw(recipe)}
    if encoder_rests:
        transforms["encoder"] = resting(transforms["encoder"])
    chain = [optax.partition(transforms, parts)] if thaw(recipe) else [transforms["rest"]]
    if recipe.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(recipe.clip_norm))
    composed = optax.chain(*chain)
    if recipe.accumulate == 1:
        return composed
    return optax.MultiSteps(composed, recipe.accumulate).gradient_transformation()


def in_encoder(name: str) -> bool:
    """Whether a weight belongs to the encoder, of which the tissue head is no part."""
    return name.startswith("encoder.") and not name.startswith("encoder.head.")


def parts(params: Mapping[str, jax.Array]) -> dict[str, str]:
    """The part that each parameter belongs to."""
    return {name: "encoder" if in_encoder(name) else "rest" for name in params}


def thaw(recipe: Recipe) -> int:
    """The update at which a frozen encoder begins to move; 0 if it always does, or never."""
    return (recipe.unfreeze_epoch or 0) * recipe.steps_per_epoch // recipe.accumulate


def adamw(recipe: Recipe, *, start: int = 0) -> optax.GradientTransformation:
    """For weights that are first updated when `start` updates of others have been made."""
    rate = learning_rate(recipe)
    b1, b2 = recipe.betas
    return optax.adamw(
        lambda count: rate(count + start), b1=b1, b2=b2, weight_decay=recipe.weight_decay
    )


def resting(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Leaves the weights and its own state as they are."""

    def update(updates, state, params=None):
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformation(transform.init, update)


def learning_rate(recipe: Recipe) -> optax.Schedule:
    """The learning rate by the number of updates made."""
    schedule = recipe.schedule
    updates, epoch = (n // recipe.accumulate for n in (recipe.steps, recipe.steps_per_epoch))
    warmup = schedule.warmup_steps // recipe.accumulate
    after = KINDS[schedule.kind](schedule, max(updates - warmup, 1), max(epoch, 1))
    if not warmup:
        return after
    warming = optax.linear_schedule(0.0, schedule.peak, warmup)
    return optax.join_schedules([warming, after], [warmup])


def constant(schedule: Schedule, updates: int, epoch: int) -> optax.Schedule:
    decay = round(updates * schedule.decay_share)
    stay = optax.constant_schedule(schedule.peak)
    if not decay:
        return stay
    fall = optax.linear_schedule(schedule.peak, 0.0, decay)
    return optax.join_schedules([stay, fall], [updates - decay])


def exponential(schedule: Schedule, updates: int, epoch: int) -> optax.Schedule:
    return optax.exponential_decay(schedule.peak, epoch, schedule.factor, staircase=True)


def cosine(schedule: Schedule, updates: int, epoch: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(schedule.peak, updates)


KINDS: dict[str, Callable[[Schedule, int, int], optax.Schedule]] = {
    "constant": constant,
    "exponential": exponential,
    "cosine": cosine,
}
