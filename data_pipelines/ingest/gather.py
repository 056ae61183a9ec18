"""Cases of one source while they are found: what cannot be a case is refused by name."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.ingest.found import Found
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

_NIFTI = (".nii", ".nii.gz")
_NAMED = 3
"""Cases that a line about many names."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user declared about a source.

    Attributes:
        channel_order: Sequence of channel 0000, 0001, …, where names tell numbers only.
        label_convention: Of all masks, a name of `labels.CONVENTIONS`.
        volumes: Folder for the volumes that have to be written (4-D files taken apart, DICOM).
        workers: Cases that are written at a time.
        on_case: Called after each case that takes long with (cases done, all cases, case id).
    """

    channel_order: tuple[str, ...] | None = None
    label_convention: str | None = None
    volumes: Path | None = None
    workers: int = 1
    on_case: Callable[[int, int, str], None] | None = None


@dataclass
class _Found:
    """A case, and where it was found."""

    row: Row
    place: str


@dataclass
class Gathering:
    """Collects the cases of a source.

    Attributes:
        options: What the user declared.
        cases: The cases so far, in the order of finding.
        notes: See `Found`.
        refused: See `Found`.
    """

    options: Options
    cases: list[_Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _remarks: dict[str, list[str]] = field(default_factory=dict)

    def remark(self, case_id: str, text: str) -> None:
        """Notes what is true of many cases; they are told in one line."""
        self._remarks.setdefault(text, []).append(case_id)

    def single_files(
        self, case_id: str, files: Mapping[str, Iterable[Path]]
    ) -> dict[str, Path] | None:
        """As the function of this name; a case with two files of a kind is refused, and None."""
        try:
            return single_files(case_id, files)
        except UserError as error:
            self.refused.append(str(error))
            return None

    def add(
        self,
        case_id: str,
        images: Mapping[str, Path],
        *,
        place: Path,
        seg: Path | None = None,
        convention: str | None = None,
        unusable_mask: str | None = None,
        **cells: Any,
    ) -> None:
        """Adds a case; without a sequence it is refused.

        Args:
            case_id: Its name.
            images: Sequence to path.
            place: Where it was found, for messages.
            seg: The mask.
            convention: Of the mask, where the layout fixes it; what the user declared wins.
            unusable_mask: Why no convention holds the mask's codes; it is then left out unless the
                user declared one.
            cells: Other fields of the row.
        """
        case_id = case_id.strip()
        if not images:
            self.refused.append(
                f"{case_id}: no sequence found in {place}; expected at least one of "
                f"{', '.join(SEQUENCES)}. Add the files, or remove the case."
            )
            return
        try:
            "".join(map(str, [case_id, *images.values(), seg])).encode()
        except UnicodeEncodeError:
            self.refused.append(
                f"{case_id!r}: a name in {str(place)!r} is no valid UTF-8; expected text. Rename "
                "the files."
            )
            return
        declared = self.options.label_convention
        if seg is not None and declared is None and unusable_mask is not None:
            self.remark(case_id, f"mask left out: {unusable_mask}")
            seg = None
        if seg is not None and declared is not None and convention not in (None, declared):
            self.remark(
                case_id, f"label convention {declared} as declared; the layout says {convention}"
            )
        convention = (declared or convention) if seg is not None else None
        if seg is not None and convention is None:
            self.remark(
                case_id,
                "label convention not known and left empty; declare it with --label-convention if "
                "the values of the masks are ambiguous",
            )
        given = {name: _absolute(images[name]) for name in SEQUENCES if name in images}
        row = Row(
            **{"patient_id": case_id}
            | cells
            | given
            | {
                "case_id": case_id,
                "seg": None if seg is None else _absolute(seg),
                "label_convention": convention,
            }
        )
        self.cases.append(_Found(row, str(place)))

    def found(self) -> Found:
        """Returns what was collected; of ids that stand for several cases, none is kept."""
        places: dict[str, list[str]] = {}
        for case in self.cases:
            places.setdefault(case.row.case_id, []).append(case.place)
        refused = list(self.refused)
        for case_id, where in places.items():
            if len(where) > 1:
                refused.append(
                    f"{case_id}: found {len(where)} times ({'; '.join(where[:_NAMED])}); expected "
                    "each id once. Rename or remove the others."
                )
        kept = [case.row for case in self.cases if len(places[case.row.case_id]) == 1]
        notes = [*self.notes, *(_told(text, ids) for text, ids in self._remarks.items())]
        return Found(kept, notes, refused)


def _told(text: str, ids: list[str]) -> str:
    if len(ids) == 1:
        return f"{ids[0]}: {text}"
    more = ", …" if len(ids) > _NAMED else ""
    return f"{len(ids)} cases ({', '.join(ids[:_NAMED])}{more}): {text}"


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def single_files(case_id: str, files: Mapping[str, Iterable[Path]]) -> dict[str, Path]:
    """Returns the one file of each kind.

    Args:
        case_id: For the message.
        files: Sequence or "seg" to the files found for it.

    Raises:
        UserError: If there are two for one kind.
    """
    single = {}
    for kind, paths in files.items():
        several = sorted(set(paths))
        if len(several) > 1:
            raise UserError(
                f"{case_id}: {len(several)} files for {kind}: {several[0]} and {several[1]}; "
                "expected one. Move the others away, or list the right ones in a manifest."
            )
        single[kind] = several[0]
    return single


def is_volume(name: str) -> bool:
    """Returns whether a file name is that of a NIfTI file, hidden ones left out."""
    return name.lower().endswith(_NIFTI) and not name.startswith(".")


def stem(name: str) -> str:
    """Returns a file name without `.nii` or `.nii.gz`."""
    for ending in (".nii.gz", ".nii"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def folders(source: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Yields each folder from `source` down: its path, names of subfolders, its NIfTI files.

    In the order of the names; links to folders are followed, each folder is visited once, and
    hidden folders are left out.

    Raises:
        UserError: If a folder cannot be read.
    """
    visited: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); expected a folder. Check the "
            "path and its permissions."
        ) from error

    for root, names, files in os.walk(source, followlinks=True, onerror=fail):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in visited:
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        yield Path(root), list(names), [Path(root, n) for n in sorted(files) if is_volume(n)]
