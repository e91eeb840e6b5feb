"""What `cellvit-jax distil` does, from its arguments to the last sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from cellvit_jax import checkpoint, sharding, zoo
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.models import EncoderConfig, ModelConfig
from cellvit_jax.models.encoder import check_size
from cellvit_jax.pretraining import student as students
from cellvit_jax.pretraining import teacher as teachers
from cellvit_jax.pretraining.distil import Distillation, Losses
from cellvit_jax.pretraining.images import Images, RandomImage, open_images
from cellvit_jax.training import config as configs
from cellvit_jax.training import loop
from cellvit_jax.training.conduct import Batches, conduct, stream
from cellvit_jax.training.config import Config, Source, Validation
from cellvit_jax.training.dry_run import count
from cellvit_jax.training.recipes import Recipe, demo
from cellvit_jax.training.run import sentence, validation_on
from cellvit_jax.training.start import Start


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilConfig(Config):
    """Everything that decides what a run computes, as plain values.

    `student` is what a `RunConfig` calls `model`; the recipe's `objective` is of no account. With
    `teacher_dtype` "auto" the teacher computes in bfloat16, or on CPU, which has no bfloat16 of its
    own, in float32.
    """

    data: tuple[Source, ...]
    teacher: str
    student: str
    losses: Losses = field(default_factory=Losses)
    teacher_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    validation: Validation = field(default_factory=Validation)


class Job(NamedTuple):
    """A run made ready."""

    recipe: Recipe  # the config's, with its steps per epoch
    network: Start  # the student
    task: Distillation
    mesh: Mesh
    batches: Batches
    validation: loop.Validation | None
    news: tuple[str, ...]


def new_config(
    data: Sequence[str],
    teacher: str,
    student: str,
    assignments: Sequence[str] = (),
    *,
    maps: bool = True,
) -> DistilConfig:
    """A config of defaults, with some values set. Raises `InputError` for what does not fit.

    Features alone are taught without `maps`, and by a teacher that is an encoder alone.
    """
    known, _ = checkpoint.read_config(zoo.find(teacher))
    whole = maps and isinstance(known, ModelConfig)
    config = DistilConfig(
        data=tuple(Source(path=path) for path in data),
        teacher=teacher,
        student=student,
        recipe=demo(1000),
        losses=Losses() if whole else Losses.of_features(),
    )
    return config.changed(assignments)


def repeated(path: Path, assignments: Sequence[str]) -> DistilConfig:
    """The config of another run, with some values set. Raises `InputError`."""
    return configs.read(path, DistilConfig).changed(assignments)


def default_run(config: DistilConfig) -> Path:
    """`runs/STUDENT-TEACHER`."""
    return Path("runs") / f"{Path(config.student).name}-{Path(config.teacher).name}"


def prepare(config: DistilConfig) -> Job:
    """Open the images, find both networks. Raises `InputError` for what does not fit together."""
    images = open_images(config.data, config.validation)
    recipe, losses = config.recipe.over(len(images.samples)), config.losses
    source, seen = teachers.find(config.teacher, maps=losses.maps)
    student = students.find(
        config.student, source, images, losses, tile=recipe.tile, seed=recipe.seed
    )
    for network in (student.config, seen):
        check_size((1, recipe.tile, recipe.tile, 3), network)
    mesh = sharding.make_mesh(**dataclasses.asdict(config.devices))
    tiles = RandomImage(images.samples, images.weights, recipe.tile, recipe.augmentation)
    dtype = compute_type(config.teacher_dtype)
    teacher = teachers.load(config.teacher, mesh, maps=losses.maps, dtype=dtype)
    return Job(
        recipe,
        student,
        Distillation(student.config, recipe, teacher, losses),
        mesh,
        stream(config, tiles, mesh),
        validation(config, images.measured),
        tuple(news(config, student, seen, images)),
    )


def validation(config: DistilConfig, measured: Dataset | None) -> loop.Validation | None:
    """How the student is measured: only one that learns to find nuclei can be."""
    return validation_on(measured if config.losses.found else None, config.validation)


def compute_type(chosen: str) -> str:
    """The type that the teacher computes in."""
    if chosen != "auto":
        return chosen
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def news(config: DistilConfig, student: Start, seen: EncoderConfig, images: Images) -> list[str]:
    """What is worth a line before the run."""
    sizes = [parameters(one) for one in (seen, student.config)]
    what = "maps and features" if config.losses.maps else "features"
    first, *rest = student.news
    lines = [
        f"teacher      {seen.architecture}, weights of {config.teacher}: {what}, in "
        f"{compute_type(config.teacher_dtype)}, {sizes[0]:,} parameters",
        f"{first.replace('model  ', 'student', 1)}, {sizes[1]:,} parameters",
        *rest,
        f"data         {len(images.samples):,} images to learn from",
    ]
    if sizes[1] > sizes[0]:
        lines.append("note         the student is larger than its teacher")
    return lines


def parameters(config: EncoderConfig) -> int:
    """Numbers in the weights of a network."""
    return count(nnx.to_pure_dict(nnx.state(checkpoint.network(config), nnx.Param)))


def run(config: DistilConfig, out: Path, *, quiet: bool = False) -> loop.Outcome:
    """Distil, or go on, in the folder `out`. Raises `OutputError` where it holds another run."""
    then = f"train --data DATA --model {out / 'best'}"
    last = partial(sentence, command="distil", then=then)
    return conduct(config, out, partial(prepare, config), last, quiet=quiet)
