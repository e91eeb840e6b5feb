"""Many slides: one that fails stops none, none is done twice, all can go on."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from cellvit_jax.card import cell_classes
from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.exports import read_cells
from cellvit_jax.inference import cohort, cores, locks, slide_job
from cellvit_jax.inference.report import Report
from cellvit_jax.inference.run import Options, Task, run
from cellvit_jax.slides.collection import Listed
from tests.inference.free import CARD, FreeNetwork, tissue, write_slide

ROOT = Path(__file__).parents[2]


@pytest.fixture
def slides(tmp_path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for i in range(4):
        write_slide(folder / f"slide-{i}.tif", tissue(200, 260, seed=i))
    return folder


def task(out: Path, **options) -> Task:
    fields = {name: options.pop(name) for name in ("overwrite", "mpp") if name in options}
    made = Task(out, "free", Options(**({"export": ("parquet",)} | options)), quiet=True, **fields)
    made.predictor = FreeNetwork()
    return made


def results(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def test_a_bad_slide_stops_no_other(slides, tmp_path, capsys):
    (slides / "slide-1.tif").write_bytes(b"II*\0" + bytes(200))
    work = task(tmp_path / "out")
    work.quiet = False
    assert not run([slides], work)
    out, err = capsys.readouterr()
    assert results(tmp_path / "out") == {"slide-0", "slide-2", "slide-3"}
    assert "slide-1 failed" in err
    assert out.splitlines()[-1] == "4 slides: 3 done, 1 failed"


def test_an_error_of_ours_stops_no_other(slides, tmp_path, monkeypatch, capsys):
    original = slide_job.results.write

    def write(found, *rest):
        if found.plan.slide.name == "slide-2":
            raise ZeroDivisionError("ours")
        original(found, *rest)

    monkeypatch.setattr(slide_job.results, "write", write)
    assert not run([slides], task(tmp_path / "out"))
    assert "Traceback" in capsys.readouterr().err
    assert {"slide-0", "slide-1", "slide-3"} < results(tmp_path / "out")
    monkeypatch.undo()
    assert run([slides], task(tmp_path / "out"))
    assert results(tmp_path / "out") == {f"slide-{i}" for i in range(4)}


def test_the_only_slide_raises_its_error(slides, tmp_path):
    (slides / "slide-1.tif").write_bytes(b"nothing")
    with pytest.raises(InputError, match="slide-1"):
        run([slides / "slide-1.tif"], task(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_done_is_not_done_again(slides, tmp_path):
    assert run([slides], task(tmp_path / "out"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/*")}
    assert run([slides], task(tmp_path / "out"))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/*")} == before
    with pytest.raises(OutputError, match="roi None, now"):
        run([slides / "slide-0.tif"], task(tmp_path / "out", roi=(0, 0, 50, 50)))
    assert run([slides], task(tmp_path / "out", overwrite=True, roi=(0, 0, 50, 50)))
    assert len(read_cells(tmp_path / "out" / "slide-0")) < 10


def test_other_names_of_classes_are_another_result(slides, tmp_path):
    assert run([slides / "slide-0.tif"], task(tmp_path / "out"))
    renamed = task(tmp_path / "out")
    renamed.predictor.card = dataclasses.replace(CARD, classes=cell_classes("Square"))
    with pytest.raises(OutputError, match=r"card .*--overwrite"):
        run([slides / "slide-0.tif"], renamed)


def test_a_slide_in_work_elsewhere_is_left_alone(slides, tmp_path):
    out = tmp_path / "out"
    with locks.held(out / ".slide-1.lock"):
        assert run([slides], task(out))
    assert results(out) == {"slide-0", "slide-2", "slide-3"}


@pytest.mark.slow
def test_two_processes_never_do_the_same_slide(slides, tmp_path):
    """Both are given all four slides; every one is done by one of them."""
    code = (
        "import sys, pathlib\n"
        "from tests.inference.test_cohort import *\n"
        "work = task(pathlib.Path(sys.argv[2])); work.quiet = False\n"
        "work.predictor.seconds = 0.02\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "run([pathlib.Path(sys.argv[1])], work)\n"
    )
    command = [sys.executable, "-c", code, str(slides), str(tmp_path / "out")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("go\n")[0] for process in processes]
    assert sum(text.count(" cells (") for text in said) == 4
    assert results(tmp_path / "out") == {f"slide-{i}" for i in range(4)}


def test_shards_are_a_partition(slides):
    listed = [Listed(path) for path in sorted(slides.iterdir())]
    parts = [cohort.shard(listed, f"{i}/3") for i in range(3)]
    assert sorted(itertools.chain(*parts), key=lambda one: one.path) == listed
    assert cohort.shard(listed, None) == listed


@pytest.mark.parametrize("which", ["3/3", "1", "a/b", "-1/3", "0/0", "1/2/3"])
def test_a_shard_is_i_of_n_from_zero(which):
    with pytest.raises(InputError, match="--shard is i/n"):
        cohort.shard([], which)


def test_a_list_gives_each_slide_its_resolution(slides, tmp_path):
    (tmp_path / "list.csv").write_text(f"{slides}/slide-0.tif,0.5\n{slides}/slide-1.tif\n")
    assert run([tmp_path / "list.csv"], task(tmp_path / "out"))
    assert read_cells(tmp_path / "out" / "slide-0").mpp == 0.5
    assert read_cells(tmp_path / "out" / "slide-1").mpp == pytest.approx(0.25)


def test_the_report_says_what_is_odd(tmp_path, capsys):
    glass = write_slide(tmp_path / "glass.tif", np.full((300, 300, 3), 250, np.uint8))
    assert run([glass], task(tmp_path / "out", export=("parquet", "instances")))
    assert "no tissue" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "glass" / "report.json").read_text())
    assert (report["tiles"], report["cells"]) == (0, 0)
    assert len(read_cells(tmp_path / "out" / "glass")) == 0


def test_lost_tiles_are_reported_and_the_rest_is_there(tmp_path, capsys):
    import tifffile

    path = write_slide(tmp_path / "slide.tif", tissue(600, 600))
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[44], tiff.pages[0].databytecounts[44]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)
    assert run([path], task(tmp_path / "out", tissue="none"))
    report = json.loads((tmp_path / "out" / "slide" / "report.json").read_text())
    assert 0 < len(report["failed_tiles"]) <= 4
    assert "could not be read" in capsys.readouterr().err
    assert len(read_cells(tmp_path / "out" / "slide")) > 200


def test_a_clock_that_jumps_changes_nothing(slides, tmp_path, monkeypatch):
    assert run([slides], task(tmp_path / "calm"))
    hours = iter(np.random.default_rng(0).integers(-9999, 9999, 10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 + 3600 * float(next(hours)))
    assert run([slides], task(tmp_path / "jumping"))
    for path in (tmp_path / "calm").glob("*/cells.parquet"):
        again = tmp_path / "jumping" / path.relative_to(tmp_path / "calm")
        assert again.read_bytes() == path.read_bytes()


@contextlib.contextmanager
def unprivileged():
    """Permissions apply, to root too."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_only_be_read_is_known_before_any_work(slides):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        public = Path(name)
        public.chmod(0o755)
        slide = Path(shutil.copy(slides / "slide-0.tif", public))
        (public / "out").mkdir(mode=0o555)
        assert run([slide], task(public / "before"))  # imports what it needs
        work = task(public / "out")
        with (
            unprivileged(),
            pytest.raises(OutputError, match="out: Permission"),
        ):
            run([slide], work)
        assert not work.predictor.calls
        assert results(public / "out") == set()


def test_a_table_has_a_line_for_each():
    lines = cohort.table(
        [
            cohort.Outcome("a", cohort.DONE, Report("a")),
            cohort.Outcome("longer", cohort.FAILED, reason="why"),
        ]
    ).splitlines()
    assert lines[0].startswith("a       done")
    assert lines[1].split() == ["longer", "failed", "why"]
    assert lines[2] == "2 slides: 1 done, 1 failed"


@pytest.mark.parametrize(("text", "expected"), [("150000 100000", 2), ("max 100000", 9)])
def test_cores_are_those_that_a_container_grants(tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert cores.usable_cores(tmp_path) == expected
    assert cores.usable_cores(tmp_path / "nothing") == 9
