"""Networks applied: the jitted call, and images turned into cells."""

from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.prompt import Prediction, PromptPredictor
from cellvit_jax.inference.refine import refine
from cellvit_jax.inference.segment import Segmentation, segment, segment_image

__all__ = [
    "Prediction",
    "Predictor",
    "PromptPredictor",
    "Segmentation",
    "refine",
    "segment",
    "segment_image",
]
