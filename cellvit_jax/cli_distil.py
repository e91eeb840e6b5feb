"""The command `cellvit-jax distil`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from cellvit_jax.cli_train import STOPPED, join_hosts
from cellvit_jax.errors import InputError


def distil(
    data: tuple[str, ...] = (),
    teacher: str | None = None,
    student: str | None = None,
    out: Path | None = None,
    config: Path | None = None,
    assign: Annotated[UseAppendAction[list[str]], arg(name="set", metavar="NAME=VALUE")] = [],  # noqa: B006
    no_maps: bool = False,
    dry_run: bool = False,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    multihost: bool = False,
    quiet: bool = False,
) -> None:
    """Teach a network to see what another one sees, on images that nobody need have annotated.

    OUT/best is a model folder, for `cellvit-jax train --model OUT/best` to go on with where there
    are annotations. A run that was stopped goes on where it was when it is started again in the
    same way, or with `--config OUT/config.json`.

    Args:
        data: folders of images, or of annotated images in any layout, whose annotations only
            measure how it goes.
        teacher: a model folder or bundled model (by default cellvit-tiny-consep), whose features
            and maps are learnt, or the folder of an encoder or a SAM, whose features are.
        student: cellvit-nano (by default), cellvit-tiny, cellvit-256, … for random weights, or a
            model folder.
        out: folder of the run; by default runs/STUDENT-TEACHER.
        config: a run's config.json to repeat or go on with, in place of data, teacher and student.
        assign: change a value of the config, such as recipe.epochs=20 or losses.temperature=1; can
            be given several times.
        no_maps: learn features alone.
        dry_run: show shapes, parameters and memory, make one step, and write nothing.
        coordinator: of several hosts, address of process 0 as HOST:PORT.
        processes: how many hosts.
        process: which of them this is, from 0.
        multihost: one of several hosts that find each other: a TPU pod, or Slurm.
        quiet: print nothing but errors.
    """
    from cellvit_jax.pretraining import distil_run
    from cellvit_jax.training.dry_run import show
    from cellvit_jax.zoo import DEFAULT

    join_hosts(coordinator, processes, process, multihost)
    if config is None:
        names = teacher or DEFAULT, student or "cellvit-nano"
        chosen = distil_run.new_config(data, *names, assign, maps=not no_maps)
    elif data or teacher or student or no_maps:
        raise InputError(
            "--config has data, teacher, student and losses already: change them with --set"
        )
    else:
        chosen, out = distil_run.repeated(config, assign), out or config.parent
    if dry_run:
        show(partial(distil_run.prepare, chosen))
    elif distil_run.run(chosen, out or distil_run.default_run(chosen), quiet=quiet).stopped:
        sys.exit(STOPPED)
