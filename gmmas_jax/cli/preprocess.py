"""`gmmas preprocess`: native exams to co-registered, skull-stripped volumes on an atlas grid."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gmmas_jax.cli.memory import add_max_memory
from gmmas_jax.errors import UserError

if TYPE_CHECKING:
    from data_pipelines.preprocess.settings import Settings

SUMMARY = "co-register, skull-strip and resample native exams; quality numbers and a picture each"
EXAMPLE = "gmmas preprocess cohort.csv --out preprocessed --workers 4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("cohort", type=Path, metavar="COHORT.CSV", help="the manifest")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    add_preprocessing_options(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: as many as cores and memory allow)",
    )
    add_max_memory(parser)


def add_preprocessing_options(parser: argparse._ActionsContainer) -> None:
    """Declares the options that `gmmas predict --preprocess` has as well."""
    parser.add_argument(
        "--atlas",
        type=Path,
        metavar="FILE",
        help="T1-weighted template, skull-stripped (default: MNI152, which nilearn brings along)",
    )
    parser.add_argument(
        "--atlas-mask", type=Path, metavar="FILE", help="brain of a template that has a skull"
    )
    parser.add_argument(
        "--reference",
        default="t1c",
        metavar="SEQ",
        help="sequence that the others are brought to (default t1c; where it is missing t1c, t1n, "
        "t2f, t2w, the first that is there)",
    )
    parser.add_argument(
        "--brain-extraction",
        default="auto",
        metavar="HOW",
        help="auto (an installed program, else atlas), atlas, hd-bet, synthstrip or none; what is "
        "skull-stripped already stays as it is",
    )
    parser.add_argument(
        "--fit",
        default="rigid",
        metavar="HOW",
        help="rigid keeps the brain's size, as BraTS does (default); affine gives it the atlas's",
    )
    parser.add_argument(
        "--n4-output", action="store_true", help="divide the results by their bias field"
    )
    parser.add_argument(
        "--normalise",
        default="none",
        metavar="HOW",
        help="none keeps native units (default), zscore, or percentile (0.1 to 99.9 to 0 to 1)",
    )
    parser.add_argument(
        "--spacing", type=float, default=1.0, metavar="MM", help="edge of a voxel (default 1)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Preprocesses, tells which cases failed, and prints where the manifest is."""
    preprocess_manifest(
        arguments.cohort,
        arguments.out,
        arguments,
        workers=arguments.workers,
        max_memory=arguments.max_memory,
    )


def preprocess_manifest(
    cohort: Path,
    out: Path,
    arguments: argparse.Namespace,
    *,
    workers: int | None = None,
    max_memory: int | None = None,
) -> Path:
    """Preprocesses a manifest with the options of `add_preprocessing_options`.

    Returns:
        The new manifest.

    Raises:
        UserError: If an option or the manifest is wrong, or, when all others are done, cases could
            not be preprocessed.
    """
    from gmmas_jax.cases.manifest import read_manifest
    from gmmas_jax.cli.progress import CaseProgress

    check_engine()
    from data_pipelines.preprocess.cohort import BYTES_EACH, MANIFEST, preprocess_cohort
    from data_pipelines.workers import worker_count

    settings = settings_of(arguments)
    rows = read_manifest(cohort)
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; expected at least 1.")
    fitting = worker_count(BYTES_EACH, max_memory=max_memory)
    count = min(workers or len(rows), fitting, len(rows))
    with CaseProgress("preprocess", len(rows)) as progress:
        made, failed, errors = preprocess_cohort(
            rows,
            cohort.parent,
            out,
            settings=settings,
            atlas=arguments.atlas,
            atlas_mask=arguments.atlas_mask,
            workers=count,
            on_case=progress.done,
        )
    for case_id, faults in failed.items():
        print(f"{case_id}: quality fail: {'; '.join(faults)}", file=sys.stderr)
    for case_id, error in errors.items():
        print(f"{case_id}: {error}", file=sys.stderr)
    if made:
        print(
            f"{len(made)} cases, {len(failed)} of them of quality fail; manifest: {out / MANIFEST}"
        )
    if errors:
        raise UserError(
            f"{cohort}: {len(errors)} of {len(rows)} cases could not be preprocessed, for the "
            f"reasons above: {', '.join(errors)}. Correct them and run the same command again; the "
            "others are kept."
        )
    return out / MANIFEST


def settings_of(arguments: argparse.Namespace) -> "Settings":
    """Returns the settings that the options say."""
    from data_pipelines.preprocess.settings import Settings

    return Settings(
        reference=arguments.reference,
        brain_extraction=arguments.brain_extraction,
        fit=arguments.fit,
        spacing_mm=arguments.spacing,
        n4_output=arguments.n4_output,
        normalise=arguments.normalise,
    )


def check_engine() -> None:
    """Refuses to begin without SimpleITK."""
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(
            "preprocessing needs SimpleITK, which is not installed; expected the project's data "
            "packages. Install them (pip install SimpleITK), or give preprocessed exams."
        ) from error
    assert SimpleITK.Version is not None
