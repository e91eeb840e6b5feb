"""From pixels to rows of cells, with a network that costs nothing."""

import dataclasses
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from cellvit_jax.cells import joined, painted, stain
from cellvit_jax.errors import InputError
from cellvit_jax.inference.pipeline import rows, token_cells, tokens_of
from cellvit_jax.inference.plan import planned
from cellvit_jax.inference.report import Report
from cellvit_jax.slides import ImageSlide, Tile
from tests.cells.test_stitching import as_one_tile
from tests.inference.free import CARD, FreeNetwork, maps_of, tissue

PIXELS = tissue(500, 700)


def run(slide, *, tile=None, where=None, roi=None, **options):
    network = options.pop("network", None) or FreeNetwork()
    report = Report(slide.name)
    plan = planned(slide, CARD, tile=tile, where=where, roi=roi)
    found = list(rows(plan, network, report, **options))
    return joined(row.table for row in found), found, report


@pytest.fixture(scope="module")
def slide():
    return ImageSlide("tissue", PIXELS, 0.25)


@pytest.fixture(scope="module")
def expected():
    instances, cells = as_one_tile(**maps_of(PIXELS))
    return instances, cells.replace_columns(**stain(PIXELS, instances, len(cells)))


def test_the_cells_are_those_of_one_tile_as_large_as_the_image(slide, expected):
    instances, cells = expected
    table, found, report = run(slide, runs=True)
    assert table.drop_columns(["runs"]).equals(cells.table)
    np.testing.assert_array_equal(painted(table, slide.size), instances)
    assert [row.number for row in found] == list(range(5))
    assert {"read", "extract", "stitch"} <= report.seconds.keys()


@pytest.mark.parametrize("tile", [96, 256, 1024])
@pytest.mark.parametrize("batch", [1, 5])
def test_neither_tiles_nor_batches_change_them(slide, expected, tile, batch):
    network = FreeNetwork(batch_size=batch)
    table, _, _ = run(slide, tile=tile, network=network, workers=3)
    assert table.equals(expected[1].table)


def test_it_goes_on_after_any_row_in_the_same_batches(slide, expected):
    _, found, _ = run(slide)
    plan = planned(slide, CARD)
    for row in found[:-1]:
        seen = []
        network = FreeNetwork()
        later = list(
            rows(plan, network, Report("again"), after=row, watch=lambda s, k=seen: keep(s, k))
        )
        tables = [one.table for one in [*found[: row.number + 1], *later]]
        assert pa.concat_tables(tables).equals(expected[1].table)
        assert len(seen) == (plan.places[:, 0] > row.number).sum()


def keep(seen, into):
    for tile in seen:
        into.append(tile)
        yield tile


def test_it_goes_on_within_a_row(slide, expected):
    seen, plan = [], planned(slide, CARD)
    first = next(iter(rows(plan, FreeNetwork(), Report("a"), watch=lambda s: keep(s, seen))))
    done = [tile for tile in seen if tile.place[0] == 0][:3]
    tables = [row.table for row in rows(plan, FreeNetwork(), Report("b"), done=done)]
    assert tables[0].equals(first.table)
    assert pa.concat_tables(tables).equals(expected[1].table)


class Broken(ImageSlide):
    """Of which a part cannot be decoded."""

    def read(self, row, col, height, width, level=0):
        if row <= 250 < row + height and col <= 350 < col + width:
            raise InputError("bad bytes")
        return super().read(row, col, height, width, level)


def test_a_tile_that_cannot_be_read_is_lost_and_nothing_else(expected):
    table, _, report = run(Broken("broken", PIXELS, 0.25))
    assert 1 <= len(report.failed) <= 4
    assert report.failed[0]["reason"] == "bad bytes"
    lost = expected[1].table.num_rows - table.num_rows
    assert 0 < lost < 60
    for tile in report.failed:
        assert tile["x"] <= 350 < tile["x"] + 128
        assert tile["y"] <= 250 < tile["y"] + 128


def test_nothing_is_looked_at_where_there_is_no_tissue():
    pixels = np.full((600, 900, 3), 255, np.uint8)
    pixels[100:300, 500:700] = PIXELS[100:300, 200:400]
    slide = ImageSlide("mostly glass", pixels, 0.25)
    plan = planned(slide, CARD, where="otsu")
    assert 0 < len(plan.places) < plan.wanted.size / 2
    assert run(slide, where="otsu")[0].equals(run(slide, where="none")[0])


def test_a_region_holds_the_cells_with_their_centre_in_it(slide, expected):
    table, _, _ = run(slide, roi=(100, 200, 300, 350))
    x, y = (expected[1].column(f"centroid_{axis}") for axis in "xy")
    inside = (y >= 99.5) & (y < 299.5) & (x >= 199.5) & (x < 349.5)
    np.testing.assert_array_equal(table["centroid_x"], x[inside])
    np.testing.assert_array_equal(table["id"], np.arange(1, inside.sum() + 1))


def test_a_slide_without_resolution_is_an_error_that_names_the_option(slide):
    @dataclasses.dataclass
    class Whole:
        name: str = "whole"
        mpp: float | None = None

    with pytest.raises(InputError, match="--mpp"):
        planned(Whole(), CARD)


def test_tokens_are_those_under_the_cells(slide, expected):
    table, _, _ = run(slide, network=FreeNetwork(with_tokens=True))
    plain = run(slide)[0]
    assert table.drop_columns(["token"]).equals(plain)
    tokens = np.stack(table["token"].to_numpy())
    # a cell's mean colour is darker in red than its surroundings; far tokens would be alike
    darkness = 255 - tokens[:, 0]
    assert tokens.shape == (table.num_rows, 3)
    assert (darkness > 20).mean() > 0.95


def test_tokens_of_tiles_off_the_grid():
    """A token cell of the image takes the token under its centre, also of a coarser grid."""
    tile = Tile(30, 50, 64, ((35, 60), (94, 114)))
    grid = np.arange(16.0).reshape(4, 4, 1)
    found = tokens_of(tile, grid)
    cells = token_cells(35, 94, Fraction(16)), token_cells(60, 114, Fraction(16))
    assert (found.grid.shape, found.first) == ((*map(len, cells), 1), cells[0][0])
    for (i, j), token in np.ndenumerate(found.grid[..., 0]):
        r, c = 16 * cells[0][i] + 8, 16 * cells[1][j] + 8
        r, c = min(r, 93), min(c, 113)
        assert token == min((r - 30) // 16, 3) * 4 + min((c - 50) // 16, 3)
