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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import save_result
from benchmarks.storage_layouts import LAYOUTS, SIZE, reader, synthetic_case, write
from gmmas_jax.measure import machine_facts


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
