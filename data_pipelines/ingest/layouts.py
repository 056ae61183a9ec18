"""Layouts by name, and the cases of a source in one of them."""

from collections.abc import Callable
from pathlib import Path

from data_pipelines.ingest.bids import bids
from data_pipelines.ingest.brats import brats2021, brats2023
from data_pipelines.ingest.companion import with_companion
from data_pipelines.ingest.datalist import monai
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Options
from data_pipelines.ingest.lists import fets, gandlf
from data_pipelines.ingest.manifests import manifest
from data_pipelines.ingest.numbered import msd, nnunet
from data_pipelines.ingest.public_sets import lumiere, ucsf_pdgm, upenn_gbm
from data_pipelines.ingest.recognise import recognise
from data_pipelines.ingest.trees import case_folders
from gmmas_jax.cases.labels import CONVENTIONS
from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.errors import UserError

AUTO = "auto"

_OF_A_FILE = ("fets", "gandlf", "monai", "manifest")


def dicom(source: Path, *, options: Options) -> Found:
    """Converts the series of a DICOM tree; see `ingest_dicom`.

    Raises:
        UserError: If no folder for the volumes was given.
    """
    # Not everybody who has NIfTI files has the converter.
    from data_pipelines.ingest.dicom import ingest_dicom

    if options.volumes is None:
        raise UserError(
            f"{source}: DICOM has to be converted; expected a folder for the volumes. Give one "
            "with --volumes DIR."
        )
    return ingest_dicom(
        source, volumes=options.volumes, workers=options.workers, on_case=options.on_case
    )


LAYOUTS: dict[str, Callable[..., Found]] = {
    "brats2021": brats2021,
    "brats2023": brats2023,
    "nnunet": nnunet,
    "msd": msd,
    "bids": bids,
    "ucsf-pdgm": ucsf_pdgm,
    "upenn-gbm": upenn_gbm,
    "lumiere": lumiere,
    "fets": fets,
    "gandlf": gandlf,
    "monai": monai,
    "manifest": manifest,
    "dicom": dicom,
    "folders": case_folders,
}
"""Layout to its reader, `(source, *, options) -> Found`."""


def find_cases(source: Path, layout: str, *, options: Options) -> Found:
    """Finds the cases of a source.

    Args:
        source: A folder; a file for `fets`, `gandlf`, `monai` and `manifest`.
        layout: A name of `LAYOUTS`, or `auto` for what `recognise` tells.
        options: What the user declared; aliases of sequences are accepted.

    Returns:
        The cases, of which there may be none.

    Raises:
        UserError: If the source is not there or is no source of this layout, or an option is
            impossible.
    """
    _check_options(options)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; expected a source. Check the path.")
    if layout == AUTO:
        layout, why = recognise(source)
        found = find_cases(source, layout, options=options)
        found.notes.insert(0, f"layout {layout}, told by {why}")
        return found
    if layout not in LAYOUTS:
        raise UserError(
            f"layout {layout!r} is unknown; expected one of {', '.join((AUTO, *LAYOUTS))}."
        )
    if (layout in _OF_A_FILE) == source.is_dir():
        kind, expected = ("folder", "list") if source.is_dir() else ("file", "folder")
        raise UserError(
            f"{source}: is a {kind}; layout {layout} expects a {expected}. Name that, or another "
            "layout."
        )
    return with_companion(LAYOUTS[layout](source, options=options), source)


def _check_options(options: Options) -> None:
    order = options.channel_order
    if order is not None:
        canonical = [canonical_sequence(name) for name in order]
        if None in canonical or len(set(canonical)) < len(canonical):
            raise UserError(
                f"--channel-order is {', '.join(order)}; expected some of {', '.join(SEQUENCES)}, "
                "each at most once."
            )
    convention = options.label_convention
    if convention is not None and convention not in CONVENTIONS:
        raise UserError(
            f"--label-convention is {convention!r}; expected one of {', '.join(CONVENTIONS)}."
        )
