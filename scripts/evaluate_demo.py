"""Measure the bundled network as README reports it.

    python scripts/evaluate_demo.py --data HE_NUCLEI [--model cellvit-tiny-consep]

HE_NUCLEI holds `consep/val` and `monuseg/val`, each with images/, masks/ (and types/).
"""

from pathlib import Path

import tyro

from cellvit_jax import caches, checkpoint
from cellvit_jax.data.consep import MERGED
from cellvit_jax.data.folder import read_folder
from cellvit_jax.evaluation.annotated import evaluate_model
from cellvit_jax.evaluation.report import to_markdown
from cellvit_jax.inference.segment import predictor_of


def main(data: Path, model: str = "cellvit-tiny-consep") -> None:
    """Print the scores on CoNSeP's and MoNuSeg's validation fields."""
    caches.keep_compiled_programs()
    predictor = predictor_of(checkpoint.load(model))
    for collection in ("consep", "monuseg"):
        samples = read_folder(data / collection / "val", MERGED)
        evaluation = evaluate_model(samples, predictor)
        print(f"## {collection}/val\n\n{to_markdown(evaluation)}\n")


if __name__ == "__main__":
    tyro.cli(main)
