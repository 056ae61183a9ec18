"""SimpleITK as the project uses it against ANTs: rigid co-registration of two real native exams.

ANTs (antspyx) wants another NumPy than the project; give it an environment of its own:

    python3.11 -m venv /tmp/ants && /tmp/ants/bin/pip install antspyx
    .venv/bin/python -m benchmarks.registration --ants /tmp/ants/bin/python

Both get the same files, free of bias, and one thread; each result is resampled linearly on T1c's
grid, and mutual information with T1c measured by one function over T1c's brighter half.
"""

import argparse
import datetime
import json
import os
import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from benchmarks.machine import save_result
from data_pipelines.nifti import read_volume, write_volume
from data_pipelines.preprocess.bias import without_bias
from data_pipelines.preprocess.coregistration import rigid
from data_pipelines.preprocess.images import resampled, to_array, to_image
from data_pipelines.preprocess.registration import mutual_information
from gmmas_jax.measure import machine_facts

DATA = Path("../shared/data")
CASES = ("tcga-fg-6692/raw", "tcga-du-7294/native")
MOVING = ("t1n", "t2w", "t2f")
ANTS = """
import sys, ants
fixed, moving, out = sys.argv[1:]
fixed, moving = ants.image_read(fixed), ants.image_read(moving)
found = ants.registration(fixed, moving, type_of_transform="Rigid", random_seed=1)
moved = ants.apply_transforms(fixed, moving, found["fwdtransforms"], interpolator="linear")
ants.image_write(moved, out)
"""


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ants", required=True, help="Python of an environment with antspyx")
    program = parser.parse_args().ants
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    rows = [row for case in CASES for row in _case(case, program)]
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine_facts(),
        "simpleitk": sitk.Version_VersionString(),
        "rows": rows,
    }
    save_result("registration", result, _page(result))


def _case(case: str, program: str) -> list[dict[str, object]]:
    grids, images = {}, {}
    for name in ("t1c", *MOVING):
        array, grids[name] = read_volume(DATA / case / f"{name}.nii.gz")
        images[name] = without_bias(to_image(array, grids[name]))
    fixed = to_array(images["t1c"])
    inside = fixed > np.median(fixed[fixed > 0])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.nii.gz" for name in images}
        for name, path in paths.items():
            write_volume(path, to_array(images[name]), grids[name], dtype=np.float32)
        for name in MOVING:
            before = to_array(resampled(images[name], grids["t1c"]))
            start = _cpu()
            matrix = rigid(images["t1c"], images[name])
            ours_s = _cpu() - start
            ours = to_array(resampled(images[name], grids["t1c"], matrix))
            out = Path(folder) / "moved.nii.gz"
            start = _cpu()
            subprocess.run(
                [program, "-c", ANTS, str(paths["t1c"]), str(paths[name]), str(out)],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
            )
            ants_s = _cpu() - start
            theirs = read_volume(out)[0]
            values = [mutual_information(fixed[inside], x[inside]) for x in (before, ours, theirs)]
            rows.append(
                {"case": case, "moving": name, "information": values, "cpu_s": [ours_s, ants_s]}
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _cpu() -> float:
    """Processor seconds of this process and those it waited for."""
    both = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _page(result: dict) -> str:
    lines = [
        f"# Rigid co-registration, SimpleITK {result['simpleitk']} and ANTs",
        "",
        "Mutual information with T1c in nats (64 bins), processor seconds on one thread; ANTs' "
        "include its start and reading.",
        "",
        "| exam | sequence | before | SimpleITK | ANTs | SimpleITK s | ANTs s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        before, ours, theirs = row["information"]
        lines.append(
            f"| {row['case']} | {row['moving']} | {before:.3f} | {ours:.3f} | {theirs:.3f} "
            f"| {row['cpu_s'][0]:.1f} | {row['cpu_s'][1]:.1f} |"
        )
    machine = result["machine"]
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
