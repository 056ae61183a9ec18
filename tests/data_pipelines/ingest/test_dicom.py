import csv
import gzip
import stat
import sys

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from data_pipelines.ingest.dicom import ingest_dicom
from data_pipelines.nifti import read_volume, write_volume
from gmmas_jax.cases.case import Grid
from gmmas_jax.errors import UserError
from tests.data_pipelines.ingest.dicom_exams import (
    AXIAL,
    CORONAL,
    ENHANCED_MR,
    FLAIR,
    T1,
    T1_POST,
    T2,
    header,
    listed,
    only_case,
    plane_of,
)

# Whole trees.


def test_an_exam_becomes_a_case(write_series, ingest, tmp_path):
    for number, values in enumerate((T1, T1_POST, T2, FLAIR), 1):
        write_series(values, series=number)
    write_series({"SeriesDescription": "localizer", "EchoTime": 5}, series=9, count=3)
    (tmp_path / "source" / "notes; odd.txt").write_text("no DICOM")
    calls = []
    found = ingest(on_case=lambda *done: calls.append(done))
    (row,) = found.rows
    assert found.refused == []
    assert set(row.images) == {"t1n", "t1c", "t2w", "t2f"}
    assert (row.age, row.sex, row.timepoint) == (59, "female", "1")
    assert calls == [(1, 1, row.case_id)]
    assert "1 files that are no DICOM images were passed over." in found.notes
    assert any("'localizer' (3 images): left out: a localiser" in note for note in found.notes)
    for number, sequence in enumerate(("t1n", "t1c", "t2w", "t2f"), 1):
        array, grid = read_volume(row.images[sequence])
        assert array.shape == (20, 16, 10)
        assert grid.spacing == pytest.approx((0.9, 0.9, 5))
        # The first voxel of slice 3, found by its place: DICOM is LPS, and rows go down.
        place = np.array([9.0, 7.0, -20 + 15.0, 1])
        i, j, k = np.rint(np.linalg.inv(grid.affine) @ place)[:3].astype(int)
        assert array[i, j, k] == plane_of(number, 3, (16, 20))[0, 0]
    assert [one["outcome"] for one in listed(row, tmp_path)] == ["used"] * 4 + ["left out"]


OBLIQUE = (0.96, 0.28, 0.0, -0.224, 0.768, 0.6)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("step", [5.0, -1.2])
def test_every_voxel_keeps_its_place(write_series, ingest, orientation, step):
    write_series(
        {**T2, "PixelSpacing": [0.7, 0.9], "MRAcquisitionType": "3D"},
        orientation=orientation,
        step=step,
        shape=(12, 20),
    )
    array, grid = read_volume(ingest().rows[0].t2w)
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(along_row, along_column)
    for row, column, number in ((0, 0, 1), (11, 2, 1), (3, 19, 10), (5, 6, 7)):
        place = np.array([-9.0, -7.0, -20.0]) + step * number * normal
        place = place + along_row * 0.9 * column + along_column * 0.7 * row
        place = place * (-1, -1, 1)  # DICOM is LPS.
        index = np.linalg.inv(grid.affine) @ [*place, 1]
        i, j, k = np.rint(index)[:3].astype(int)
        np.testing.assert_allclose(index[:3], (i, j, k), atol=0.01)
        assert array[i, j, k] == plane_of(1, number, (12, 20))[row, column]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 0", "dcm2niix failed on it (exit code 0)"),
        ("exit 3", "dcm2niix failed on it (exit code 3)"),
        ("cp {volume} $out/a.nii; cp {volume} $out/b.nii", "dcm2niix made 2 volumes"),
        ("echo x > $out/a.nii", "what dcm2niix made of it cannot be used"),
        ("cp {volume} $out/a.nii", "dcm2niix made a volume of 20x16x12 voxels"),
        ("cp {beside} $out/a.nii", "dcm2niix put it 8 mm beside"),
        ("cp {empty} $out/a.nii", "every voxel has the same value"),
    ],
)
def test_what_dcm2niix_makes_is_looked_at(
    write_series, ingest, monkeypatch, tmp_path, script, told
):
    affine = np.array([[-0.9, 0, 0, 9.0], [0, -0.9, 0, 7.0], [0, 0, 5, -15.0], [0, 0, 0, 1]])
    noise = np.random.default_rng(1).integers(0, 9, (20, 16, 12)).astype(np.int16)
    paths = {name: tmp_path / f"{name}.nii" for name in ("volume", "beside", "empty")}
    beside = affine.copy()
    beside[2, 3] += 8
    write_volume(paths["volume"], noise, Grid(noise.shape, affine), dtype=np.int16)
    write_volume(paths["beside"], noise[..., :10], Grid((20, 16, 10), beside), dtype=np.int16)
    write_volume(paths["empty"], noise[..., :10] * 0, Grid((20, 16, 10), affine), dtype=np.int16)
    fake = tmp_path / "fake"
    find_out = 'while [ "$1" != -o ]; do shift; done; out="$2"\n'
    fake.write_text("#!/bin/sh\n" + find_out + script.format(**paths) + "\n")
    fake.chmod(0o755)
    monkeypatch.setattr("data_pipelines.ingest.dicom_convert.converter", lambda: str(fake))
    write_series(T2)
    found = ingest()
    assert told in found.refused[0]
    assert str(tmp_path) not in found.refused[0]
    assert list((tmp_path / "volumes").rglob("*.nii*")) == []


