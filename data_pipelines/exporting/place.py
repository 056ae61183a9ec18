"""One case's files to where they belong: images bit for bit, masks in the target's codes."""

import errno
import gzip
import os
import secrets
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipelines.case_files import is_numbered
from data_pipelines.exporting.plan import PlannedCase, ending
from data_pipelines.nifti import read_grid, read_mask, write_volume
from gmmas_jax.cases.files import atomic_path
from gmmas_jax.cases.labels import convert_back, convert_labels, infer_convention
from gmmas_jax.errors import UserError

_COMPRESSION = 4
_PIECE = 2**22


def place_case(case: PlannedCase, root: Path, out: Path, *, link: bool) -> None:
    """Writes all files of a case; after an error none is left.

    Args:
        case: What goes where.
        root: Folder that the paths of its row are relative to.
        out: The output folder.
        link: Whether what stays as it is becomes a hard link instead of a copy.

    Raises:
        UserError: If a file cannot be read or written, or the mask cannot be converted.
    """
    try:
        if case.seg is not None and case.row.seg is not None:  # First: it can still be refused.
            place_mask(
                root / case.row.seg,
                case.row.label_convention,
                out / case.seg,
                case.convention,
                numbered_channels=any(is_numbered(Path(p)) for p in case.row.images.values()),
                link=link,
            )
        sources = {name: root / path for name, path in case.row.images.items()}
        for sequence, target in case.images.items():
            if sequence in case.filled:
                _write_zeros(next(iter(sources.values())), out / target)
            else:
                place_file(sources[sequence], out / target, link=link)
    except UserError:
        for target in case.targets:
            (out / target).unlink(missing_ok=True)
        raise


def place_mask(
    source: Path,
    convention: str | None,
    target: Path,
    target_convention: str,
    *,
    numbered_channels: bool,
    link: bool,
) -> None:
    """Writes a mask in the codes of a convention; one whose codes do not change is copied.

    Args:
        source: The mask.
        convention: Of its codes; None infers it where the values leave no doubt.
        target: Where to.
        target_convention: Codes to write.
        numbered_channels: As for `labels.infer_convention`.
        link: As for `place_file`.

    Raises:
        UserError: If the mask is bad, its convention in doubt, or a label cannot be expressed.
    """
    mask, grid = read_mask(source)
    convention = convention or infer_convention(
        mask, str(source), numbered_channels=numbered_channels
    )
    label = convert_labels(mask, convention, str(source))
    try:
        converted = convert_back(label, target_convention)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    unchanged = np.issubdtype(mask.dtype, np.integer) and np.array_equal(converted, mask)
    if unchanged and ending(source) == ending(target):
        place_file(source, target, link=link)
    else:
        write_volume(target, converted, grid, dtype=np.uint8)


def place_file(source: Path, target: Path, *, link: bool) -> None:
    """Copies or links a file; one that is not compressed is compressed where the target is.

    Raises:
        UserError: If it cannot be read or written, or not linked.
    """
    try:
        if ending(source) != ending(target):
            with source.open("rb") as content, atomic_path(target) as temporary:
                _compress(content, temporary)
        elif link:
            _link(source, target)
        else:
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    except OSError as error:
        raise UserError(
            f"{source}: cannot be brought to {target} ({error.strerror or error}); expected a "
            "readable file and room for it. Check both."
        ) from error


def _compress(content: BinaryIO, temporary: Path) -> None:
    with temporary.open("wb") as raw:
        packed = gzip.GzipFile(
            filename="", fileobj=raw, mode="wb", compresslevel=_COMPRESSION, mtime=0
        )
        with packed:
            shutil.copyfileobj(content, packed, _PIECE)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and os.path.samefile(source, target):
        return
    temporary = target.parent / f".{secrets.token_hex(4)}.{target.name}"
    try:
        os.link(os.path.realpath(source), temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise UserError(
                f"{source}: cannot be linked to {target} ({error.strerror}); expected both on one "
                "file system that has hard links. Leave out --link."
            ) from error
        raise


def _write_zeros(like: Path, target: Path) -> None:
    """Writes a volume of zeros on the grid of an image."""
    grid = read_grid(like)
    write_volume(target, np.zeros(grid.shape, np.uint8), grid, dtype=np.uint8)
