"""NIfTI files in and out, and everything that can be wrong with one."""

import gzip
import itertools
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.nifti import read_mask, read_volume, write_volume
from data_pipelines.nifti_header import MAX_VOXELS
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.geometry import canonical_grid, from_canonical, to_canonical
from gmmas_jax.errors import UserError

SHAPE = (6, 7, 5)
LPS = np.array([[-1.0, 0, 0, 10], [0, -1.0, 0, 20], [0, 0, 2.0, -30], [0, 0, 0, 1]])


def voxels(dtype=np.int16):
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def save(path, array=None, affine=LPS, kind=nib.Nifti1Image, **fields):
    """Writes a file with nibabel and then puts raw values into its header."""
    image = kind(voxels() if array is None else array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    content = bytearray(image.to_bytes())
    header = type(image.header)(bytes(content[: image.header.template_dtype.itemsize]), check=False)
    for field, value in fields.items():
        if field == "pixdim":
            header["pixdim"][1:4] = value
        else:
            header[field] = value
    content[: image.header.template_dtype.itemsize] = header.binaryblock
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def refusal(path, read=read_volume):
    """The message with which a file is refused; it always names the file."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "ünd ; -x.nii.gz"])
def test_a_volume_is_read_as_it_lies_in_the_file(tmp_path, name):
    array, grid = read_volume(save(tmp_path / name))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, voxels())
    assert grid.shape == SHAPE
    np.testing.assert_array_equal(grid.affine, LPS)


@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", ">i2", "int16", "uint16", "int32", ">f4", "float32", "float64", "uint64"],
)
def test_types_and_byte_orders(tmp_path, dtype):
    array = (voxels() % 100).astype(dtype)
    image = nib.Nifti1Image(
        array, LPS, nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<"), dtype=array.dtype
    )
    image.to_filename(tmp_path / "x.nii.gz")
    if dtype[0] == ">":
        content = gzip.decompress((tmp_path / "x.nii.gz").read_bytes())
        assert content[:4] == struct.pack(">i", 348)
    read, grid = read_volume(tmp_path / "x.nii.gz")
    assert read.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(read, voxels() % 100)
    np.testing.assert_array_equal(grid.affine, LPS)
    mask, _ = read_mask(tmp_path / "x.nii.gz")
    assert mask.dtype == array.dtype.newbyteorder("=")


def test_nifti_2_is_read(tmp_path):
    array, grid = read_volume(save(tmp_path / "x.nii.gz", kind=nib.Nifti2Image))
    np.testing.assert_array_equal(array, voxels())
    np.testing.assert_array_equal(grid.affine, LPS)


def test_trailing_axes_of_length_1_are_accepted(tmp_path):
    path = tmp_path / "x.nii.gz"
    image = nib.Nifti1Image(voxels()[..., None, None], LPS)
    image.header["pixdim"][4] = 0
    image.to_filename(path)
    array, grid = read_volume(path)
    assert array.shape == grid.shape == SHAPE


def test_slope_and_intercept_are_applied(tmp_path):
    path = save(tmp_path / "x.nii", scl_slope=0.5, scl_inter=-3)
    np.testing.assert_array_equal(read_volume(path)[0], voxels() * 0.5 - 3)


@pytest.mark.parametrize("stored", ["<f8", ">f8", "<f4", ">i2"])
def test_slope_and_intercept_are_applied_whatever_the_voxels_are_stored_as(tmp_path, stored):
    image = nib.Nifti1Image(voxels().astype(np.dtype(stored)), LPS)
    image.header.set_data_dtype(np.dtype(stored).newbyteorder("="))
    own = image.header.as_byteswapped(stored[0])
    nib.Nifti1Image(voxels().astype(stored), LPS, own).to_filename(tmp_path / "plain.nii")
    content = bytearray((tmp_path / "plain.nii").read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header["scl_slope"], header["scl_inter"] = 0.5, -3
    content[:348] = header.binaryblock
    (tmp_path / "x.nii").write_bytes(content)
    assert header.endianness == stored[0]
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nii")[0], voxels() * 0.5 - 3)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_that_means_no_scaling_changes_nothing(tmp_path, slope):
    path = save(tmp_path / "x.nii", scl_slope=slope, scl_inter=7)
    np.testing.assert_array_equal(read_volume(path)[0], voxels())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scl_slope": np.inf}, ["scl_slope is inf", "finite"]),
        ({"scl_slope": 2, "scl_inter": np.nan}, ["scl_inter nan"]),
        ({"scl_slope": 3e38}, ["scl_slope 3e+38", "rescale"]),
        ({"pixdim": (0, 1, 1)}, ["0 x 1 x 1", "three positive"]),
        ({"pixdim": (1, np.nan, 1)}, ["1 x nan x 1"]),
        ({"pixdim": (1, 1, -2)}, ["1 x 1 x -2"]),
        ({"srow_x": (0, 0, 0, 0)}, ["singular"]),
        ({"srow_x": (np.nan, 0, 0, 0)}, ["singular or not finite", "nan"]),
        ({"sform_code": 0, "quatern_b": 5.0}, ["qform", "invalid"]),
        ({"datatype": 1, "bitpix": 1}, ["binary", "datatype 1"]),
        ({"datatype": 32, "bitpix": 64}, ["complex64"]),
        ({"datatype": 9999}, ["unknown", "9999"]),
        ({"vox_offset": 0}, ["byte 0"]),
        ({"vox_offset": 1e12}, ["byte 1e+12"]),
        ({"vox_offset": np.nan}, ["byte nan"]),
        ({"dim": (3, 6, 7, 0, 1, 1, 1, 1)}, ["6x7x0", "3D"]),
        ({"dim": (2, 6, 35, 1, 1, 1, 1, 1)}, ["6x35", "3D"]),
        ({"dim": (3, 42, 5, 1, 1, 1, 1, 1)}, ["42x5x1", "at least two"]),
        ({"dim": (0, 0, 0, 0, 0, 0, 0, 0)}, ["dim = ["]),
        ({"dim": (4, 6, 7, 1, 5, 1, 1, 1)}, ["6x7x1x5"]),
        ({"magic": b"ni1"}, [".hdr/.img pair"]),
        ({"magic": b"abc"}, ["no magic number"]),
    ],
)
def test_a_bad_header_is_refused(tmp_path, fields, words):
    message = refusal(save(tmp_path / "x.nii.gz", **fields))
    for word in words:
        assert word in message


@pytest.mark.filterwarnings("error")
def test_no_damage_to_a_header_ends_in_another_error(tmp_path):
    content = save(tmp_path / "whole.nii").read_bytes()
    path = tmp_path / "x.nii"
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(600):
        damaged = bytearray(content)
        for place in rng.integers(0, 352, rng.integers(1, 4)):
            damaged[place] = rng.choice([0, 1, 0x7F, 0x80, 0xC0, 0xFF, rng.integers(256)])
        path.write_bytes(damaged)
        try:
            read_volume(path)
        except UserError as error:
            messages.append(str(error))
    assert 0 < len(messages) < 600
    assert all(str(path) in message for message in messages)


def test_4d_is_refused(tmp_path):
    message = refusal(save(tmp_path / "x.nii.gz", np.zeros((6, 7, 5, 4), np.int16)))
    assert "4D volume, 6x7x5x4" in message
    assert "one file per sequence" in message


def test_rgb_is_refused(tmp_path):
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    message = refusal(save(tmp_path / "x.nii.gz", colour))
    assert "RGB" in message
    assert "one value per voxel" in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([np.nan, np.nan, np.inf], ["2 voxels are NaN", "1 infinite", "of 210"]),
        ([-np.inf], ["0 voxels are NaN", "1 infinite"]),
    ],
)
def test_nan_and_infinity_are_counted_and_refused(tmp_path, values, words):
    array = voxels(np.float32)
    array[0, 0, : len(values)] = values
    for read in (read_volume, read_mask):
        message = refusal(save(tmp_path / "x.nii.gz", array), read)
        for word in words:
            assert word in message


@pytest.mark.parametrize(("value", "word"), [(0, "every voxel is zero"), (7, "same value (7)")])
def test_a_constant_image_is_refused_but_not_an_empty_mask(tmp_path, value, word):
    path = save(tmp_path / "x.nii.gz", np.full(SHAPE, value, np.uint8))
    assert word in refusal(path)
    assert (read_mask(path)[0] == value).all()


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    content = save(tmp_path / "whole.nii.gz", voxels(np.float32)).read_bytes()
    path = tmp_path / "x.nii.gz"
    for end in range(2, len(content)):
        path.write_bytes(content[:end])
        assert "again" in refusal(path)
    content = save(tmp_path / "whole.nii").read_bytes()
    path = tmp_path / "x.nii"
    path.write_bytes(content[:-10])
    assert "truncated: 410 of 420 bytes" in refusal(path)
    path.write_bytes(content[:100])
    assert "only 100 bytes" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)


def test_damage_within_the_stream_is_found_by_its_checksum(tmp_path):
    path = save(tmp_path / "x.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # In the CRC of the trailer; every voxel can still be read.
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_gzip_where_none_is_said_and_the_other_way_round(tmp_path):
    plain = save(tmp_path / "a.nii").read_bytes()
    (tmp_path / "x.nii.gz").write_bytes(plain)
    assert "no gzip" in refusal(tmp_path / "x.nii.gz")
    (tmp_path / "x.nii").write_bytes(gzip.compress(plain))
    assert "to .nii.gz" in refusal(tmp_path / "x.nii")
    (tmp_path / "y.nii.gz").write_bytes(gzip.compress(gzip.compress(plain)))
    assert "compressed twice" in refusal(tmp_path / "y.nii.gz")
    (tmp_path / "z.nii").write_bytes(b"not a volume at all" * 100)
    assert "no NIfTI file" in refusal(tmp_path / "z.nii")


def test_a_header_that_promises_too_much_is_refused_before_reading(tmp_path):
    path = tmp_path / "x.nii.gz"
    save(path, dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))
    tracemalloc.start()
    message = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"limit is {MAX_VOXELS}" in message
    assert "32767x32767x32767" in message
    assert peak < 2**20


def test_a_stream_that_holds_more_than_promised_is_not_inflated(tmp_path):
    path = tmp_path / "x.nii"
    content = save(path).read_bytes() + bytes(2**27)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(content))
    del content
    tracemalloc.start()
    array, _ = read_volume(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(array, voxels())
    assert peak < 2**24


def test_a_header_that_promises_more_than_is_there_claims_no_memory(tmp_path):
    path = save(tmp_path / "x.nii.gz", dim=(3, 512, 512, 512, 1, 1, 1, 1))
    tracemalloc.start()
    assert "truncated" in refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize(("dtype", "slope"), [(np.int16, 0.5), (np.float64, 1.0)])
def test_a_volume_is_in_memory_once(tmp_path, dtype, slope):
    """Neither its stored voxels nor float64 of all while they are scaled."""
    image = nib.Nifti1Image(np.arange(160**3).reshape(160, 160, 160).astype(dtype), LPS)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, tmp_path / "x.nii.gz")
    tracemalloc.start()
    read_volume(tmp_path / "x.nii.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.6 * 4 * 160**3


def test_a_path_that_leads_nowhere(tmp_path, monkeypatch):
    assert "no such file" in refusal(tmp_path / "x.nii.gz")
    assert "is a folder" in refusal(tmp_path)
    assert "DICOM" in refusal(tmp_path / "x.dcm")
    path = save(tmp_path / "y.nii.gz")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    assert "Permission denied" in refusal(path)


def test_metres_are_refused(tmp_path):
    path = save(tmp_path / "x.nii", affine=np.diag([0.001, 0.001, 0.002, 1]))
    assert "metres" in refusal(path)


def test_the_sform_comes_before_the_qform_before_the_voxel_sizes(tmp_path):
    moved = LPS.copy()
    moved[:3, 3] += 5
    path = tmp_path / "x.nii.gz"
    notes = []
    save(path, srow_x=moved[0], srow_y=moved[1], srow_z=moved[2])
    np.testing.assert_array_equal(read_volume(path, notes=notes)[1].affine, moved)
    assert ["disagree by up to 5.0 mm" in note for note in notes] == [True]

    notes = []
    save(path, srow_x=moved[0], sform_code=0)
    np.testing.assert_array_equal(read_volume(path, notes=notes)[1].affine, LPS)
    assert notes == []

    save(path, sform_code=0, qform_code=0)
    _, grid = read_volume(path, notes=notes)
    assert grid.spacing == (1.0, 1.0, 2.0)
    np.testing.assert_array_equal(grid.affine, nib.load(path).affine)
    assert ["left and right are assumed" in note for note in notes] == [True]

    notes = []
    save(path, quatern_b=5.0)
    np.testing.assert_array_equal(read_volume(path, notes=notes)[1].affine, LPS)
    assert ["qform is invalid" in note for note in notes] == [True]


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 0), (0, 1), (0, 0)])
def test_a_result_has_the_affine_and_the_codes_of_its_source(tmp_path, codes):
    turned = LPS.copy()
    turned[:3, :3] = np.array([[-0.9, 0.1, 0], [0.1, -0.9, 0.3], [0, 0.2, 2.0]])
    source = save(tmp_path / "a.nii.gz", affine=turned, qform_code=codes[0], sform_code=codes[1])
    _, grid = read_volume(source)
    mask = (voxels() % 4).astype(np.uint8)
    write_volume(tmp_path / "b.nii.gz", mask, grid, dtype=np.uint8)
    before, after = nib.load(source), nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.affine, grid.affine)
    for field in ("qform_code", "sform_code", "quatern_b", "srow_y", "pixdim"):
        np.testing.assert_array_equal(after.header[field], before.header[field])
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), mask)


def test_every_orientation_goes_through_files_and_back(tmp_path):
    path = tmp_path / "x.nii"
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = (np.eye(3) * np.array([1, 1.5, 2]))[:, order] * signs
            _, grid = read_volume(save(path, affine=affine))
            np.testing.assert_allclose(grid.affine, affine)
            canonical, _ = to_canonical(voxels(), grid.affine)
            assert canonical_grid(grid).spacing == (1.0, 1.5, 2.0)
            closest = nib.as_closest_canonical(nib.load(path))
            np.testing.assert_array_equal(canonical, np.asarray(closest.dataobj))
            np.testing.assert_allclose(canonical_grid(grid).affine, closest.affine)
            np.testing.assert_array_equal(from_canonical(canonical, grid), voxels())


def test_a_computed_grid_is_written_in_millimetres_with_both_forms(tmp_path):
    write_volume(tmp_path / "x.nii.gz", voxels(), Grid(SHAPE, LPS), dtype=np.int16)
    image = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(image.affine, LPS)
    np.testing.assert_allclose(image.get_qform(), LPS)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    # Neither time nor file name are in the gzip header: the same voxels are the same bytes.
    assert (tmp_path / "x.nii.gz").read_bytes()[3:8] == bytes(5)


def test_probabilities_are_written_with_a_fourth_axis(tmp_path):
    array = np.random.default_rng(0).random((*SHAPE, 4), np.float32)
    write_volume(tmp_path / "p.nii.gz", array, Grid(SHAPE, LPS), dtype=np.float32)
    np.testing.assert_array_equal(nib.load(tmp_path / "p.nii.gz").get_fdata(), array)


def test_what_does_not_fit_is_not_written(tmp_path):
    grid = Grid(SHAPE, LPS)
    with pytest.raises(ValueError, match="on a grid of"):
        write_volume(tmp_path / "x.nii", np.zeros((2, 2, 2)), grid, dtype=np.uint8)
    with pytest.raises(ValueError, match="uint8 cannot express"):
        write_volume(tmp_path / "x.nii", voxels() + 200, grid, dtype=np.uint8)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_volume(tmp_path / "file" / "x.nii.gz", voxels(), grid, dtype=np.int16)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_real_file_with_a_trailing_axis_of_pixel_size_0(real_data):
    path = real_data / "atlas" / "sri24-t1-brain.nii.gz"
    array, grid = read_volume(path)
    assert array.shape == (240, 240, 155)
    np.testing.assert_array_equal(grid.affine, nib.load(path).affine)
