"""Constructed DICOM exams with the headers of real MR series."""

import itertools
import json

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

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


def listed(found_row_or_case, tmp_path):
    case = getattr(found_row_or_case, "case_id", found_row_or_case)
    return json.loads((tmp_path / "volumes" / case / "series.json").read_text())["series"]


def only_case(tmp_path):
    (case,) = [path.parent for path in (tmp_path / "volumes").glob("*/series.json")]
    return case.name
