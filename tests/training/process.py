"""One of several processes of a run, each with four simulated devices.

python -m tests.training.process ADDRESS PROCESSES INDEX FOLDER SAVED
"""

import json
import sys
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from cellvit_jax.sharding import make_mesh, start_processes
from cellvit_jax.training.state import begin
from tests.training.runs import RECIPE, compiled, layout_on, losses


def main(address: str, count: int, index: int, folder: Path, saved: Path) -> None:
    """Write `FOLDER/losses-INDEX.json`, and the state after two steps to `FOLDER/state`.

    `FOLDER/continued-INDEX.json` has the losses that follow the state `SAVED`, of two steps.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_enable_x64", True)
    start_processes(address, count, index)
    layout = layout_on(make_mesh(fsdp=2, tensor=2), dtype="float64")
    step, images = compiled(layout), RECIPE.batch_size // count
    part = slice(index * images, (index + 1) * images)
    state, first = losses(layout, step, begin(layout), range(2), part)
    ocp.save(folder / "state", state)
    _, rest = losses(layout, step, state, range(2, 5), part)
    (folder / f"losses-{index}.json").write_text(json.dumps(first + rest))
    _, rest = losses(layout, step, ocp.load(saved, layout.abstract), range(2, 5), part)
    (folder / f"continued-{index}.json").write_text(json.dumps(rest))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
