"""What is kept of a run in progress: whole or not at all, and only for the same run."""

import errno
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from cellvit_jax.cells import Piece, Remains, Tokens
from cellvit_jax.errors import OutputError
from cellvit_jax.inference import journal, state
from cellvit_jax.inference.journal import Journal
from cellvit_jax.inference.pipeline import Row, Seen, rows
from cellvit_jax.inference.plan import planned
from cellvit_jax.inference.report import Report
from cellvit_jax.slides import ImageSlide
from tests.inference.free import CARD, FreeNetwork, tissue

MADE_BY = {"slide": "a.svs", "roi": (1, 2, 3, 4), "mpp": 0.25}
SIDES = (Fraction(16), Fraction(16))
LOST = [{"x": 1, "y": 2, "reason": "bad bytes"}]


@pytest.fixture(scope="module")
def found() -> list[Row]:
    plan = planned(ImageSlide("a", tissue(400, 300), 0.25), CARD)
    return list(rows(plan, FreeNetwork(with_tokens=True), Report("a"), runs=True))


@pytest.fixture(scope="module")
def tiles() -> list[Seen]:
    seen: list[Seen] = []
    plan = planned(ImageSlide("a", tissue(400, 300), 0.25), CARD)

    def watch(stream):
        for tile in stream:
            seen.append(tile)
            yield tile

    list(rows(plan, FreeNetwork(with_tokens=True), Report("a"), watch=watch))
    return seen


def written(folder, found, lost=()):
    with Journal(folder, MADE_BY) as kept:
        for row in found:
            kept.add(row, list(lost))
    return folder


def same_piece(a: Piece, b: Piece) -> bool:
    arrays = ("mask", "edge", "types", "probabilities")
    return (a.box, a.context) == (b.box, b.context) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays
    )


def same_remains(a: Remains, b: Remains) -> bool:
    return (
        len(a.pieces) == len(b.pieces)
        and all(map(same_piece, a.pieces, b.pieces))
        and (a.cuts, a.line, a.found) == (b.cuts, b.line, b.found)
        and (a.waiting is b.waiting or a.waiting.equals(b.waiting))
        and np.array_equal(a.tokens.grid, b.tokens.grid)
        and (a.tokens.sides, a.tokens.first) == (b.tokens.sides, b.tokens.first)
    )


def test_what_is_between_two_rows_survives_a_file(found):
    for row in found[:-1]:
        packed = state.to_bytes(state.pack_remains(row.remains))
        assert same_remains(state.unpack_remains(state.from_bytes(packed)), row.remains)
        assert row.remains.pieces
    empty = state.unpack_remains(state.pack_remains(Remains((), (3,), 4, None, 5)))
    assert empty == Remains((), (3,), 4, None, 5) or empty.cuts == (3,)


def test_tiles_survive_a_file(tiles):
    lost = [*tiles[:2], Seen((9, 9), None)]
    again = state.unpack_seen(state.from_bytes(state.to_bytes(state.pack_seen(lost))))
    assert [tile.place for tile in again] == [tile.place for tile in lost]
    assert again[2].piece is None
    assert all(same_piece(a.piece, b.piece) for a, b in zip(again[:2], lost[:2], strict=True))
    np.testing.assert_array_equal(again[0].tokens.grid, tiles[0].tokens.grid)
    assert again[0].tokens.sides == SIDES


def test_a_journal_gives_back_what_was_added(tmp_path, found):
    with Journal(written(tmp_path, found[:-1], LOST), MADE_BY) as kept:
        assert kept.after.number == found[-2].number
        assert same_remains(kept.after.remains, found[-2].remains)
        assert kept.lost == LOST
        kept.add(found[-1], LOST)
        tables = list(kept.tables())
    assert pa.concat_tables(tables).equals(pa.concat_tables(row.table for row in found))


def test_only_the_last_states_are_kept(tmp_path, found):
    written(tmp_path, found)
    assert len(list(tmp_path.glob("state-*"))) == journal.STATES
    assert len(list(tmp_path.glob("cells-*"))) == len(found)


def test_tiles_of_the_row_in_progress_are_kept(tmp_path, found, tiles):
    second = [tile for tile in tiles if tile.place[0] == 1]
    written(tmp_path, found[:1])
    with Journal(tmp_path, MADE_BY, pause=0) as kept:
        list(kept.keep(iter(second[:2]), []))
    with Journal(tmp_path, MADE_BY) as kept:
        assert [tile.place for tile in kept.tiles] == [tile.place for tile in second[:2]]
        kept.add(found[1], [])
    assert not list(tmp_path.glob("tiles-*"))


def test_a_torn_line_is_done_again(tmp_path, found):
    path = written(tmp_path, found) / journal.NAME
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(tmp_path, MADE_BY) as kept:
        assert kept.after.number == found[-2].number


def damaged_state(folder):
    max(folder.glob("state-*")).write_bytes(b"zeros")


def damaged_cells(folder):
    path = max(folder.glob("cells-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def missing_cells(folder):
    max(folder.glob("cells-*")).unlink()


@pytest.mark.parametrize("damage", [damaged_state, damaged_cells, missing_cells])
def test_a_damaged_file_and_all_after_it_are_done_again(tmp_path, found, damage):
    damage(written(tmp_path, found))
    with Journal(tmp_path, MADE_BY) as kept:
        assert kept.after.number == found[-2].number
        kept.add(found[-1], [])
        assert sum(table.num_rows for table in kept.tables()) == found[-1].remains.found


def test_without_any_sound_state_all_is_done_again(tmp_path, found):
    for path in written(tmp_path, found).glob("state-*"):
        path.unlink()
    with Journal(tmp_path, MADE_BY) as kept:
        assert kept.after is None
        assert list(kept.tables()) == []
    assert [path.name for path in tmp_path.iterdir()] == [journal.NAME]


def test_other_arguments_are_refused_and_named(tmp_path, found):
    written(tmp_path, found)
    with pytest.raises(OutputError, match=r"mpp 0\.25, now 0\.5.*--overwrite"):
        Journal(tmp_path, MADE_BY | {"mpp": 0.5})
    with pytest.raises(OutputError, match="tokens None, now True"):
        Journal(tmp_path, MADE_BY | {"tokens": True})


def test_a_full_disk_costs_what_was_being_written(tmp_path, found, monkeypatch):
    written(tmp_path, found[:1])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(tmp_path, MADE_BY) as kept, monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            kept.add(found[1], [])
    with Journal(tmp_path, MADE_BY) as kept:
        assert kept.after.number == found[0].number


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "file" / "journal", MADE_BY)


def test_tokens_adjoin():
    upper, lower = (Tokens(np.full((2, 3, 1), i), SIDES, 2 * i) for i in range(2))
    both = Tokens.joined(upper, lower)
    assert (both.grid[:, 0, 0].tolist(), both.sides, both.first) == ([0, 0, 1, 1], SIDES, 0)
    assert both.below(33).first == 2
    assert both.below(64) is None
