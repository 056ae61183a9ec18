"""Whose files are which: the sequence that a file name tells."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.errors import UserError

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})\.nii(\.gz)?", re.IGNORECASE)
_SEGMENTATION = {"seg", "segmentation", "label", "labels", "gt"}
_NOT_OF_TUMOUR = {"brain", "parenchyma", "tissue", "skull"}
_CONTRAST = {"ce", "gd", "gad", "gadolinium", "contrast", "postcontrast"}
_WITHOUT = {"pre", "no", "non", "without"}


class CaseFiles(NamedTuple):
    """The files of one case: its name, sequence name to path, and the tumour mask if there."""

    case_id: str
    images: dict[str, Path]
    seg: Path | None


def find_files(
    folder: str | os.PathLike[str], *, channel_order: Sequence[str] | None = None
) -> CaseFiles:
    """Finds the files of one case by their names.

    The end of a name tells the sequence, by any alias: BraTS up to 2021 (`X_t1ce.nii.gz`), BraTS
    from 2023 on (`X-t1c.nii.gz`), `FLAIR.nii.gz`, BIDS (`sub-X_ce-gadolinium_T1w.nii.gz`). Names
    by channel number, as in nnU-Net and the Decathlon (`X_0000.nii.gz`), do not tell it: four
    different orders are in daily use, so the order has to be declared.

    Args:
        folder: Holds the files of one case; for numbered files also a data set's root with
            `imagesTr` and `labelsTr`.
        channel_order: The sequence of channel 0000, 0001, …, for numbered files.

    Raises:
        UserError: If the folder holds no sequence, more than one case, two files for one
            sequence, or numbered files without a declared order.
    """
    folder = Path(folder)
    paths = _volumes(folder)
    if not paths:
        for name in ("imagesTr", "imagesTs"):
            if (folder / name).is_dir():
                return find_files(folder / name, channel_order=channel_order)
    named: list[tuple[str, str, Path]] = []
    for path in paths:
        kind, prefix = told_by_name(path.name)
        if kind is not None:
            named.append((kind, prefix, path))
    if any(kind in SEQUENCES for kind, _, _ in named):
        return _by_name(folder, named)
    numbered = [path for path in paths if is_numbered(path)]
    if numbered:
        return _by_number(folder, numbered, channel_order)
    listed = ", ".join(path.name for path in paths[:6]) or "no NIfTI file"
    raise UserError(
        f"{folder}: no sequence found in it ({listed}); expected one to four files named by "
        f"sequence, for example {', '.join(f'{name}.nii.gz' for name in SEQUENCES)}. Rename the "
        "files, or list them in a manifest."
    )


def is_numbered(path: Path) -> bool:
    """Returns whether a file is named by channel number, as in nnU-Net and the Decathlon."""
    return _NUMBERED.fullmatch(path.name) is not None


def _volumes(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read as a folder ({error.strerror}); expected the folder of one "
            "case. Check the path."
        ) from error
    return [
        path
        for path in paths
        if path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith(".")
    ]


def told_by_name(name: str) -> tuple[str | None, str]:
    """Returns the sequence or "seg" that the end of a file name tells, and what stands before.

    Args:
        name: A file name without folders.
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)
    words = list(re.finditer(r"[A-Za-z0-9]+", stem))
    lower = [word.group().lower() for word in words]
    for count in (3, 2, 1):
        tail = lower[-count:]
        # "C_T1" is patient C's T1: only a word that starts a sequence's name may be joined on.
        if len(tail) < count or not (count == 1 or tail[0].startswith(("t1", "t2"))):
            continue
        sequence = canonical_sequence("".join(tail))
        if sequence is not None:
            before = set(lower[:-count])
            if sequence == "t1n" and before & _CONTRAST and not before & _WITHOUT:
                sequence = "t1c"
            return sequence, stem[: words[-count].start()].rstrip("-_. ")
    if lower and lower[-1] in _SEGMENTATION and not _NOT_OF_TUMOUR & set(lower[-2:-1]):
        return "seg", stem[: words[-1].start()].rstrip("-_. ")
    return None, stem


def _by_name(folder: Path, named: list[tuple[str, str, Path]]) -> CaseFiles:
    found: dict[str, Path] = {}
    for kind, _, path in named:
        if kind in found:
            raise UserError(
                f"{folder}: two files for {kind}: {found[kind].name} and {path.name}; expected one "
                "case a folder and one file a sequence. Move one away, or use a manifest."
            )
        found[kind] = path
    prefixes = sorted({prefix for _, prefix, _ in named}, key=len)
    shortest = prefixes[0]
    for prefix in prefixes[1:]:
        rest = prefix[len(shortest) :]
        if not prefix.startswith(shortest) or (shortest and rest[0].isalnum()):
            raise UserError(
                f"{folder}: names of more than one case, {shortest!r} and {prefix!r}; expected the "
                "files of one case. Move the others away, or use a manifest."
            )
    case_id = shortest or folder.resolve().name
    return CaseFiles(case_id, {s: found[s] for s in SEQUENCES if s in found}, found.get("seg"))


def _by_number(
    folder: Path, numbered: Iterable[Path], channel_order: Sequence[str] | None
) -> CaseFiles:
    found: dict[tuple[str, int], Path] = {}
    for path in numbered:
        match = _NUMBERED.fullmatch(path.name)
        assert match is not None  # The caller has filtered by the same pattern.
        key = (match["case"], int(match["channel"]))
        if key in found:
            raise UserError(
                f"{folder}: two files for channel {key[1]}: {found[key].name} and {path.name}; "
                "expected one file a channel. Move one away."
            )
        found[key] = path
    cases = {case for case, _ in found}
    channels = {number: path for (_, number), path in found.items()}
    listed = ", ".join(path.name for path in channels.values())
    if channel_order is None:
        raise UserError(
            f"{folder}: the names {listed} tell channel numbers and no sequences; the order of "
            "channels must be declared, it is never guessed. Declare it (for the Medical "
            "Segmentation Decathlon: t2f, t1n, t1c, t2w; see channel_names in dataset.json), or "
            "rename the files by sequence."
        )
    if len(cases) > 1:
        raise UserError(
            f"{folder}: files of {len(cases)} cases ({', '.join(sorted(cases)[:4])}, …); expected "
            "one. Use a manifest."
        )
    order = [canonical_sequence(name) for name in channel_order]
    if None in order or len(set(order)) < len(order) or max(channels) >= len(order):
        raise UserError(
            f"{folder}: channel order {', '.join(channel_order)} does not fit {listed}; expected "
            f"one of {', '.join(SEQUENCES)} per channel, each once. Correct the order."
        )
    images = {str(order[number]): path for number, path in channels.items()}
    case_id = cases.pop()
    return CaseFiles(
        case_id,
        {name: images[name] for name in SEQUENCES if name in images},
        _numbered_label(folder, case_id),
    )


def _numbered_label(folder: Path, case_id: str) -> Path | None:
    folder = folder.resolve()
    labels = folder.parent / folder.name.replace("images", "labels")
    for ending in (".nii.gz", ".nii"):
        path = labels / f"{case_id}{ending}"
        if path.is_file():
            return path
    return None
