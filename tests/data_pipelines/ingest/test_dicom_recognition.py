import pytest
from pydicom.uid import MRImageStorage

from data_pipelines.ingest.dicom_headers import Acquisition
from data_pipelines.ingest.dicom_series import recognise
from tests.data_pipelines.ingest.dicom_exams import (
    FLAIR,
    T1,
    T1_POST,
    T2,
)


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
        sop_class=given.pop("sop_class", MRImageStorage),
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
