"""A run is the same on one device and on many, however its state is divided."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")

from orbax.checkpoint import v1 as ocp

from cellvit_jax.training.objective import normalise
from cellvit_jax.training.state import begin, new_layout
from cellvit_jax.training.step import make_step
from cellvit_jax.training.task import Supervised
from tests.networks import ENCODER_CARD, encoder_config
from tests.training.runs import (
    RECIPE,
    begun,
    first_loss,
    float64,
    layout_over,
    losses,
    mesh_over,
    run_on,
)

ROOT = Path(__file__).resolve().parents[2]
# devices, and how many of them hold parts of the weights, and of the encoder's products
ONE, QUICK = (1, 1, 1), (8, 2, 2)
MODES = [
    (n, fsdp, tensor)
    for n in (2, 4, 8)
    for fsdp, tensor in dict.fromkeys([(1, 1), (n, 1), (1, n), (2, n // 2), (2, 2)])
    if fsdp * tensor <= n and (n, fsdp, tensor) != QUICK
]
SLOW = [pytest.param(mode, marks=pytest.mark.slow) for mode in MODES]


def five(mode: tuple[int, int, int], dtype: str) -> list[float]:
    layout, step = run_on(*mode, dtype)
    state = jax.device_put(begun(dtype), layout.shardings)
    return losses(layout, step, state, range(5))[1]


@pytest.fixture(scope="module")
def alone() -> list[float]:
    with float64():
        return five(ONE, "float64")


@pytest.mark.parametrize("mode", [QUICK, *SLOW])
def test_five_losses_are_those_of_one_device(mode, alone):
    with float64():
        assert five(mode, "float64") == pytest.approx(alone, rel=1e-9)


FOUNDATIONS = {
    "sam": {"patch_size": 8, "window_size": 3, "global_layers": (2,)},
    "dinov2": {"patch_size": 14, "any_size": True, "gate": "silu", "num_registers": 2},
}


class Features(Supervised):
    """Those of an encoder alone shall be small, and none shall stand out."""

    def loss(self, model, batch, average):
        features = model(normalise(model, batch["image"]))
        # their squares would have the same mean after any block: the last norm sees to that
        loss = sum(jnp.mean(feature**4) for feature in features.values())
        return loss, {"loss": loss}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", FOUNDATIONS)
def test_losses_of_other_encoders_are_those_of_one_device(encoder):
    config = encoder_config(encoder=encoder, depth=2, **FOUNDATIONS[encoder])
    recipe = dataclasses.replace(RECIPE, dtype="float64")
    task, found = Features(config, recipe), []
    with float64():
        one, many = (
            new_layout(config, ENCODER_CARD, recipe, mesh_over(*mode), task)
            for mode in (ONE, QUICK)
        )
        first = jax.device_get(begin(one))
        for layout in (one, many):
            step, state = (
                make_step(layout, encoder_rests=False),
                jax.device_put(first, layout.shardings),
            )
            found.append(losses(layout, step, state, range(2))[1])
    assert found[1] == pytest.approx(found[0], rel=1e-9)


@pytest.fixture(scope="module")
def first() -> float:
    return first_loss(layout_over(*ONE, "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [QUICK, *MODES])
def test_the_first_loss_is_that_of_one_device_in_float32(mode, first):
    assert first_loss(layout_over(*mode, "float32")) == pytest.approx(first, rel=1e-5)


def test_the_state_is_born_and_stays_where_it_belongs():
    with float64():
        layout, step = run_on(*QUICK, "float64")
        before = begin(layout)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(before), begun("float64"))
        after, _ = losses(layout, step, before, range(1))
    wanted = jax.tree.leaves(layout.shardings)
    assert [leaf.sharding.spec for leaf in jax.tree.leaves(after)] == [s.spec for s in wanted]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    kernel = after.params["encoder.blocks.0.mlp.fc1.kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(8, 32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, alone) -> Path:
    """A state that eight devices have written after two steps."""
    path = tmp_path_factory.mktemp("saved") / "state"
    with float64():
        layout, step = run_on(*QUICK, "float64")
        ocp.save(path, losses(layout, step, begin(layout), range(2))[0])
    return path


def continued(path: Path, mode: tuple[int, int, int]) -> list[float]:
    with float64():
        layout, step = run_on(*mode, "float64")
        return losses(layout, step, ocp.load(path, layout.abstract), range(2, 5))[1]


@pytest.mark.parametrize("mode", [ONE, pytest.param((8, 4, 1), marks=pytest.mark.slow)])
def test_a_checkpoint_of_eight_devices_goes_on_elsewhere(mode, saved, alone):
    assert continued(saved, mode) == pytest.approx(alone[2:], rel=1e-9)


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path, saved, alone):
    """And each goes on with what the other has written."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = [sys.executable, "-m", "tests.training.process", address, "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    processes = [
        subprocess.Popen([*program, *map(str, (index, tmp_path, saved))], cwd=ROOT, env=environment)
        for index in range(2)
    ]
    try:
        assert [process.wait(300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for index in range(2):
        found, continued_there = (
            json.loads((tmp_path / f"{name}-{index}.json").read_text())
            for name in ("losses", "continued")
        )
        assert found == pytest.approx(alone, rel=1e-9)
        assert continued_there == pytest.approx(alone[2:], rel=1e-9)
    assert continued(tmp_path / "state", ONE) == pytest.approx(alone[2:], rel=1e-9)
