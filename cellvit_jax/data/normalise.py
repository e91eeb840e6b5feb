"""Fields in the colours of one staining."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from cellvit_jax.data.dataset import Sample
from cellvit_jax.stains import Staining, stained_as


@dataclasses.dataclass(frozen=True)
class Normalised:
    """`samples` with every image stained as `reference` (Macenko et al. 2009), when they are read.

    A network that was trained on these has to be given such images ever after: see `stained_as`.
    """

    samples: Sequence[Sample]
    reference: Staining = dataclasses.field(default_factory=Staining)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return dataclasses.replace(sample, image=stained_as(sample.image, self.reference))
