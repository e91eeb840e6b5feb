"""Training data: folder formats, targets, augmentation, pipelines."""

from cellvit_jax.data.folder import Sample, read_folder
from cellvit_jax.data.targets import hv_map, regression_map

__all__ = ["Sample", "hv_map", "read_folder", "regression_map"]
