"""A student, and what its teacher can tell it."""

from __future__ import annotations

from cellvit_jax import checkpoint, zoo
from cellvit_jax.card import ModelCard, cited
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.errors import InputError
from cellvit_jax.initialise import Source
from cellvit_jax.models import ModelConfig
from cellvit_jax.pretraining.distil import Losses
from cellvit_jax.pretraining.images import Images
from cellvit_jax.training import start

CELL = ("Cell",)  # the one class of a student whom nobody has told of any


def find(
    name: str, teacher: Source, images: Images, losses: Losses, *, tile: int, seed: int
) -> start.Start:
    """The student, as `training.start.find` finds a network for the data that a teacher annotated.

    Its classes are the teacher's where types are to be learnt, else its own, the data's, or the
    teacher's. Raises `InputError` where types are to be learnt, and it has others.
    """
    own, taught = own_classes(name), names_of(teacher.card)
    if losses.types and own and own != taught:
        raise InputError(
            f"{name} knows {', '.join(own)}, its teacher {', '.join(taught)}: types can be learnt "
            "where they are the same; leave them out with --set losses.types=0"
        )
    classes = taught if losses.types else own or images.classes or taught or CELL
    told = Dataset(
        name=f"what {teacher.path.resolve().name} makes of {images.name}",
        samples=(),
        classes=classes,
        mpp=images.mpp or teacher.card.mpp,
        license=teacher.card.license,
        citation=cited(teacher.card.citation, images.citation),
    )
    return start.find(name, told, tile=tile, seed=seed)


def own_classes(name: str) -> tuple[str, ...]:
    """The classes of a student that is a trained CellViT."""
    if start.is_preset(name):
        return ()
    try:
        config, card = checkpoint.read_config(zoo.find(name))
    except InputError:  # it is no network: `start.find` says so better
        return ()
    return names_of(card) if isinstance(config, ModelConfig) else ()


def names_of(card: ModelCard) -> tuple[str, ...]:
    """The names of its classes, without the background."""
    return tuple(one.name for one in card.classes[1:])
