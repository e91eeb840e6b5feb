"""How far the work is, for people who wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cellvit_jax.errors import printable

Item = TypeVar("Item")
PAUSE = 60.0  # seconds between two lines where there is no terminal


class Watch(Protocol):
    """Passes items on and shows that they pass."""

    def __call__(self, items: Iterator[Item], name: str, done: int, total: int) -> Iterator[Item]:
        """The `items` of what is called `name`, of which `done` of a `total` are there already."""


def watch(quiet: bool) -> Watch:
    """A bar on a terminal, a line every minute elsewhere, on stderr; nothing if `quiet`."""
    console = Console(stderr=True)
    if quiet:
        return _nothing
    return _bar(console) if console.is_terminal else _lines(console)


def _nothing(items: Iterator[Item], name: str, done: int, total: int) -> Iterator[Item]:
    return items


def _bar(console: Console) -> Watch:
    def bar(items, name, done, total):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as shown:
            task = shown.add_task(printable(name), total=total, completed=done)
            for item in items:
                shown.advance(task)
                yield item

    return bar


def _lines(console: Console, clock: Callable[[], float] = time.monotonic) -> Watch:
    def lines(items, name, done, total):
        said = clock()
        for count, item in enumerate(items, done + 1):
            if clock() - said >= PAUSE:
                said = clock()
                console.print(f"{printable(name)}: {count} of {total}", highlight=False)
            yield item

    return lines
