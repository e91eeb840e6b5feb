"""The command `cellvit-jax train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from cellvit_jax.errors import InputError

STOPPED = 143  # exit code after SIGTERM, as shells have it


def train(
    data: tuple[str, ...] = (),
    model: str | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    assign: Annotated[UseAppendAction[list[str]], arg(name="set", metavar="NAME=VALUE")] = [],  # noqa: B006
    overfit_one_batch: bool = False,
    dry_run: bool = False,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    multihost: bool = False,
    quiet: bool = False,
) -> None:
    """Train a network, or train one further, on annotated images.

    A run that was stopped goes on where it was when it is started again in the same way. OUT/best
    is a model folder with the weights of the best validation score, OUT/last one with the final
    ones; OUT/config.json has all that the run was made of, and `--config` repeats it.

    Args:
        data: folders of annotated images in any layout (see `cellvit-jax data inspect`).
        model: what to begin with: a model folder or bundled model (by default cellvit-tiny-consep)
            to train further, the folder of an encoder, or cellvit-tiny, cellvit-256,
            cellvit-sam-h, … for random weights.
        out: folder of the run; by default runs/MODEL-DATA.
        recipe: finetune (by default for trained weights), demo (by default for random ones) or
            pannuke, the published one.
        config: a run's config.json to repeat or go on with, in place of data, model and recipe.
        assign: change a value of the config, such as recipe.schedule.peak=1e-4; can be given
            several times.
        overfit_one_batch: train on the first batch alone, to see whether the network can learn.
        dry_run: show shapes, parameters and memory, make one step, and write nothing.
        coordinator: of several hosts, address of process 0 as HOST:PORT.
        processes: how many hosts.
        process: which of them this is, from 0.
        multihost: one of several hosts that find each other: a TPU pod, or Slurm.
        quiet: print nothing but errors.
    """
    from cellvit_jax.training import command

    join_hosts(coordinator, processes, process, multihost)
    chosen = command.Arguments(data, model, out, recipe, config, tuple(assign), overfit_one_batch)
    if command.run(chosen, dry_run=dry_run, quiet=quiet):
        sys.exit(STOPPED)


def join_hosts(
    coordinator: str | None, processes: int | None, process: int | None, multihost: bool
) -> None:
    """Join the other hosts of a run, if there are any. Raises `InputError` for half an answer."""
    told = [value is not None for value in (coordinator, processes, process)]
    if any(told) and not (multihost or all(told)):
        raise InputError(
            "several hosts need all of --coordinator HOST:PORT --processes N --process I, or "
            "--multihost where they can find each other"
        )
    if multihost or coordinator:
        from cellvit_jax.sharding import start_processes

        start_processes(coordinator, processes, process)
