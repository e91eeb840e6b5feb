"""The whole command `train` in two processes: as in one, stopped and gone on with, refused."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("grain")

import cellvit_jax as cj
from cellvit_jax import checkpoint, hosts
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.write import write_plain
from cellvit_jax.errors import OutputError
from tests.networks import CARD, filled, small_config
from tests.training.written import rows
from tests.training_data.fields import field

slow = pytest.mark.slow
PATIENCE = 1800  # seconds after which processes count as hanging
SETTINGS = {
    "recipe.epochs": 1,
    "recipe.steps_per_epoch": 12,
    "recipe.batch_size": 4,
    "recipe.tile": 32,
    "recipe.accumulate": 1,
    # the smaller the steps, the less AdamW makes of the rounding that other devices do
    "recipe.schedule.peak": 1e-5,
    "recipe.save_every": 5,
    "recipe.calibration_batches": 3,
    "validation.held_out": 0.5,
}
COMMAND = [sys.executable, "-c", "from cellvit_jax import cli; cli.main()", "train"]
Told = tuple[int, str, str]  # exit code, stdout, stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with annotated data, a model and compiled programs."""
    home = tmp_path_factory.mktemp("hosts")
    samples = [
        dataclasses.replace(field(64, width), name=str(width), tissue=None)
        for width in (64, 80, 96, 112, 128, 144)
    ]
    write_plain({"all": Dataset("made", samples, ("Round", "Long"))}, home / "data")
    config = small_config(shared_trunk=True, num_tissues=0)
    weights = nnx.state(filled(config), checkpoint.WEIGHTS)
    checkpoint.save(home / "model", weights, config, CARD)
    return home


def start(home: Path, out: Path, *words: str, processes: int = 2) -> list[subprocess.Popen]:
    """The processes of a run, which have four devices together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={4 // processes}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(home / "jax"),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    settings: list = [
        word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")
    ]
    settings += ["--data", home / "data", "--model", home / "model", "--out", out, *words]
    told: list = ["--coordinator", address, "--processes", processes, "--process"]
    places = [[]] if processes == 1 else [[*told, index] for index in range(processes)]
    return [
        subprocess.Popen(
            [*COMMAND, *map(str, [*settings, *host])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in places
    ]


def ended(processes: list[subprocess.Popen]) -> list[Told]:
    """How they end, without what Gloo prints of its own accord."""
    try:
        told = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, re.sub(r"(?m)^\[Gloo\].*\n", "", out), errors)
        for process, (out, errors) in zip(processes, told, strict=True)
    ]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows(out) if "loss" in row]


@pytest.fixture(scope="module")
def alone(home) -> Path:
    (told,) = ended(start(home, home / "alone", processes=1))
    assert told[0] == 0, told
    return home / "alone"


@pytest.fixture(scope="module")
def two(home) -> tuple[Path, list[Told]]:
    told = ended(start(home, home / "two"))
    assert [code for code, *_ in told] == [0, 0], told
    return home / "two", told


@slow
def test_two_processes_learn_as_one_does(alone, two):
    out, _ = two
    assert losses(out) == pytest.approx(losses(alone), rel=1e-5)
    assert [row["step"] for row in rows(out)] == [row["step"] for row in rows(alone)]
    for name in ("best", "last"):
        found, wanted = (
            jax.tree.leaves(nnx.state(cj.load(run / name), checkpoint.WEIGHTS))
            for run in (out, alone)
        )
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@slow
def test_what_two_processes_wrote_segments(two):
    cells = cj.segment(field(64, 64).image, cj.load(two[0] / "best"), mpp=0.25)
    assert cells.classes[1][0] == "Round"


@slow
def test_the_first_process_alone_prints(two):
    out, (first, second) = two
    assert f"cellvit-jax segment IMAGE --model {out / 'best'}" in first[1]
    assert "bpq" in first[2]
    assert second[1] == ""
    assert not re.search("step|training|bpq", re.sub(r"jit_\w+", "", second[2]))


@slow
def test_a_signal_to_one_process_stops_both_and_they_go_on(home, two, tmp_path):
    out = tmp_path / "run"
    processes = start(home, out)
    until = time.monotonic() + PATIENCE
    while not (out / "log.jsonl").exists() or len(rows(out)) < 2:
        assert time.monotonic() < until
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    told = ended(processes)
    assert [code for code, *_ in told] == [143, 143], told
    assert f"cellvit-jax train --config {out / 'config.json'}" in told[0][1]
    again = ended(start(home, out))
    assert [code for code, *_ in again] == [0, 0], again
    assert rows(out) == rows(two[0])


@slow
def test_another_config_is_refused_by_both(home, two):
    out, _ = two
    before = rows(out)
    told = ended(start(home, out, "--set", "recipe.seed=1"))
    assert [code for code, *_ in told] == [2, 2], told
    for _, _, errors in told:
        assert f"{out} holds a run with another config" in errors
        assert "recipe.seed: 0, now 1" in errors
        assert "Traceback" not in errors
    assert rows(out) == before


@slow
@pytest.mark.parametrize("tensor", [2, 4])  # within a process, and over both
def test_a_loss_that_is_not_finite_stops_both_and_keeps_the_whole_batch(
    home, alone, tmp_path, tensor
):
    out = tmp_path / "run"
    words = ["--set", "recipe.schedule.peak=1e30", "--set", "recipe.schedule.warmup_steps=0"]
    words += ["--overfit-one-batch", "--set", f"devices.tensor={tensor}"]
    told = ended(start(home, out, *words))
    assert [code for code, *_ in told] == [2, 2], told
    for _, _, errors in told:
        assert f"Its batch is in {out / 'bad-batch.npz'}" in errors
    assert losses(out)[0] == pytest.approx(losses(alone)[0], rel=1e-5)
    assert len(np.load(out / "bad-batch.npz")["image"]) == SETTINGS["recipe.batch_size"]


@slow
def test_hosts_that_cannot_be_found_out_are_one_sentence():
    words = ["--data", "x", "--multihost"]
    found = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=PATIENCE)
    assert found.returncode == 2
    assert "no TPU pod, and not under Slurm or Open MPI" in found.stderr
    assert "give --coordinator HOST:PORT --processes N --process I" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "words", [["--processes", 2], ["--process", 0], ["--coordinator", "10.0.0.1:8476"]]
)
def test_hosts_of_which_not_enough_is_said_are_one_sentence(call, words):
    code, _, errors = call("train", "--data", "x", *words)
    assert code == 2
    assert "need all of --coordinator HOST:PORT --processes N --process I" in errors


def test_what_one_process_tells_comes_back_to_it():
    assert hosts.told({"bpq": 0.1}) == [{"bpq": 0.1}]
    assert hosts.together(lambda: 3) == 3
    assert hosts.on_host([1]) == [1]
    done = []
    hosts.by_first(lambda: done.append(1))
    assert done == [1]
    assert hosts.by_first(lambda: 4) == 4


def test_an_error_of_one_process_stays_what_it_is():
    def refuse() -> None:
        raise OutputError("no space")

    with pytest.raises(OutputError, match="no space"):
        hosts.together(refuse)
