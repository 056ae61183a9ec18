import numpy as np
import pytest

from data_pipelines.ingest.clinical import read_clinical
from data_pipelines.ingest.dicom import ingest_dicom
from tests.data_pipelines.ingest.dicom_exams import AXIAL, header, plane_of


@pytest.fixture
def table(tmp_path):
    def write(content, kind=None, name="table.csv", **options):
        path = tmp_path / name
        path.write_text(content)
        return read_clinical(path, kind, **options)

    return write


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
