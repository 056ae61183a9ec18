"""Export as nnU-Net raw data, with regions as nnU-Net trains them for BraTS."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_pipelines.exporting.plan import (
    Names,
    Plan,
    PlannedCase,
    common_convention,
    ending,
    lacking,
    used_sequences,
)
from data_pipelines.ingest.numbered import FILLED
from gmmas_jax.cases.files import write_json
from gmmas_jax.cases.labels import CONVENTIONS, REGIONS
from gmmas_jax.cases.manifest import Row

_REGION_NAMES = {
    "WT": "whole tumor",
    "TC": "tumor core",
    "ET": "enhancing tumor",
    "RC": "resection cavity",
}
_DRAWN_AS = {"WT": 2, "TC": 1, "ET": 3, "RC": 4}
"""The code that a region's voxels get when regions are drawn over one another in this order."""


def plan_nnunet(rows: Sequence[Row], *, fill_missing: bool) -> Plan:
    """Plans `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs`, `dataset.json`, `splits_final.json`.

    Cases of the splits train and val go to `imagesTr`, which takes labelled cases only; test cases
    and, where no split is given, cases without a mask go to `imagesTs`. Codes are 1 NCR, 2 ED,
    3 ET, and 4 RC where any case may have one.

    Args:
        rows: Of the manifest.
        fill_missing: Whether a sequence that a case lacks becomes a volume of zeros.
    """
    channels = used_sequences(rows)
    kept = [row for row in rows if _problem(row, channels, fill_missing=fill_missing) is None]
    refused = [text for row in rows if (text := _problem(row, channels, fill_missing=fill_missing))]
    paths = [path for row in kept for path in row.images.values()]
    suffix = ".nii" if paths and all(ending(path) == ".nii" for path in paths) else ".nii.gz"
    convention = common_convention(kept)
    names = Names()
    cases = []
    for row in kept:
        name, part = names.of(row.case_id), "Ts" if _is_test(row) else "Tr"
        cases.append(
            PlannedCase(
                row=row,
                name=name,
                images={
                    sequence: f"images{part}/{name}_{number:04d}{suffix}"
                    for number, sequence in enumerate(channels)
                },
                filled=tuple(sequence for sequence in channels if sequence not in row.images),
                seg=f"labels{part}/{name}{suffix}" if row.seg else None,
                convention=convention,
            )
        )

    def finish(out: Path, written: Sequence[PlannedCase]) -> None:
        write_json(out / "dataset.json", _description(written, channels, suffix, convention))
        folds = _folds([case for case in written if not _is_test(case.row)])
        if folds:
            write_json(out / "splits_final.json", folds)

    plan = Plan(cases, finish, refused)
    if any(case.filled for case in cases):
        filled = sum(bool(case.filled) for case in cases)
        plan.notes.append(f"{filled} cases have volumes of zeros, listed in dataset.json")
    return plan


def _is_test(row: Row) -> bool:
    return row.split == "test" or (row.split is None and row.seg is None)


def _problem(row: Row, channels: Sequence[str], *, fill_missing: bool) -> str | None:
    if not fill_missing and set(channels) - set(row.images):
        return lacking(row, channels, "nnU-Net")
    if row.seg is None and not _is_test(row):
        return (
            f"{row.case_id}: split {row.split} without a mask; nnU-Net expects one for every case "
            "in imagesTr. Give it the split test, or leave it out."
        )
    return None


def _description(
    cases: Sequence[PlannedCase], channels: Sequence[str], suffix: str, convention: str
) -> Mapping[str, Any]:
    regions = [name for name in REGIONS if name != "RC" or convention == "brats2024"]
    known = CONVENTIONS[convention].values()
    return {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {
            "background": 0,
            **{
                _REGION_NAMES[name]: [code for code in REGIONS[name] if code in known]
                for name in regions
            },
        },
        "regions_class_order": [_DRAWN_AS[name] for name in regions],
        "numTraining": sum(not _is_test(case.row) for case in cases),
        "file_ending": suffix,
        "gmmas": {
            "version": version("gmmas-jax"),
            "label_convention": convention,
            FILLED: {case.name: list(case.filled) for case in cases if case.filled},
        },
    }


def _folds(cases: Sequence[PlannedCase]) -> list[dict[str, list[str]]]:
    """Returns nnU-Net's splits: the manifest's folds, else its train and val; else none."""
    names = [case.name for case in cases]
    folds = sorted({case.row.fold for case in cases if case.row.fold is not None})
    if len(folds) > 1:
        held_out = [[case.name for case in cases if case.row.fold == fold] for fold in folds]
    else:
        held_out = [[case.name for case in cases if case.row.split == "val"]]
    return [
        {"train": [name for name in names if name not in set(held)], "val": held}
        for held in held_out
        if held and len(held) < len(names)
    ]
