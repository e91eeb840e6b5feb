"""What a conversion costs: peak anonymous memory over the file's size, time over that of a copy.

    python benchmarks/convert.py [--model cellvit-sam-h] [--rounds 3]

The file is a synthetic checkpoint in the layout of the recorded one (its shapes; random weights,
which do not compress), written to a temporary folder. Each round times a plain copy of the file and
`cellvit-convert` on it, both with a flush to disk. Memory is the child process's RssAnon, sampled:
pages that map a file can be dropped at any time and do not count.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from cellvit_jax.torch_save import write_torch

MANIFESTS = Path(__file__).resolve().parents[1] / "tests" / "data" / "models"
INTERVAL = 0.01  # seconds between two looks at a process's memory
DIRECTIONS = {".pth to directory": ("x.pth", "model"), "directory to .pth": ("model", "y.pth")}


def main(model: str = "cellvit-sam-h", rounds: int = 3) -> None:
    """Print the table, as Markdown."""
    with tempfile.TemporaryDirectory(prefix="cellvit-convert-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--write", model, folder / "x.pth"], check=True)
        size = (folder / "x.pth").stat().st_size
        runs = [measure(folder) for _ in range(rounds)]
    print(f"{model}: {size / 1e9:.2f} GB, {rounds} rounds\n")
    print("| direction | seconds, median (min-max) | of a copy | peak anonymous memory / file |")
    print("| --- | ---: | ---: | ---: |")
    copies = [run["copy"][0] for run in runs]
    print(f"| plain copy | {spread(copies)} | 1 | – |")
    for direction in DIRECTIONS:
        seconds, peaks = zip(*(run[direction] for run in runs), strict=True)
        ratio = statistics.median(seconds) / statistics.median(copies)
        print(f"| {direction} | {spread(seconds)} | {ratio:.2f} | {max(peaks) / size:.2f} |")


def measure(folder: Path) -> dict[str, tuple[float, int]]:
    """Seconds and peak memory of a copy and of both conversions."""
    found = {"copy": timed(["cp", "--reflink=never", folder / "x.pth", folder / "copy"])}
    (folder / "copy").unlink()
    for direction, (source, target) in DIRECTIONS.items():
        command = [sys.executable, "-m", "cellvit_convert.cli"]
        found[direction] = timed([*command, folder / source, folder / target])
    shutil.rmtree(folder / "model")
    (folder / "y.pth").unlink()
    return found


def timed(command: list[str | Path]) -> tuple[float, int]:
    """Seconds until a command's output is on disk, and its peak RssAnon in bytes."""
    os.sync()
    start, peak = time.perf_counter(), 0
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(INTERVAL)
    os.sync()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return time.perf_counter() - start, peak


def anonymous(pid: int) -> int:
    """A process's anonymous resident memory in bytes, 0 if it has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def write(model: str, path: Path) -> None:
    """A checkpoint of a recorded model's names and shapes."""
    generator = np.random.default_rng(0)
    state = {}
    for key, shape, dtype in json.loads((MANIFESTS / f"{model}.json").read_text()):
        state[key] = np.asarray(generator.standard_normal(shape, np.float32), dtype)
    with path.open("wb") as file:
        write_torch(file, {"arch": "", "epoch": 1, "config": {}, "model_state_dict": state})


def spread(seconds: tuple[float, ...] | list[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2], Path(sys.argv[3]))
    else:
        tyro.cli(main)
