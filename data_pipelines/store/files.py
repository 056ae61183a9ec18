"""Where the files of a store lie, and how new ones take their places.

A record says itself which case it is and what it was made from. So nothing has to be believed about
an interrupted build: what is there is found by looking.
"""

import contextlib
import errno
import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.prepared import INDEX_FILE
from data_pipelines.store.record import RecordFacts, read_facts
from gmmas_jax.cases.manifest import SPLITS
from gmmas_jax.errors import UserError

NAME = "gliomas"
UNASSIGNED = "unassigned"
"""The split, for TFDS, of cases that the manifest gives none."""

REPORT = "build.json"
HASHES = "files.json"
DATASET_INFO = "dataset_info.json"
SPLIT_NAMES = (*SPLITS, UNASSIGNED)
_WORK = ".build"


def work_folder(out: Path) -> Path:
    """Returns the folder of a store for what is not yet in its place."""
    return out / _WORK


@contextlib.contextmanager
def only_builder(out: Path) -> Iterator[None]:
    """Waits until no other process builds this store, and keeps others waiting.

    Processes of one training run each ask for the store; the first builds it.
    """
    with (work_folder(out) / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks; one process at a time is then up to the user.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                raise
        yield


def find_records(out: Path) -> dict[str, list[tuple[Path, RecordFacts]]]:
    """Returns all records in a store's folder by case id, those in their places first.

    Raises:
        UserError: If one is no record, or was made by another format.
    """
    # What a killed writer left.
    for path in work_folder(out).glob(".*.tfrecord"):
        path.unlink(missing_ok=True)
    found: dict[str, list[tuple[Path, RecordFacts]]] = {}
    for path in [*sorted(_placed(out)), *sorted(work_folder(out).glob("*.tfrecord"))]:
        facts = read_facts(path)
        found.setdefault(facts.meta["case_id"], []).append((path, facts))
    return found


def places(splits: Sequence[str | None], out: Path) -> list[Path]:
    """Returns the place of each case of a store: TFDS's names, with one case a shard."""
    names = [split or UNASSIGNED for split in splits]
    total, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        found.append(out / f"{NAME}-{name}.tfrecord-{seen[name]:05d}-of-{total[name]:05d}")
        seen[name] += 1
    return found


def invalidate(out: Path) -> None:
    """Takes away what makes the folder a store, before anything in it moves."""
    for name in (INDEX_FILE, REPORT, DATASET_INFO):
        (out / name).unlink(missing_ok=True)


def move_into_place(records: Sequence[Path], targets: Sequence[Path], out: Path) -> None:
    """Moves each record to its place, and removes records that no place asks for.

    Interrupted at any point, every wanted record is still there, under one of its names.
    """
    work = work_folder(out)
    wanted = dict(zip(records, targets, strict=True))
    for path in _placed(out):
        if path not in wanted:
            path.unlink()
    waiting = {}
    for path, target in wanted.items():
        # First all out of the way: a place may still be another's.
        if path != target and path.parent == out:
            aside = work / f"{path.name}.tfrecord"
            os.replace(path, aside)
            path = aside
        waiting[path] = target
    for path, target in waiting.items():
        if path != target:
            os.replace(path, target)
    for path in work.glob("*.tfrecord"):
        path.unlink()


def check_folder(out: Path) -> None:
    """Refuses a folder that holds something else.

    Raises:
        UserError: If so.
    """
    if not out.is_dir() or work_folder(out).is_dir() or (out / INDEX_FILE).is_file():
        return
    others = [path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")]
    if others:
        raise UserError(
            f"{out}: holds {', '.join(others[:3])}{', …' if len(others) > 3 else ''}; expected a "
            "store of gmmas or an empty folder. Choose another folder."
        )


def _placed(out: Path) -> Iterator[Path]:
    return out.glob(f"{NAME}-*.tfrecord-*-of-*")
