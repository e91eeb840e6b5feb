"""The slides of a cohort on a cluster that is there already, by dask.distributed.

Of the engines that are kept well it is the smallest (142 MB with all it needs, Ray 355 MB), it runs
on Slurm, Kubernetes, PBS and LSF by launchers of its own project, and does the work of a worker
that died again. What is submitted is the job that a single process does, slide by slide.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.inference.cohort import Outcome
from cellvit_jax.inference.run import Task, attempt
from cellvit_jax.slides.collection import Listed

PATIENCE = "30s"  # to reach the scheduler

_one_at_a_time = threading.Lock()  # a worker's threads share one network


def outcomes(slides: Sequence[Listed], task: Task, scheduler: str) -> Iterator[Outcome]:
    """What became of each slide, as they become done by the workers of a `scheduler`.

    `scheduler` is an address such as tcp://node:8786. Workers need this package, the slides and the
    output folder under the same paths; one that dies loses no more than a process that is killed.
    Raises InputError where there is no scheduler, MissingExtraError.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MissingExtraError("distributed", "cluster") from error
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise InputError(f"no dask scheduler answers at {scheduler} ({error})") from error
    with client:
        names = [f"cellvit-jax-{source.name}" for source in slides]
        futures = client.map(job, slides, task=task.portable(), key=names, pure=False)
        for future in distributed.as_completed(futures):
            yield future.result()


def job(source: Listed, task: Task) -> Outcome:
    """One slide, in a worker."""
    with _one_at_a_time:
        return attempt(source, _resident(task))


@functools.lru_cache(maxsize=1)
def _resident(task: Task) -> Task:
    """The task with the network that the slide before has loaded."""
    return task
