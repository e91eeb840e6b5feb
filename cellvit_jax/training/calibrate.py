"""Batch statistics for inference, measured with the final weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from cellvit_jax.training.objective import normalise


def calibrate(model: Any, batches: Iterable[Mapping[str, ArrayLike]]) -> None:
    """Replace the running statistics of every BatchNorm by their mean over `batches`, in place.

    Running averages forget all but the last ten or so steps, and with small batches these are few
    images; the mean over many batches is what the weights have adapted to ("precise BN", Wu and
    Johnson 2021). A network without BatchNorm takes no batch.
    """
    if not jax.tree.leaves(nnx.state(model, nnx.BatchStat)):
        return
    graphdef, state = nnx.split(_forgetful(model))
    found = [_measure(graphdef, state, batch["image"]) for batch in batches]
    nnx.update(model, jax.tree.map(lambda *statistics: sum(statistics) / len(found), *found))


def _forgetful(model: Any) -> Any:
    """A copy whose running statistics are those of the last batch alone; it drops nothing."""
    model = nnx.view(nnx.clone(model), deterministic=True, use_running_average=False)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
    return model


# the structure is an argument, so that one program serves all epochs
@partial(jax.jit, static_argnums=0)
def _measure(graphdef, state, images):
    model = nnx.merge(graphdef, state)
    model(normalise(model, images))
    return nnx.state(model, nnx.BatchStat)
