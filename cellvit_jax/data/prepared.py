"""Any annotated data in a few files with random access: a TensorFlow Datasets folder.

    ROOT/{dataset_info.json, features.json, metadata.json, fields-SPLIT.array_record-…}

TensorFlow itself is needed neither to write nor to read it. Images are PNG, maps zlib-compressed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy, Watch, unwatched, watched
from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.files import replacing_directory

try:
    import tensorflow_datasets as tfds
except ImportError as error:
    raise MissingExtraError("tensorflow-datasets", "train") from error

# what holds for all splits, and is kept beside the fields
FACTS = ("name", "classes", "tissues", "mpp", "license", "citation", "outlined")
WHOLE = {"all": "train"}  # the split of a set without splits: TFDS takes "all" for every split
NO_TISSUE = -1
COMPRESSION = [cv2.IMWRITE_PNG_COMPRESSION, 4]


class Fields(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of annotated fields that were opened in any layout."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, splits: Mapping[str, Dataset], watch: Watch, **options: Any):
        self._splits, self._watch = splits, watch
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        first = next(iter(self._splits.values()))
        facts = {name: getattr(first, name) for name in FACTS}
        return tfds.core.DatasetInfo(
            builder=self,
            features=_features(),
            citation=first.citation,
            license=first.license,
            metadata=tfds.core.MetadataDict(facts),
            disable_shuffling=True,
        )

    def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, sample in enumerate(watched(self._splits[split], split, self._watch)):
            yield i, _stored(sample)


def _features() -> tfds.features.FeaturesDict:
    def plane(dtype: type, columns: int | None = None) -> tfds.features.Tensor:
        encoding = tfds.features.Encoding.ZLIB
        return tfds.features.Tensor(shape=(None, columns), dtype=dtype, encoding=encoding)

    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "instances": plane(np.int32),
            "types": plane(np.uint8),  # none: no rows
            "points": plane(np.float32, 3),
            "tissue": tfds.features.Scalar(np.int64),
        }
    )


def _stored(sample: Sample) -> dict[str, Any]:
    # TFDS would encode an array by TensorFlow
    _, png = cv2.imencode(".png", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR), COMPRESSION)
    return {
        "name": sample.name,
        "image": png.tobytes(),
        "instances": sample.instances,
        "types": np.zeros((0, 0), np.uint8) if sample.types is None else sample.types,
        "points": np.zeros((0, 3), np.float32) if sample.points is None else sample.points,
        "tissue": NO_TISSUE if sample.tissue is None else sample.tissue,
    }


def write(splits: Mapping[str, Dataset], path: Path, watch: Watch = unwatched) -> None:
    """Store the splits of one set in the folder `path`, which appears when it is complete.

    The split "all" becomes "train". Raises `InputError` where splits differ in what is said of
    them, `OutputError` where the folder cannot be written.
    """
    splits = {WHOLE.get(split, split): part for split, part in splits.items()}
    facts = {tuple(getattr(part, name) for name in FACTS) for part in splits.values()}
    if len(facts) != 1:
        raise InputError("splits that are stored together need one list of classes and tissues")
    with replacing_directory(path) as folder:
        builder = Fields(splits, watch, data_dir=folder / "unfinished", file_format="array_record")
        with _quiet():
            builder.download_and_prepare()
        for file in Path(builder.data_dir).iterdir():
            file.rename(folder / file.name)
        shutil.rmtree(folder / "unfinished")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's own bars and sentences, which speak of downloads."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def open(root: Path) -> dict[str, Dataset]:
    """The splits of a folder that `write` made. Raises InputError."""
    try:
        info = tfds.builder_from_directory(root).info
        facts = {name: info.metadata[name] for name in FACTS}
    except Exception as error:  # whatever TFDS makes of other files
        raise InputError(
            f"{root} holds no annotated fields as `data prepare` stores them"
        ) from error
    facts |= {name: tuple(facts[name]) for name in ("classes", "tissues")}
    stamp = (root / "dataset_info.json").stat().st_mtime_ns
    return {
        name: Dataset(
            samples=Lazy(
                partial(read, str(root), stamp), tuple((name, i) for i in range(split.num_examples))
            ),
            **facts,
        )
        for name, split in info.splits.items()
    }


def read(root: str, stamp: int, item: tuple[str, int]) -> Sample:
    """A field, by split and number, of the folder `root` whose files are of the time `stamp`."""
    split, i = item
    source, outlined = _source(root, split, stamp)
    stored = source[i]
    tissue = int(stored["tissue"])
    return Sample(
        stored["name"].decode(),
        stored["image"],
        stored["instances"],
        stored["types"] if stored["types"].size else None,
        None if tissue == NO_TISSUE else tissue,
        None if outlined or stored["types"].size else stored["points"],
    )


@lru_cache(maxsize=16)
def _source(root: str, split: str, stamp: int) -> tuple[Any, bool]:
    """The records of a split, opened once by each process."""
    builder = tfds.builder_from_directory(root)
    return builder.as_data_source(split), builder.info.metadata["outlined"]
