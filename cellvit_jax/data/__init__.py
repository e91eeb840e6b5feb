"""Training data: folder formats, targets, augmentation, pipelines."""

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.folder import read_folder
from cellvit_jax.data.targets import hv_map, regression_map

__all__ = ["Dataset", "Sample", "hv_map", "read_folder", "regression_map"]
