"""The command `cellvit-jax pretrain`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from cellvit_jax.cli_train import STOPPED, join_hosts


def pretrain(
    method: Literal["simclr", "dino", "supervised"],
    data: tuple[str, ...],
    out: Path,
    encoder: str = "vit-tiny",
    mpp: float | None = None,
    assign: Annotated[UseAppendAction[list[str]], arg(name="set", metavar="NAME=VALUE")] = [],  # noqa: B006
    dry_run: bool = False,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    multihost: bool = False,
    quiet: bool = False,
) -> None:
    """Train an encoder on tiles of slides and images that nobody has annotated.

    OUT/last is the folder of an encoder, which `train --model` and `init --encoder` put under a
    CellViT. A run that was stopped goes on where it was when it is started again in the same way.

    Args:
        method: simclr (views of a tile are told from those of all others), dino (a student learns
            to see in parts what its average sees in all of a tile), or supervised (labels).
        data: slides, images, folders or lists of them, or annotated data, of which the images
            count. For supervised one folder of tiles with a folder for each class, or one CSV file
            with path,label in each line.
        out: folder of the run.
        encoder: vit-tiny, vit-256, sam-b, sam-l, sam-h, uni, virchow or virchow2 for random
            weights, or the folder or name of a network whose encoder is to be trained further.
        mpp: resolution of the data in µm per pixel; wins over what it says of itself.
        assign: change a value of the config, such as recipe.batch_size=64 or
            method.temperature=0.2; can be given several times.
        dry_run: show shapes, parameters and memory, make one step, and write nothing.
        coordinator: of several hosts, address of process 0 as HOST:PORT.
        processes: how many hosts.
        process: which of them this is, from 0.
        multihost: one of several hosts that find each other: a TPU pod, or Slurm.
        quiet: print nothing but errors.
    """
    from cellvit_jax.pretraining import tile_run
    from cellvit_jax.pretraining.methods import new_config
    from cellvit_jax.training.config import Source
    from cellvit_jax.training.dry_run import show

    join_hosts(coordinator, processes, process, multihost)
    sources = tuple(Source(path=path) for path in data)
    plain = new_config(method, data=sources, encoder=encoder, source_mpp=mpp)
    config = plain.changed(assign)
    if dry_run:
        show(partial(tile_run.prepare, config, quiet=quiet))
    elif tile_run.run(config, out, quiet=quiet).stopped:
        sys.exit(STOPPED)
