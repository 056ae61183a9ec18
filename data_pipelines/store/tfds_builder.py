"""The store as TFDS knows it: data set `gliomas`, one record a case.

    builder = tfds.builder_from_directory(STORE)
    for case in builder.as_dataset(split="train"): ...

What needs another of TFDS's formats, such as ArrayRecord for `tfds.data_source`, gets it from a
store: `Gliomas(store=STORE, data_dir=DIR, file_format="array_record").download_and_prepare()`.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

import data_pipelines.host_tensorflow  # noqa: F401 - TFDS imports TensorFlow later, then tamed.
from data_pipelines.prepared import read_index
from data_pipelines.store.files import NAME, SPLIT_NAMES, UNASSIGNED
from data_pipelines.store.record import FORMAT, map_record
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.cases.tasks import TASKS

VERSION = f"{FORMAT}.0.0"
_DESCRIPTION = """Glioma exams, a record a case, as gmmas prepares them: cropped to the brain, one
spacing, z-scores per sequence inside the brain and 0 outside. Labels: 0 background, 1 necrotic and
non-enhancing core, 2 oedema, 3 enhancing, 4 resection cavity. An unknown answer is -1. `meta` is
JSON: provenance (sha256 of every input file, grids, label convention, version) among others."""


def features() -> tfds.features.FeaturesDict:
    """Returns what TFDS reads of a record; `record.write_record` writes it."""
    return tfds.features.FeaturesDict(
        {
            "case_id": tfds.features.Text(),
            "patient_id": tfds.features.Text(),
            "meta": tfds.features.Text(),
            "present": _tensor((len(SEQUENCES),), np.float32),
            "has_label": tfds.features.Scalar(np.int64),
            "image": _tensor((None, None, None, len(SEQUENCES)), np.float16),
            "label": _tensor((None, None, None), np.uint8),
            "whole": _tensor((None, None, None, len(SEQUENCES)), np.float16),
            "whole_label": _tensor((None, None, None), np.uint8),
            "foreground": _tensor((None,), np.int32),
            **{
                task: tfds.features.ClassLabel(names=list(classes))
                for task, classes in TASKS.items()
            },
        }
    )


def write_dataset_info(out: Path, records: Sequence[Path]) -> None:
    """Writes `dataset_info.json` and `features.json` beside the records of a store."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=out, dataset_name=NAME, filetype_suffix="tfrecord"
    )
    infos = []
    for split in SPLIT_NAMES:
        own = [path for path in records if path.name.startswith(f"{NAME}-{split}.")]
        if own:
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[1] * len(own),
                    num_bytes=sum(path.stat().st_size for path in own),
                    filename_template=template.replace(split=split),
                )
            )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=NAME, version=tfds.core.Version(VERSION), data_dir=os.fspath(out), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features(), description=_DESCRIPTION)
    info.set_file_format("tfrecord")
    info.set_splits(tfds.core.SplitDict(infos))
    info.write_to_directory(out)


class Gliomas(tfds.core.GeneratorBasedBuilder):
    """Writes the cases of a store in any of TFDS's file formats."""

    VERSION = tfds.core.Version(VERSION)
    name = NAME

    def __init__(self, *, store: str | os.PathLike[str], **options: Any) -> None:
        """Takes a store that `gmmas build` made, and TFDS's own options (`data_dir`, …)."""
        self._store = Path(store)
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=features(), description=_DESCRIPTION)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        del dl_manager  # Nothing is downloaded.
        splits = {case.split or UNASSIGNED for case in read_index(self._store).cases}
        return {split: self._generate_examples(split) for split in sorted(splits)}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for case in read_index(self._store).cases:
            if (case.split or UNASSIGNED) == split:
                meta, arrays = map_record(self._store / case.file)
                yield (
                    case.case_id,
                    {
                        "case_id": case.case_id,
                        "patient_id": case.patient_id,
                        "meta": json.dumps(meta, sort_keys=True, ensure_ascii=False),
                        "present": presence(case.sequences).astype(np.float32),
                        "has_label": int(case.foreground is not None),
                        **{name: np.asarray(array) for name, array in arrays.items()},
                        **{task: meta["tasks"].get(task, -1) for task in TASKS},
                    },
                )


def _tensor(shape: tuple[int | None, ...], dtype: type) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
