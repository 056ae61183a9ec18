"""A case in memory: images and label in RAS, and the grid of the file they came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

GRID_TOLERANCE_MM = 0.1
"""How far the corners of two grids may lie apart for the grids to count as one."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an array lie.

    Attributes:
        shape: Number of voxels along each axis.
        affine: float64 [4 4], voxel indices to RAS millimetres.
        header: Geometry fields of the file that the grid came from, copied unchanged into a
            result written on the same grid; None for a grid that was computed.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis, in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return (x, y, z)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def corners(self) -> np.ndarray:
        """Returns the centres of the eight corner voxels, float64 [8 3], in RAS mm."""
        last = np.array(self.shape) - 1
        indices = np.stack(np.meshgrid(*[(0, n) for n in last], indexing="ij"), -1).reshape(8, 3)
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]

    def matches(self, other: "Grid") -> bool:
        """Returns whether the corners of both grids agree within `GRID_TOLERANCE_MM`."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners() - other.corners()).max() <= GRID_TOLERANCE_MM)

    def describe(self) -> str:
        """Returns shape, spacing, axis directions and origin in one line for messages."""
        directions = self.affine[:3, :3]
        letters = "".join(
            "RAS"[axis] if directions[axis, column] > 0 else "LPI"[axis]
            for column, axis in enumerate(np.abs(directions).argmax(axis=0))
        )
        shape = "x".join(map(str, self.shape))
        spacing = "x".join(f"{value:.3g}" for value in self.spacing)
        origin = ", ".join(f"{value:.1f}" for value in self.affine[:3, 3])
        return f"{shape} voxels of {spacing} mm, axes {letters}, origin ({origin}) mm"


@dataclass
class Case:
    """One exam of one patient.

    Attributes:
        case_id: Name of the case.
        images: Sequence name to float32 [d h w], on the RAS-canonical grid; absent sequences
            have no entry.
        label: uint8 [d h w] with the codes of `labels.LABELS`, or None.
        grid: The RAS-canonical grid of images and label.
        source_grid: The grid of the first sequence's file, where results are written.
        tasks: Task name to class name; a task that is not known has no entry.
        warnings: What the reader noticed and did not refuse, in words for the report.
        label_convention: Convention of the label file, or None without a label.
    """

    case_id: str
    images: dict[str, np.ndarray]
    label: np.ndarray | None
    grid: Grid
    source_grid: Grid
    tasks: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    label_convention: str | None = None
