"""How a store of full-size cases should lie on disk: random 128³ crops from eight layouts, timed.

python -m benchmarks.storage            # writes results/storage-<date>.{json,md}
python -m benchmarks.storage --check    # two small cases, few crops, writes nothing
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.machine import machine_facts, save_result
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
            writer.write(_serialized(_load(case)))
        writer.close()
        return
    for position, case in enumerate(cases):
        if layout == "mapped":
            write_record(folder / f"{position}.tfrecord", {}, _load(case), {})
            continue
        for name, array in _load(case).items():
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


SIZE = 128


def _load(path: Path) -> Crop:
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


def measure(
    layout: str, folder: Path, *, whole: bool, shapes: list[Any], crops: int
) -> dict[str, Any]:
    """Reads random crops, first from the disk, then from the page cache; run in a fresh process.

    Before each cold crop the kernel is asked to forget the files (`posix_fadvise`), and the bytes
    are those that came from the block device (`/proc/self/io`).
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    read = reader(layout, folder, whole=whole)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(crops):
        case = int(generator.integers(len(shapes)))
        room = np.maximum(np.array(shapes[case]) - SIZE, 0)
        draws.append((case, tuple(generator.integers(0, room, endpoint=True).tolist())))
    # Imports and openings are not what is timed.
    read(*draws[0])
    cold_s, cold_bytes = [], []
    for draw in draws[: max(4, crops // 4)]:
        _forget(files)
        start, began = _bytes_from_disk(), time.perf_counter()
        read(*draw)
        cold_s.append(time.perf_counter() - began)
        cold_bytes.append(_bytes_from_disk() - start)
    for draw in draws:
        read(*draw)
    wall, cpu = [], []
    for draw in draws:
        began, began_cpu = time.perf_counter(), time.process_time()
        read(*draw)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return {
        "layout": layout,
        "whole_volume_too": whole,
        "warm_cpu_s": statistics.median(cpu),
        "warm_wall_s": statistics.median(wall),
        "cold_wall_s": statistics.median(cold_s),
        "cold_bytes": statistics.median(cold_bytes),
        "disk_bytes": sum(path.stat().st_size for path in files),
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """Returns the most memory that this process held, MiB, pages of mapped files included."""
    # Not getrusage, whose number begins with that of the parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def _forget(files: list[Path]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _bytes_from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def _page(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"# Storage layouts, {result['date']}",
        "",
        f"{result['cases']} cases of {'×'.join(map(str, result['shape']))}×4 (float16) with a "
        f"label (uint8) and a whole volume of {result['whole']}³; random crops of {SIZE}³. "
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before'][0]}"
        ". Warm: files in the page cache; crops/s per core are of CPU time, so that the load of "
        "others does not count. Cold: the kernel was asked to forget the files before each crop.",
        "",
        "| layout | read | crops/s per core, warm | crops/s, cold | MB from disk a crop "
        "| MB on disk a case | memory added, MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        what = "crop and whole" if row["whole_volume_too"] else "crop"
        lines.append(
            f"| {row['layout']} | {what} | {1 / row['warm_cpu_s']:.1f} | "
            f"{1 / row['cold_wall_s']:.1f} | {row['cold_bytes'] / 1e6:.1f} | "
            f"{row['disk_bytes'] / 1e6 / result['cases']:.1f} | "
            f"{row['peak_mib'] - result['empty_peak_mib'][row['layout']]:.0f} |"
        )
    lines += ["", *(f"- `{name}`: {text}" for name, text in LAYOUTS.items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Writes the cases in every layout, and measures each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="where to write 3 GB (default: a temporary one)"
    )
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        layout, folder, whole, rest = arguments.measure
        options = json.loads(rest)
        print(json.dumps(measure(layout, Path(folder), whole=whole == "whole", **options)))
        return
    cases, crops = (2, 4) if arguments.check else (10, 16)
    shape, whole = (150, 180, 145), 128
    root = Path(tempfile.mkdtemp(dir=arguments.folder))
    machine = machine_facts()
    try:
        paths = []
        for seed in range(cases):
            paths.append(root / f"case-{seed}.npz")
            np.savez(paths[-1], **synthetic_case(seed, shape, whole))
        rows, empty = [], {}
        options = json.dumps({"shapes": [shape] * cases, "crops": crops})
        for layout in LAYOUTS:
            folder = root / layout
            write(layout, folder, paths)
            os.sync()
            for what in ("crop", "whole"):
                words = ["--measure", layout, str(folder), what, options]
                output = subprocess.run(
                    [sys.executable, "-m", "benchmarks.storage", *words],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
                rows.append(json.loads(output.splitlines()[-1]))
                print(rows[-1], flush=True)
            empty[layout] = _import_peak(layout)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(root)
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "cases": cases,
        "shape": shape,
        "whole": whole,
        "empty_peak_mib": empty,
        "rows": rows,
    }
    if arguments.check:
        print(_page(result))
    else:
        save_result("storage", result, _page(result))


def _import_peak(layout: str) -> float:
    """Returns the peak memory, MiB, of a process that only imports what the layout needs."""
    wanted = "import benchmarks.storage\n"
    if layout.startswith("records"):
        wanted += "from array_record.python import array_record_module\n"
        wanted += "from data_pipelines.host_tensorflow import tf\n"
    if layout.startswith("zarr"):
        wanted += "import tensorstore\n"
    wanted += "print(benchmarks.storage.peak_mib())"
    output = subprocess.run(
        [sys.executable, "-c", wanted], check=True, capture_output=True, text=True
    ).stdout
    return float(output.splitlines()[-1])


if __name__ == "__main__":
    main()
