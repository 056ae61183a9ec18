"""An index whose cases are made when they are opened: no files, and any tumour."""

import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_pipelines.prepared import CaseArrays, PreparedCase, PreparedIndex
from gmmas_jax.cases.prepare import whole_label, whole_volume
from gmmas_jax.cases.sequences import SEQUENCES, presence

WHOLE = (8, 7, 9)
SHAPE = (20, 18, 16)


@dataclass(frozen=True, eq=False)
class MemoryIndex(PreparedIndex):
    """Cases by their position; notes what is opened and what of it is still held."""

    made: tuple = ()
    opened: list = field(default_factory=list)
    held: list = field(default_factory=list)

    def open(self, position: int) -> CaseArrays:
        arrays = self.made[position]() if callable(self.made[position]) else self.made[position]
        self.opened.append(position)
        self.held.append(weakref.ref(arrays.image))
        return arrays


def blob(shape, centre, radius, *, code_in=1, code_mid=3, code_out=2) -> np.ndarray:
    """Returns the label of three nested balls, stretched along the first axis."""
    grid = np.indices(shape).astype(float)
    scale = np.array([1.4, 1.0, 0.8])[:, None, None, None]
    centre = np.array(centre)[:, None, None, None]
    distance = np.sqrt((((grid - centre) / scale) ** 2).sum(axis=0))
    label = np.zeros(shape, np.uint8)
    label[distance < radius] = code_out
    label[distance < 0.7 * radius] = code_mid
    label[distance < 0.4 * radius] = code_in
    return label


def arrays_of(
    label: np.ndarray | None,
    *,
    seed: int = 0,
    offset: float = 0.0,
    shape=SHAPE,
    sequences=SEQUENCES,
    whole=WHOLE,
) -> CaseArrays:
    """Returns the arrays of a case: noise, with a shell of zeros around the brain."""
    present = presence(sequences)
    image = np.zeros((*shape, 4), np.float32)
    inner = tuple(size - 2 for size in shape)
    noise = np.random.default_rng(seed).normal(offset, 1, (*inner, 4)) * present
    image[1:-1, 1:-1, 1:-1] = noise
    image = image.astype(np.float16)
    flat = (
        ()
        if label is None
        else tuple(
            np.flatnonzero(label == code).astype(np.int32)
            for code in range(1, 5)
            if (label == code).any()
        )
    )
    return CaseArrays(
        image=image,
        whole=whole_volume(image.astype(np.float32), whole).astype(np.float16),
        label=label,
        whole_label=None if label is None else whole_label(label, whole),
        foreground=flat,
        present=present,
    )


def entry(name: str, arrays: CaseArrays, *, split: str | None = "train", **tasks: str):
    counts = None
    if arrays.label is not None:
        counts = tuple(np.bincount(arrays.label.ravel(), minlength=5)[1:].tolist())
    sequences = tuple(n for n, p in zip(SEQUENCES, arrays.present, strict=True) if p)
    shape = tuple(arrays.image.shape[:3])
    return PreparedCase(name, name, split, name, shape, sequences, counts, tasks)


def memory_index(*cases: tuple[PreparedCase, CaseArrays]) -> MemoryIndex:
    entries, made = zip(*cases, strict=True)
    return MemoryIndex(
        root=Path("nowhere"), spacing_mm=1.0, whole=WHOLE, cases=tuple(entries), made=tuple(made)
    )


def two_classes() -> MemoryIndex:
    """Returns two low and two high grades of different size, one of which lacks a sequence, one
    case without grade, one without tumour and one without mask."""
    low = arrays_of(blob(SHAPE, (8, 8, 8), 4.5), seed=1, offset=-20)
    other_low = arrays_of(blob(SHAPE, (11, 9, 7), 5.0), seed=2, offset=-20)
    high = arrays_of(blob(SHAPE, (12, 10, 8), 3.0), seed=3, offset=20)
    part = arrays_of(blob(SHAPE, (7, 8, 8), 5.0), seed=4, offset=20, sequences=SEQUENCES[1:])
    unknown = arrays_of(blob(SHAPE, (9, 9, 8), 4.0), seed=5)
    healthy = arrays_of(np.zeros(SHAPE, np.uint8), seed=6)
    unlabelled = arrays_of(None, seed=7)
    return memory_index(
        (entry("low", low, grade="2", idh="mutant", codel_1p19q="codeleted"), low),
        (entry("other", other_low, grade="2", idh="mutant"), other_low),
        (entry("high", high, grade="4", idh="wildtype", codel_1p19q="intact"), high),
        (entry("part", part, grade="4", idh="mutant"), part),
        (entry("unknown", unknown, idh="mutant"), unknown),
        (entry("healthy", healthy, grade="2"), healthy),
        (entry("unlabelled", unlabelled, grade="4"), unlabelled),
    )
