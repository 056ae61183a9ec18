"""Building a store: once, resumable, and every bad case named."""

import dataclasses
import gzip
import json
import os
import resource
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.prepared import read_index
from data_pipelines.readers import read_row
from data_pipelines.store import files, one_case
from data_pipelines.store.exam_record import exam_record
from data_pipelines.store.one_case import Item, build_case
from data_pipelines.store.record import map_record, verify_record
from data_pipelines.store.spread import bytes_each
from gmmas_jax.cases.prepare import prepare, whole_label, whole_volume
from gmmas_jax.errors import UserError


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Returns the ids of the cases that were read, in a list that grows."""
    ids = []

    def counted(exam, **settings):
        ids.append(exam.case_id)
        return exam_record(exam, **settings)

    monkeypatch.setattr(one_case, "exam_record", counted)
    return ids


def spoil(path):
    """Makes every voxel of an image zero."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), path)


def test_the_index_holds_what_preparing_each_case_gives(rows, build, tmp_path):
    index = build(rows).index
    assert [case.case_id for case in index.cases] == ["one", "two", "three"]
    for position, row in enumerate(rows):
        expected = prepare(read_row(row, tmp_path), spacing_mm=2.0)
        arrays, entry = index.open(position), index.cases[position]
        assert arrays.image.dtype == np.float16
        np.testing.assert_array_equal(arrays.image, expected.image.astype(np.float16))
        np.testing.assert_array_equal(
            arrays.whole, whole_volume(expected.image, (6, 5, 4)).astype(np.float16)
        )
        assert entry.shape == expected.image.shape[:3]
        if row.case_id == "three":
            assert entry.foreground is None
            assert arrays.label is None
            assert arrays.foreground == ()
        else:
            np.testing.assert_array_equal(arrays.label, expected.label)
            np.testing.assert_array_equal(
                arrays.whole_label, whole_label(expected.label, (6, 5, 4))
            )
    assert index.cases[1].foreground == (0,) * 5
    assert index.open(1).foreground == ()
    assert index.cases[0].tasks == {"idh": "mutant"}
    assert [case.case_id for case in index.select("val").cases] == ["two", "three"]


def test_an_exam_is_prepared_within_the_memory_of_three_of_its_sequences(
    make_case, write_case, tmp_path
):
    """One sequence and what is made of it at a time; of the record, float16 of the brain's box."""
    shape, head = (128, 128, 128), slice(18, 110)
    case = make_case("big", shape=shape)
    outside = np.ones(shape, bool)
    outside[head, head, head] = False
    for image in case.images.values():
        image[outside] = 0
    row = write_case(case, tmp_path)
    item = Item(row=row, root=tmp_path, work=tmp_path, spacing_mm=1.0, whole=(40, 40, 40))
    tracemalloc.start()
    build_case(item)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3.25 * 4 * np.prod(shape)  # The buffer of a file that is read has reserves.


def test_foreground_lists_the_voxels_of_each_class(rows, build):
    index = build(rows, spacing_mm=1.0).index
    arrays = index.open(0)
    codes = [code for code, count in enumerate(index.cases[0].foreground, 1) if count]
    assert codes == [1, 2, 3]
    for code, indices in zip(codes, arrays.foreground, strict=True):
        np.testing.assert_array_equal(indices, np.flatnonzero(arrays.label == code))


def test_a_record_says_where_it_came_from(rows, build, tmp_path):
    index = build(rows).index
    meta, _ = map_record(index.root / index.cases[0].file)
    told = meta["provenance"]
    assert set(told["inputs"]) == {"t1n", "t1c", "t2w", "t2f", "seg"}
    assert all(len(digest) == 64 for digest in told["inputs"].values())
    assert told["label_convention"] == "brats2023"
    assert told["source"] == {"shape": [12, 11, 10], "affine": np.eye(4).tolist()}
    assert np.shape(told["brain_box"]) == (3, 2)


def test_what_is_built_is_not_read_again(rows, build, reads, tmp_path):
    first = build(rows)
    assert reads == ["one", "two", "three"]
    assert first.read == 3
    written = (tmp_path / "store" / "index.json").stat().st_mtime_ns
    again = build(rows)
    assert len(reads) == 3
    assert again.read == 0
    assert again.index.cases == first.index.cases == read_index(tmp_path / "store").cases
    assert (tmp_path / "store" / "index.json").stat().st_mtime_ns == written


