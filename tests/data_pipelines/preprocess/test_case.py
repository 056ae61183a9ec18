"""A small head through the whole of preprocessing, and what is refused or flagged."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.preprocess import brain, registration, surface
from data_pipelines.preprocess import cohort as cohort_module
from data_pipelines.preprocess.atlas import Atlas, load_atlas
from data_pipelines.preprocess.brain import is_stripped, tool_mask
from data_pipelines.preprocess.case import preprocess_case
from data_pipelines.preprocess.cohort import preprocess_cohort
from data_pipelines.preprocess.native import to_native
from data_pipelines.preprocess.quality import faults
from data_pipelines.preprocess.settings import Settings
from gmmas_jax.cases.manifest import Row, read_manifest
from gmmas_jax.errors import UserError
from tests.data_pipelines.preprocess.heads import anatomy, atlas_file, grid, sequence, write
from tests.data_pipelines.preprocess.test_registration import motion

REAL = Path(__file__).resolve().parents[4] / "shared/data"
GRIDS = {
    "t1c": grid(),
    "t2f": grid(shape=(56, 64, 28), spacing=(3.2, 3.2, 6.0), turn=12),  # Thick and oblique.
}
MOTIONS = {"t1c": None, "t2f": np.linalg.inv(motion(5, (4, -3, 3)))}
SETTINGS = Settings(brain_extraction="atlas", spacing_mm=3.0)


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """Small heads need few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "_SAMPLES", 5000)
        patch.setattr(brain, "_SHIFTS_MM", (0.0, 10.0))
        patch.setattr(brain, "_PITCHES", (0.0,))
        patch.setattr(surface, "_DIRECTIONS", 1000)
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return atlas_file(tmp_path_factory.mktemp("atlas") / "template.nii.gz")


@pytest.fixture(scope="module")
def atlas(template: Path) -> Atlas:
    return load_atlas(template, spacing_mm=3.0)


@pytest.fixture(scope="module")
def exam(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exam")
    for name, where in GRIDS.items():
        image = sequence(name, where, motion=MOTIONS[name])
        write(folder / f"{name}.nii.gz", image, where)
    label = np.zeros(GRIDS["t2f"].shape, np.uint8)
    label[20:30, 30:40, 12:18] = 2
    label[23:27, 33:37, 14:16] = 3
    write(folder / "seg.nii.gz", label, GRIDS["t2f"])
    return folder


@pytest.fixture(scope="module")
def done(exam: Path, atlas: Atlas, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out") / "head"
    images = {name: exam / f"{name}.nii.gz" for name in GRIDS}
    seg = exam / "seg.nii.gz"
    return out, preprocess_case("head", images, out, atlas, SETTINGS, seg=seg)


def test_a_head_becomes_a_brain_on_the_atlas_grid(done):
    out, record = done
    assert record["verdict"] == "pass", record["faults"]
    assert record["reference"] == "t1c"
    template = load_atlas_grid(record)
    for name in GRIDS:
        image = nib.load(out / f"head-{name}.nii.gz")
        np.testing.assert_allclose(image.affine, template, atol=1e-5)
        assert (np.asarray(image.dataobj) == 0).mean() > 0.3
    volume = 4 / 3 * np.pi * 66 * 82 * 62 / 1000
    assert record["quality"]["brain_ml"] == pytest.approx(volume, rel=0.12)
    rows = record["quality"]["sequences"]
    assert rows["t2f"]["information_after"] > rows["t2f"]["information_before"]
    assert (out / "qc.png").read_bytes().startswith(b"\x89PNG")


def load_atlas_grid(record: dict) -> np.ndarray:
    return np.array(record["grid"]["affine"])


def test_the_brain_is_where_it_was_made(done):
    """Every voxel of the result, traced back to the head, lies in the brain."""
    out, record = done
    image = nib.load(out / "head-t1c.nii.gz")
    points = nib.affines.apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) != 0))
    pose = np.array(record["atlas_to_reference"]["pose"])
    depth, _, _ = anatomy(nib.affines.apply_affine(pose, points))
    assert (depth > -4).mean() > 0.98
    assert np.percentile(depth, 2) < 6  # And it reaches the brain's surface.


