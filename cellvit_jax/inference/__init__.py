"""Networks applied: the jitted call, and images turned into cells."""

from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import Segmentation, segment, segment_image

__all__ = ["Predictor", "Segmentation", "segment", "segment_image"]
