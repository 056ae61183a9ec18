"""`gmmas synth`: files that readers take, the same for the same seed, and nothing done twice."""

import json

import jax
import nibabel as nib
import numpy as np
import pytest

from data_pipelines.readers import read_row
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cli import main, synthetic_cohort
from gmmas_jax.cli.synthetic_cohort import EFFECTS, GENERATOR
from gmmas_jax.synthesis.anatomy import FORMAT, anatomy_affine, quantised
from gmmas_jax.synthesis.effects import PLAIN
from tests.synthesis.coarse_head import SPACING, coarse_maps, coarse_priors

pytestmark = pytest.mark.slow


@pytest.fixture(name="synth", scope="module")
def _synth(tmp_path_factory):
    """Returns the function that makes a cohort in a folder, in a coarse head."""
    anatomy = tmp_path_factory.mktemp("anatomy") / "coarse.npz"
    arrays = {"maps": quantised(coarse_maps()), "priors": quantised(coarse_priors())}
    np.savez_compressed(anatomy, format=FORMAT, spacing_mm=SPACING, **arrays)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)

    def synth(out, patients, *options):
        words = ("synth", "--out", str(out), "--patients", str(patients), "--spacing", "8")
        with jax.numpy_rank_promotion("allow"):
            return main([*words, "--anatomy", str(anatomy), *options])

    yield synth
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(name="cohort", scope="module")
def _cohort(synth, tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    assert synth(out, 4, "--seed", "5", "--test", "1", "--val", "1") == 0
    return out


def test_manifest_and_files_are_what_readers_take(cohort):
    rows = read_manifest(cohort / "cohort.csv")
    assert [row.case_id for row in rows] == [f"SYN-0000{i}-000" for i in range(4)]
    assert [row.split for row in rows] == ["test", "val", "train", "train"]
    assert {row.label_convention for row in rows} == {"brats2023"}
    for row in rows:
        case = read_row(row, cohort)
        assert set(case.images) == {"t1n", "t1c", "t2w", "t2f"}
        assert case.tasks == row.tasks
        assert set(row.tasks) == {"idh", "codel_1p19q", "histology", "grade", "mgmt"}
        assert case.label is not None
        assert (case.label > 0).any()
        np.testing.assert_array_equal(case.grid.affine, anatomy_affine(8.0))


def test_files_have_the_names_and_types_of_brats(cohort):
    folder = cohort / "SYN-00000-000"
    for suffix, dtype in (("t1n", "int16"), ("t2f", "int16"), ("seg", "uint8")):
        image = nib.load(folder / f"SYN-00000-000-{suffix}.nii.gz")
        assert image.get_data_dtype() == dtype
        np.testing.assert_array_equal(image.affine, anatomy_affine(8.0))
        assert image.header.get_xyzt_units()[0] == "mm"
    assert not list(cohort.rglob(".*"))


def test_longer_cohort_begins_with_the_shorter_and_keeps_what_is_there(cohort, synth, tmp_path):
    options = ("--seed", "5", "--test", "1", "--val", "1")
    assert synth(tmp_path, 2, *options) == 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    lost = tmp_path / "SYN-00001-000" / "SYN-00001-000-t1c.nii.gz"
    lost.unlink()
    assert synth(tmp_path, 4, *options) == 0
    for path, time in times.items():
        again = path.parent.name == "SYN-00001-000"
        assert (path.stat().st_mtime_ns != time) == again
    for path in cohort.rglob("*.nii.gz"):
        assert (tmp_path / path.relative_to(cohort)).read_bytes() == path.read_bytes()
    assert (tmp_path / "cohort.csv").read_bytes() == (cohort / "cohort.csv").read_bytes()


def test_complete_cohort_generates_nothing(cohort, synth, monkeypatch):
    def never(*_):
        raise AssertionError("generated again")

    monkeypatch.setattr(synthetic_cohort, "_write_patient", never)
    assert synth(cohort, 4, "--seed", "5", "--test", "1", "--val", "1") == 0


def test_healthy_patients_have_an_empty_mask_and_no_type(cohort, synth, tmp_path):
    options = ("--seed", "5", "--test", "1", "--val", "1", "--healthy", "0.5")
    assert synth(tmp_path, 4, *options) == 0
    well = []
    for row, usual in zip(
        *(read_manifest(f / "cohort.csv") for f in (tmp_path, cohort)), strict=True
    ):
        case = read_row(row, tmp_path)
        assert case.label is not None
        well.append(not case.label.any())
        assert row.tasks == ({} if well[-1] else usual.tasks)
        # The others are the patients of a cohort without healthy ones.
        same = np.array_equal(case.images["t1n"], read_row(usual, cohort).images["t1n"])
        assert same == (not well[-1])
    assert {True, False} == set(well)


def test_full_effects_are_other_patients(cohort, synth, tmp_path):
    assert synth(tmp_path, 1, "--seed", "5", "--effects", "full") == 0
    (row,) = read_manifest(tmp_path / "cohort.csv")
    case, plain = read_row(row, tmp_path), read_row(row, cohort)
    assert not np.array_equal(case.images["t1c"], plain.images["t1c"])
    assert row.tasks == plain.tasks
    settings = json.loads((tmp_path / row.case_id / f"{row.case_id}.json").read_text())["settings"]
    assert settings["effects"] == "full"


def test_patients_of_other_strengths_do_not_count_as_there(cohort, synth, monkeypatch, capsys):
    stronger = PLAIN._replace(noise=PLAIN.noise._replace(magnitude=1.0))
    monkeypatch.setitem(EFFECTS, "plain", stronger)
    assert synth(cohort, 4, "--seed", "5") == 2
    assert "a patient made with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("patients", "options", "message"),
    [
        (4, ("--seed", "6"), f"expected {{'generator': {GENERATOR}, 'seed': 6"),
        (4, ("--seed", "5", "--effects", "full"), "'effects': 'full', 'healthy': 0.0"),
        (4, ("--seed", "5", "--healthy", "0.2"), "'effects': 'plain', 'healthy': 0.2"),
        (4, ("--healthy", "1.5"), "--healthy is 1.5; expected a share from 0 to 1"),
        (0, (), "--patients is 0; expected at least 1"),
        (4, ("--test", "3", "--val", "2"), "--test 3 and --val 2 are more than --patients 4"),
        (4, ("--workers", "0"), "--workers is 0; expected at least 1"),
        (4, ("--spacing", "nan"), "--spacing is nan; expected millimetres"),
        (4, ("--spacing", "4"), f"version {FORMAT} at 8 mm, expected version {FORMAT} at 4 mm"),
    ],
)
def test_mistakes(cohort, synth, capsys, patients, options, message):
    before = (cohort / "cohort.csv").read_bytes()
    assert synth(cohort, patients, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert (cohort / "cohort.csv").read_bytes() == before
