import csv
import gzip
import itertools
import json
import os
import shutil
import stat
import sys

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from data_pipelines.ingest.dicom import ingest_dicom
from data_pipelines.ingest.dicom_headers import Acquisition, read_tree
from data_pipelines.ingest.dicom_series import recognise
from data_pipelines.nifti import read_volume, write_volume
from gmmas_jax.cases.case import Grid
from gmmas_jax.errors import UserError

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
NAME = "Mustermann^Erika"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
COUNTER = itertools.count(1)

T1 = {
    "SeriesDescription": "Ax T1 SE",
    "ScanningSequence": "SE",
    "RepetitionTime": 600,
    "EchoTime": 12,
}
T1_POST = {**T1, "SeriesDescription": "Ax T1 SE post Gd", "ContrastBolusAgent": "GADAVIST"}
T2 = {
    "SeriesDescription": "Ax T2 TSE",
    "ScanningSequence": "SE",
    "RepetitionTime": 4500,
    "EchoTime": 98,
}
FLAIR = {
    "SeriesDescription": "Ax FLAIR",
    "ScanningSequence": ["SE", "IR"],
    "RepetitionTime": 9000,
    "EchoTime": 120,
    "InversionTime": 2500,
}


def header(series, study, patient, number, orientation, values):
    """Returns a real MR header without position and pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MR
    data.SOPInstanceUID = f"1.2.3.{series}.{next(COUNTER)}"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality, data.Manufacturer = "MR", "SIEMENS"
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    data.StudyDate, data.SeriesDate, data.AcquisitionDate = ("20200102",) * 3
    data.StudyTime = "101500"
    data.AcquisitionTime = f"10{20 + series % 40:02d}00"
    data.PatientName, data.PatientID = NAME, patient
    data.PatientBirthDate, data.PatientSex, data.PatientAge = "19600304", "F", "059Y"
    data.StudyInstanceUID = f"1.2.3.{study}"
    data.SeriesInstanceUID = f"1.2.3.{study}.{series}"
    data.FrameOfReferenceUID = f"1.2.3.{study}.9"
    data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = series, number, 1
    data.MRAcquisitionType, data.SliceThickness, data.FlipAngle = "2D", 5, 90
    data.SequenceVariant, data.PatientPosition, data.MagneticFieldStrength = "SK", "HFS", 3
    data.ImageOrientationPatient = list(orientation)
    data.PixelSpacing = [0.9, 0.9]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    for name, value in values.items():
        setattr(data, name, value)
    return data


def plane_of(series, number, shape):
    return np.random.default_rng([series, number]).integers(1, 1000, shape).astype("<u2")


@pytest.fixture
def write_series(tmp_path):
    """Returns a function that writes a series of ten axial slices 5 mm apart, with faults."""

    def write(
        values,
        *,
        series=1,
        study=1,
        patient="4711",
        count=10,
        skip=(),
        step=5.0,
        shape=(16, 20),
        change=None,
        name="{patient} exam/s{series}/IM {number}",
        orientation=AXIAL,
    ):
        normal = np.cross(orientation[:3], orientation[3:])
        for number in range(1, count + 1):
            if number in skip:
                continue
            data = header(series, study, patient, number, orientation, values)
            data.ImagePositionPatient = list(np.array([-9.0, -7.0, -20.0]) + step * number * normal)
            data.Rows, data.Columns = shape
            data.PixelData = plane_of(series, number, shape).tobytes()
            if change is not None:
                change(number, data)
            path = tmp_path / "source" / name.format(patient=patient, series=series, number=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            data.save_as(path, enforce_file_format=True)
        return tmp_path / "source"

    return write


@pytest.fixture
def ingest(tmp_path):
    def run(source=None, **options):
        return ingest_dicom(source or tmp_path / "source", volumes=tmp_path / "volumes", **options)

    return run


def listed(found_row_or_case, tmp_path):
    case = getattr(found_row_or_case, "case_id", found_row_or_case)
    return json.loads((tmp_path / "volumes" / case / "series.json").read_text())["series"]


def only_case(tmp_path):
    (case,) = [path.parent for path in (tmp_path / "volumes").glob("*/series.json")]
    return case.name


def acquisition(**values):
    names = {
        "SeriesDescription": "text",
        "RepetitionTime": "repetition_ms",
        "EchoTime": "echo_ms",
        "InversionTime": "inversion_ms",
        "ContrastBolusAgent": "agent",
    }
    given = {names.get(key, key): value for key, value in values.items()}
    scanning = given.pop("ScanningSequence", "SE")
    text = given.pop("text", "").casefold()
    return Acquisition(
        modality=given.pop("modality", "MR"),
        sop_class=given.pop("sop_class", MR),
        texts=(text,) if text else (),
        scanning=frozenset([scanning] if isinstance(scanning, str) else scanning),
        **given,
    )


# Recognition by headers.


@pytest.mark.parametrize(
    ("values", "sequence"),
    [
        (T1, "t1n"),
        (T1_POST, "t1c"),
        (T2, "t2w"),
        (FLAIR, "t2f"),
        # Words of many hospitals.
        ({**T1, "SeriesDescription": "t1_mprage_sag_p2_iso_KM"}, "t1c"),
        ({**T1, "SeriesDescription": "AX T1 +C"}, "t1c"),
        ({**T1, "SeriesDescription": "T1 POST FS"}, "t1c"),
        ({**T1, "SeriesDescription": "T1 W/O CONTRAST", "ContrastBolusAgent": "Dotarem"}, "t1n"),
        ({**T1, "SeriesDescription": "AX T1 PRE GAD"}, "t1n"),
        ({**T1, "ContrastBolusAgent": "none"}, "t1n"),
        ({**T1, "ContrastBolusAgent": "10 ml"}, "t1c"),
        ({**FLAIR, "SeriesDescription": "t2_tirm_tra_dark-fluid"}, "t2f"),
        ({**FLAIR, "SeriesDescription": "AX FLAIR POST"}, "t2f"),
        ({**T2, "SeriesDescription": "t2_space_sag_p2", "EchoTime": 410}, "t2w"),
        ({**FLAIR, "InversionTime": None, "ScanningSequence": "SE"}, "t2f"),
        ({**T1, "SeriesDescription": "AX T1 -C"}, "t1n"),
        ({**T1, "SeriesDescription": "T1 no gad"}, "t1n"),
        ({**T1, "SeriesDescription": "T1 posterior fossa"}, "t1n"),
        ({**T1, "SeriesDescription": "sT1W_TSE_CE"}, "t1c"),
        ({**T2, "SeriesDescription": "AXT2"}, "t2w"),
        # T1 FLAIR is T1.
        (
            {"SeriesDescription": "Ax T1 FLAIR", "RepetitionTime": 2200, "EchoTime": 10}
            | {"InversionTime": 860, "ScanningSequence": ["SE", "IR"]},
            "t1n",
        ),
        (
            {"SeriesDescription": "MPRAGE", "RepetitionTime": 2300, "EchoTime": 3}
            | {"InversionTime": 900, "ScanningSequence": ["GR", "IR"]},
            "t1n",
        ),
        (
            {"SeriesDescription": "SAG BRAVO", "RepetitionTime": 8, "EchoTime": 3}
            | {"ScanningSequence": "GR"},
            "t1n",
        ),
        # One of two sources is enough.
        ({**T2, "SeriesDescription": "series 5"}, "t2w"),
        ({**FLAIR, "SeriesDescription": ""}, "t2f"),
        ({**T1, "SeriesDescription": ""}, "t1n"),
        ({"SeriesDescription": "T2"}, "t2w"),
        # Both echoes of a dual-echo series are named by both.
        ({**T2, "SeriesDescription": "AX PD/T2 FSE"}, "t2w"),
        ({**T2, "SeriesDescription": "AX PD/T2 FSE", "EchoTime": 15}, None),
        # None of the four.
        ({**T1, "SeriesDescription": "Ax PD", "RepetitionTime": 2500, "EchoTime": 20}, None),
        ({**T2, "SeriesDescription": "AX STIR"}, None),
        ({**T2, "SeriesDescription": "ax t2* gre"}, None),
        ({**T2, "SeriesDescription": "3-plane loc"}, None),
        ({**T2, "SeriesDescription": "T2 sag cervical spine"}, None),
        ({**T1, "SeriesDescription": "T1 SUBTRACTION"}, None),
        ({**T1_POST, "image_type": ("DERIVED", "SECONDARY", "MIP")}, None),
        ({**T2, "image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}, None),
        ({**T2, "SeriesDescription": "ep2d_diff_b1000", "ScanningSequence": "EP"}, None),
        ({**T2, "SeriesDescription": "x", "ScanningSequence": "EP"}, None),
        ({**T2, "modality": "CT", "sop_class": "1.2.840.10008.5.1.4.1.1.2"}, None),
        ({**T2, "sop_class": "1.2.840.10008.5.1.4.1.1.7"}, None),
        ({**T2, "body_part": "CSPINE"}, None),
        ({"SeriesDescription": "brain"}, None),
    ],
)
def test_sequences_by_headers(values, sequence):
    recognised = recognise(acquisition(**values))
    assert recognised.sequence == sequence, recognised.reason
    assert recognised.reason


def test_a_description_that_its_times_deny_is_not_believed():
    recognised = recognise(acquisition(**{**T2, "SeriesDescription": "Ax T1"}))
    assert recognised.sequence is None
    assert "its description says T1, its times T2 (TR 4500 ms, TE 98 ms)" in recognised.reason


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
