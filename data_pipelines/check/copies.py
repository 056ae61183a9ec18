"""Copies: the same or nearly the same image in two cases, or in another set."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_pipelines.check.exam import Exam
from data_pipelines.check.findings import Finding
from data_pipelines.check.people import persons
from data_pipelines.check.signature import LENGTH, similar_pairs
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES

SAME_EXAM = 0.97
"""Correlation from which two exams of one patient count as one exam: time points resemble each
other, and only a copy is as near as that."""


@dataclass
class _Partners:
    """The cases that resemble one case: how many, and the one to name."""

    others: set[int] = field(default_factory=set)
    rank: tuple[bool, float] = (False, 0.0)
    first: int = -1
    words: str = ""

    def add(self, first: int, crosses: bool, correlation: float, words: str) -> None:
        """Adds a case; the nearest in another split, else the nearest, will be named."""
        self.others.add(first)
        if (crosses, correlation) > self.rank:
            self.rank, self.first, self.words = (crosses, correlation), first, words


def copy_findings(rows: Sequence[Row], exams: Sequence[Exam]) -> Iterator[Finding]:
    """Yields the cases that share an image, or nearly, with a case before them.

    A case is told once, with the partner in another split if there is one.

    Args:
        rows: Of the manifest.
        exams: Of the same cases.
    """
    for case, partners in sorted(_identical(rows, exams).items()):
        yield _of_case(rows, case, partners, "identical")
    near: dict[int, _Partners] = defaultdict(_Partners)
    person = persons(rows)
    hashes = [{image.content_hash for image in exam.images.values()} for exam in exams]
    for first, second, sequence, correlation in _near(exams):
        if hashes[first] & hashes[second]:
            continue
        if person[first] == person[second] and correlation < SAME_EXAM:
            continue
        words = f"{sequence}, correlation {correlation:.2f}"
        near[second].add(first, _crosses(rows[first], rows[second]), correlation, words)
    for case, partners in sorted(near.items()):
        yield _of_case(rows, case, partners, "near_identical")


def overlap_of_images(
    exams: Sequence[Exam], others: Sequence[Exam], other: str
) -> Iterator[Finding]:
    """Yields the cases of which an image is, or nearly is, in another set.

    Args:
        exams: Of the cohort.
        others: Of the other set.
        other: Its name, for the messages.
    """
    known = {
        image.content_hash: (exam.case_id, name)
        for exam in others
        for name, image in exam.images.items()
    }
    told = set()
    for exam in exams:
        for name, image in exam.images.items():
            if image.content_hash in known and exam.case_id not in told:
                told.add(exam.case_id)
                case, theirs = known[image.content_hash]
                found = f"{name} is {theirs} of {case} in {other}"
                yield Finding("overlap.identical", found, case_id=exam.case_id)
    for sequence in SEQUENCES:
        mine, signatures = _signatures(exams, sequence)
        theirs_index, their_signatures = _signatures(others, sequence)
        for i, j, correlation in similar_pairs(signatures, their_signatures):
            case_id = exams[mine[i]].case_id
            if case_id not in told:
                told.add(case_id)
                partner = others[theirs_index[j]].case_id
                found = f"{sequence} is nearly that of {partner} in {other} ({correlation:.2f})"
                yield Finding("overlap.near_identical", found, case_id=case_id)


def _identical(rows: Sequence[Row], exams: Sequence[Exam]) -> dict[int, _Partners]:
    """Returns the cases that share an image with earlier ones."""
    # Per image, the first case of each split: a copy across splits is told before one within.
    known: dict[str, dict[str | None, tuple[int, str]]] = defaultdict(dict)
    partners: dict[int, _Partners] = defaultdict(_Partners)
    for index, exam in enumerate(exams):
        for name, image in exam.images.items():
            for first, theirs in known[image.content_hash].values():
                if first != index:
                    words = f"the same {name}" if name == theirs else f"its {theirs} as {name}"
                    partners[index].add(first, _crosses(rows[first], rows[index]), 1.0, words)
            known[image.content_hash].setdefault(rows[index].split, (index, name))
    return partners


def _near(exams: Sequence[Exam]) -> Iterator[tuple[int, int, str, float]]:
    for sequence in SEQUENCES:
        index, signatures = _signatures(exams, sequence)
        for i, j, correlation in similar_pairs(signatures):
            yield index[i], index[j], sequence, correlation


def _signatures(exams: Sequence[Exam], sequence: str) -> tuple[list[int], np.ndarray]:
    index = [i for i, exam in enumerate(exams) if sequence in exam.images]
    table = [exams[i].images[sequence].signature for i in index]
    return index, np.array(table, np.float16).reshape(-1, LENGTH)


def _of_case(rows: Sequence[Row], case: int, partners: _Partners, kind: str) -> Finding:
    mine, theirs = rows[case], rows[partners.first]
    group = "leakage" if _crosses(mine, theirs) else "duplicate"
    more = f", and {len(partners.others) - 1} more" if len(partners.others) > 1 else ""
    splits = f"({mine.split or 'no split'} and {theirs.split or 'no split'})"
    found = f"like {theirs.case_id} {splits}: {partners.words}{more}"
    return Finding(f"{group}.{kind}", found, case_id=mine.case_id)


def _crosses(one: Row, other: Row) -> bool:
    return None not in (one.split, other.split) and one.split != other.split
