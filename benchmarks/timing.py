"""How the programs in this folder take times and print them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

Clock = Callable[[], float]


def milliseconds(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Of one call; `time.process_time` as `clock` is hardly changed by other programs."""
    start = clock()
    call()
    return 1000 * (clock() - start)


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Times of every call, all of them once a round, so that a load falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(milliseconds(call, clock))
    return times


def spread(times: Sequence[float], digits: int = 1) -> str:
    """Median and quartiles."""
    low, median, high = quartiles(times)
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratio(times: Sequence[float], baseline: Sequence[float]) -> str:
    """Median and quartiles of the ratio, round by round."""
    return spread([a / b for a, b in zip(times, baseline, strict=True)], 2)


def quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    if len(times) == 1:
        return times[0], times[0], times[0]
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, median, high


def load() -> str:
    """What else the machine does."""
    return f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}"


def beside_torch(wanted: bool) -> bool:
    """Whether a twin in PyTorch can take turns with JAX, which then leaves it memory on a GPU.

    Says so where it is wanted and PyTorch is missing. To be called before JAX looks for devices.
    """
    if wanted and not find_spec("torch"):
        print("PyTorch is missing, so no twin: pip install 'cellvit-jax[bench]'\n")
        return False
    if wanted:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return wanted
