"""A store is the same with Beam and without, killed in the middle or not."""

import os
import resource
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.store.record import verify_record
from gmmas_jax.cases.manifest import Row, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

pytestmark = pytest.mark.multiprocess

SHAPE = (9, 8, 7)
IN_THIS_PROCESS = ["--runner=DirectRunner"]


def write_cohort(folder, cases: int) -> list[Row]:
    folder.mkdir(exist_ok=True)
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 2:6, 2:5], label[3, 3, 3] = 2, 3
    rows = []
    for number in range(cases):
        name, generator = f"case-{number:04d}", np.random.default_rng(number)
        paths = {sequence: f"{name}-{sequence}.nii" for sequence in SEQUENCES}
        for path in paths.values():
            image = generator.normal(100, 10, SHAPE).astype(np.float32)
            nib.save(nib.Nifti1Image(image, np.eye(4)), folder / path)
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"{name}-seg.nii")
        rows.append(
            Row(
                case_id=name,
                patient_id=name,
                seg=f"{name}-seg.nii",
                label_convention="brats2023",
                idh=("wildtype", "mutant", None)[number % 3],
                split=("train", "val", "test")[number % 3],
                **paths,
            )
        )
    write_manifest(folder / "cohort.csv", rows)
    return rows


def records(store):
    return list((store / ".build").glob("[!.]*.tfrecord"))


def build_and_kill(manifest, store, after: int, options: list[str]) -> int:
    """Starts `gmmas build`, kills it when some records are there, and returns their number."""
    words = ["build", str(manifest), "--out", str(store), "--spacing", "1", "--whole", "4,4,4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gmmas_jax", *words, *options],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while len(records(store)) < after:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return len(records(store))


@pytest.mark.parametrize("cases", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_killed_and_resumed_with_beam_is_built_without(build, tmp_path, cases):
    rows = write_cohort(tmp_path, cases)
    options = {"spacing_mm": 1.0, "whole": (4, 4, 4)}
    plain = build(rows, "plain", **options)
    there = build_and_kill(tmp_path / "cohort.csv", tmp_path / "store", cases // 5, ["--beam"])
    assert cases // 5 <= there < cases
    resumed = build(rows, beam=IN_THIS_PROCESS, **options)
    assert resumed.content_sha256 == plain.content_sha256
    assert resumed.read <= cases - there
    assert resumed.index.cases == plain.index.cases
    assert all(verify_record(resumed.index.root / case.file) for case in resumed.index.cases)
    whole = build(rows, "with-beam", beam=IN_THIS_PROCESS, **options)
    assert (whole.content_sha256, whole.read) == (plain.content_sha256, cases)


def test_killed_and_resumed_in_worker_processes(build, tmp_path):
    rows = write_cohort(tmp_path, 24)
    options = {"spacing_mm": 1.0, "whole": (4, 4, 4)}
    plain = build(rows, "plain", **options)
    there = build_and_kill(tmp_path / "cohort.csv", tmp_path / "store", 4, ["--workers", "2"])
    assert there < 24
    resumed = build(rows, workers=2, **options)
    assert resumed.content_sha256 == plain.content_sha256
    assert resumed.read <= 24 - there


def test_bad_cases_and_a_full_disk_with_beam(build, tmp_path):
    rows = write_cohort(tmp_path, 3)
    options = {"spacing_mm": 1.0, "whole": (4, 4, 4)}
    (tmp_path / rows[1].t1c).unlink()
    report = build(rows, beam=IN_THIS_PROCESS, **options)
    assert [case_id for case_id, _ in report.skipped] == ["case-0001"]
    assert rows[1].t1c in report.skipped[0][1]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(UserError, match="0 cases are kept: make room"):
            build([rows[0], rows[2]], "full", beam=IN_THIS_PROCESS, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_in_worker_processes(build, tmp_path):
    rows = write_cohort(tmp_path, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(UserError, match="0 cases are kept: make room"):
            build(rows, workers=1, spacing_mm=1.0, whole=(4, 4, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(build(rows, spacing_mm=1.0, whole=(4, 4, 4)).index.cases) == 3
