import os
import shutil

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from data_pipelines.ingest.dicom_headers import read_tree
from data_pipelines.nifti import read_volume
from gmmas_jax.errors import UserError
from tests.data_pipelines.ingest.dicom_exams import (
    CORONAL,
    FLAIR,
    T1,
    T2,
    listed,
    only_case,
    plane_of,
)


def shifted(number, data):
    x, y, z = data.ImagePositionPatient
    data.ImagePositionPatient = [x, y + 0.5 * number, z]


def set_if(condition, **values):
    def change(number, data):
        if condition(number):
            for name, value in values.items():
                setattr(data, name, value)

    return change


def other_matrix(number, data):
    if number > 7:
        data.Rows, data.Columns = 20, 16


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"skip": (4,)}, "missing slices: 1 between images 3 and 5 (slices lie 5 mm apart)"),
        ({"skip": (4, 5)}, "missing slices: 2 between images 3 and 6"),
        ({"count": 4}, "only 4 images"),
        (
            {"change": set_if(lambda n: n == 4, ImagePositionPatient=[-9.0, -7.0, -5.0])},
            "duplicate slices: images 3 and 4 lie at one position",
        ),
        (
            {"change": set_if(lambda n: n == 4, ImagePositionPatient=[-9.0, -7.0, -1.5])},
            "uneven slices: 3.5 to 6.5 mm apart",
        ),
        ({"change": other_matrix}, "mixed matrices: 16x20 (7), 20x16 (3)"),
        (
            {"change": set_if(lambda n: n > 5, ImageOrientationPatient=list(CORONAL))},
            "mixed orientations (2 of them)",
        ),
        (
            {"change": set_if(lambda n: n > 5, PixelSpacing=[0.8, 0.9])},
            "mixed pixel spacings: 0.9 x 0.9 (5), 0.8 x 0.9 (5) mm",
        ),
        ({"change": shifted}, "tilted stack: slices are shifted sideways by 5.71 degrees"),
        (
            {"change": set_if(lambda n: n == 2, PixelData=b"\0" * 320)},
            "image 2: it holds 320 bytes of pixels; its header says 640",
        ),
        (
            {"change": set_if(lambda n: n == 2, ImagePositionPatient=None)},
            "1 of 10 images have no position",
        ),
    ],
)
def test_what_is_no_volume_is_refused(write_series, ingest, tmp_path, options, told):
    write_series(FLAIR, **options)
    found = ingest()
    assert found.rows == []
    case = only_case(tmp_path)
    assert found.refused[0].startswith(f"{case}: series 1 'Ax FLAIR' (")
    assert "would be t2f, but: " in found.refused[0]
    assert told in found.refused[0]
    assert "none of its 1 series became one of t1n" in found.refused[1]
    assert listed(case, tmp_path)[0]["outcome"] == "refused"
    assert list((tmp_path / "volumes").rglob("*.nii*")) == []
    assert list((tmp_path / "volumes").rglob(".dicom-*")) == []


def test_a_truncated_file(write_series, ingest):
    source = write_series(FLAIR)
    path = next(path for path in source.rglob("IM 3"))
    path.write_bytes(path.read_bytes()[:-100])
    assert "image 3: its file ends after 540 of 640 bytes" in ingest().refused[0]


def test_copies_of_files_are_passed_over(write_series, ingest):
    source = write_series(FLAIR)
    shutil.copytree(source / "4711 exam", source / "again")
    found = ingest()
    assert len(found.rows) == 1
    assert any("10 copies of files passed over" in note for note in found.notes)
    path = next((source / "again").rglob("IM 3"))
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    assert "images 3 and 3 have one identifier and differ" in ingest().refused[0]


def test_a_dynamic_series_is_left_out(write_series, ingest, tmp_path):
    def twice(number, data):
        data.ImagePositionPatient = [-9.0, -7.0, 5.0 * ((number - 1) % 10)]

    write_series({**T1, "SeriesDescription": "T1 vibe dynamic"}, count=20, change=twice)
    found = ingest()
    assert found.rows == []
    (one,) = listed(only_case(tmp_path), tmp_path)
    assert one["reason"] == "several images at each position, no one volume"


def test_the_echoes_of_one_series(write_series, ingest, tmp_path):
    dual = {**T2, "SeriesDescription": "AX PD/T2 FSE"}

    def second(number, data):
        data.EchoTime, data.EchoNumbers = (15, 1) if number <= 10 else (98, 2)
        data.ImagePositionPatient = [-9.0, -7.0, 5.0 * ((number - 1) % 10)]

    write_series(dual, count=20, change=second)
    found = ingest()
    (row,) = found.rows
    assert set(row.images) == {"t2w"}
    array, _ = read_volume(row.t2w)
    assert array.shape == (20, 16, 10)
    assert array.max() == max(plane_of(1, n, (16, 20)).max() for n in range(11, 21))


def test_files_without_preamble_and_other_syntaxes(write_series, ingest):
    source = write_series(FLAIR, name="{number}")
    for path in sorted(source.iterdir()):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        data.save_as(path, implicit_vr=True, enforce_file_format=True)
    assert len(ingest().rows) == 1
    tree = read_tree(source)
    bare = source / "bare"
    bare.write_bytes((source / "1").read_bytes()[132:])
    assert read_tree(source).images == tree.images + 1


def test_bytes_behind_the_pixels_are_passed_over(write_series, ingest):
    source = write_series(FLAIR)
    with next(source.rglob("IM 1")).open("ab") as file:
        file.write(b"\0" * 100_000)
    found = ingest()
    assert len(found.rows) == 1
    assert any("100000 bytes behind the pixels passed over" in note for note in found.notes)


def test_headers_that_break_the_standard(write_series, ingest, recwarn, caplog):
    source = write_series(
        FLAIR, change=set_if(lambda n: n == 3, PatientAge="59", InstanceNumber="")
    )
    for path in source.rglob("IM *"):
        content = path.read_bytes()
        assert b"9000" in content
        path.write_bytes(content.replace(b"9000", b"9,0s").replace(b"1.2.3.1\0", b"1.2.x.1\0"))
    recwarn.clear()
    caplog.clear()
    assert set(ingest().rows[0].images) == {"t2f"}
    # What pydicom says about such headers quotes them.
    assert (len(recwarn), caplog.records) == (0, [])


def test_what_is_no_plain_file(write_series, ingest, tmp_path):
    source = write_series(FLAIR)
    os.mkfifo(source / "pipe")
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found = ingest()
    assert len(found.rows) == 1
    assert "1 files that are no DICOM images were passed over." in found.notes


def test_no_dicom(ingest, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("DICM")
    with pytest.raises(UserError, match=r"no DICOM image in it \(1 other files\)"):
        ingest()
    with pytest.raises(UserError, match="is no folder"):
        ingest(tmp_path / "absent")
