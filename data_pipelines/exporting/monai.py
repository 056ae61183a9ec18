"""Export as a MONAI datalist beside the files."""

from collections.abc import Sequence
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
from gmmas_jax.cases.labels import CONVENTIONS, LABELS
from gmmas_jax.cases.manifest import Row

DATALIST = "datalist.json"
_SECTIONS = {"train": "training", "val": "validation", "test": "testing"}
_KEPT = ("patient_id", "fold", "age", "sex", "site")


def plan_monai(rows: Sequence[Row], *, fill_missing: bool) -> Plan:
    """Plans a folder a case, and `datalist.json` with training, validation and testing.

    Codes are 1 NCR, 2 ED, 3 ET, and 4 RC where any case may have one; `modality` tells the order
    of the channels. Cases without a split are for training where they have a mask, else for
    testing.

    Args:
        rows: Of the manifest.
        fill_missing: Whether a sequence that a case lacks becomes a volume of zeros.
    """
    channels = used_sequences(rows)
    convention = common_convention(rows)
    names = Names()
    cases: list[PlannedCase] = []
    refused: list[str] = []
    for row in rows:
        filled = tuple(sequence for sequence in channels if sequence not in row.images)
        if filled and not fill_missing:
            refused.append(lacking(row, channels, "a MONAI datalist"))
            continue
        name = names.of(row.case_id)
        cases.append(
            PlannedCase(
                row=row,
                name=name,
                images={
                    sequence: f"{name}/{name}_{sequence}{ending(row.images.get(sequence, '.gz'))}"
                    for sequence in channels
                },
                filled=filled,
                seg=f"{name}/{name}_seg{ending(row.seg)}" if row.seg else None,
                convention=convention,
            )
        )

    def finish(out: Path, written: Sequence[PlannedCase]) -> None:
        document: dict[str, Any] = {
            "modality": {str(number): name for number, name in enumerate(channels)},
            "labels": {str(code): LABELS[code] for code in CONVENTIONS[convention].values()},
            "label_convention": convention,
        }
        for case in written:
            document.setdefault(_section(case.row), []).append(_item(case))
        write_json(out / DATALIST, document)

    return Plan(cases, finish, refused)


def _section(row: Row) -> str:
    return _SECTIONS[row.split or ("test" if row.seg is None else "train")]


def _item(case: PlannedCase) -> dict[str, Any]:
    item: dict[str, Any] = {"image": list(case.images.values())}
    if case.seg is not None:
        item["label"] = case.seg
    item["case_id"] = case.row.case_id
    for name in _KEPT:
        if getattr(case.row, name) is not None:
            item[name] = getattr(case.row, name)
    if case.filled:
        item[FILLED] = list(case.filled)
    return item | case.row.tasks
