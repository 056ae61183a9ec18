"""A record is what TensorFlow reads, and what NumPy maps."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.host_tensorflow import tf
from data_pipelines.store.record import map_record, read_facts, verify_record, write_record
from gmmas_jax.errors import UserError

ARRAYS = {
    "image": np.random.default_rng(0).normal(size=(7, 5, 3, 4)).astype(np.float16),
    "label": np.arange(105, dtype=np.uint8).reshape(7, 5, 3),
    "foreground": np.arange(11, dtype=np.int32),
    "nothing": np.zeros((0, 0, 0), np.uint8),
}
FEATURES = {"case_id": "né".encode(), "idh": [-1], "present": b"\0\0\0\0"}


def write(path: Path, meta=None, arrays=ARRAYS):
    return write_record(path, meta or {"case_id": "né"}, arrays, FEATURES)


# Lengths around those where the lengths of lengths change, and beyond the first bytes read.
@pytest.mark.parametrize("length", [*range(0, 70, 7), 127, 128, 16_000, 16_384, 40_000])
def test_arrays_are_mapped_as_they_were(tmp_path, length):
    path = tmp_path / "case.tfrecord"
    facts = write(path, {"note": "x" * length})
    meta, arrays = map_record(path)
    assert meta["note"] == "x" * length
    assert set(arrays) == set(ARRAYS)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype
        # Aligned in the file, hence in memory.
        assert array.size == 0 or array.ctypes.data % 64 == 0
    assert read_facts(path) == facts
    assert verify_record(path)


@pytest.mark.parametrize("voxels", [1, 100, 127, 128, 16_383, 16_384, 2_100_000])
def test_tensorflow_reads_the_same(tmp_path, voxels):
    path = tmp_path / "case.tfrecord"
    arrays = ARRAYS | {"image": np.arange(voxels, dtype=np.uint8).reshape(voxels, 1)}
    write(path, arrays=arrays)
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    fields = tf.train.Example.FromString(record).features.feature
    assert fields["image/value"].bytes_list.value[0] == arrays["image"].tobytes()
    assert list(fields["image/shape"].int64_list.value) == [voxels, 1]
    assert fields["foreground"].bytes_list.value[0] == ARRAYS["foreground"].tobytes()
    assert fields["case_id"].bytes_list.value[0].decode() == "né"
    assert list(fields["idh"].int64_list.value) == [-1]


def test_equal_content_gives_equal_bytes_whatever_the_order(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", arrays=dict(reversed(ARRAYS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    changed = ARRAYS | {"label": ARRAYS["label"] + 1}
    assert write(tmp_path / "c", arrays=changed).sha256 != read_facts(tmp_path / "a").sha256


def test_damage_is_found(tmp_path):
    path = tmp_path / "case.tfrecord"
    write(path)
    content = bytearray(path.read_bytes())
    place = content.index(ARRAYS["image"].tobytes()) + 40
    content[place] ^= 1
    path.write_bytes(content)
    assert not verify_record(path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "gliomas-train.tfrecord-00000-of-00001"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a case of a store of gmmas"):
        read_facts(path)


def test_a_missing_record_is_told(tmp_path):
    with pytest.raises(UserError, match=r"none\.tfrecord: cannot be read"):
        read_facts(tmp_path / "none.tfrecord")


def test_a_cut_record_is_told(tmp_path):
    path = tmp_path / "case.tfrecord"
    write(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"case\.tfrecord: damaged: \d+ bytes, expected \d+"):
        read_facts(path)


def test_damage_anywhere_in_the_beginning_is_told_and_is_no_other_error(tmp_path):
    """Where a record tells its length, its places and what it is."""
    path = tmp_path / "case.tfrecord"
    write(path)
    whole = path.read_bytes()
    start, told = whole.index(b"gmmascas"), []
    for place in range(start, read_facts(path).base):
        content = bytearray(whole)
        content[place] ^= 0xA5
        path.write_bytes(content)
        try:
            read_facts(path)
        except UserError as error:
            told.append(str(error))
    assert len(told) > 50
    assert all("`gmmas build`" in message for message in told)