def test_a_changed_file_or_setting_is_prepared_anew(rows, build, reads, tmp_path):
    before = build(rows)
    image = nib.load(tmp_path / "two-t1c.nii.gz")
    changed = nib.Nifti1Image(image.get_fdata(dtype=np.float32) ** 1.5, image.affine)
    nib.save(changed, tmp_path / "two-t1c.nii.gz")
    image_before = np.array(before.index.open(1).image)
    reads.clear()
    after = build(rows)
    assert reads == ["two"]
    assert after.index.cases == before.index.cases
    assert after.content_sha256 != before.content_sha256
    assert not np.array_equal(after.index.open(1).image, image_before)
    reads.clear()
    build(rows, whole=(5, 5, 5))
    assert sorted(reads) == ["one", "three", "two"]


def test_a_touched_file_is_not_prepared_anew(rows, build, reads, tmp_path):
    build(rows)
    os.utime(tmp_path / "one-t1n.nii.gz", (1, 1))
    reads.clear()
    build(rows)
    assert reads == []


def test_changed_answers_in_the_manifest_need_no_reading(rows, build, reads):
    build(rows)
    reads.clear()
    rows[1] = dataclasses.replace(rows[1], idh="wildtype", split="test", patient_id="p")
    report = build(rows)
    assert reads == []
    case = report.index.cases[1]
    assert (case.tasks, case.split, case.patient_id) == ({"idh": "wildtype"}, "test", "p")
    path = report.index.root / case.file
    assert map_record(path)[0]["tasks"] == {"idh": "wildtype"}
    assert verify_record(path)
    assert report.content_sha256 == build(rows, "other").content_sha256


def test_the_hash_does_not_depend_on_the_order_of_the_manifest(rows, build):
    assert build(rows).content_sha256 == build(rows[::-1], "other").content_sha256


def test_cases_that_leave_the_manifest_leave_the_store(rows, build, tmp_path):
    build(rows)
    report = build(rows[1:])
    assert [case.case_id for case in report.index.cases] == ["two", "three"]
    assert len(list((tmp_path / "store").glob("*.tfrecord*"))) == 2
    assert report.content_sha256 == build(rows[1:], "other").content_sha256


def test_interrupted_moves_are_finished(rows, build, reads, monkeypatch, tmp_path):
    """Killed while records change places, at any of the moves."""
    build(rows)
    wanted = build(rows[::-1], "other")
    reads.clear()
    moves = 0
    real = os.replace
    for allowed in range(6):
        moves = 0

        def replace(source, target, allowed=allowed):
            nonlocal moves
            if str(source).endswith((".tfrecord", "-of-00002", "-of-00001")):
                moves += 1
                if moves > allowed:
                    raise KeyboardInterrupt
            real(source, target)

        monkeypatch.setattr(files.os, "replace", replace)
        order = rows[::-1] if allowed % 2 == 0 else rows
        try:
            build(order)
        except KeyboardInterrupt:
            with pytest.raises(UserError, match=r"index\.json: missing"):
                read_index(tmp_path / "store")
        monkeypatch.setattr(files.os, "replace", real)
    report = build(rows[::-1])
    assert reads == []
    assert report.index.cases == wanted.index.cases
    assert report.content_sha256 == wanted.content_sha256
    assert all(verify_record(report.index.root / case.file) for case in report.index.cases)


def test_a_bad_case_is_skipped_named_and_counted(rows, build, tmp_path):
    (tmp_path / "one-t2w.nii.gz").unlink()
    spoil(tmp_path / "three-t1n.nii.gz")
    report = build(rows)
    assert [case.case_id for case in report.index.cases] == ["two"]
    assert [case_id for case_id, _ in report.skipped] == ["one", "three"]
    assert "one-t2w.nii.gz" in report.skipped[0][1]
    written = json.loads((tmp_path / "store" / "build.json").read_text())
    assert [entry["case_id"] for entry in written["skipped"]] == ["one", "three"]
    assert written["content_sha256"] == report.content_sha256
    assert (written["cases"], written["splits"]) == (1, {"val": 1})


