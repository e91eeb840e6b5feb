"""The states of a run on the disk: written behind its back, each whole or not at all."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

pytest.importorskip("optax")

from cellvit_jax.errors import CheckpointError
from cellvit_jax.training.state import TrainState
from cellvit_jax.training.states import Standing, States


def state_at(step: int) -> TrainState:
    weights = {"weight": jnp.arange(1000) + jnp.float32(step)}
    return TrainState(jnp.asarray(step), weights, {}, (), None)


LAYOUT = SimpleNamespace(
    abstract=jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        state_at(0),
    )
)


def save(folder: Path, *steps: int) -> None:
    with States(folder, keep=2) as states:
        for step in steps:
            states.save(step, state_at(step), Standing(step / 10, waited=step))


def resumed(folder: Path) -> int:
    """The step of the state that a run goes on from, which is that step's."""
    with States(folder, keep=2) as states:
        state, standing = states.load(LAYOUT)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(states.step))
    assert standing == Standing(states.step / 10, waited=states.step)
    return states.step


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def blocked(monkeypatch):
    """Makes contexts in which no array is written."""
    gate, opened = threading.Event(), tensorstore.open
    gate.set()

    def waiting(*arguments, **how):
        gate.wait(10)  # who saves in the foreground never gets out otherwise
        return opened(*arguments, **how)

    @contextlib.contextmanager
    def within() -> Iterator[None]:
        gate.clear()
        try:
            yield
        finally:
            gate.set()

    monkeypatch.setattr(tensorstore, "open", waiting)
    return within


def test_a_state_may_be_donated_before_it_is_written(blocked, tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf - 1, state), donate_argnums=0)
    state = state_at(5)
    with States(tmp_path, keep=2) as states, blocked():
        states.save(5, state, Standing(0.5, waited=5))
        assert "5" not in names(tmp_path)
        for _ in range(3):
            state = step(state)
    assert state.step == 2
    assert resumed(tmp_path) == 5


def test_a_state_half_written_is_passed_over_and_cleared_away(blocked, tmp_path):
    run, killed = tmp_path / "run", tmp_path / "killed"
    save(run, 1)
    with States(run, keep=2) as states, blocked():
        states.save(2, state_at(2), Standing())
        shutil.copytree(run, killed)
    assert len(names(killed)) == 2
    assert resumed(killed) == 1
    assert names(killed) == {"1"}


def test_a_damaged_state_is_named_and_the_one_before_is_there(tmp_path):
    save(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2" / "state")
    with pytest.raises(CheckpointError) as caught:
        resumed(tmp_path)
    assert f"the state of step 2 in {tmp_path} cannot be read" in str(caught.value)
    assert "remove its folder to go on from the one before" in str(caught.value)
    shutil.rmtree(tmp_path / "2")
    assert resumed(tmp_path) == 1
