"""`cellvit-jax segment`: slides to folders of results, and lines that say what was found."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sys
import traceback
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from flax import nnx

from cellvit_jax import caches, checkpoint
from cellvit_jax.errors import CellViTError, InputError, printable
from cellvit_jax.inference import cohort, locks, progress, results
from cellvit_jax.inference.cohort import Outcome
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.inference.slide_job import (
    Options,
    arguments,
    checksum,
    segment_slide,
    unfinished,
)
from cellvit_jax.slides import Slide, open_slide
from cellvit_jax.slides.collection import Listed, find


@dataclasses.dataclass(unsafe_hash=True)
class Task:
    """What is done to every slide of a run; the model is loaded when the first one is open.

    `dtype` is the type that it computes in, `attention` a kernel of `models.attention`.
    """

    out: Path
    model: str
    options: Options = Options()  # noqa: RUF009, frozen
    head: Path | None = None
    mpp: float | None = None
    batch_size: int | None = None
    overwrite: bool = False
    quiet: bool = False
    dtype: str = "float32"
    attention: str = "xla"

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The network, loaded on first use. Raises CheckpointError, InputError."""
        caches.keep_compiled_programs()
        model = checkpoint.load(self.model, dtype=self.dtype)
        head = None if self.head is None else checkpoint.load(self.head)
        tokens, binary = self.options.tokens, self.options.binary
        return predictor_of(
            model,
            self.batch_size,
            tokens=tokens,
            head=head,
            binary=binary,
            attention=self.attention,
        )

    @functools.cached_property
    def _model(self) -> dict[str, str | int | None]:
        """What of the model results depend on, before a device may have turned out too small."""
        predictor = self.predictor
        head = None if predictor.head is None else checksum(nnx.state(predictor.head))
        return {
            "model": checksum(predictor.weights),
            "head": head,
            "batch_size": predictor.batch_size,
            "dtype": self.dtype,
            "attention": self.attention,
            "card": f"{zlib.crc32(repr(predictor.card).encode()):08x}",  # classes, mpp, ...
        }

    def portable(self) -> Task:
        """The same without the network, with paths that hold in another process."""
        model = Path(self.model).absolute()
        return dataclasses.replace(
            self,
            out=self.out.absolute(),
            model=str(model) if model.exists() else self.model,
            head=self.head and self.head.absolute(),
            quiet=True,
        )

    def find(self, inputs: Sequence[Path], extensions: Sequence[str]) -> list[Listed]:
        """The slides that people mean. Raises InputError."""
        return find(inputs, extensions)

    def open(self, source: Listed) -> Slide:
        """The slide, at the resolution that was given for it. Raises InputError."""
        return open_slide(source.path, mpp=self.mpp_of(source))

    def mpp_of(self, source: Listed) -> float | None:
        """The µm per pixel that were given for a slide: those of the run win."""
        return source.mpp if self.mpp is None else self.mpp

    def segment(self, source: Listed, slide: Slide) -> Outcome:
        """Segments one slide, unless that is done or being done. Raises CellViTError."""
        folder = self.out / source.name
        made_by = self._model | arguments(source, slide, self.options)
        with locks.held(self.out / f".{source.name}.lock") as mine:
            if not mine:
                return Outcome(source.name, cohort.ELSEWHERE)
            if self.overwrite:
                shutil.rmtree(unfinished(folder), ignore_errors=True)
            elif folder.exists():
                results.check_made_by(folder, made_by)
                # of a run that was killed when its result was there already
                shutil.rmtree(unfinished(folder), ignore_errors=True)
                return Outcome(source.name, cohort.BEFORE)
            watch = progress.watch(self.quiet)
            report = segment_slide(slide, folder, self.predictor, self.options, made_by, watch)
        return Outcome(source.name, cohort.DONE, report)


def run(
    inputs: Sequence[Path],
    task: Task,
    *,
    extensions: Sequence[str] = (),
    shard: str | None = None,
    scheduler: str | None = None,
) -> bool:
    """Segment the slides that `inputs` name; results in `out/<slide's name>/`, each when complete.

    A slide that fails does not stop the others; whether none did is returned. What a killed run did
    is not done again; slides that are done already, or that another process works on, are passed
    over. The error of a slide that is the only one is raised, as are those of arguments. With the
    address of a `scheduler` the work is done by its workers, see `cluster`.
    """
    if task.batch_size is not None and task.batch_size < 1:
        raise InputError(f"--batch-size must be 1 or more, not {task.batch_size}")
    everything = task.find(inputs, extensions)
    cohort.check_names(everything, task.out)
    slides = cohort.shard(everything, shard)
    if len(everything) == 1 and not scheduler:
        for source in slides:
            say(task.segment(source, task.open(source)), task)
        return True
    outcomes = list(each(slides, task, scheduler))
    if outcomes and not task.quiet:
        print(cohort.table(outcomes))
    return all(outcome.state != cohort.FAILED for outcome in outcomes)


def each(slides: Sequence[Listed], task: Task, scheduler: str | None) -> Iterator[Outcome]:
    """What became of each slide, said as soon as it is known; here, or on a scheduler's workers."""
    done: Iterator[Outcome] = (attempt(source, task) for source in slides)
    if scheduler:
        from cellvit_jax.inference import cluster

        absolute = [dataclasses.replace(one, path=one.path.absolute()) for one in slides]
        done = cluster.outcomes(absolute, task, scheduler)
    for outcome in done:
        say(outcome, task)
        yield outcome


def attempt(source: Listed, task: Task) -> Outcome:
    """What became of a slide, be it an error. One of the model is raised."""
    try:
        slide = task.open(source)
    except CellViTError as error:
        return failed(source, error)
    _ = task.predictor
    try:
        return task.segment(source, slide)
    except CellViTError as error:
        return failed(source, error)
    except Exception as error:  # an error of ours must not end the night's work
        traceback.print_exc()
        return failed(source, error)


def failed(source: Listed, error: Exception) -> Outcome:
    """The outcome of a slide with an error."""
    reason = printable(str(error) or type(error).__name__)
    return Outcome(source.name, cohort.FAILED, reason=reason)


def say(outcome: Outcome, task: Task) -> None:
    """What was found and where it is, on stdout; what to look at, on stderr."""
    if outcome.report:
        for warning in outcome.report.warnings:
            print(f"cellvit-jax: {printable(outcome.name)}: {warning}", file=sys.stderr)
    if outcome.state == cohort.FAILED:
        print(f"cellvit-jax: {printable(outcome.name)} failed: {outcome.reason}", file=sys.stderr)
    if task.quiet or outcome.state == cohort.FAILED:
        return
    folder = task.out / outcome.name
    if outcome.report is None:
        print(f"{outcome.name}: {outcome.state}")
        return
    files = ", ".join(path.name for path in sorted(folder.iterdir()))
    print(f"{outcome.report}\n{folder}/: {files}")