def test_strict_names_every_bad_case_and_keeps_the_others(rows, build, reads, tmp_path):
    (tmp_path / "one-t2w.nii.gz").unlink()
    spoil(tmp_path / "three-t1n.nii.gz")
    with pytest.raises(UserError) as told:
        build(rows, strict=True)
    message = str(told.value)
    assert "2 of 3 cases" in message
    assert "one: " in message
    assert "one-t2w.nii.gz" in message
    assert "three: " in message
    assert not (tmp_path / "store" / "index.json").exists()
    reads.clear()
    build(rows[1:2], strict=True)
    assert reads == []


def test_no_usable_case_makes_no_store(rows, build, tmp_path):
    (tmp_path / "one-t2w.nii.gz").unlink()
    with pytest.raises(UserError, match="1 of 1 cases cannot be used"):
        build(rows[:1])
    rows[1] = dataclasses.replace(rows[1], quality="fail")
    with pytest.raises(UserError, match="quality=fail"):
        build(rows[1:2])


def test_failed_quality_is_left_out_by_name(rows, build):
    rows[0] = dataclasses.replace(rows[0], quality="fail")
    report = build(rows)
    assert report.failed_quality == ("one",)
    assert [case.case_id for case in report.index.cases] == ["two", "three"]


def test_a_worker_is_reckoned_by_the_largest_file_that_can_be_read(rows, tmp_path):
    """nibabel has errors of its own kinds for a voxel type that is none, and for cut gzip."""
    item = Item(row=rows[0], root=tmp_path, work=tmp_path, spacing_mm=1.0, whole=(4, 4, 4))
    path = tmp_path / rows[0].t1n
    for place in (rows[0].t1n, rows[0].t1c, rows[0].t2w, rows[0].t2f):
        content = bytearray(gzip.decompress((tmp_path / place).read_bytes()))
        content[70:72] = (777).to_bytes(2, "little")
        (tmp_path / place).write_bytes(gzip.compress(content))
    path.write_bytes(path.read_bytes()[:100])
    small = bytes_each([item])
    nib.save(nib.Nifti1Image(np.ones((64, 64, 64), np.uint8), np.eye(4)), path)
    assert bytes_each([item]) - small > 32 * (64**3 - 12 * 11 * 10) - 1
    finer = dataclasses.replace(item, spacing_mm=0.5)
    assert bytes_each([finer]) - bytes_each([item]) == 7 * 20 * 64**3


def test_progress_is_told_case_by_case(rows, build):
    told = []
    build(rows, on_case=lambda *facts: told.append(facts))
    assert told == [(1, 3, "one"), (2, 3, "two"), (3, 3, "three")]


def test_a_full_disk_is_told_and_nothing_is_lost(rows, build, reads):
    """With a limit on the size of files, as a quota gives: no record fits."""
    build(rows[:1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written") as told:
            build(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "1 cases are kept: make room" in str(told.value)
    reads.clear()
    assert len(build(rows).index.cases) == 3
    assert reads == ["two", "three"]


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"index\.json: missing"):
        read_index(tmp_path)


def test_a_store_of_another_version_is_refused(rows, build, tmp_path):
    root = build(rows).index.root
    document = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(UserError, match="a store of format 99; this version of gmmas"):
        read_index(root)
    # Building into it: the records decide.
    path = next(root.glob("*.tfrecord*"))
    content = bytearray(path.read_bytes())
    place = content.index(b"gmmascas") + 8
    content[place : place + 4] = (99).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a record of format 99.*in an empty folder"):
        build(rows)


def test_a_folder_that_holds_something_else_is_refused(rows, build, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.doc").write_text("x")
    with pytest.raises(UserError, match=r"holds thesis\.doc; expected a store"):
        build(rows)


def test_left_overs_of_a_killed_writer_are_removed(rows, build, tmp_path):
    build(rows)
    left = tmp_path / "store" / ".build" / ".1a2b3c4d.one-0123.tfrecord"
    left.write_bytes(b"half")
    build(rows)
    assert not left.exists()


def test_processes_that_ask_at_a_time_build_it_once(rows, build, reads):
    """Here threads, whose locks on separate open files exclude each other as those of processes."""
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: build(rows), range(2))
    assert sorted(reads) == ["one", "three", "two"]
    assert {one.read, other.read} == {0, 3}
    assert one.index.cases == other.index.cases


def test_a_store_can_be_copied_without_its_images(rows, build, tmp_path):
    build(rows)
    shutil.copytree(tmp_path / "store", tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    for path in tmp_path.glob("*.nii.gz"):
        path.unlink()
    index = read_index(tmp_path / "copy")
    assert index.open(0).image.shape[3] == 4
