"""Synthetic patients on disk: generated on the device while threads write the ones before."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.files import output_folder, write_json
from gmmas_jax.cases.manifest import Row, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.anatomy import Anatomy, anatomy_affine, load_anatomy
from gmmas_jax.synthesis.effects import PLAIN, Effects
from gmmas_jax.synthesis.generator import generate

GENERATOR = 7
"""Raised when the same key and effects give another patient: those of before do not count."""

EFFECTS = {"plain": PLAIN, "full": Effects()}

MANIFEST = "cohort.csv"
_COMPRESSION = 1
"""Noise hardly compresses: higher levels take several times as long for a few per cent."""

OnPatient = Callable[[int, str], None]


def write_synthetic_cohort(
    out: Path,
    *,
    patients: int,
    seed: int,
    spacing_mm: float = 2.0,
    effects: str = "plain",
    healthy: float = 0.0,
    test: int = 0,
    val: int = 0,
    anatomy_file: Path | None = None,
    workers: int = 2,
    on_patient: OnPatient | None = None,
) -> Path:
    """Writes patients in the naming of BraTS 2023, and their manifest.

    Patient i is a function of the seed, the anatomy and i: a longer cohort begins with the shorter
    one, and an interrupted call goes on where it stopped. The manifest appears when all are there.

    Args:
        out: Folder; holds `SYN-00000-000/SYN-00000-000-t1n.nii.gz` and so on, and the manifest.
        patients: How many.
        seed: Of the cohort.
        spacing_mm: Edge of the voxels.
        effects: A name of `EFFECTS`.
        healthy: Share of the patients without tumour; of these no task is known.
        test: The first so many patients are the test split.
        val: The next so many are the validation split; all others are for training.
        anatomy_file: See `load_anatomy`; None for a file in `out`.
        workers: Threads that compress and write.
        on_patient: Called after each patient with (patients done, case id).

    Returns:
        The path of the manifest.

    Raises:
        UserError: If a number is impossible, the folder holds patients of other settings or cannot
            be written, or the anatomy cannot be had.
    """
    _check(patients=patients, test=test, val=val, workers=workers, seed=seed)
    if not 0.5 <= spacing_mm <= 16:
        raise UserError(f"--spacing is {spacing_mm:g}; expected millimetres from 0.5 to 16.")
    if not 0 <= healthy <= 1:
        raise UserError(f"--healthy is {healthy:g}; expected a share from 0 to 1.")
    out = output_folder(out)
    anatomy = load_anatomy(
        anatomy_file or out / f"anatomy-{spacing_mm:g}mm.npz", spacing_mm=spacing_mm
    )
    settings = {
        "generator": GENERATOR,
        "seed": seed,
        "spacing_mm": spacing_mm,
        "effects": effects,
        "healthy": healthy,
        "anatomy": _checksum(np.asarray(anatomy.maps), np.asarray(anatomy.priors)),
        "strengths": _checksum(repr(EFFECTS[effects]).encode()),
    }
    facts: dict[int, dict[str, str]] = {}
    missing: list[int] = []
    for index in range(patients):
        known = _stored_tasks(out, index, settings)
        if known is None:
            missing.append(index)
        else:
            facts[index] = known
    if facts and on_patient is not None:
        on_patient(len(facts), case_id(max(facts)))
    for index, tasks in _write_all(out, missing, anatomy, settings, workers):
        facts[index] = tasks
        if on_patient is not None:
            on_patient(len(facts), case_id(index))
    rows = [_row(index, facts[index], test=test, val=val) for index in range(patients)]
    write_manifest(out / MANIFEST, rows)
    return out / MANIFEST


def case_id(index: int) -> str:
    """Returns the name of a patient's only exam."""
    return f"SYN-{index:05d}-000"