def test_without_the_converter(write_series, ingest, monkeypatch):
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    write_series(T2)
    with pytest.raises(UserError, match=r"not installed.*gmmas-jax\[preprocess\]"):
        ingest()


def test_nothing_of_the_patient_is_told(write_series, ingest, tmp_path):
    values = {**T2, "SeriesDescription": "AX T2 Mustermann 19600304 4711 HEAD"}
    write_series(values, name="{patient} Erika Mustermann/IM{number}")
    found = ingest()
    (row,) = found.rows
    told = [str(row), *found.notes, *found.refused]
    volumes = tmp_path / "volumes"
    public = [path for path in volumes.rglob("*") if path.is_file() and "private" not in path.parts]
    told += [str(path.relative_to(volumes)) for path in public]
    contents = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in public
    )
    for secret in ("mustermann", "erika", "4711", "19600304", "20200102", "102100"):
        assert secret not in "\n".join(told).casefold().replace(str(tmp_path).casefold(), "")
        assert secret.encode() not in contents.lower()
    assert "'AX T2 HEAD'" in "\n".join(found.notes)
    # The owner finds the way back, and nobody else.
    with (volumes / "private" / "origins.csv").open(newline="") as file:
        (origin,) = csv.DictReader(file)
    assert origin["case_id"] == row.case_id
    assert "Erika" in origin["folder"]
    for path in (volumes / "private" / "key", volumes / "private" / "origins.csv"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ids_stay_and_need_the_key(write_series, ingest, tmp_path):
    source = write_series(T2)
    (first,), (again,) = ingest().rows, ingest().rows
    assert first == again
    other = ingest_dicom(source, volumes=tmp_path / "other").rows[0]
    assert other.case_id != first.case_id


def test_studies_and_patients(write_series, ingest):
    later = {**T2, "StudyDate": "20210102"}
    write_series(later, study=1, series=1)
    write_series(T2, study=2, series=2)
    write_series(T2, study=3, series=3, patient="0815")
    write_series(T2, study=4, series=4, patient="")
    found = ingest(workers=2)
    assert len(found.rows) == 4
    assert len({row.case_id for row in found.rows}) == 4
    assert len({row.patient_id for row in found.rows}) == 3
    assert sorted(row.timepoint for row in found.rows) == ["1", "1", "1", "2"]
    assert any("no patient ID in the headers" in note for note in found.notes)


def test_the_better_of_two_series(write_series, ingest, tmp_path):
    write_series(T1_POST, series=1, step=0.8, count=40)
    write_series({**T1_POST, "MRAcquisitionType": "3D"}, series=2, step=1.0, count=30)
    write_series({**T1_POST, "MRAcquisitionType": "3D"}, series=3, step=1.0, count=30)
    reformatted = {**T1_POST, "MRAcquisitionType": "3D"}
    reformatted["ImageType"] = ["DERIVED", "SECONDARY", "MPR"]
    write_series(reformatted, series=4, step=0.5, count=40)
    found = ingest()
    outcomes = [one["outcome"] for one in listed(found.rows[0], tmp_path)]
    assert outcomes == ["not chosen", "not chosen", "used", "not chosen"]
    assert sum("another series of the exam is better" in note for note in found.notes) == 3


def test_the_next_series_takes_the_place_of_a_faulty_one(write_series, ingest, tmp_path):
    write_series(T2, series=1)
    write_series({**T2, "MRAcquisitionType": "3D"}, series=2, skip=(4,))
    found = ingest()
    assert [one["outcome"] for one in listed(found.rows[0], tmp_path)] == ["used", "refused"]
    assert "missing slices: 1 between images 3 and 5" in found.refused[0]


def test_two_t1_without_a_word_of_contrast(write_series, ingest):
    write_series(T1, series=1)
    write_series(T1, series=2)
    assert any("look whether the later one is t1c" in note for note in ingest().notes)


def test_the_name_of_the_protocol_is_not_the_series(write_series, ingest):
    exam = "MRI BRAIN W WO CONTRAST PERFUSION"
    write_series({**T1, "ProtocolName": exam}, series=1)
    write_series({**T2, "SeriesDescription": "", "ProtocolName": "t2_tse_tra"}, series=2)
    assert set(ingest().rows[0].images) == {"t1n", "t2w"}


def enhanced(count, skip=()):
    data = header(1, 1, "4711", 1, AXIAL, {"SeriesDescription": "Ax FLAIR enhanced"})
    for name in ("ImageOrientationPatient", "PixelSpacing", "ScanningSequence"):
        if name in data:
            del data[name]
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]

    def group(**values):
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return Sequence([item])

    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=list(AXIAL))
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.9, 0.9], SliceThickness=5)
    shared.MRTimingAndRelatedParametersSequence = group(RepetitionTime=9000.0, FlipAngle=90.0)
    shared.MREchoSequence = group(EffectiveEchoTime=120.0)
    shared.MRModifierSequence = group(InversionTimes=[2500.0])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number in range(1, count + 1):
        if number in skip:
            continue
        frame = Dataset()
        position = [-9.0, -7.0, -20 + 5.0 * number]
        frame.PlanePositionSequence = group(ImagePositionPatient=position)
        frame.FrameContentSequence = group(
            DimensionIndexValues=[1, number],
            StackID="1",
            InStackPositionNumber=number,
            FrameAcquisitionNumber=1,
        )
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.NumberOfFrames = len(frames)
    data.Rows, data.Columns = 16, 20
    data.PixelData = b"".join(plane_of(1, n + 1, (16, 20)).tobytes() for n in range(len(frames)))
    return data


