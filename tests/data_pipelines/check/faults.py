"""Plants one of each fault into a constructed cohort.

Run it to see the report: `python -m tests.data_pipelines.check.faults DIR`, then
`gmmas check DIR/cohort.csv --against DIR/pretraining.csv`.
"""

import gzip
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from gmmas_jax.cases.manifest import COLUMNS, Row, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from tests.data_pipelines.check.heads import AFFINE, SHAPE, save, write_case

Plant = Callable[[Path, Row], Row]
CLEAN = 10


def _file(name: str, change: Callable[[Path], object]) -> Plant:
    """Returns a plant that changes a file of the case."""

    def plant(folder: Path, row: Row) -> Row:
        change(folder / getattr(row, name))
        return row

    return plant


def _voxels(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Returns a plant that changes the voxels of a file."""

    def rewrite(path: Path) -> None:
        save(path, change(np.asarray(nib.load(path).dataobj)))

    return _file(name, rewrite)


def _header(name: str, change: Callable[[np.ndarray], None]) -> Plant:
    """Returns a plant that changes header fields, in the bytes of the file."""

    def rewrite(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        header = np.frombuffer(content, nib.Nifti1Header.template_dtype, count=1)
        change(header)
        path.write_bytes(gzip.compress(bytes(content), 1))

    return _file(name, rewrite)


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Plant:
    return _file(name, lambda path: path.write_bytes(change(path.read_bytes())))


def _fields(**fields: str | float | None) -> Plant:
    return lambda folder, row: replace(row, **fields)  # type: ignore[arg-type]


def _set(field: str, value: object, at: object = ...) -> Callable[[np.ndarray], None]:
    def change(header: np.ndarray) -> None:
        header[field][0][at] = value

    def change_whole(header: np.ndarray) -> None:
        header[field] = value

    return change_whole if at is ... else change


def _with(index: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        changed = array.astype(np.float32)
        changed[index] = value
        return changed

    return change


def _leave(folder: Path, row: Row) -> Row:
    outside = folder.parent / "outside t1n.nii.gz"
    (folder / row.images["t1n"]).rename(outside)
    return replace(row, t1n=f"{row.case_id}/../../{outside.name}")


def _copy(name: str, as_name: str) -> Plant:
    def plant(folder: Path, row: Row) -> Row:
        content = (folder / getattr(row, name)).read_bytes()
        (folder / getattr(row, as_name)).write_bytes(content)
        return row

    return plant


def _swap(one: str, other: str) -> Plant:
    return lambda folder, row: replace(row, **{one: getattr(row, other), other: getattr(row, one)})


def _pair(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[344:348] = b"ni1\x00"
    path.write_bytes(gzip.compress(bytes(content), 1))


def _skull(array: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(1, 60, SHAPE)
    return np.where(array == 0, noise, array).astype(np.int16)


def _cut(folder: Path, row: Row) -> Row:
    for name in (*SEQUENCES, "seg"):
        path = folder / getattr(row, name)
        save(path, np.asarray(nib.load(path).dataobj)[:, :, :26])
    return row


def _small(folder: Path, row: Row) -> Row:
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    far = (np.abs(index - (np.array(SHAPE) - 1) / 2) > np.array([13, 13, 9])).any(-1)
    for name in (*SEQUENCES, "seg"):
        path = folder / getattr(row, name)
        array = np.asarray(nib.load(path).dataobj)
        save(path, np.where(far, 0, array).astype(array.dtype))
    return row


def _shift(array: np.ndarray) -> np.ndarray:
    return np.roll(array, 2, axis=0)


def _label(*, keep: Callable[[np.ndarray], np.ndarray]) -> Plant:
    return _voxels("seg", lambda array: keep(array).astype(np.uint8))


def _slice(label: np.ndarray) -> np.ndarray:
    middle = int(np.argmax((label > 0).sum((0, 1))))
    only = np.zeros_like(label)
    only[:, :, middle] = label[:, :, middle]
    return only


def _no_orientation(folder: Path, row: Row) -> Row:
    for name in (*SEQUENCES, "seg"):
        for field in ("qform_code", "sform_code"):
            _header(name, _set(field, 0))(folder, row)
    return row


_METRES = np.diag([-0.004, -0.004, 0.004, 1.0])
_OTHER_AFFINE = AFFINE + np.array([[0, 0, 0, 5.0]] + [[0.0] * 4] * 3)

PLANTS: dict[str, tuple[str, Plant]] = {
    # Name of the case: code, and how the fault is made.
    "nan": ("image.not_finite", _voxels("t1c", _with((20, 20, 20), np.nan))),
    "inf": ("image.not_finite", _voxels("t1c", _with((20, 20, 20), np.inf))),
    "zero": ("image.constant", _voxels("t2w", np.zeros_like)),
    "constant": ("image.constant", _voxels("t2w", lambda a: np.full_like(a, 7))),
    "four-d": ("file.not_3d", _voxels("t1c", lambda a: np.stack([a, a], -1))),
    "rgb": ("file.voxel_type", _header("t1c", _set("datatype", 128))),
    "complex": ("file.voxel_type", _header("t1c", _set("datatype", 32))),
    "truncated": ("file.truncated", _bytes("t1c", lambda b: b[: len(b) // 2])),
    "empty-file": ("file.truncated", _bytes("t1c", lambda b: b"")),
    "no-gzip": ("file.not_gzip", _bytes("t1c", gzip.decompress)),
    "double-gzip": ("file.compressed_twice", _bytes("t1c", gzip.compress)),
    "trailing": (
        "file.trailing_bytes",
        _bytes("t1c", lambda b: gzip.compress(gzip.decompress(b) + b"more", 1)),
    ),
    "no-nifti": ("file.not_nifti", _bytes("t1c", lambda b: gzip.compress(bytes(1000)))),
    "bomb": ("file.too_large", _header("t1c", _set("dim", 32767, slice(1, 4)))),
    "pair": ("file.pair", _file("t1c", _pair)),
    "offset": ("file.header", _header("t1c", _set("vox_offset", 1e9))),
    "pixdim-zero": ("geometry.voxel_size", _header("t1c", _set("pixdim", 0.0, 2))),
    "metres": (
        "geometry.voxel_size",
        _file("t1c", lambda p: save(p, np.asarray(nib.load(p).dataobj), _METRES)),
    ),
    "slope": ("image.scaling", _header("t1c", _set("scl_slope", np.inf))),
    "no-orientation": ("geometry.no_orientation", _no_orientation),
    "two-orientations": ("geometry.qform_sform", _header("t1c", _set("qoffset_x", 40.0))),
    "missing": ("file.missing", _file("t1c", Path.unlink)),
    "leaves": ("file.leaves_folder", _leave),
    "images-differ": (
        "geometry.images_differ",
        _file("t2f", lambda p: save(p, np.asarray(nib.load(p).dataobj), _OTHER_AFFINE)),
    ),
    "label-differs": (
        "geometry.label_differs",
        _file("seg", lambda p: save(p, np.asarray(nib.load(p).dataobj), _OTHER_AFFINE)),
    ),
    "negative": (
        "image.negative",
        _voxels("t1c", lambda a: np.where(a > 0, a - 800.0, 0).astype(np.float32)),
    ),
    "skull": ("image.not_stripped", _voxels("t1n", _skull)),
    "cut": ("image.cut_off", _cut),
    "small": ("image.brain_volume", _small),
    "twice": ("image.same_voxels", _copy("t1n", "t1c")),
    "swap-t1": ("case.sequences_swapped", _swap("t1n", "t1c")),
    "swap-t2": ("case.sequences_swapped", _swap("t2w", "t2f")),
    "swap-t1t2": ("case.sequences_swapped", _swap("t1n", "t2w")),
    "not-aligned": ("case.not_aligned", _voxels("t2f", _shift)),
    "no-sequence": ("case.no_sequence", _fields(t1n=None, t1c=None, t2w=None, t2f=None)),
    "no-t1c": ("case.lacks_key_sequence", _fields(t1c=None)),
    "quality": ("case.quality_fail", _fields(quality="fail")),
    "fractions": ("label.values", _voxels("seg", lambda a: a * np.float32(0.7))),
    "png": ("label.values", _voxels("seg", lambda a: (a > 0).astype(np.uint8) * 255)),
    "rounded": ("label.rounded", _voxels("seg", lambda a: a * np.float32(0.9999))),
    "unknown-code": ("label.unknown_code", _label(keep=lambda a: np.where(a == 3, 7, a))),
    "wrong-convention": ("label.unknown_code", _fields(label_convention="brats2021")),
    "ambiguous": (
        "label.ambiguous",
        lambda folder, row: replace(
            _label(keep=lambda a: np.where(a == 3, 4, a))(folder, row), label_convention=None
        ),
    ),
    "inferred": ("label.inferred", _fields(label_convention=None)),
    "empty-label": ("label.empty", _label(keep=np.zeros_like)),
    "one-slice": ("label.tiny", _label(keep=_slice)),
    "et-alone": ("label.enhancing_alone", _label(keep=lambda a: np.where(a == 3, 3, 0))),
    "flipped-label": ("label.outside_brain", _label(keep=lambda a: np.roll(a, 20, axis=2))),
    "huge-label": (
        "cohort.volume_outlier",
        _label(keep=lambda a: np.where((a == 0) & (_depth() < 0.8), 2, np.where(a == 1, 3, a))),
    ),
    "types": ("table.impossible_types", _fields(idh="wildtype", codel_1p19q="codeleted")),
    "age": ("table.age", _fields(age=640.0)),
}


def _depth() -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    offset = (index - (np.array(SHAPE) - 1) / 2) * 4.0
    return np.asarray(np.sqrt(((offset / np.array([66, 82, 62])) ** 2).sum(-1)))


def plant(folder: Path) -> dict[str, set[str]]:
    """Writes cohort.csv and pretraining.csv with their files.

    Returns:
        Case id to the codes that the check should find there; a clean case has none, and "" stands
        for the cohort as a whole.
    """
    expected: dict[str, set[str]] = {}
    rows = []
    seed = 0
    for number in range(CLEAN):
        # Names that are awkward, and right.
        case_id = ("clean ä ;", "-clean", "0012")[number] if number < 3 else f"clean-{number}"
        rows.append(write_case(folder, case_id, seed := seed + 1, idh="mutant"))
        expected[case_id] = set()
    for case_id, (code, make) in PLANTS.items():
        rows.append(make(folder, write_case(folder, case_id, seed := seed + 1)))
        expected[case_id] = {code}
    _between_cases(folder, rows, expected, seed + 1)
    write_manifest(folder / "cohort.csv", rows)
    with (folder / "cohort.csv").open("a", encoding="utf-8") as file:
        file.write(f"0012{',' * (len(COLUMNS) - 1)}\n")
    expected[""] |= {"manifest.duplicate_id"}
    return expected


def _between_cases(folder: Path, rows: list[Row], expected: dict[str, set[str]], seed: int) -> None:
    """Adds the faults that show only between cases."""

    def add(case_id: str, *codes: str, **fields: str | None) -> Row:
        nonlocal seed
        rows.append(write_case(folder, case_id, seed := seed + 1, **fields))
        expected[case_id] = set(codes)
        return rows[-1]

    clean = {row.case_id: row for row in rows if not expected[row.case_id]}
    add("time-1", "leakage.patient_in_splits", patient_id="two exams")
    add("time-2", patient_id="two exams", split="test", idh="mutant")
    add("UCSF-PDGM-004", "leakage.person_in_splits", patient_id="BraTS2021_00097")
    add("BraTS-GLI-00097-000", split="test", idh="mutant")
    add("TCGA-02-0034", "duplicate.person")
    add("TCGA-02-0034-01", patient_id="34")
    # The voxels of another case, one file of it; in another type and axis order.
    row = add("copied", "leakage.identical", split="test", idh="mutant")
    source = nib.load(folder / clean["clean-4"].images["t1n"])
    flipped = AFFINE.copy()
    flipped[2, 2], flipped[2, 3] = -AFFINE[2, 2], AFFINE[2, 2] * (SHAPE[2] - 1)
    save(
        folder / row.images["t1n"], np.asarray(source.dataobj)[:, :, ::-1].astype(np.int32), flipped
    )
    row = add("copied-too", "duplicate.identical")
    content = (folder / clean["clean-3"].images["t2f"]).read_bytes()
    (folder / row.images["t2f"]).write_bytes(content)
    _whole_copy(folder, add("near", "leakage.near_identical", split="val"), clean["clean-5"], 2.5)
    _whole_copy(folder, add("near-too", "duplicate.near_identical"), clean["clean-6"], 0.4)
    # Codes of another convention than the declared one.
    for number in range(3):
        row = add(f"msd-{number}", label_convention="msd")
        if number == 0:
            expected[""] = {"cohort.codes_swapped", "cohort.conventions_mixed"}
    row = add("old-codes", label_convention="brats2024")
    path = folder / str(row.seg)
    label = np.asarray(nib.load(path).dataobj)
    save(path, np.where(label == 3, 4, label).astype(np.uint8))
    expected[""] |= {"cohort.other_convention", "cohort.class_absent"}
    # A pretraining set that shares a person, a patient id, a file and a scaled image.
    others = [
        write_case(folder, "pre-clean", seed + 50),
        write_case(folder, "BraTS2021_00097", seed + 51),
        write_case(folder, "pre-id", seed + 52, patient_id="clean-7"),
        replace(clean["clean-8"], case_id="pre-copy", patient_id="pre-copy"),
        write_case(folder, "pre-near", seed + 53),
    ]
    _whole_copy(folder, others[-1], clean["clean-9"], 3.0)
    write_manifest(folder / "pretraining.csv", others)
    expected["UCSF-PDGM-004"] |= {"overlap.person"}
    expected["BraTS-GLI-00097-000"] |= {"overlap.person"}
    expected["clean-7"] |= {"overlap.patient_id"}
    expected["clean-8"] |= {"overlap.identical"}
    expected["clean-9"] |= {"overlap.near_identical"}


def _whole_copy(folder: Path, row: Row, source: Row, scale: float) -> None:
    """Replaces the images of a case by another's, scaled, with a little noise."""
    generator = np.random.default_rng(1)
    for name, path in source.images.items():
        array = np.asarray(nib.load(folder / path).dataobj).astype(np.float32)
        noisy = array * scale * (1 + generator.normal(0, 0.03, array.shape))
        save(folder / row.images[name], noisy.astype(np.float32))
    label = np.asarray(nib.load(folder / str(source.seg)).dataobj)
    save(folder / str(row.seg), label)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, codes in plant(target).items():
        print(name or "(cohort)", *sorted(codes))
