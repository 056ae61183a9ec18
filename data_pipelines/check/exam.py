"""Checks one case, one file after the other, and keeps numbers instead of voxels."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.case_files import is_numbered
from data_pipelines.check.alignment import misalignment
from data_pipelines.check.contrast import suspected_names
from data_pipelines.check.findings import Finding, from_message
from data_pipelines.check.mask import Mask, reduce_mask
from data_pipelines.check.volume import Volume, reduce_volume
from data_pipelines.exam_files import MOSTLY, NEGATIVE, THICK_MM, check_one_grid
from data_pipelines.nifti import read_mask, read_volume
from data_pipelines.nifti_header import FileError, Note
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.geometry import to_canonical
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

_EDGE_CM2 = 60.0
"""Brain on a face of the grid from which it counts as cut off, about 1.5 cm of a brain. Atlas grids
end within the brain stem and the cerebellum (real cases reach 37 cm² there, 0 on the other faces);
generated brains, deformed within the grid of MNI152, reach 55 cm² on any face."""

_FACES = ("left", "right", "back", "front", "bottom", "top")


class ExamTask(NamedTuple):
    """What a worker gets.

    Attributes:
        row: Of the manifest.
        root: The manifest's folder.
        images_only: Read the images for comparison and judge nothing.
    """

    row: Row
    root: Path
    images_only: bool = False


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What comparisons between cases need of an image."""

    content_hash: str
    signature: np.ndarray
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


@dataclass(eq=False)
class Exam:
    """What is known of a case after its check.

    Attributes:
        case_id: Of the manifest.
        findings: What was found.
        images: Sequence to facts, for the files that could be read.
        brain_ml: Volume of the brain, where the images are stripped.
        mask: Of the label file, if there is one that could be read.
    """

    case_id: str
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, ImageFacts] = field(default_factory=dict)
    brain_ml: float | None = None
    mask: Mask | None = None


def check_exam(task: ExamTask) -> Exam:
    """Reads the files of one case, each once, and judges them.

    At most one image is in memory at a time, beside a coarse copy of each and a mask of the brain.

    Args:
        task: Sent to a worker process.
    """
    return _Check(task).run()