def test_masks_come_back_to_every_native_grid(done, exam: Path):
    out, _ = done
    mask = np.asarray(nib.load(out / "head-seg.nii.gz").dataobj)
    assert set(np.unique(mask)) == {0, 2, 3}
    native = to_native(mask, out)
    assert {name: m.shape for name, m in native.items()} == {n: g.shape for n, g in GRIDS.items()}
    drawn = np.asarray(nib.load(exam / "seg.nii.gz").dataobj) > 0
    back = native["t2f"] > 0
    assert 2 * (drawn & back).sum() / (drawn.sum() + back.sum()) > 0.85
    # The same tissue in the other sequence, which has its own grid and motion.
    centre = [np.argwhere(native[n] > 0).mean(0) for n in GRIDS]
    heads = [
        nib.affines.apply_affine(m if m is not None else np.eye(4), nib.affines.apply_affine(a, c))
        for c, a, m in zip(
            centre, (g.affine for g in GRIDS.values()), MOTIONS.values(), strict=True
        )
    ]
    assert np.linalg.norm(heads[0] - heads[1]) < 2.0
    with pytest.raises(UserError, match="expected"):
        to_native(mask[1:], out)


def test_a_mask_on_no_sequences_grid_is_refused(exam: Path, atlas: Atlas, tmp_path: Path):
    other = grid(shape=(20, 20, 20))
    seg = write(tmp_path / "seg.nii.gz", np.ones(other.shape, np.uint8), other)
    images = {"t1c": exam / "t1c.nii.gz"}
    with pytest.raises(UserError, match="on the grid of no sequence"):
        preprocess_case("c", images, tmp_path / "out", atlas, SETTINGS, seg=seg)


def test_codes_beside_numbered_channels_are_not_guessed(atlas: Atlas, tmp_path: Path):
    where = grid()
    image = tmp_path / "X_0000.nii.gz"
    write(image, sequence("t1c", where, skull=False), where)
    label = np.zeros(where.shape, np.uint8)
    label[20:30, 30:40, 20:30] = 2
    label[23:27, 33:37, 23:27] = 3
    label[25, 35, 25] = 1
    seg = write(tmp_path / "X.nii.gz", label, where)
    with pytest.raises(UserError, match=r"ambiguous.*Declare the label convention"):
        preprocess_case("x", {"t1c": image}, tmp_path / "out", atlas, SETTINGS, seg=seg)


def test_another_extractor_found_by_itself_is_another_result(atlas: Atlas, monkeypatch):
    def fingerprint(found: str, asked: str = "auto") -> str:
        monkeypatch.setattr(cohort_module, "installed", lambda: found)
        return cohort_module._fingerprint({}, None, None, atlas, Settings(brain_extraction=asked))

    assert fingerprint("hd-bet") != fingerprint("atlas") == fingerprint("hd-bet", asked="atlas")


def test_a_skull_stripped_exam_is_not_stripped_twice(atlas: Atlas, tmp_path: Path):
    where = grid()
    for name in ("t1n", "t2w"):
        write(tmp_path / f"{name}.nii.gz", sequence(name, where, skull=False), where)
    assert is_stripped(sequence("t1n", where, skull=False), where)
    assert not is_stripped(sequence("t1n", where), where)
    images = {name: tmp_path / f"{name}.nii.gz" for name in ("t1n", "t2w")}
    record = preprocess_case("s", images, tmp_path / "out", atlas, SETTINGS)
    assert record["brain_extraction"] == "given"
    assert record["reference"] == "t1n"
    assert any("no t1c" in note for note in record["notes"])
    given = (sequence("t1n", where, skull=False) != 0).sum() * where.voxel_ml
    assert record["quality"]["brain_ml"] == pytest.approx(given, rel=0.03)


@pytest.mark.parametrize("shape", [(60, 70, 4), (60, 6, 56)])
def test_a_slab_is_refused(shape, atlas: Atlas, tmp_path: Path):
    where = grid(shape=shape)
    path = write(tmp_path / "t1c.nii.gz", sequence("t1c", where), where)
    with pytest.raises(UserError, match="expected a head, at least"):
        preprocess_case("c", {"t1c": path}, tmp_path / "out", atlas, SETTINGS)


def test_noise_without_a_head_is_refused_or_flagged(atlas: Atlas, tmp_path: Path):
    where = grid()
    noise = np.random.default_rng(0).uniform(1, 2, where.shape).astype(np.float32)
    path = write(tmp_path / "t1c.nii.gz", noise, where)
    try:
        record = preprocess_case("c", {"t1c": path}, tmp_path / "out", atlas, SETTINGS)
    except UserError:
        return
    assert record["verdict"] == "fail"


