"""The names of classes by their ids, as files hold them: {0: A, 1: B}, {1: A, 2: B}, …"""

from __future__ import annotations

from typing import Any

from cellvit_jax.errors import InputError

BACKGROUND = {"background", "bg", "none"}  # what files call the id 0 of masks


def counted(source: object, names: Any) -> tuple[int, tuple[str, ...]]:
    """The first id, often 0 or 1, and the names in the order of the ids, which leave no gaps.

    `source` is what errors are of. Raises InputError for anything else.
    """
    if not isinstance(names, dict) or not names:
        raise InputError(f"{source} holds no mapping of ids to names")
    try:
        by_id = {int(i): str(name) for i, name in names.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"{source} has an id that is no integer ({error})") from error
    ids = sorted(by_id)
    if ids[0] < 0 or ids != list(range(ids[0], ids[0] + len(ids))):
        raise InputError(
            f"{source} has the ids {ids}, expected such without gaps: 0, 1, … or 1, 2, …"
        )
    return ids[0], tuple(by_id[i] for i in ids)


def of_masks(source: object, names: Any) -> tuple[str, ...]:
    """The names of the ids 1, 2, … of masks, whose 0 is the background and may be named so.

    Raises InputError, also where 0 is a class: whether masks count from 0 or 1 would be a guess.
    """
    first, classes = counted(source, names)
    if first == 1:
        return classes
    if first > 1:
        raise InputError(f"{source} begins with the id {first}, but classes of masks with 1")
    background, *others = classes
    if background.strip().lower() not in BACKGROUND:
        raise InputError(
            f"{source} calls 0 {background!r}, but 0 is the background of masks: give the classes "
            "the ids from 1 that they have in the masks"
        )
    return tuple(others)
