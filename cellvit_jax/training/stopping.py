"""Stop on a signal, between two steps."""

from __future__ import annotations

import signal
import threading
from typing import Any

import jax

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Within the block, `asked(step)` says whether SIGTERM or SIGINT came.

    `came` stays true afterwards. A second signal ends the process as it would have without this.
    """

    def __enter__(self) -> Stopping:
        self.came = False
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def asked(self, step: int) -> bool:
        """Whether to stop before this step; processes of one run agree on it."""
        if jax.process_count() == 1:
            return self.came
        if step % 10:  # the processes wait for each other
            return False
        from jax.experimental import multihost_utils

        came = multihost_utils.process_allgather(jax.numpy.asarray(self.came))
        self.came = bool(came.any())
        return self.came

    def _note(self, *_: object) -> None:
        self.came = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
