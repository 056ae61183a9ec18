"""4-D files taken apart: every stored voxel and the geometry stay, bit for bit."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.ingest.four_d import count_volumes, split_volumes
from data_pipelines.nifti import read_volume
from gmmas_jax.errors import UserError
from tests.data_pipelines.ingest.layout_trees import find, names, plant, plant_nnunet

ORDER = ("t2f", "t1n", "t1c", "t2w")
OBLIQUE = np.array([[-1.1, 0.1, 0, 90], [0.1, 0.9, 0.2, -120], [0, -0.2, 1.3, -70], [0, 0, 0, 1.0]])


def write(path: Path, *, dtype: str = "<i2", volumes: int = 4, slope: float = 0.0) -> np.ndarray:
    """Writes a 4-D file and returns its stored values."""
    stored = np.random.default_rng(3).integers(0, 900, (7, 6, 5, volumes)).astype(dtype)
    image = nib.Nifti1Image(stored, OBLIQUE, nib.Nifti1Header(endianness=dtype[0]))
    image.set_data_dtype(dtype)
    image.set_sform(OBLIQUE, code=4)
    image.set_qform(OBLIQUE, code=1, strip_shears=True)
    image.header["descrip"] = b"a name that nobody should read"
    image.header["pixdim"][4] = 2.5
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    content = bytearray(
        gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    )
    content[112:116] = np.float32(slope).astype(dtype[0] + "f4").tobytes()
    content[116:120] = np.float32(7 if slope else 0).astype(dtype[0] + "f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else bytes(content))
    return stored


@pytest.mark.parametrize(
    ("name", "dtype", "slope"),
    [("x.nii.gz", "<f4", 0.0), ("x.nii", "<i2", 0.5), ("x.nii.gz", ">i2", 2.0)],
)
def test_voxels_scaling_and_geometry_stay(tmp_path, name, dtype, slope):
    stored = write(tmp_path / name, dtype=dtype, slope=slope)
    files = split_volumes(tmp_path / name, ORDER, tmp_path / "out" / "P1")
    assert [path.name for path in files.values()] == [f"P1-{kind}.nii.gz" for kind in ORDER]
    source = nib.load(tmp_path / name)
    for number, path in enumerate(files.values()):
        image = nib.load(path)
        assert image.shape == stored.shape[:3]
        assert image.get_data_dtype() == np.dtype(dtype)
        np.testing.assert_array_equal(image.dataobj.get_unscaled(), stored[..., number])
        np.testing.assert_array_equal(image.get_fdata(), source.get_fdata()[..., number])
        for field in ("qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_z", "xyzt_units"):
            np.testing.assert_array_equal(image.header[field], source.header[field])
        np.testing.assert_array_equal(image.header["pixdim"][:4], source.header["pixdim"][:4])
        assert image.header["descrip"] == b""
        assert image.header["pixdim"][4] == 0
        assert path.read_bytes()[4:8] == b"\0\0\0\0"  # No time: the same file every time.
        volume, grid = read_volume(path)
        np.testing.assert_allclose(volume, source.get_fdata()[..., number], rtol=1e-6)
        np.testing.assert_array_equal(grid.affine, source.affine)


def test_what_is_written_is_kept_until_the_source_changes(tmp_path):
    path, out = tmp_path / "x.nii.gz", tmp_path / "P1"
    write(path)
    files = split_volumes(path, ORDER, out)
    times = [file.stat().st_mtime_ns for file in files.values()]
    split_volumes(path, ORDER, out)
    assert [file.stat().st_mtime_ns for file in files.values()] == times
    files["t1c"].unlink()
    split_volumes(path, ORDER, out)
    assert files["t1c"].is_file()
    before = files["t2f"].read_bytes()
    split_volumes(path, ORDER[::-1], out)
    assert files["t2w"].read_bytes() == before


def test_damaged_files_leave_nothing(tmp_path):
    path, out = tmp_path / "x.nii.gz", tmp_path / "P1"
    write(path)
    whole = path.read_bytes()
    for damaged, message in (
        (whole[: len(whole) // 2], "end early or are damaged"),
        (gzip.compress(gzip.decompress(whole)[:-9]), "truncated"),
        (whole[:-6] + b"\0\0" + whole[-4:], "end early or are damaged"),  # The checksum.
        (b"", "NIfTI header"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            split_volumes(path, ORDER, out)
        assert not out.exists() or not list(out.iterdir())
    write(path, volumes=3)
    with pytest.raises(UserError, match=r"3 volumes .* expected 4"):
        split_volumes(path, ORDER, out)
    assert count_volumes(path) == 3


def task01(root: Path) -> Path:
    write(root / "imagesTr" / "BRATS_001.nii.gz", dtype="<f4")
    write(root / "imagesTs" / "BRATS_485.nii.gz", dtype="<f4")
    plant(root, "labelsTr/BRATS_001.nii.gz", "imagesTr/._BRATS_001.nii.gz")
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    described = {"modality": modality, "labels": labels}
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return root


@pytest.mark.parametrize("layout", ["msd", "auto"])
def test_task01_as_it_is_published(tmp_path, layout):
    source, told = task01(tmp_path / "Task01_BrainTumour"), []
    with pytest.raises(UserError, match="--volumes DIR"):
        find(source, layout)
    options = {"volumes": tmp_path / "volumes", "on_case": lambda *facts: told.append(facts)}
    found = find(source, layout, **options)
    train, test = found.rows
    assert (train.case_id, train.split, train.label_convention) == ("BRATS_001", "train", "msd")
    assert (test.case_id, test.split, test.seg) == ("BRATS_485", "test", None)
    assert train.t2f == str(tmp_path / "volumes" / "BRATS_001" / "BRATS_001-t2f.nii.gz")
    whole = nib.load(source / "imagesTr" / "BRATS_001.nii.gz").get_fdata()
    for number, sequence in enumerate(ORDER):
        np.testing.assert_array_equal(
            nib.load(train.images[sequence]).get_fdata(), whole[..., number]
        )
    assert told == [(1, 2, "BRATS_001"), (2, 2, "BRATS_485")]


def test_the_description_counts_more_than_what_the_task_is_known_for(tmp_path):
    plant_nnunet(
        tmp_path,
        {"BRATS_001": "Tr"},
        {
            "modality": {"0": "T1w", "1": "T2w", "2": "FLAIR", "3": "t1gd"},
            "labels": {"0": "background", "1": "necrosis", "2": "edema", "4": "enhancing tumor"},
        },
    )
    (row,) = find(tmp_path, "msd").rows
    assert names(row, tmp_path)["t2f"] == "imagesTr/BRATS_001_0002.nii.gz"
    assert row.label_convention == "brats2021"
    (tmp_path / "dataset.json").unlink()
    (row,) = find(tmp_path, "msd").rows
    assert names(row, tmp_path)["t2f"] == "imagesTr/BRATS_001_0000.nii.gz"
    assert row.label_convention == "msd"


def test_a_damaged_file_costs_its_case_only(tmp_path):
    source = task01(tmp_path / "Task01_BrainTumour")
    path = source / "imagesTr" / "BRATS_001.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    found = find(source, "msd", volumes=tmp_path / "volumes")
    assert [row.case_id for row in found.rows] == ["BRATS_485"]
    assert found.refused[0].startswith("BRATS_001: ")


def test_a_4d_file_in_a_datalist(tmp_path):
    write(tmp_path / "BRATS_001.nii.gz", dtype="<f4")
    source = tmp_path / "list.json"
    source.write_text(json.dumps({"training": [{"image": "BRATS_001.nii.gz"}]}), encoding="utf-8")
    assert "holds 4 volumes" in find(source, "monai").refused[0]
    options = {"channel_order": ORDER}
    assert "--volumes DIR" in find(source, "monai", **options).refused[0]
    (row,) = find(source, "monai", volumes=tmp_path / "volumes", **options).rows
    assert row.case_id == "BRATS_001"
    assert set(row.images) == set(ORDER)
