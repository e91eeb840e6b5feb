"""Training data: layouts on a disk, targets, augmentation, sampling, pipelines."""

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.folder import read_folder
from cellvit_jax.data.instances import type_map
from cellvit_jax.data.open import open_dataset, open_splits
from cellvit_jax.data.sampling import Sampling
from cellvit_jax.data.targets import hv_map, regression_map

__all__ = [
    "Augmentation",
    "Dataset",
    "Sample",
    "Sampling",
    "hv_map",
    "open_dataset",
    "open_splits",
    "read_folder",
    "regression_map",
    "type_map",
]
