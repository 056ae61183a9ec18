"""The files of one exam, read one after the other, and whether they belong together."""

import hashlib
import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from data_pipelines.case_files import is_numbered
from data_pipelines.nifti import read_mask, read_volume
from gmmas_jax.cases.case import GRID_TOLERANCE_MM, Grid
from gmmas_jax.cases.geometry import canonical_grid, to_canonical
from gmmas_jax.cases.labels import convert_labels, infer_convention
from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.errors import UserError

MOSTLY = 0.75
"""Share of non-zero voxels from which an image is not taken to be skull-stripped."""

THICK_MM = 3.0
"""Slice distance above which a report says that small parts of a tumour may be missed."""

NEGATIVE = 0.01
"""Share of negative voxels from which a report says so; interpolation leaves less."""


class ExamFiles:
    """One exam on disk: checked while its sequences are read, none of which is kept.

    First `read` for each of `paths`, then `label`; what they noticed is in `warnings`.

    Attributes:
        case_id: Name of the case.
        paths: Sequence to path, in the order of `SEQUENCES`.
        source_grid: The grid of the first sequence's file, once that was read.
        label_convention: Convention of the mask, once that was read.
    """

    def __init__(self, images: Mapping[str, str | os.PathLike[str]], *, case_id: str):
        """Takes the paths; no file is read.

        Args:
            images: Sequence (or an alias of it) to path; one to four.
            case_id: Name of the case.

        Raises:
            UserError: If there is no sequence, one is unknown, or one file is given twice.
        """
        self.case_id = case_id
        self.paths = _canonical_paths(images, case_id)
        self.source_grid: Grid | None = None
        self.label_convention: str | None = None
        self._of_files: list[str] = []
        self._of_contents: list[str] = []
        self._of_label: list[str] = []
        self._hashes: dict[str, str] = {}
        self._nonzero: np.ndarray | None = None

    @property
    def grid(self) -> Grid:
        """The RAS-canonical grid of images and label."""
        return canonical_grid(self._source)

    @property
    def warnings(self) -> list[str]:
        """What was noticed and not refused, in words for the report."""
        return [*self._of_files, *self._of_contents, *self._of_label]

    def read(self, name: str) -> np.ndarray:
        """Reads and checks a sequence; called once for each, in the order of `paths`.

        Returns:
            float32 [d h w] in RAS.

        Raises:
            UserError: If the file is bad (`nifti.read_volume`), is not on the grid of the first,
                or holds the same voxels as another.
        """
        path = self.paths[name]
        array, grid = read_volume(path, notes=self._of_files)
        if self.source_grid is None:
            self.source_grid = grid
            if max(grid.spacing) > THICK_MM:
                self._of_contents.append(
                    f"slices of {max(grid.spacing):.1f} mm: small parts of a tumour may be missed"
                )
        check_one_grid(path, grid, self._first, self.source_grid)
        image = np.ascontiguousarray(to_canonical(array, grid.affine)[0])
        del array
        self._refuse_a_copy(name, content_hash(image))
        self._look_at(path, image)
        return image

    def again(self, name: str) -> np.ndarray:
        """Reads a sequence once more, without remarks: float32 [d h w] in RAS, a view.

        Raises:
            UserError: If the file is bad, or no longer on the grid that it was on.
        """
        array, grid = read_volume(self.paths[name])
        check_one_grid(self.paths[name], grid, self._first, self._source)
        return to_canonical(array, grid.affine)[0]

    def label(self, seg: str | os.PathLike[str], convention: str | None) -> np.ndarray:
        """Reads the mask, after the images.

        Args:
            seg: The file.
            convention: Name of `labels.CONVENTIONS`; None infers it where the values leave no
                doubt, and notes that in the warnings.

        Returns:
            uint8 [d h w] in RAS with the codes of `labels.LABELS`.

        Raises:
            UserError: If the file is bad or not on the grid of the images, or its values are
                unknown or ambiguous.
        """
        seg = Path(seg)
        mask, grid = read_mask(seg, notes=self._of_label)
        check_one_grid(seg, grid, self._first, self._source)
        mask = to_canonical(mask, grid.affine)[0]
        if convention is None:
            numbered = any(map(is_numbered, self.paths.values()))
            convention = infer_convention(mask, str(seg), numbered_channels=numbered)
            self._of_label.append(f"{seg.name}: label convention taken to be {convention}")
        label = np.ascontiguousarray(convert_labels(mask, convention, str(seg)))
        self.label_convention = convention
        if not label.any():
            self._of_label.append(f"{seg.name}: no voxel is labelled")
        elif self._nonzero is not None:
            outside = int(np.count_nonzero((label > 0) & ~self._nonzero))
            if outside:
                self._of_label.append(
                    f"{seg.name}: {outside} labelled voxels lie where every sequence is 0"
                )
        return label

    @property
    def _source(self) -> Grid:
        if self.source_grid is None:
            raise ValueError("the grid of an exam is known once its images were read")
        return self.source_grid

    @property
    def _first(self) -> Path:
        return next(iter(self.paths.values()))

    def _refuse_a_copy(self, name: str, content: str) -> None:
        other = self._hashes.setdefault(content, name)
        if other != name:
            raise UserError(
                f"{self.paths[other]} and {self.paths[name]}: the same voxels, given as {other} "
                f"and as {name}; expected two different sequences. Leave out the one that is "
                "missing."
            )

    def _look_at(self, path: Path, image: np.ndarray) -> None:
        nonzero = image != 0
        if np.count_nonzero(nonzero) > MOSTLY * image.size:
            self._of_contents.append(
                f"{path.name}: nearly every voxel is non-zero; skull-stripped images with a "
                "background of 0 are expected"
            )
        negative = np.count_nonzero(image < 0)
        if negative > NEGATIVE * image.size:
            self._of_contents.append(
                f"{path.name}: {negative / image.size:.0%} of the voxels are negative"
            )
        if self._nonzero is None:
            self._nonzero = nonzero
        else:
            self._nonzero |= nonzero


