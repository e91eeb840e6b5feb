"""Killed at any moment, and started again: the result of a run that nobody disturbed."""

import json
import multiprocessing
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cellvit_jax.inference import journal
from tests.inference.free import main, tissue, write_slide

# a process of its own for every run, forked from one that has imported everything
PROCESSES: Any = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.inference.free", "cellvit_jax.inference.run"])


def start(slide: Path, out: Path) -> Any:
    """A process that segments a slide, and has just begun to."""
    here, there = PROCESSES.Pipe(duplex=False)
    ready = partial(there.send, "ready")
    process = PROCESSES.Process(target=main, args=(str(slide), str(out), ready))
    process.start()
    there.close()
    assert here.recv() == "ready"
    return process


def finish(process: Any) -> None:
    process.join(timeout=120)
    assert process.exitcode == 0


def killed(process: Any) -> bool:
    """Whether a kill came before the end."""
    process.kill()
    process.join(timeout=120)
    return process.exitcode == -signal.SIGKILL


def contents(out: Path) -> dict[str, bytes]:
    """All files, but for what depends on the clock."""
    files = {path.name: path.read_bytes() for path in (out / "slide").iterdir()}
    report = json.loads(files.pop("report.json"))
    for name in ("wall_seconds", "stage_seconds", "device_busy", "peak_rss_bytes"):
        del report[name]
    return files | {"report": report}


def kills(count: int, folders: int, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tif", tissue(1500, 700))
    process = start(slide, tmp_path / "calm")
    begun = time.monotonic()
    finish(process)
    span = time.monotonic() - begun
    expected, rng, interrupted = contents(tmp_path / "calm"), random.Random(0), 0
    for i in range(count):
        out = tmp_path / f"killed-{i % folders}"
        process = start(slide, out)
        time.sleep(rng.uniform(0, span))
        interrupted += killed(process)
    assert interrupted
    for out in tmp_path.glob("killed-*"):
        finish(start(slide, out))
        assert contents(out) == expected
        assert [path.name for path in out.iterdir()] == ["slide"]


@pytest.mark.parametrize("moment", ["*/cells-000003.arrow", "*/.slide-*/*"])
def test_killed_in_a_row_and_at_the_last_files(moment, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "PAUSE", journal.PAUSE)  # `main` changes it
    slide, out = write_slide(tmp_path / "slide.tif", tissue(1500, 700)), tmp_path / "killed"
    main(str(slide), str(tmp_path / "calm"))
    process = start(slide, out)
    while not list(out.glob(moment)):
        time.sleep(0.001)
    assert killed(process)
    finish(start(slide, out))
    assert contents(out) == contents(tmp_path / "calm")
    assert [path.name for path in out.iterdir()] == ["slide"]


def test_killed_when_the_result_was_there_already(tmp_path):
    slide, out = write_slide(tmp_path / "slide.tif", tissue(200, 200)), tmp_path / "out"
    finish(start(slide, out))
    (out / "slide.unfinished").mkdir()
    (out / "slide.unfinished" / "cells-000001.arrow").touch()
    finish(start(slide, out))
    assert [path.name for path in out.iterdir()] == ["slide"]


@pytest.mark.slow
def test_twenty_five_kills(tmp_path):
    kills(25, 8, tmp_path)
