"""Many slides: which are this process' own, what became of each, and a table of it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cellvit_jax.errors import InputError
from cellvit_jax.inference.report import Report
from cellvit_jax.slides.collection import Listed

DONE, BEFORE, ELSEWHERE, FAILED = "done", "done before", "in work elsewhere", "failed"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a slide; `report` if it was done now, `reason` if it failed."""

    name: str
    state: str
    report: Report | None = None
    reason: str = ""


def shard(slides: Sequence[Listed], which: str | None) -> list[Listed]:
    """Every n-th slide from the i-th on, for `which` = "i/n" with i from 0 to n - 1.

    Raises InputError for anything else.
    """
    if which is None:
        return list(slides)
    numbers = re.fullmatch(r"(\d+)/(\d+)", which.strip())
    if not numbers or not int(numbers[1]) < int(numbers[2]):
        raise InputError(f"--shard is i/n, with i from 0 to n - 1, such as 0/4, not {which}")
    return list(slides)[int(numbers[1]) :: int(numbers[2])]


def check_names(slides: Sequence[Listed], out: Path) -> None:
    """Raises InputError where two slides' results would have one name."""
    twice = [name for name, count in Counter(one.name for one in slides).items() if count > 1]
    if twice:
        raise InputError(f"several images would be written to {out / twice[0]}: rename one of them")


def table(outcomes: Sequence[Outcome]) -> str:
    """A line for each slide, and one for all."""
    counts = Counter(outcome.state for outcome in outcomes)
    width = max(len(outcome.name) for outcome in outcomes)
    lines = [f"{o.name:{width}}  {o.state:17}  {_remark(o)}".rstrip() for o in outcomes]
    total = ", ".join(f"{n} {state}" for state, n in counts.items())
    return "\n".join([*lines, f"{len(outcomes)} slides: {total}"])


def _remark(outcome: Outcome) -> str:
    report = outcome.report
    if report is None:
        return outcome.reason
    figures = (
        f"{report.cells.total():,} {report.what}, {report.square_mm:.2f} mm², {report.wall:.1f} s"
    )
    return "; ".join([figures, *report.warnings])
