"""Which patients are for training, validation and testing, and in which fold of cross-validation.

Patients are dealt out by a keyed hash of their id, so that no list is shuffled and no order of the
file matters. `docs/how-to/splits.md` says what moves when patients are added.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_jax.cases.manifest import SPLITS, Row
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

STRATA_COLUMNS = (*TASKS, "sex", "site", "label_convention")
"""Columns of the manifest that patients may be stratified by."""

_TOLD = 5
"""Patients that a message names."""

Stratum = tuple[str, ...]


@dataclass(frozen=True)
class _Patient:
    """What the rows of one patient say.

    Attributes:
        rows: Their places in the manifest.
        stratum: One value per column that is stratified by; empty where unknown.
    """

    rows: tuple[int, ...]
    stratum: Stratum


def split_rows(
    rows: Sequence[Row],
    *,
    test: float,
    val: float,
    folds: int = 0,
    by: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> list[Row]:
    """Gives every row a split, and with folds every row outside the test split a fold.

    All rows of a patient get the same. In each stratum the patients are taken in the order of their
    hash: the first are for testing, the next for validation, the rest for training. How many, is
    the stratum's number times the share, rounded up or down by a hash of the stratum, so that small
    strata are not all rounded the same way; each stratum is within one patient of its share.
    The folds are dealt out likewise, by another hash, so that they are independent of the split.

    Args:
        rows: Of the manifest.
        test: Share of the patients for testing, 0 up to below 1.
        val: Share for validation.
        folds: 0 for none, else 2 or more.
        by: Of `STRATA_COLUMNS`. Where the rows of a patient differ, their values together count.
        seed: Of the hashes.
        overwrite: Deal all patients out anew. Else patients that have a split, or a fold, keep it,
            and the others fill what their stratum lacks of each, testing first.

    Returns:
        The rows in their order, with `split` and, with folds, `fold`.

    Raises:
        UserError: If an argument does not fit, a patient is in two splits or folds, or a split that
            was asked for would be empty.
    """
    _check(test=test, val=val, folds=folds, by=by)
    patients = _patients(rows, by)
    kept = {} if overwrite else _given(rows, patients, "split")
    shares = {"test": test, "val": val, "train": 1 - test - val}
    splits = _deal(patients, shares, kept, key=f"{seed} split")
    _check_none_empty(splits, shares)
    dealt = [replace(row, split=splits[row.patient_id]) for row in rows]
    if not folds:
        return [replace(row, fold=None) for row in dealt] if overwrite else dealt
    learning = {name: patient for name, patient in patients.items() if splits[name] != "test"}
    kept = {} if overwrite else _given(rows, learning, "fold")
    known = {name: fold for name, fold in kept.items() if int(fold) < folds}
    if len(known) < len(kept):
        raise UserError(
            f"the manifest has folds up to {max(map(int, kept.values()))}, --folds asks for "
            f"{folds}. Give the number of folds that it has, or --overwrite."
        )
    equal = {str(fold): 1 / folds for fold in range(folds)}
    fold_of = _deal(learning, equal, known, key=f"{seed} fold")
    return [
        replace(row, fold=int(fold_of[row.patient_id]) if row.patient_id in fold_of else None)
        for row in dealt
    ]


def moved(rows: Sequence[Row], source: Path, out: Path) -> list[Row]:
    """Returns the rows of a manifest with the paths that a manifest in another place needs.

    Args:
        rows: As read.
        source: The manifest that they were read from.
        out: Where they will be written.
    """
    old, new = os.path.abspath(source.parent), os.path.abspath(out.parent)
    if old == new:
        return list(rows)

    def follow(path: str) -> str:
        if os.path.isabs(path):
            return path
        return os.path.relpath(os.path.join(old, path), new).replace(os.sep, "/")

    def follow_all(row: Row) -> Row:
        paths: dict[str, Any] = {**row.images, **({"seg": row.seg} if row.seg else {})}
        for column, path in paths.items():
            paths[column] = follow(path)
        return replace(row, **paths)

    return [follow_all(row) for row in rows]


def split_counts(rows: Sequence[Row], by: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Counts patients.

    Args:
        rows: With splits.
        by: Columns to count the values of.

    Returns:
        Column ("patients" first, of one value "all") to value ("" where unknown) to split to count.
    """
    seen: dict[str, dict[str, dict[str, set[str]]]] = {}
    for row in rows:
        for column in ("patients", *by):
            value = "all" if column == "patients" else _text(getattr(row, column))
            of_split = seen.setdefault(column, {}).setdefault(
                value, {name: set() for name in SPLITS}
            )
            of_split[str(row.split)].add(row.patient_id)
    return {
        column: {
            value: {split: len(found) for split, found in of_split.items()}
            for value, of_split in sorted(values.items())
        }
        for column, values in seen.items()
    }


