"""One vector a patch: an encoder's own, for tiles that cover a slide."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from fractions import Fraction
from functools import partial

import jax
import numpy as np
import pyarrow as pa
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.cells import Remains, Tokens
from cellvit_jax.errors import InputError
from cellvit_jax.inference.pipeline import Place, Row, Seen, Stages
from cellvit_jax.inference.plan import Plan
from cellvit_jax.inference.predictor import Maps, Predictor, normalised
from cellvit_jax.inference.report import Report
from cellvit_jax.models import CellViT, Encoder, Sam
from cellvit_jax.models.encoder import check_size
from cellvit_jax.slides import Tile

ONE = Fraction(1), Fraction(1)


class PatchPredictor(Predictor):
    """Runs the encoder of a network on patches: `vector` (D,) float32 is all that it returns.

    `pool` is "cls" (the cls token after the final norm; the mean of the neck's output of SAM, which
    has none) or "mean" (of all tokens). `tile` is the side of the patches, by default what the
    encoder's positions were made for. Raises InputError for what has no encoder, and for a side
    that it cannot take.
    """

    def __init__(
        self,
        model: CellViT | Encoder | Sam,
        pool: str = "cls",
        tile: int | None = None,
        batch_size: int | None = None,
    ):
        name = getattr(model, "config", None) and checkpoint.kind(model.config).encoder
        if not name:
            raise InputError("this network has no encoder of images: give a CellViT or an encoder")
        if model.card is None:
            raise InputError("this model has no card; use one that cellvit_jax.load returned")
        native = model.config.position_grid * model.config.patch_size
        side = tile or native
        if not isinstance(model, Sam):
            check_size((1, side, side, 3), model.config)
        elif side != native:
            raise InputError(f"this SAM takes tiles of {native} pixels, not {side}")
        card = dataclasses.replace(model.card, tile=side)
        super().__init__(getattr(model, name), card, batch_size=batch_size)
        self._predict = jax.jit(partial(_vector, self.graphdef, card, pool))

    def _unpacked(self, arrays: Maps) -> Maps:
        return arrays


def _vector(graphdef, card, pool, state, images):
    features = nnx.merge(graphdef, state).features(normalised(images, card))
    if pool == "mean":
        return {"vector": features["tokens"].mean((1, 2))}
    return {"vector": features["neck"].mean((1, 2)) if "neck" in features else features["cls"]}


def extract(
    tiles: Iterable[tuple[Tile, Place, Maps | None]], report: Report, pool: Executor, depth: int
) -> Iterator[Seen]:
    """The vector of each tile, as a token grid of one."""
    for _, place, maps in tiles:
        grid = None if maps is None else Tokens(maps["vector"][None, None], ONE)
        yield Seen(place, None, grid)


def assemble(
    plan: Plan,
    seen: Iterator[Seen],
    report: Report,
    pool: Executor,
    after: Row | None,
    runs: bool,
) -> Iterator[Row]:
    """The rows of the grid that hold patches, and the last: id, centre (view pixels), token."""
    first = after.number + 1 if after else 0
    done, last = after.remains.found if after else 0, len(plan.grid.rows) - 1
    for number in range(first, last + 1):
        tiles = list(itertools.islice(seen, int(plan.wanted[number].sum())))
        if not tiles and number < last:
            continue
        table = _table(plan, [tile for tile in tiles if tile.tokens], done)
        done += table.num_rows
        yield Row(number, Remains(found=done), table)


def _table(plan: Plan, seen: list[Seen], done: int) -> pa.Table:
    tiles = [plan.grid[one.place] for one in seen]
    vectors = [one.tokens.grid[0, 0] for one in seen if one.tokens]
    columns = {
        "id": pa.array(np.arange(done + 1, done + 1 + len(seen))),
        "centroid_x": pa.array([tile.col + (tile.size - 1) / 2 for tile in tiles], pa.float64()),
        "centroid_y": pa.array([tile.row + (tile.size - 1) / 2 for tile in tiles], pa.float64()),
    }
    if vectors:
        flat = np.concatenate(vectors).astype(np.float32)
        columns["token"] = pa.FixedSizeListArray.from_arrays(flat, len(vectors[0]))
    return pa.table(columns)


PATCHES = Stages(extract, assemble)
