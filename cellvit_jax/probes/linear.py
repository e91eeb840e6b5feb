"""A linear probe: logistic regression on patches, each with the label of its slide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.optimize import minimize

from cellvit_jax.heads.fit import class_weights
from cellvit_jax.heads.training import spread
from cellvit_jax.models import LinearProbe, LinearProbeConfig
from cellvit_jax.probes.bags import Bags, joined
from cellvit_jax.probes.predict import Predicted, predicted

PENALTIES = tuple(10.0**n for n in range(0, -7, -1))  # strongest first: each starts from the last
NEVER = -30.0  # the bias of a class that nothing was learned of
STEPS = 500


@dataclasses.dataclass(frozen=True)
class Recipe:
    """L-BFGS to convergence. `l2`, the weight of half the squared norm, is chosen on validation
    slides unless it is given; without such slides it is 0.01."""

    l2: float | None = None
    balanced: bool = True
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A probe, and what was chosen, by the recipe's names."""

    model: LinearProbe
    chosen: dict[str, Any]

    def __call__(self, bags: Bags) -> Predicted:
        """What it says of bags."""
        return predicted(self.model, bags)


def fit(train: Bags, val: Bags, classes: int, recipe: Recipe) -> Fitted:
    """The probe with the penalty that gives `val` the least log loss, of both parts together.

    All slides weigh the same, however many patches they have, and with `balanced` all classes.
    """
    l2 = recipe.l2
    if l2 is None:
        l2 = _best(train, val, classes, recipe.balanced) if len(val) else 0.01
    return Fitted(next(path(joined(train, val), classes, (l2,), recipe.balanced)), {"l2": l2})


def _best(train: Bags, val: Bags, classes: int, balanced: bool) -> float:
    probes = path(train, classes, PENALTIES, balanced)
    losses = [log_loss(predicted(probe, val).chances, val.labels) for probe in probes]
    return PENALTIES[int(np.argmin(losses))]


def log_loss(chances: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -log of what each bag's own class was given; classes weigh the same."""
    own = -np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-9))
    return float(np.mean([own[labels == label].mean() for label in np.unique(labels)]))


def path(
    bags: Bags, classes: int, penalties: tuple[float, ...], balanced: bool
) -> Iterator[LinearProbe]:
    """The probes of these penalties, one by one."""
    there, labels = np.unique(bags.labels, return_inverse=True)
    mean, std = spread(bags.vectors)
    weights = class_weights(np.bincount(labels), balanced)[labels] / bags.sizes
    weights = (weights / (weights * bags.sizes).sum()).astype(np.float32)
    owners = bags.owners
    data = jax.device_put(((bags.vectors - mean) / std, labels[owners], weights[owners]))
    flat = np.zeros((bags.vectors.shape[1] + 1) * len(there))
    for l2 in penalties:
        found = minimize(
            _value_and_grad, flat, (*data, l2), jac=True, method="L-BFGS-B", options=_OPTIONS
        )
        flat = found.x
        yield _probe(np.float32(flat).reshape(-1, len(there)), there, classes, mean, std)


_OPTIONS = {"maxiter": STEPS, "ftol": 1e-8, "gtol": 1e-6}


def _value_and_grad(flat, vectors, labels, weights, l2):
    value, grad = _objective(jnp.asarray(flat, jnp.float32), vectors, labels, weights, l2)
    return float(value), np.asarray(grad, np.float64)


@jax.jit
@jax.value_and_grad
def _objective(flat, vectors, labels, weights, l2):
    """Weighted cross-entropy; `flat` is the kernel (D, K) above the bias (1, K)."""
    table = flat.reshape(vectors.shape[1] + 1, -1)
    chances = jax.nn.log_softmax(vectors @ table[:-1] + table[-1])
    own = jnp.take_along_axis(chances, labels[:, None], 1)[:, 0]
    return -(own * weights).sum() + l2 / 2 * jnp.square(table[:-1]).sum()


def _probe(table, there, classes, mean, std) -> LinearProbe:
    """The probe for vectors as they are; classes that were not there are never said."""
    dim = len(table) - 1
    kernel = np.zeros((dim, classes), np.float32)
    bias = np.full(classes, NEVER, np.float32)
    kernel[:, there] = table[:-1] / std[:, None]
    bias[there] = table[-1] - mean @ kernel[:, there]
    probe = LinearProbe(LinearProbeConfig(dim, classes), rngs=nnx.Rngs(0))
    probe.fc.kernel[...], probe.fc.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
    return probe