def _write_all(
    out: Path, missing: list[int], anatomy: Anatomy, settings: dict[str, Any], workers: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Generates and writes patients; yields index and tasks of each once it is on disk."""
    seed, share, effects = settings["seed"], settings["healthy"], EFFECTS[settings["effects"]]

    @jax.jit
    def make(index: jax.Array, anatomy: Anatomy) -> dict[str, Any]:
        k_patient = jax.random.fold_in(jax.random.key(seed), index)
        # No split: with whatever share, the others are the same patients.
        healthy = jax.random.bernoulli(jax.random.fold_in(k_patient, 0), share)
        patient = generate(k_patient, anatomy, effects=effects, healthy=healthy)
        image = jnp.round(patient["image"]).clip(0, np.iinfo(np.int16).max).astype(jnp.int16)
        label = patient["label"].astype(jnp.uint8)
        return {"image": image, "label": label, "tasks": patient["tasks"], "healthy": healthy}

    with ThreadPoolExecutor(workers) as pool:
        writing: deque[tuple[int, Future[dict[str, str]]]] = deque()
        for index in missing:
            patient = jax.device_get(make(jnp.int32(index), anatomy))
            writing.append((index, pool.submit(_write_patient, out, index, patient, settings)))
            # A patient that waits takes memory.
            if len(writing) > workers:
                first, written = writing.popleft()
                yield first, written.result()
        for index, written in writing:
            yield index, written.result()


def _write_patient(
    out: Path, index: int, patient: dict[str, Any], settings: dict[str, Any]
) -> dict[str, str]:
    """Writes one patient's files, the one that makes the folder count last."""
    # Of the data side, which importing the library must not load.
    from data_pipelines.nifti import write_volume

    name = case_id(index)
    drawn = {} if patient["healthy"] else patient["tasks"]
    tasks = {task: TASKS[task][int(value)] for task, value in drawn.items()}
    grid = Grid(patient["label"].shape, anatomy_affine(settings["spacing_mm"]))
    volumes = {sequence: patient["image"][..., i] for i, sequence in enumerate(SEQUENCES)}
    for suffix, volume in (volumes | {"seg": patient["label"]}).items():
        write_volume(
            out / name / f"{name}-{suffix}.nii.gz",
            volume,
            grid,
            dtype=volume.dtype.type,
            compression=_COMPRESSION,
        )
    write_json(out / name / f"{name}.json", {"settings": settings, "tasks": tasks})
    return tasks


def _stored_tasks(out: Path, index: int, settings: dict[str, Any]) -> dict[str, str] | None:
    """Returns the tasks of a patient that is complete on disk, or None."""
    name = case_id(index)
    path = out / name / f"{name}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if document["settings"] != settings:
        raise UserError(
            f"{path}: a patient made with {document['settings']}; expected {settings}. Choose "
            "another output folder, or remove this one."
        )
    files = [out / name / f"{name}-{suffix}.nii.gz" for suffix in (*SEQUENCES, "seg")]
    return document["tasks"] if all(file.exists() for file in files) else None


def _checksum(*parts: np.ndarray | bytes) -> str:
    return hashlib.sha256(b"".join(bytes(part) for part in parts)).hexdigest()[:16]


def _row(index: int, tasks: dict[str, str], *, test: int, val: int) -> Row:
    name = case_id(index)
    split = "test" if index < test else "val" if index < test + val else "train"
    cells: dict[str, Any] = {
        suffix: f"{name}/{name}-{suffix}.nii.gz" for suffix in (*SEQUENCES, "seg")
    }
    cells |= tasks
    return Row(
        case_id=name,
        patient_id=name.removesuffix("-000"),
        timepoint="000",
        label_convention="brats2023",
        site="synthetic",
        split=split,
        **cells,
    )


def _check(*, patients: int, test: int, val: int, workers: int, seed: int) -> None:
    for name, value, least in (
        ("patients", patients, 1),
        ("test", test, 0),
        ("val", val, 0),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{name} is {value}; expected at least {least}.")
    if patients > 100_000:
        raise UserError(f"--patients is {patients}; expected at most 100000.")
    if seed >= 2**31:
        raise UserError(f"--seed is {seed}; expected less than {2**31}.")
    if test + val > patients:
        raise UserError(
            f"--test {test} and --val {val} are more than --patients {patients}. Ask for more "
            "patients, or smaller splits."
        )
