"""What a dry run tells, and that it does so in time."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import pytest

pytest.importorskip("grain")

from cellvit_jax.errors import CellViTError
from cellvit_jax.sharding import make_mesh
from cellvit_jax.training import dry_run
from tests.networks import CARD
from tests.training.runs import CONFIG, RECIPE, batch


def job(**fields) -> SimpleNamespace:
    """A run made ready, whose images are enough to fill some MiB."""
    return SimpleNamespace(
        recipe=dataclasses.replace(RECIPE, **fields),
        network=SimpleNamespace(config=CONFIG, card=CARD, weights={}),
        task=None,
        mesh=make_mesh(devices=jax.devices()[:1]),
        batches=lambda start: iter([batch(start, 64)]),
        news=("model        a small one",),
    )


@pytest.mark.slow
def test_the_memory_of_every_phase_is_told_before_there_is_a_state(monkeypatch, capsys):
    def full(*_: object) -> None:
        raise CellViTError("out of memory")

    monkeypatch.setattr(dry_run, "begin", full)
    with pytest.raises(CellViTError, match="out of memory"):
        dry_run.show(lambda: job(unfreeze_epoch=1))
    told = capsys.readouterr().out
    assert told.startswith("model        a small one\nbatch        image 64×32×32×3")
    rests, learns = (int(mib) for mib in re.findall(r"memory .*? (\d+) at work, encoder", told))
    assert 0 < rests < learns


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "1 min"), (3700, "62 min"), (7199, "120 min"), (8_280, "2.3 h"), (260_000, "3.0 days")],
)
def test_how_long_a_run_takes_is_said_as_people_say_it(seconds, said):
    assert dry_run.duration(seconds) == said


@pytest.mark.parametrize(
    ("unfreeze", "phases"), [(0, [False]), (1, [True, False]), (5, [True]), (None, [True])]
)
def test_a_phase_that_a_run_does_not_come_to_is_none(unfreeze, phases):
    assert dry_run.phases(dataclasses.replace(RECIPE, unfreeze_epoch=unfreeze)) == phases
