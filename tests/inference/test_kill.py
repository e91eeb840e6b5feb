"""Killed at any moment, and started again: the result of a run that nobody disturbed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellvit_jax.inference import journal
from tests.inference.free import main, tissue, write_slide

ROOT = Path(__file__).parents[2]


def start(slide: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.inference.free", str(slide), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def finish(process: subprocess.Popen) -> None:
    process.stdout.close()
    assert process.wait(timeout=120) == 0


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
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        interrupted += process.wait() == -signal.SIGKILL
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
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    finish(start(slide, out))
    assert contents(out) == contents(tmp_path / "calm")
    assert [path.name for path in out.iterdir()] == ["slide"]


@pytest.mark.slow
def test_twenty_five_kills(tmp_path):
    kills(25, 8, tmp_path)