def _patients(rows: Sequence[Row], by: Sequence[str]) -> dict[str, _Patient]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.patient_id, []).append(place)
    return {
        name: _Patient(
            tuple(own),
            tuple(
                "|".join(sorted({_text(getattr(rows[place], column)) for place in own} - {""}))
                for column in by
            ),
        )
        for name, own in places.items()
    }


def _given(rows: Sequence[Row], patients: Mapping[str, _Patient], column: str) -> dict[str, str]:
    """Returns what the manifest already says of patients: the value of their rows that have one."""
    given: dict[str, str] = {}
    torn: list[str] = []
    for name, patient in patients.items():
        values = sorted({_text(getattr(rows[place], column)) for place in patient.rows} - {""})
        if len(values) > 1:
            torn.append(f"{name} ({', '.join(values)})")
        elif values:
            given[name] = values[0]
    if torn:
        more = f" and {len(torn) - _TOLD} more" if len(torn) > _TOLD else ""
        raise UserError(
            f"column {column}: {len(torn)} patients are in more than one: "
            f"{'; '.join(torn[:_TOLD])}{more}; expected all cases of a patient in one. Correct the "
            "manifest, or deal all patients out anew with --overwrite."
        )
    return given


def _deal(
    patients: Mapping[str, _Patient],
    shares: Mapping[str, float],
    kept: Mapping[str, str],
    *,
    key: str,
) -> dict[str, str]:
    """Returns the set of each patient: those kept, and in each stratum the others by their hash."""
    strata: dict[Stratum, list[str]] = {}
    for name, patient in patients.items():
        strata.setdefault(patient.stratum, []).append(name)
    sets = dict(kept)
    for stratum, names in strata.items():
        quotas = _quotas(len(names), list(shares.values()), _hashed(key, "stratum", *stratum))
        order = iter(
            sorted(
                (n for n in names if n not in kept), key=lambda n: (_hashed(key, "patient", n), n)
            )
        )
        for chosen, quota in zip(shares, quotas, strict=True):
            there = sum(kept.get(name) == chosen for name in names)
            for _, name in zip(range(quota - there), order, strict=False):
                sets[name] = chosen
    return sets


def _quotas(number: int, shares: Sequence[float], offset: float) -> list[int]:
    """Parts a number in proportion: each part its share rounded up or down, in sum the number.

    Args:
        number: What to part.
        shares: Of sum 1.
        offset: 0 up to below 1: where it lies decides which are rounded up. Of a uniform offset the
            expectation of every part is exactly its share.
    """
    ends = np.floor(number * np.cumsum(shares) + offset + 1e-9).astype(int)
    ends[-1] = number
    return np.diff(ends, prepend=0).clip(0).tolist()


def _hashed(*parts: Any) -> float:
    """Returns a number from 0 up to below 1 that looks random and follows from the text alone."""
    # Each part with its length, so that no two lists of parts are one text.
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _check(*, test: float, val: float, folds: int, by: Sequence[str]) -> None:
    for name, share in (
        ("--test", test),
        ("--val", val),
        ("--test and --val together", test + val),
    ):
        if not 0 <= share < 1:
            raise UserError(f"{name}: {share:g}; expected a share from 0 up to below 1.")
    if folds == 1 or folds < 0:
        raise UserError(f"--folds is {folds}; expected 2 or more, or 0 for none.")
    for column in by:
        if column not in STRATA_COLUMNS:
            raise UserError(
                f"--by: {column!r} is no column to stratify by; expected some of "
                f"{', '.join(STRATA_COLUMNS)}."
            )


def _check_none_empty(splits: Mapping[str, str], shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if share > 0 and name not in splits.values():
            raise UserError(
                f"{len(splits)} patients are too few for a share of {share:g}: the split {name!r} "
                "would be empty. Ask for a larger share, or for none, or stratify by fewer columns."
            )