def check_one_grid(path: Path, grid: Grid, reference_path: Path, reference: Grid) -> None:
    """Refuses a file that is not on the grid of another, whatever the order of their axes.

    Raises:
        UserError: Naming both files and both grids.
    """
    canonical, canonical_reference = canonical_grid(grid), canonical_grid(reference)
    if canonical.matches(canonical_reference):
        return
    apart = ""
    if canonical.shape == canonical_reference.shape:
        distance = np.abs(canonical.corners() - canonical_reference.corners()).max()
        apart = f" (corners up to {distance:.3g} mm apart)"
    raise UserError(
        f"{path}: not on the grid of {reference_path}: found {grid.describe()}, expected "
        f"{reference.describe()}{apart}; corners may differ by at most {GRID_TOLERANCE_MM:g} mm. "
        "Co-register the sequences to one grid first."
    )


def content_hash(ras: np.ndarray) -> str:
    """Returns a hash of the voxels of float32 [d h w] in RAS; -0 counts as 0."""
    digest = hashlib.blake2b(np.array(ras.shape, "<i8").tobytes(), digest_size=16)
    for plane in ras:
        # Adding 0 makes -0 and 0 one value.
        digest.update(np.ascontiguousarray(plane + np.float32(0), "<f4").data)
    return digest.hexdigest()


def _canonical_paths(images: Mapping[str, str | os.PathLike[str]], case_id: str) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for name, path in images.items():
        sequence = canonical_sequence(name)
        if sequence is None or sequence in paths:
            found = "unknown" if sequence is None else f"a second file for {sequence}"
            raise UserError(
                f"{case_id}: sequence {name!r} is {found}; expected each of "
                f"{', '.join(SEQUENCES)} at most once. Correct the names."
            )
        paths[sequence] = Path(path)
    if not paths:
        raise UserError(
            f"{case_id}: no sequence given; expected at least one of {', '.join(SEQUENCES)}. Name "
            "at least one file."
        )
    ordered = {name: paths[name] for name in SEQUENCES if name in paths}
    for (first, path), (second, other) in combinations(ordered.items(), 2):
        if path.resolve() == other.resolve():
            raise UserError(
                f"{path}: given as {first} and as {second}; expected a file per sequence. Leave "
                "out the sequence that is missing."
            )
    return ordered
