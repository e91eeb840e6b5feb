"""An epoch of a head with the tokens at hand, beside one for which the network runs again.

    python benchmarks/heads.py --data FOLDER [--model DIR]

FOLDER is annotated, with a split train and perhaps others, such as CoNSeP or CellViT++'s folders.
An uncached epoch finds the cells of all training fields and then trains; a cached one trains. Both
are timed in one run, the first once, since it is long. What a whole training takes from the cache
on the disk, and what the head and the network's own types score on the same validation cells, is
printed as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import cellvit_jax as cj
from cellvit_jax import zoo
from cellvit_jax.data.open import open_splits
from cellvit_jax.heads import tasks
from cellvit_jax.heads.detect import Detector
from cellvit_jax.heads.fit import Recipe, fit
from cellvit_jax.heads.pairs import gather

EPOCHS = 200


def main(data: Path, model: str) -> None:
    """Print the seconds, their ratio, and the scores."""
    splits = open_splits(data)
    with tempfile.TemporaryDirectory() as folder:
        detector = Detector(cj.load(model), Path(folder))
        detector("warm", splits["train"].samples[0].image[:64, :64], splits["train"].mpp)
        begun = time.perf_counter()
        cells = gather(splits["train"], "train", detector)
        network = time.perf_counter() - begun
        epochs = _epochs(cells)
        cached = statistics.median(epochs)
        for name, part in splits.items():
            gather(part, name, detector)
        begun = time.perf_counter()
        _, report = tasks.trained(splits, detector, Recipe())
        whole = time.perf_counter() - begun
    low, _, high = statistics.quantiles(epochs, n=4)
    print(f"{len(cells)} cells of {len(splits['train'].samples)} fields")
    print(f"uncached epoch  {network + cached:.1f} s")
    print(f"cached epoch    {1000 * cached:.1f} ms ({1000 * low:.1f}-{1000 * high:.1f})")
    print(f"ratio           {(network + cached) / cached:.0f}")
    print(f"training from the cache on the disk, with scores: {whole:.1f} s")
    for title, part in report["scores"].items():
        print(f"{title}: accuracy {part['accuracy']:.3f}, F1 {part['per_class']['f1']}")


def _epochs(cells) -> list[float]:
    """Seconds of an epoch, several times: of trainings of two lengths the difference."""
    times = []
    for _ in range(7):
        seconds = {}
        for count in (1, 1 + EPOCHS):
            begun = time.perf_counter()
            fit(cells, None, dataclasses.replace(Recipe(), epochs=count))
            seconds[count] = time.perf_counter() - begun
        times.append((seconds[1 + EPOCHS] - seconds[1]) / EPOCHS)
    return times


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=zoo.DEFAULT)
    given = parser.parse_args()
    main(given.data, given.model)
