"""Files appear whole or not at all."""

import errno
import json
import os

import pytest

from gmmas_jax.cases.files import (
    atomic_path,
    output_folder,
    write_bytes,
    write_json,
    write_text,
)
from gmmas_jax.errors import UserError


def test_a_file_appears_whole_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "x.png"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".png"
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["x.png"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old\n")

    def fail_half_way():
        with atomic_path(path) as temporary:
            temporary.write_text("new, but")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_the_mode_follows_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        write_bytes(tmp_path / "x", b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_text_and_json_are_written_as_they_are(tmp_path):
    write_text(tmp_path / "x.txt", "ä\r\nb\n")
    assert (tmp_path / "x.txt").read_bytes() == "ä\r\nb\n".encode()
    write_json(tmp_path / "x.json", {"a": [1, "ä"]})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"a": [1, "ä"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert not (tmp_path / "y.json").exists()


def test_an_output_folder_that_cannot_be_made_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    for attempt in (
        lambda: write_text(tmp_path / "file" / "x.txt", ""),
        lambda: output_folder(tmp_path / "file"),
        lambda: output_folder(tmp_path / "file" / "sub"),
        lambda: write_text(tmp_path, ""),
    ):
        with pytest.raises(UserError, match="cannot be written"):
            attempt()


def test_a_read_only_folder_is_a_users_error(tmp_path, monkeypatch):
    # Not by chmod: the tests may run as root, whom it does not stop.
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        write_text(tmp_path / "x.txt", "")
    with pytest.raises(UserError, match="Permission denied"):
        output_folder(tmp_path)


def test_a_full_disk_is_a_users_error_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="No space left"), atomic_path(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not os.listdir(tmp_path)


def test_what_no_user_can_mend_stays_an_error_of_ours(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "a template that should be in the package")


def test_an_output_folder_is_made_and_left_empty(tmp_path):
    assert output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not os.listdir(tmp_path / "a" / "b")
