"""The store that a run trains on: one that is there, or one built of a manifest first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cli.progress import CaseProgress
from gmmas_jax.errors import UserError

if TYPE_CHECKING:
    from data_pipelines.prepared import PreparedIndex

STORE = "store"


class _HasSplit(Protocol):
    @property
    def split(self) -> str | None: ...


Case = TypeVar("Case", bound=_HasSplit)


def open_store(store: Path, data: Mapping[str, Any]) -> "PreparedIndex":
    """Returns the training cases of a store.

    Args:
        store: As `gmmas build` made it.
        data: The config's section.

    Raises:
        UserError: If it is no complete store of this version, was built with another spacing or
            size of the whole volume than the config's, or has no training case.
    """
    # Of the data side, which importing the library must not load.
    from data_pipelines.prepared import read_index

    index = read_index(store)
    wrong = []
    if index.spacing_mm != data["spacing_mm"]:
        wrong.append(
            f"its spacing is {index.spacing_mm:g} mm, data.spacing_mm asks for "
            f"{data['spacing_mm']:g}"
        )
    if index.whole != tuple(data["whole"]):
        wrong.append(
            f"its whole volumes have {_sizes(index.whole)} voxels, data.whole asks for "
            f"{_sizes(data['whole'])}"
        )
    if wrong:
        raise UserError(
            f"{store}: {'; '.join(wrong)}; expected a store for this config. Build one with "
            "`gmmas build … --config` and another --out, or change the config."
        )
    return replace(index, cases=tuple(training_cases(index.cases, store)))


def build_for_training(cohort: Path, workdir: Path, data: Mapping[str, Any]) -> "PreparedIndex":
    """Builds the store of a manifest's training cases in a run's folder, or finds it built.

    Raises:
        UserError: If the manifest or a case of it cannot be used.
    """
    from data_pipelines.store.build import build_store
    from gmmas_jax.cli.build import tell

    rows = training_cases(read_manifest(cohort), cohort)
    depth, height, width = data["whole"]
    with CaseProgress("prepare", sum(row.quality != "fail" for row in rows)) as progress:
        report = build_store(
            rows,
            cohort.parent,
            workdir / STORE,
            spacing_mm=data["spacing_mm"],
            whole=(depth, height, width),
            strict=True,
            on_case=lambda done, _, case_id: progress.done(done, case_id),
        )
    tell(report)
    return report.index


def training_cases(cases: Sequence[Case], source: Path) -> list[Case]:
    """Returns the rows or cases to train on: those of the split `train`, or all without splits.

    Raises:
        UserError: If there is none.
    """
    chosen = [case for case in cases if case.split == "train"]
    if not chosen and not any(case.split for case in cases):
        chosen = list(cases)
    if not chosen:
        raise UserError(
            f"{source}: no row has split train; expected some. Correct the column, or leave it "
            "empty in all rows to train on all of them."
        )
    return chosen


def _sizes(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
