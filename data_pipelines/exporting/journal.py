"""Which cases an export has finished, so that an interrupted one goes on where it stopped."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.exporting.plan import PlannedCase
from gmmas_jax.cases.files import output_folder, write_text
from gmmas_jax.errors import UserError

FORMAT = 2
JOURNAL = ".gmmas-export.jsonl"
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\..+")
_NAMED = 3


class Journal:
    """The cases that are whole in an output folder, one line each.

    A line is written after all files of its case; one that was cut off in the middle does not
    count.
    """

    def __init__(self, out: Path, layout: str):
        """Opens the journal of a folder, or begins one in an empty folder.

        Raises:
            UserError: If the folder cannot be written, or holds something else.
        """
        self._out = output_folder(out)
        self._path = self._out / JOURNAL
        self._known: dict[str, tuple[str, list[str]]] = {}
        head = {"format": FORMAT, "layout": layout}
        if self._path.is_file():
            self._read(head)
        else:
            inside = [path.name for path in self._out.iterdir()]
            if inside:
                raise UserError(
                    f"{out}: holds {', '.join(sorted(inside)[:_NAMED])}; expected an empty folder, "
                    "or one that an export began. Choose another folder."
                )
            write_text(self._path, json.dumps(head) + "\n")

    def done(self, case: PlannedCase, digest: str) -> bool:
        """Returns whether the case is there as it would be written now."""
        known, _ = self._known.get(case.name, (None, []))
        return known == digest and all((self._out / target).is_file() for target in case.targets)

    def note(self, case: PlannedCase, digest: str) -> None:
        """Notes that the case is whole."""
        self._known[case.name] = (digest, case.targets)
        line = {"name": case.name, "digest": digest, "files": case.targets}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be written ({error.strerror}); expected room for it. Make "
                "room, and run the same command again."
            ) from error

    def check_strangers(self, cases: Iterable[PlannedCase]) -> None:
        """Refuses a folder with cases that are not to be in it now.

        Raises:
            UserError: If there are any.
        """
        strangers = sorted(set(self._known) - {case.name for case in cases})
        if strangers:
            raise UserError(
                f"{self._out}: holds {len(strangers)} cases of an earlier export that are not to "
                f"be exported now ({', '.join(strangers[:_NAMED])}); expected the same manifest. "
                "Choose another folder, or remove this one."
            )

    def sweep(self, cases: Sequence[PlannedCase]) -> None:
        """Removes what does not belong: halves that a killed export left, and files of old places.

        A case whose split changed has another folder in some layouts; what stayed in the old one
        would be trained on by programs that look at folders.
        """
        wanted = {target for case in cases for target in case.targets}
        for _, files in self._known.values():
            for target in set(files) - wanted:
                (self._out / target).unlink(missing_ok=True)
        folders = {(self._out / target).parent for case in cases for target in case.targets}
        for folder in folders:
            if folder.is_dir():
                for name in os.listdir(folder):
                    if _TEMPORARY.fullmatch(name):
                        (folder / name).unlink(missing_ok=True)

    def _read(self, head: dict[str, object]) -> None:
        lines = self._path.read_text(encoding="utf-8").split("\n")
        documents = [document for line in lines if (document := _document(line)) is not None]
        if not documents or documents[0] != head:
            raise UserError(
                f"{self._path}: of another export ({lines[0][:80]}); expected {json.dumps(head)}. "
                "Choose another folder."
            )
        self._known = {line["name"]: (line["digest"], line["files"]) for line in documents[1:]}
        if lines[-1]:  # Cut off in the middle: what follows must begin on a line of its own.
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")


def digest_of(case: PlannedCase, root: Path, *, link: bool) -> str:
    """Returns what the files of a case depend on, as one short text.

    Raises:
        UserError: If a file has gone.
    """
    row = case.row
    sources: dict[str, str | None] = {**row.images, "seg": row.seg}
    states = []
    for name, path in sources.items():
        if path is not None:
            try:
                status = (root / path).stat()
            except OSError as error:
                raise UserError(
                    f"{root / path}: cannot be read ({error.strerror}); expected a NIfTI file. "
                    "Correct the path in the manifest."
                ) from error
            states.append([name, path, status.st_size, status.st_mtime_ns])
    facts = [
        *(row.case_id, row.label_convention, case.convention, link, states),
        *(dict(case.images), case.filled, case.seg),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _document(line: str) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
