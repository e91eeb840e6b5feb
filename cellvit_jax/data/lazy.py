"""Fields that are read when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from cellvit_jax.data.dataset import Dataset, Sample


@dataclasses.dataclass(frozen=True, eq=False)
class Lazy(Sequence[Sample]):
    """`read(item)` for each of the items, anew at every access.

    Several threads may read at once. With a function of a module (or a `functools.partial` of one)
    and plain items, such as paths, worker processes get it cheaply: no pixels are pickled.
    """

    read: Callable[[Any], Sample]
    items: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy: ...
    def __getitem__(self, index: int | slice) -> Sample | Lazy:
        if isinstance(index, slice):
            return Lazy(self.read, self.items[index])
        return self.read(self.items[index])


# passes on the items of what is called so, of which some are done of so many: see progress.Watch
Watch = Callable[[Iterator[Any], str, int, int], Iterator[Any]]


def unwatched(items: Iterator[Any], name: str, done: int, total: int) -> Iterator[Any]:
    """The items, and nothing shown."""
    return items


def watched(dataset: Dataset, split: str, watch: Watch) -> Iterator[Sample]:
    """The fields of a split, one by one."""
    return watch(iter(dataset.samples), split, 0, len(dataset.samples))
