"""Stages that run at the same time: generators with a bounded queue between them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()
_PATIENCE = 0.1  # seconds after which a full queue is looked at again


def ahead(items: Iterable[Item], size: int) -> Iterator[Item]:
    """The items in order, made in a thread of their own, up to `size` of them before their time.

    An exception of the items is raised here after those before it. Whoever stops early closes the
    generator, which waits until the thread has stopped.
    """
    made: queue.Queue[Any] = queue.Queue(size)
    stopped = threading.Event()
    thread = threading.Thread(target=_make, args=(items, made, stopped), daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


def _make(items: Iterable[Any], made: queue.Queue[Any], stopped: threading.Event) -> None:
    try:
        for item in items:
            if not _put(made, (item, None), stopped):
                break
        else:
            _put(made, (_END, None), stopped)
    except BaseException as error:
        _put(made, (_END, error), stopped)
    finally:
        if close := getattr(items, "close", None):
            with contextlib.suppress(Exception):
                close()


def _put(made: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            made.put(item, timeout=_PATIENCE)
            return True
    return False


def parallel(
    function: Callable[[Item], Result], items: Iterable[Item], pool: Executor, size: int
) -> Iterator[Result]:
    """`function` of every item, in order, by the threads of `pool`, up to `size` at a time."""
    futures = ahead((pool.submit(function, item) for item in items), size)
    try:
        for future in futures:
            yield future.result()
    finally:
        cast(Any, futures).close()
