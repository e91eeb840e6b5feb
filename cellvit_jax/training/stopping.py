"""Stop on a signal, between two steps."""

from __future__ import annotations

import signal
import threading
from typing import Any

import jax

from cellvit_jax import hosts

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EVERY = 10  # steps


class Stopping:
    """Within the block, `asked(step)` says whether SIGTERM or SIGINT came.

    `came` stays true afterwards. A second signal ends the process as it would have without this.
    The processes of one run agree, in that they wait for each other.
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
        """Whether to stop before this step; several processes ask each other at every tenth."""
        return (jax.process_count() == 1 or step % EVERY == 0) and self.agreed()

    def agreed(self) -> bool:
        """Whether a signal came to any process."""
        self.came = any(hosts.told(self.came))
        return self.came

    def _note(self, *_: object) -> None:
        self.came = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