def test_enhanced_multi_frame(ingest, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    enhanced(10).save_as(source / "one", enforce_file_format=True)
    found = ingest()
    assert found.refused == []
    array, grid = read_volume(found.rows[0].t2f)
    assert array.shape == (20, 16, 10)
    assert grid.spacing == pytest.approx((0.9, 0.9, 5))
    reason = listed(found.rows[0], tmp_path)[0]["reason"]
    assert "description and times (TR 9000 ms, TE 120 ms, TI 2500 ms)" in reason
    enhanced(10, skip=(4,)).save_as(source / "one", enforce_file_format=True)
    assert "missing slices: 1 between images 3 and 4" in ingest().refused[0]


def test_a_real_series_of_proton_density(real_data, ingest, tmp_path):
    """Its first file carries 2.5 MB of zeros behind its own pixels: no second volume, no fault."""
    found = ingest(real_data / "dicom-pd")
    assert found.rows == []
    (one,) = listed(only_case(tmp_path), tmp_path)
    assert (one["description"], one["images"], one["fault"]) == ("FSE PD AXIAL OBL", 20, None)
    assert one["reason"].startswith("proton density, which is not one of the four")
    assert any("2490368 bytes behind the pixels passed over" in note for note in found.notes)


def test_a_real_series_converts(real_data, ingest, tmp_path):
    """The same series, named as what it is not, so that it is converted."""
    source = tmp_path / "source"
    source.mkdir()
    for path in (real_data / "dicom-pd").iterdir():
        content = path.read_bytes().replace(b"FSE PD AXIAL OBL", b"FSE T2 AXIAL OBL")
        (source / path.name).write_bytes(content.replace(b"22.0000", b"98.0000"))
    found = ingest()
    array, grid = read_volume(found.rows[0].t2w)
    assert array.shape == (256, 256, 20)
    # dcm2niix takes 7.07 mm from the first two slices and puts the last one 1.3 mm too high.
    assert grid.spacing == pytest.approx((0.859375, 0.859375, 7.0005), rel=1e-4)
    last = grid.corners() * (-1, -1, 1) - [-110.5, -96.2063, 59.0425]
    assert np.abs(last).max(axis=1).min() < 1e-3
    assert (found.rows[0].age, found.rows[0].sex) == (28, "female")