class _Check:
    """One case's check; the state is what has been read so far."""

    def __init__(self, task: ExamTask):
        self.row, self.root, self.images_only = task
        self.exam = Exam(self.row.case_id)
        self.volumes: dict[str, Volume] = {}
        self.brain: np.ndarray | None = None

    def run(self) -> Exam:
        """Reads and judges."""
        self._paths()
        for name, path in self.row.images.items():
            self._image(name, path)
        if self.images_only:
            return self.exam
        self._sequences()
        on_one_grid = self._grids()
        if self.row.seg is not None:
            self._mask(self.row.seg, on_one_grid)
        self._content(on_one_grid)
        return self.exam

    def _add(self, code: str, found: str, file: str | None = None, **words: str) -> None:
        finding = Finding(code, found, case_id=self.row.case_id, file=file, **words)
        self.exam.findings.append(finding)

    def _refuse(self, code: str, error: UserError, file: str) -> None:
        message = str(error).replace(str(self.root / file), file)
        self.exam.findings.append(
            from_message(code, message, case_id=self.row.case_id, source=file)
        )

    def _noted(self, notes: list[str], file: str) -> None:
        for note in notes:
            if isinstance(note, Note):
                self._add(note.code, note.removeprefix(f"{Path(file).name}: "), file)

    def _paths(self) -> None:
        files = [*self.row.images.values(), *([self.row.seg] if self.row.seg else [])]
        for file in files:
            steps = os.path.normpath(file)
            if not Path(file).is_absolute() and Path(steps).parts[:1] == ("..",):
                self._add("file.leaves_folder", f"the path is {file}", file)

    def _image(self, name: str, file: str) -> None:
        notes: list[str] = []
        try:
            array, grid = read_volume(self.root / file, notes=notes)
        except FileError as error:
            self._refuse(error.kind, error, file)
            return
        self._noted(notes, file)
        ras = np.ascontiguousarray(to_canonical(array, grid.affine)[0])
        del array
        volume, nonzero = reduce_volume(ras, grid)
        del ras
        self.volumes[name] = volume
        self.exam.images[name] = ImageFacts(
            volume.content_hash, volume.signature, grid.shape, grid.spacing
        )
        if self.images_only:
            return
        if self.brain is None:
            self.brain = nonzero
        elif self.brain.shape == nonzero.shape:
            self.brain |= nonzero
        for code, found in _image_doubts(volume):
            self._add(code, found, file)

    def _sequences(self) -> None:
        images = self.row.images
        if not images:
            self._add("case.no_sequence", "no file for t1n, t1c, t2w or t2f")
        lacking = [name for name in ("t1c", "t2f") if name not in images]
        if images and lacking:
            self._add("case.lacks_key_sequence", f"without {' and '.join(lacking)}")
        if self.row.quality == "fail":
            self._add("case.quality_fail", "quality is fail")

    def _grids(self) -> bool:
        """Returns whether all images that were read lie on one grid."""
        one = True
        first = next(iter(self.volumes), None)
        for name, volume in self.volumes.items():
            assert first is not None  # There is one.
            reference = self.volumes[first].grid
            one &= self._same_grid(
                "geometry.images_differ", self.row.images[name], volume.grid, first, reference
            )
        return one

    def _same_grid(self, code: str, file: str, grid: Grid, first: str, reference: Grid) -> bool:
        try:
            check_one_grid(Path(file), grid, Path(self.row.images[first]), reference)
        except UserError:
            found = f"{grid.describe()}; {first} ({self.row.images[first]}): {reference.describe()}"
            self._add(code, found, file, expected="one grid")
            return False
        return True

    def _mask(self, file: str, on_one_grid: bool) -> None:
        notes: list[str] = []
        try:
            array, grid = read_mask(self.root / file, notes=notes)
        except FileError as error:
            self._refuse(error.kind, error, file)
            return
        self._noted(notes, file)
        first = next(iter(self.volumes), None)
        fits = first is not None and self._same_grid(
            "geometry.label_differs", file, grid, first, self.volumes[first].grid
        )
        ras = to_canonical(array, grid.affine)[0]
        # A matching corner within the tolerance has the same shape; checked for the comparison.
        brain = self.brain if fits and on_one_grid else None
        self.exam.mask, findings = reduce_mask(
            ras,
            voxel_ml=grid.voxel_ml,
            convention=self.row.label_convention,
            numbered_channels=any(is_numbered(Path(path)) for path in self.row.images.values()),
            brain=brain,
            case_id=self.row.case_id,
            source=file,
        )
        self.exam.findings.extend(findings)

    def _content(self, on_one_grid: bool) -> None:
        """Compares the images of the case with each other."""
        for first, second in combinations(self.volumes, 2):
            if self.volumes[first].content_hash == self.volumes[second].content_hash:
                found = f"{first} and {second} hold the same voxels"
                self._add("image.same_voxels", found, self.row.images[second])
                return
        stripped = all(volume.stripped for volume in self.volumes.values())
        if not (self.volumes and stripped):
            return
        self.exam.brain_ml = float(np.median([v.foreground_ml for v in self.volumes.values()]))
        if not on_one_grid:
            return
        coarse = {name: volume.coarse for name, volume in self.volumes.items()}
        spacing = next(iter(self.volumes.values())).coarse_mm
        names = suspected_names(coarse, spacing)
        if names:
            pairs = ", ".join(f"{name} looks like {fits}" for name, fits in names.items())
            self._add("case.sequences_swapped", pairs)
            return
        apart = misalignment(coarse)
        if apart is not None:
            self._add("case.not_aligned", f"{apart[0]}: {apart[1]}", self.row.images[apart[0]])


def _image_doubts(volume: Volume) -> Iterator[tuple[str, str]]:
    """Yields code and words of what a single image shows."""
    thickest = max(volume.grid.spacing)
    if thickest > THICK_MM:
        yield "geometry.thick_slices", f"slices of {thickest:.1f} mm"
    if volume.negative > NEGATIVE:
        yield "image.negative", f"{volume.negative:.0%} of the voxels are negative"
    if not volume.stripped:
        if volume.filled > MOSTLY:
            yield "image.not_stripped", f"{volume.filled:.0%} of the voxels are not 0"
        else:
            yield "image.not_stripped", f"{volume.foreground_ml:.0f} mL are not background"
        return
    cut = [
        f"{area:.0f} cm² at the {name}"
        for name, area in zip(_FACES, volume.faces_cm2, strict=True)
        if area > _EDGE_CM2
    ]
    if cut:
        yield "image.cut_off", f"the brain reaches the edge of the volume: {', '.join(cut)}"
