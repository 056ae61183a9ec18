"""MU-Net by the verbs: trained on slices, predicted over a volume, evaluated, and refused input."""

import json

import nibabel as nib
import numpy as np
import pytest

from gmmas_jax.cli import main
from gmmas_jax.export.weights import load_weights
from gmmas_jax.inference.predictor import Predictor
from tests.cli.cohorts import SHAPE, write_cohort

pytestmark = pytest.mark.slow

SMALL = (
    "--config.data.spacing_mm=1.0",
    "--config.data.patch=16,16,1",
    "--config.inference.window=16,16,4",
    "--config.inference.min_island_ml=0.0",
)


@pytest.fixture(name="cohort", scope="module")
def _cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(name="train", scope="module")
def _train(cohort):
    def train(workdir, *options, cohort=cohort):
        words = ("train", "--config", "configs/munet.py:debug", "--cohort", str(cohort))
        return main([*words, "--workdir", str(workdir), "--processes", "none", *SMALL, *options])

    return train


@pytest.fixture(name="weights", scope="module")
def _weights(train, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert train(workdir) == 0
    return workdir / "weights"


def test_weights_say_what_they_are(weights):
    assert load_weights(weights).config["model"]["fusion"] == "msf"
    card = (weights / "model_card.md").read_text()
    assert "MU-Net" in card
    assert "From t1c and t2f" in card


def test_a_volume_is_predicted_as_a_whole_tumour(weights, cohort, tmp_path):
    case = cohort.parent / "case-0"
    assert main(["predict", str(case), "--weights", str(weights), "--out", str(tmp_path)]) == 0
    mask = nib.load(tmp_path / "seg.nii.gz")
    assert mask.shape == SHAPE
    assert set(np.unique(mask.dataobj)) <= {0, 1}
    findings = json.loads((tmp_path / "findings.json").read_text())
    assert set(findings["volumes_ml"]["regions"]) == {"WT"}
    assert set(findings["volumes_ml"]["labels"]) == {"TU"}
    assert findings["model"]["name"] == "MU-Net"


def test_it_is_evaluated_by_whole_tumour_and_the_subsets_it_can_use(weights, cohort, tmp_path):
    words = ("--weights", str(weights), "--cohort", str(cohort), "--split", "all")
    assert main(["evaluate", *words, "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["regions"]) == {"WT"}
    assert set(metrics["subsets"]) == {"t1c+t2f", "t1n+t1c+t2f", "t1c+t2w+t2f", "t1n+t1c+t2w+t2f"}


def test_a_missing_sequence_is_refused_by_name_or_substituted(weights, cohort, tmp_path, capsys):
    case = tmp_path / "case"
    case.mkdir()
    for name in ("t1n", "t1c", "t2w"):
        (case / f"{name}.nii.gz").symlink_to(cohort.parent / "case-0" / f"{name}.nii.gz")
    words = ["predict", str(case), "--out", str(tmp_path / "out"), "--weights", str(weights)]
    assert main(words) == 2
    assert "t2f missing; expected t1c and t2f" in capsys.readouterr().err

    loaded = load_weights(weights)
    config = json.loads(json.dumps(dict(loaded.config)))
    config["inference"]["substitutes"] = ["t2f:t2w"]
    predictor = Predictor(type(loaded)(loaded.params, loaded.batch_stats, config))
    image = np.random.default_rng(0).normal(size=(12, 10, 4, 4)).astype(np.float32)
    shown = image.copy()
    shown[..., 3] = image[..., 2]
    found, mask = predictor._substituted(image, np.array([1, 1, 1, 0], np.float32))
    np.testing.assert_array_equal(found, shown)
    assert mask.tolist() == [1, 1, 1, 1]


def test_training_refuses_a_case_without_a_needed_sequence(train, tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", t2f=None)
    assert train(tmp_path / "run", cohort=cohort) == 2
    assert "case-0: has no t2f; expected t1c and t2f" in capsys.readouterr().err
    assert train(tmp_path / "run", "--config.inference.substitutes=t2f:t2w,", cohort=cohort) == 0


def test_slices_are_one_voxel_deep(train, tmp_path, capsys):
    assert train(tmp_path, "--config.data.patch=16,16,2") == 2
    assert "expected a depth of 1 with data.slices=lesion" in capsys.readouterr().err


def test_thick_anisotropic_slices_come_back_on_their_own_grid(weights, cohort, tmp_path):
    case = tmp_path / "case"
    case.mkdir()
    affine = np.diag([0.5, 1.0, 4.0, 1.0])
    for name in ("t1c", "t2f"):
        image = nib.load(cohort.parent / "case-0" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(image.get_fdata(), affine), case / f"{name}.nii.gz")
    words = ["predict", str(case), "--weights", str(weights), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    mask = nib.load(tmp_path / "out" / "seg.nii.gz")
    assert mask.shape == SHAPE
    np.testing.assert_allclose(mask.affine, affine)


def test_a_frame_that_the_strides_do_not_divide_is_refused(train, tmp_path, capsys):
    assert train(tmp_path, "--config.data.patch=10,10,1") == 2
    assert "(10, 10) pixels; expected multiples of 4" in capsys.readouterr().err