def test_each_threshold_has_words():
    good = {
        "brain_ml": 1400.0,
        "atlas_dice": 0.95,
        "cut": 0.0,
        "rim": 0.3,
        "sequences": {
            "t1c": {"clipped": 0.0},
            "t2w": {"clipped": 0.0, "information_after": 0.4, "displacement_mm": 5.0},
        },
    }
    assert faults(good) == []
    for key, value, word in (
        ("brain_ml", 300.0, "300 mL"),
        ("atlas_dice", 0.5, "0.50"),
        ("cut", 0.2, "20.0%"),
        ("rim", 0.97, "97%"),
    ):
        (told,) = faults(good | {key: value})
        assert word in told
    for key, value, word in (
        ("information_after", 0.02, "another patient"),
        ("displacement_mm", 90.0, "90 mm"),
        ("clipped", 0.5, "clipped"),
    ):
        row = good["sequences"]["t2w"] | {key: value}
        (told,) = faults(good | {"sequences": {"t2w": row}})
        assert word in told


@pytest.mark.slow
def test_a_cohort_resumes_and_names_what_failed(exam: Path, template: Path, tmp_path: Path):
    images = {name: str(exam / f"{name}.nii.gz") for name in GRIDS}
    rows = [
        Row(case_id="a", patient_id="a", split="test", seg=str(exam / "seg.nii.gz"), **images),
        Row(case_id="gone", patient_id="b", t1c="nowhere.nii.gz"),
    ]

    def run():
        return preprocess_cohort(
            rows, tmp_path, tmp_path / "out", settings=SETTINGS, atlas=template
        )

    made, failed, errors = run()
    assert [row.case_id for row in made] == ["a"]
    assert failed == {}
    assert "nowhere.nii.gz" in str(errors["gone"])
    (row,) = read_manifest(tmp_path / "out/cohort.csv")
    assert row.quality == "pass"
    assert row.split == "test"
    assert (tmp_path / "out" / row.t2f).is_file()
    before = (tmp_path / "out/a/preprocess.json").stat().st_mtime_ns
    run()
    assert (tmp_path / "out/a/preprocess.json").stat().st_mtime_ns == before
    (tmp_path / "out/a/a-t2f.nii.gz").unlink()  # A lost file is made again.
    cohort_module._atlas.cache_clear()
    run()
    assert (tmp_path / "out/a/a-t2f.nii.gz").is_file()
    assert (tmp_path / "out/a/preprocess.json").stat().st_mtime_ns > before


def test_an_id_cannot_lead_out_of_the_output_folder(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        preprocess_cohort(
            [Row(case_id="../x", patient_id="x")], tmp_path, tmp_path / "out", settings=SETTINGS
        )


def test_atlases_that_are_none(tmp_path: Path):
    where = grid()
    head = write(tmp_path / "head.nii.gz", sequence("t1n", where), where)
    with pytest.raises(UserError, match="--atlas-mask"):
        load_atlas(head)
    mask = write(tmp_path / "mask.nii.gz", np.ones((5, 5, 5), np.uint8), grid(shape=(5, 5, 5)))
    with pytest.raises(UserError, match="not on the grid of"):
        load_atlas(head, mask=mask)
    inside = (sequence("t1n", where, skull=False) != 0).astype(np.uint8)
    masked = load_atlas(head, mask=write(tmp_path / "brain.nii.gz", inside, where))
    assert masked.grid.shape == tuple(3 * n for n in where.shape)


def test_a_program_that_is_not_there(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no program mri_synthstrip.*atlas"):
        tool_mask(np.zeros((4, 4, 4), np.float32), grid(shape=(4, 4, 4)), "synthstrip")


def test_a_program_that_is_there_is_used(monkeypatch, tmp_path: Path):
    program = tmp_path / "mri_synthstrip"
    program.write_text('#!/bin/sh\n/bin/cp "$2" "$4"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    image = np.zeros((6, 6, 6), np.float32)
    image[2:4, 2:4, 2:4] = 5
    found = tool_mask(image, grid(shape=image.shape), "synthstrip")
    np.testing.assert_array_equal(found, image > 0)
    program.write_text("#!/bin/sh\necho no weights >&2\nexit 3\n")
    with pytest.raises(UserError, match="exit code 3, it said: no weights"):
        tool_mask(image, grid(shape=image.shape), "synthstrip")


@pytest.mark.parametrize("field", ["reference", "brain_extraction", "fit", "normalise"])
def test_settings_refuse_unknown_names(field: str):
    with pytest.raises(UserError, match=f"{field} is 'x'; expected one of"):
        Settings(**{field: "x"})


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cases in {REAL}")
def test_the_real_sri24_file_is_an_atlas():
    atlas = load_atlas(REAL / "atlas/sri24-t1-brain.nii.gz")
    assert atlas.grid.shape == (240, 240, 155)
