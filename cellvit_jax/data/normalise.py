"""Fields in the colours of one staining."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.stains import stained_as


def normalised(samples: Sequence[Sample]) -> Lazy:
    """`samples` in the colours of Macenko's reference (Macenko et al. 2009), when they are read.

    A network that was trained on these has to be shown such images ever after: `ModelCard.stain`.
    """
    return Lazy(partial(_normalised, samples), tuple(range(len(samples))))


def _normalised(samples: Sequence[Sample], index: int) -> Sample:
    sample = samples[index]
    return dataclasses.replace(sample, image=stained_as(sample.image))
