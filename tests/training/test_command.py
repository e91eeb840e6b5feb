"""The command `train`, from a folder of images to a model folder; killed and gone on with."""

import io
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.networks import save_small
from tests.training.folders import write_folder
from tests.training.written import points, rows

pytest.importorskip("grain")

import cellvit_jax as cj
from cellvit_jax.training.progress import Bar
from cellvit_jax.training.states import Standing

QUICK = {
    "recipe.epochs": 2,
    "recipe.steps_per_epoch": 4,
    "recipe.batch_size": 2,
    "recipe.tile": 32,
    "recipe.accumulate": 1,
    "recipe.save_every": 3,
    "recipe.calibration_batches": 2,
    "keep": 3,
    "devices.fsdp": 1,
}
SETTINGS = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small"
    save_small(path, shared_trunk=True, num_tissues=0)
    return path


def start(data: Path, model: Path, out: Path) -> subprocess.Popen:
    words = ["train", "--data", data, "--model", model, "--out", out, *SETTINGS]
    code = "import sys; from cellvit_jax import cli; cli.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(model.parent / "jax")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(out: Path, steps: int) -> None:
    log = out / "log.jsonl"
    until = time.monotonic() + 300
    while not log.exists() or len(log.read_text().splitlines()) < steps:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(data, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    process = start(data, model, out)
    told, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return out, told


def test_a_run_leaves_models_a_log_and_its_config(whole):
    out, told = whole
    assert "2 fields to learn from; to measure on: 1 field held out" in told
    assert f"cellvit-jax segment IMAGE --model {out / 'best'}" in told
    log = rows(out)
    assert [row["step"] for row in log if "loss" in row] == list(range(8))
    assert [row["step"] for row in log if "bpq" in row] == [3, 7, 7]
    assert {path.name for path in (out / "state").iterdir()} == {"4", "6", "8"}
    for name in ("best", "last"):
        trained = cj.load(out / name)
        assert [one.name for one in trained.card.classes[1:]] == ["Round", "Long"]


def test_a_run_leaves_curves_and_overlays(whole):
    found = {point.tag: point for point in points(whole[0])}
    assert found["loss"].simple_value == rows(whole[0])[0]["loss"]
    assert found["images_per_second"].simple_value > 0
    (overlay,) = (point.image for point in found.values() if point.HasField("image"))
    picture = np.asarray(Image.open(io.BytesIO(overlay.encoded_image_string)))
    assert picture.shape == (overlay.height, overlay.width, 3)
    assert picture.std() > 1  # not blank


def interrupted(data: Path, model: Path, out: Path, number: int, last: int) -> tuple[int, str]:
    """Exit code and words of a run that got a signal soon after one of the steps up to `last`."""
    seed = secrets.randbits(32)
    print(f"interrupted at the moment that seed {seed} says")  # pytest shows it with a failure
    moment = random.Random(seed)
    process = start(data, model, out)
    wait_for(out, moment.randint(1, last))
    time.sleep(moment.uniform(0, 0.1))
    process.send_signal(number)
    told, _ = process.communicate(timeout=600)
    return process.returncode, told


def go_on(data: Path, model: Path, out: Path) -> None:
    again = start(data, model, out)
    _, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(whole, data, model, tmp_path):
    interrupted(data, model, tmp_path / "run", signal.SIGKILL, last=7)
    go_on(data, model, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(whole[0])


@pytest.mark.slow
def test_a_stopped_run_has_saved_its_state_and_makes_no_step_twice(whole, data, model, tmp_path):
    out = tmp_path / "run"
    # a score lies between step 4 and the end
    code, told = interrupted(data, model, out, signal.SIGTERM, last=4)
    assert code == 143
    assert f"cellvit-jax train --config {out / 'config.json'}" in told
    (step,) = re.findall(r"stopped after step (\d+)", told)
    assert (out / "state" / step).is_dir()
    log = (out / "log.jsonl").read_text()
    assert [row["step"] for row in rows(out) if "loss" in row] == list(range(int(step)))
    go_on(data, model, out)
    assert (out / "log.jsonl").read_text().startswith(log)  # with the times of then
    assert rows(out) == rows(whole[0])


def test_a_dry_run_tells_and_writes_nothing(call, data, model, tmp_path):
    out = tmp_path / "run"
    one = ["--set", "recipe.batch_size=8"]
    code, told, errors = call(
        "train", "--data", data, "--model", model, "--out", out, "--dry-run", *SETTINGS, *one
    )
    assert code == 0, errors
    assert "MiB on each device" in told
    assert "loss" in told
    assert not out.exists()


@pytest.mark.slow
def test_a_network_with_a_regression_branch_learns_what_it_is_for(call, data, tmp_path):
    save_small(tmp_path / "model", shared_trunk=True, num_tissues=0, regression_loss=True)
    fast = {"recipe.schedule.peak": 1e-2, "recipe.schedule.warmup_steps": 0, "loggers": "[]"}
    fast |= {"recipe.batch_size": 8}  # for eight devices
    sets = [word for name, value in fast.items() for word in ("--set", f"{name}={value}")]
    words = ["--data", data, "--model", tmp_path / "model", "--overfit-one-batch", "--quiet"]
    code, _, errors = call("train", *words, "--out", tmp_path / "run", *SETTINGS, *sets)
    assert code == 0, errors
    found = [row["regression_mse"] for row in rows(tmp_path / "run")]
    assert 0 < found[-1] < found[0]
    assert cj.load(tmp_path / "run" / "best").config.regression_loss


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "nowhere"], "nowhere is not there, expected a folder"),
        ([], "say what to train on"),
        (["--data", "x", "--recipe", "panuke"], "did you mean pannuke?"),
        (["--data", "x", "--set", "recipe.epoch=1"], "did you mean epochs?"),
        (["--config", "x.json"], "x.json is not a readable config"),
        (["--config", "x.json", "--data", "x"], "change them with --set"),
        (["--config", "x.json", "--model", "cellvit-tiny"], "change them with --set"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(call, words, sentence):
    code, _, errors = call("train", *words)
    assert code == 2
    assert sentence in errors
    assert "Traceback" not in errors


def test_a_misspelt_architecture_suggests_the_nearest(call, data):
    code, _, errors = call("train", "--data", data, "--model", "cellvit-tinny")
    assert code == 2
    assert "did you mean cellvit-tiny?" in errors


def test_standing_knows_the_best_score_and_how_long_ago_it_was():
    standing = Standing().after(0.3).after(0.2).after(0.25)
    assert standing == Standing(0.3, 2)
    assert standing.after(0.4) == Standing(0.4, 0)
    assert Standing(0.1).after(float("nan")) == Standing(0.1, 1)


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The time that bars see."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("cellvit_jax.training.progress.time", clock)
    return clock


def test_the_bar_is_a_line_a_minute_where_there_is_no_terminal(capsys, clock):
    with Bar(10, 0, 4) as bar:
        clock.now = 2.0
        bar.step(1, {"loss": 2.5})
        assert capsys.readouterr().err == ""
        clock.now = 64.0
        bar.pause(59.0)
        bar.step(2, {"loss": 1.25, "hv_mse": 0.5, "grad_norm": 7.0})
    # eight images in five seconds
    assert capsys.readouterr().err == "training: 3 of 10  1.6 images/s  loss 1.250  hv_mse 0.500\n"


def test_the_bar_moves_on_a_terminal(monkeypatch, clock):
    reader, writer = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with open(reader, "rb", buffering=0) as screen:
        with open(writer, "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            with Bar(10, 2, 4) as bar:
                clock.now = 2.0
                bar.step(2, {"loss": 1.25})
        shown = b""
        while not re.search(rb"training .*3/10.* 2 images/s  loss 1\.250", shown):
            shown += screen.read(4096)  # an OSError when that is all
