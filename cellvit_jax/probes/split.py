"""Who is learned from and who is measured on: never the same patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cellvit_jax.errors import InputError

INNER = 4  # of what is learned from, a fourth chooses how


class Fold(NamedTuple):
    """Numbers of the bags that are learned from, that choose how (or none), and that are scored."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def folds_of(
    labels: np.ndarray,
    groups: np.ndarray,
    splits: Sequence[str | None],
    count: int,
    seed: int,
) -> tuple[str, list[Fold]]:
    """What is scored, in words, and the folds: one if `splits` (B,) are given, else `count`.

    Of given splits `test` is scored; without it `val` is, and then train alone chooses. Else each
    bag is scored in one fold of a cross-validation, in which groups stay whole and classes are
    spread evenly. Raises InputError where nobody is left to be scored.
    """
    rng = np.random.default_rng(seed)
    if any(splits):
        return _given(np.array(splits), labels, groups, rng)
    people = len(np.unique(groups))
    if people < 2:
        raise InputError(
            "all slides are of one patient: nobody is left to measure on; give slides of two "
            "patients or more"
        )
    parts = assigned(labels, groups, min(count, people), rng)
    folds = []
    for part in range(parts.max() + 1):
        train, test = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        folds.append(Fold(*held_out(train, labels, groups, rng), test))
    return f"cross-validation, {len(folds)} folds", folds


def _given(splits, labels, groups, rng) -> tuple[str, list[Fold]]:
    train, val, test = (np.flatnonzero(splits == name) for name in ("train", "val", "test"))
    if not len(train):
        raise InputError("no slide is in train: there is nothing to learn from")
    if len(test) and len(val):
        return "test", [Fold(train, val, test)]
    if not len(test) and not len(val):
        raise InputError("no slide is in val or test: there is nothing to measure on")
    name, scored = ("test", test) if len(test) else ("val", val)
    return name, [Fold(*held_out(train, labels, groups, rng), scored)]


def held_out(
    train: np.ndarray, labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of bags in two parts, a fourth of their groups in the second, which may be empty.

    A class that would be in the second part alone stays in the first, with its groups.
    """
    people = np.unique(groups[train])
    if len(people) < 2:
        return train, train[:0]
    own, theirs = labels[train], groups[train]
    chosen = assigned(own, theirs, min(INNER, len(people)), rng) == 0
    chosen &= np.isin(own, own[~chosen])
    whole = ~np.isin(theirs, theirs[~chosen])
    return train[~whole], train[whole]


def assigned(
    labels: np.ndarray, groups: np.ndarray, parts: int, rng: np.random.Generator
) -> np.ndarray:
    """The part (B,) of each bag: groups stay whole, and parts are as alike in classes as can be.

    Groups are dealt out in turn, the most one-sided first, each to the part that it leaves the
    classes most evenly spread over the parts; every part gets one.
    """
    people, owners = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(people), labels.max() + 1))
    np.add.at(counts, (owners, labels), 1)
    shares = counts / np.maximum(counts.sum(0), 1)
    order = rng.permutation(len(people))
    order = order[np.argsort(-counts[order].std(1), kind="stable")]
    held, part_of = np.zeros((parts, counts.shape[1])), np.zeros(len(people), int)
    sizes = np.zeros(parts, int)
    for rank, group in enumerate(order):
        allowed = np.flatnonzero(sizes == 0) if len(order) - rank <= (sizes == 0).sum() else None
        part = _best(held, shares[group], sizes, allowed)
        held[part] += shares[group]
        sizes[part] += 1
        part_of[group] = part
    return part_of[owners]


def _best(held, share, sizes, allowed) -> int:
    """The part that leaves the classes most even; of equal ones that with the fewest groups."""
    candidates = np.arange(len(held)) if allowed is None else allowed
    trials = held[None] + share * np.eye(len(held))[candidates][:, :, None]
    uneven = trials.std(1).mean(1).round(9)
    return int(candidates[np.lexsort((sizes[candidates], uneven))[0]])
