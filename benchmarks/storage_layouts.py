"""The layouts that `benchmarks.storage` compares, and the cases that it writes in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from data_pipelines.store.record import map_record, write_record

Crop = dict[str, np.ndarray]
Reader = Callable[[int, tuple[int, int, int]], Crop]

LAYOUTS = {
    "npy": "one .npy a case and array, memory-mapped",
    "mapped": "a TFRecord file a case, not compressed, its arrays memory-mapped: the store",
    "records-raw": "ArrayRecord, a record a case, not compressed",
    "records-zstd": "ArrayRecord, a record a case, zstd level 1",
    "zarr-64-raw": "zarr 3, a sharded array a case, chunks of 64³, not compressed",
    "zarr-64-zstd": "zarr 3, a sharded array a case, chunks of 64³, zstd level 1",
    "zarr-32-raw": "zarr 3, a sharded array a case, chunks of 32³, not compressed",
    "zarr-32-zstd": "zarr 3, a sharded array a case, chunks of 32³, zstd level 1",
}

SIZE = 128
"""Edge of a crop."""

_BRAIN = 0.47
"""Share of brain in the brain's box; 0.45 to 0.47 in the BraTS cases that were looked at."""


def synthetic_case(seed: int, shape: tuple[int, int, int], whole: int) -> Crop:
    """Returns arrays that compress as prepared cases do: a brain of smooth contrast and noise.

    Of two real cases (BraTS 2018 and 2023) zstd left 0.42 of the image.
    """
    generator = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(-1, 1, complex(0, size)) for size in shape)]
    radius = (6 * _BRAIN / np.pi) ** (1 / 3)
    brain = sum(axis**2 for axis in axes) < radius**2
    image = np.zeros((*shape, 4), np.float32)
    for channel in range(4):
        coarse = generator.normal(size=tuple(size // 8 + 1 for size in shape))
        zoom = tuple(size / part for size, part in zip(shape, coarse.shape, strict=True))
        smooth = ndimage.zoom(coarse, zoom, order=1)
        noisy = smooth + generator.normal(0, 0.15, shape)
        # Scanners write whole numbers: a few hundred steps over the tissue's contrast.
        image[..., channel] = np.where(brain, np.round(noisy * 150) / 150, 0)
    label = np.zeros(shape, np.uint8)
    centre = tuple(slice(size // 2, size // 2 + 40) for size in shape)
    label[centre] = generator.integers(1, 4, 1).astype(np.uint8)
    label[centre][10:30, 10:30, 10:30] = 3
    step = tuple(np.linspace(0, size - 1, whole).astype(int) for size in shape)
    return {
        "image": image.astype(np.float16),
        "label": label,
        "whole": image[np.ix_(*step)].astype(np.float16),
        "whole_label": label[np.ix_(*step)],
    }


def write(layout: str, folder: Path, cases: list[Path]) -> None:
    """Writes all cases in a layout."""
    folder.mkdir()
    if layout.startswith("records"):
        from array_record.python.array_record_module import ArrayRecordWriter

        compression = "zstd:1" if layout.endswith("zstd") else "uncompressed"
        writer = ArrayRecordWriter(str(folder / "cases"), f"group_size:1,{compression}")
        for case in cases:
            writer.write(_serialized(load(case)))
        writer.close()
        return
    for position, case in enumerate(cases):
        if layout == "mapped":
            write_record(folder / f"{position}.tfrecord", {}, load(case), {})
            continue
        for name, array in load(case).items():
            if layout == "npy":
                np.save(folder / f"{position}-{name}.npy", array)
            else:
                _write_zarr(layout, folder / f"{position}-{name}", array)


def reader(layout: str, folder: Path, *, whole: bool) -> Reader:
    """Returns the function that reads a crop of a case; `whole` adds the whole volume."""
    names = ("image", "label", "whole", "whole_label") if whole else ("image", "label")

    def cropped(arrays: dict[str, Any], start: tuple[int, int, int], size: int) -> Crop:
        window = tuple(slice(first, first + size) for first in start)
        return {
            name: np.array(array if name.startswith("whole") else array[window])
            for name, array in arrays.items()
        }

    if layout == "npy":
        return lambda case, start: cropped(
            {name: np.load(folder / f"{case}-{name}.npy", mmap_mode="r") for name in names},
            start,
            SIZE,
        )
    if layout == "mapped":

        def read_mapped(case: int, start: tuple[int, int, int]) -> Crop:
            arrays = map_record(folder / f"{case}.tfrecord")[1]
            return cropped({name: arrays[name] for name in names}, start, SIZE)

        return read_mapped
    if layout.startswith("records"):
        from array_record.python.array_record_module import ArrayRecordReader

        records = ArrayRecordReader(
            str(folder / "cases"), "readahead_buffer_size:0,max_parallelism:0"
        )

        def read_record(case: int, start: tuple[int, int, int]) -> Crop:
            arrays = _parsed(records.read([case])[0])
            return cropped({name: arrays[name] for name in names}, start, SIZE)

        return read_record

    import tensorstore

    context = tensorstore.Context(
        {
            "data_copy_concurrency": {"limit": 1},
            "file_io_concurrency": {"limit": 1},
            "cache_pool": {"total_bytes_limit": 0},
        }
    )

    def read_zarr(case: int, start: tuple[int, int, int]) -> Crop:
        window = tuple(slice(first, first + SIZE) for first in start)
        pending = {}
        for name in names:
            path = str(folder / f"{case}-{name}")
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
            array = tensorstore.open(spec, context=context, open=True).result()
            pending[name] = (array if name.startswith("whole") else array[window]).read()
        return {name: future.result() for name, future in pending.items()}

    return read_zarr


def load(path: Path) -> Crop:
    """Returns the arrays of a case that `numpy.savez` wrote."""
    with np.load(path) as arrays:
        return dict(arrays)


def _features() -> Any:
    import tensorflow_datasets as tfds

    kinds = {
        "image": ((None, None, None, 4), np.float16),
        "label": ((None, None, None), np.uint8),
        "whole": ((None, None, None, 4), np.float16),
        "whole_label": ((None, None, None), np.uint8),
    }
    return tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
            for name, (shape, dtype) in kinds.items()
        }
    )


def _serialized(arrays: Crop) -> bytes:
    return _features().serialize_example(arrays)


def _parsed(record: bytes) -> Crop:
    from data_pipelines.host_tensorflow import tf

    fields = tf.train.Example.FromString(record).features.feature
    arrays = {}
    for name in ("image", "label", "whole", "whole_label"):
        dtype = np.uint8 if name.endswith("label") else np.float16
        shape = tuple(fields[f"{name}/shape"].int64_list.value)
        arrays[name] = np.frombuffer(fields[f"{name}/value"].bytes_list.value[0], dtype).reshape(
            shape
        )
    return arrays


def _write_zarr(layout: str, path: Path, array: np.ndarray) -> None:
    import tensorstore

    edge = int(layout.split("-")[1])
    chunk = [edge] * 3 + list(array.shape[3:])
    shard = [-(-size // part) * part for size, part in zip(array.shape, chunk, strict=True)]
    inner: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if layout.endswith("zstd"):
        inner.append({"name": "zstd", "configuration": {"level": 1}})
    sharding = {"chunk_shape": chunk, "codecs": inner}
    store = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "shape": list(array.shape),
                "data_type": str(array.dtype),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            },
        },
        create=True,
    ).result()
    store.write(array).result()
