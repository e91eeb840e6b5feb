"""Types of cells from a classifier head: each from the token that a cell has of the encoder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from cellvit_jax.cells import Cells
from cellvit_jax.errors import InputError
from cellvit_jax.models import CellClassifier, CellViT

ROWS = 1024  # cells per call of a head: one compiled shape for any number of them


def check_head(head: CellClassifier, model: CellViT) -> None:
    """Raises `InputError` for a head that does not fit the tokens of `model`, or has no card."""
    if not isinstance(head, CellClassifier):
        what = architecture_of(head)
        raise InputError(f"the {what} that was given as a head is no cell classifier head")
    if head.card is None:
        raise InputError("this head has no card; use one that cellvit_jax.load returned")
    wanted, given = head.config.token_dim, model.config.embed_dim
    if wanted != given:
        raise InputError(
            f"this head was trained on tokens of {wanted} numbers, those of "
            f"{model.config.architecture} have {given}: it belongs to another encoder"
        )


def architecture_of(network: Any) -> str:
    """What a network is, in a word; of something else, its class."""
    return getattr(getattr(network, "config", network), "architecture", type(network).__name__)


def classify(table: pa.Table, head: CellClassifier, *, keep_tokens: bool = False) -> pa.Table:
    """The same cells with the head's types; their column `token` is used up unless it is kept.

    `probabilities` are the softmax of the head's logits behind a 0 for the background, `type_prob`
    is their largest. A cell whose probabilities are no numbers, for its token is none, has no type:
    what a network knows of its own classes says nothing of the head's. Its id and all of its
    probabilities are 0.
    """
    if table.num_rows:
        tokens = table["token"].combine_chunks().flatten().to_numpy()
        found = probabilities(head, tokens.reshape(table.num_rows, head.config.token_dim))
        found[np.isnan(found).any(1)] = 0
        columns = {
            "type": found.argmax(1).astype(np.int32),
            "type_prob": found.max(1),
            "probabilities": _lists(found),
        }
        table = Cells(table).replace_columns(**columns).table
    kept = [name for name in table.column_names if keep_tokens or name != "token"]
    return table.select(kept)


def remark(untyped: int) -> str:
    """What people should know of cells that a head could give no type."""
    return f"cells without a type, since the network's tokens of them are no numbers: {untyped:,}"


def probabilities(head: CellClassifier, tokens: np.ndarray) -> np.ndarray:
    """Float32 (N, 1 + classes) of tokens (N, D): class id 0 is the background, which none is of."""
    found = np.zeros((len(tokens), 1 + head.config.num_classes), np.float32)
    for start in range(0, len(tokens), ROWS):
        part = tokens[start : start + ROWS]
        padded = np.zeros((ROWS, tokens.shape[1]), np.float32)
        padded[: len(part)] = part
        found[start : start + ROWS, 1:] = _softmax(head, jax.device_put(padded))[: len(part)]
    return found


@jax.jit
def _softmax(head: CellClassifier, tokens: jax.Array) -> jax.Array:
    return jax.nn.softmax(head(jnp.asarray(tokens)))


def _lists(rows: np.ndarray) -> pa.ListArray:
    starts = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(starts, rows.reshape(-1))
