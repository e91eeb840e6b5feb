"""Open pictures, as many as a limit of memory allows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cellvit_jax.slides import ImageSlide, Resampled

Key = TypeVar("Key", bound=Hashable)
SLIDE = 2**24  # bytes that a reader of whole slides is taken to hold


class Held(Generic[Key]):
    """What `open` gives, kept until `limit` bytes are held: then the longest unused goes.

    Threads may share it. A copy in another process begins empty.
    """

    def __init__(self, limit: int = 2**30):
        self._limit = limit
        self._lock = threading.Lock()
        self._views: OrderedDict[Key, Resampled] = OrderedDict()
        self._bytes = 0

    def __reduce__(self):
        return type(self), (self._limit,)

    def __call__(self, key: Key, open: Callable[[], Resampled]) -> Resampled:
        """The view of that key, opened where it is not held."""
        with self._lock:
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key]
        view = open()  # two threads may do so at once: better than one that waits for the other
        with self._lock:
            if key not in self._views:
                self._views[key] = view
                self._bytes += size(view)
            while self._bytes > self._limit and len(self._views) > 1:
                self._bytes -= size(self._views.popitem(last=False)[1])
        return view


def size(view: Resampled) -> int:
    """Bytes that a view holds, about."""
    return view.slide.pixels.nbytes if isinstance(view.slide, ImageSlide) else SLIDE
