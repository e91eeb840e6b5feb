"""Train the bundled network, cellvit-tiny, on data that may be redistributed freely.

    python scripts/train_demo.py --data HE_NUCLEI --run runs/demo

HE_NUCLEI holds `consep/train` and `bbbc038/train`, each with images/, masks/ (and types/).
Run it again to resume. The result is the checkpoint directory `RUN/last`. A run may go on from the
weights of another (`--start-from runs/demo/last --run runs/demo-2`); so did the bundled weights:
see `benchmarks/RESULTS.md`.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import tyro

from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.data.consep import CLASSES, MERGED
from cellvit_jax.data.folder import read_folder
from cellvit_jax.data.pipeline import RandomTile, batches
from cellvit_jax.models import ModelConfig
from cellvit_jax.training.loop import train
from cellvit_jax.training.recipes import demo

BBBC038_SHARE = 0.12  # of the tiles: mostly not H&E, but other stains and sizes

CARD = ModelCard(
    classes=cell_classes(*CLASSES),
    mpp=0.25,
    tile=256,
    provenance="trained from random weights by scripts/train_demo.py on 15 fields of CoNSeP "
    "(Graham et al. 2019) and 12 of BBBC038 (Caicedo et al. 2019)",
    license="Apache-2.0",
    citation="Graham et al., HoVer-Net, Medical Image Analysis 58, 2019 (CoNSeP, Apache-2.0); "
    "Caicedo et al., Nature Methods 16, 2019 (BBBC038, CC0)",
)


def main(data: Path, run: Path, steps: int = 3700, start_from: str | None = None) -> None:
    """Train, or resume; `steps` may change between the two.

    A new run begins with random weights, or with those of `start_from`: a folder or a name.
    """
    cv2.setNumThreads(1)
    consep = read_folder(data / "consep" / "train", MERGED)
    bbbc038 = read_folder(data / "bbbc038" / "train")
    shares = [(1 - BBBC038_SHARE) / len(consep)] * len(consep)
    shares += [BBBC038_SHARE / len(bbbc038)] * len(bbbc038)
    recipe = demo(steps)
    tiles = RandomTile(consep + bbbc038, np.array(shares))
    stream = partial(batches, tiles, recipe.batch_size, seed=recipe.seed)
    train(
        run,
        ModelConfig.cellvit_tiny(),
        CARD,
        recipe,
        lambda start: stream(start=start),
        start_from=start_from,
    )


if __name__ == "__main__":
    tyro.cli(main)
