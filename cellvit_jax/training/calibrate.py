"""Batch statistics for inference, measured with the final weights."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import jax
from flax import nnx

from cellvit_jax.data.pipeline import Batch
from cellvit_jax.models import CellViT
from cellvit_jax.training.objective import Objective


def calibrate(model: CellViT, objective: Objective, batches: Iterable[Batch]) -> None:
    """Replace the running statistics of every BatchNorm by their mean over `batches`, in place.

    Running averages forget all but the last ten or so steps, and with small batches these are few
    images; the mean over many batches is what the weights have adapted to ("precise BN", Wu and
    Johnson 2021).
    """
    graphdef, state = nnx.split(_forgetful(model))
    measure = jax.jit(partial(_measure, graphdef, objective))
    found = [measure(state, batch["image"]) for batch in batches]
    nnx.update(model, jax.tree.map(lambda *statistics: sum(statistics) / len(found), *found))


def _forgetful(model: CellViT) -> CellViT:
    """A copy whose running statistics are those of the last batch alone."""
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
    return model


def _measure(graphdef, objective, state, images):
    model = nnx.merge(graphdef, state)
    model(objective.normalise(images))
    return nnx.state(model, nnx.BatchStat)
