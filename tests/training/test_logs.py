"""What loggers are told, and under which name."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("grain")

from cellvit_jax.training.logs import Logs, is_point


class Wandb:
    """Stands for the module `wandb`, and is the one run that it makes."""

    def __init__(self):
        self.begun, self.told, self.finished = [], [], 0

    def init(self, **how):
        self.begun.append(how)
        return self

    def Image(self, picture):
        return SimpleNamespace(shape=picture.shape)

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch) -> Wandb:
    monkeypatch.setitem(sys.modules, "wandb", Wandb())
    return sys.modules["wandb"]


def test_weights_and_biases_gets_points_and_pictures(wandb, tmp_path):
    with Logs(tmp_path, 0, ["wandb"]) as logs:
        logs.write(0, {"loss": 2.0})
        logs.write(1, {"loss": 1.0})
        logs.write(1, {"knn": 0.5}, {"field": np.zeros((2, 3, 3), np.uint8)})
    picture = SimpleNamespace(shape=(2, 3, 3))
    assert wandb.told == [(0, {"loss": 2.0}), (1, {"knn": 0.5, "field": picture})]
    assert wandb.finished == 1


def test_a_run_is_resumed_by_no_other_folder_of_its_name(wandb, tmp_path):
    for parent in ("a", "b", "a"):
        run = tmp_path / parent / "run"
        run.mkdir(parents=True, exist_ok=True)
        with Logs(run, 0, ["wandb"]):
            pass
    first, other, again = wandb.begun
    assert again == first
    assert first["name"] == other["name"] == "run"
    assert first["id"] != other["id"]


def test_every_score_is_a_point_and_so_are_some_steps():
    assert is_point(3, {"knn": 0.5})
    assert is_point(20, {"loss": 1.0})
    assert not is_point(21, {"loss": 1.0})
