"""What a generated patient must be, whatever the draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.synthesis import generator
from gmmas_jax.synthesis.generator import generate
from gmmas_jax.synthesis.genotype import HISTOLOGIES

DRAWS = 24


@pytest.fixture(name="patients", scope="module")
def _patients(compiled):
    return [compiled(jax.random.fold_in(jax.random.key(3), i)) for i in range(DRAWS)]


def test_same_key_same_patient_other_key_another(compiled):
    one, same, other = (compiled(jax.random.key(seed)) for seed in (5, 5, 6))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one["image"] != other["image"]).any()
    assert (one["label"] != other["label"]).any()


@pytest.fixture(name="together", scope="module")
def _together(anatomy):
    """Patients by `vmap`: two keys, the first with either MGMT status, whatever was drawn."""
    draw = generator.draw_genotype

    def with_status(key, status):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generator, "draw_genotype", lambda k: draw(k)._replace(mgmt=status))
            return generate(key, anatomy)

    keys = jax.random.wrap_key_data(jax.random.key_data(jax.random.split(jax.random.key(7), 2)))
    arguments = (keys[jnp.array([0, 0, 1])], jnp.array([0, 1, 0]))
    lowered = jax.jit(jax.vmap(with_status)).lower(*arguments)
    function = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    return keys, jax.device_get(function(*arguments))


@pytest.mark.slow
def test_vmap_gives_the_same_patients(compiled, together):
    keys, patients = together
    for key, position in zip(keys, (0, 2), strict=True):
        alone = compiled(key)
        # Sums are ordered otherwise; a voxel on a border may fall to the other side.
        difference = np.abs(patients["image"][position] - alone["image"])
        assert np.quantile(difference, 0.99) < 0.5
        assert (patients["label"][position] != alone["label"]).mean() < 0.002
        for task in ("idh", "codel_1p19q", "histology", "grade"):
            assert patients["tasks"][task][position] == alone["tasks"][task]


@pytest.mark.slow
def test_mgmt_changes_nothing_that_can_be_seen(together):
    """The same patient with the other MGMT status has the same image and mask, bit for bit."""
    _, patients = together
    assert patients["tasks"]["mgmt"].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(patients["image"][0], patients["image"][1])
    np.testing.assert_array_equal(patients["label"][0], patients["label"][1])
    assert (patients["image"][0] != patients["image"][2]).any()


def test_shapes_are_static_and_known(anatomy):
    patient = jax.eval_shape(generate, jax.random.key(0), anatomy)
    assert (patient["image"].shape, patient["image"].dtype) == ((20, 24, 20, 4), jnp.float32)
    assert (patient["label"].shape, patient["label"].dtype) == ((20, 24, 20), jnp.int32)
    assert {(v.shape, str(v.dtype)) for v in patient["tasks"].values()} == {((), "int32")}


def test_images_are_skull_stripped_scans(patients):
    for patient in patients:
        image = patient["image"]
        assert np.isfinite(image).all()
        assert image.min() == 0
        inside = image > 0
        # One brain for all four sequences.
        assert (inside.all(-1) == inside.any(-1)).all()
        assert 0.2 < inside[..., 0].mean() < 0.7
        assert 100 < image[inside[..., 0]].mean() < 900
        assert not inside[0].any() or inside[0].mean() < 0.5


def test_tumours_are_of_plausible_size_and_inside_the_brain(patients):
    for patient in patients:
        label, brain = patient["label"], patient["image"][..., 0] > 0
        assert set(np.unique(label)) <= {0, 1, 2, 3}
        assert not (label[~brain] > 0).any()
        millilitres = (label > 0).sum() * 8.0**3 / 1000
        assert 1 < millilitres < 600
        core = np.isin(label, (1, 3)).sum() * 8.0**3 / 1000
        assert core > 0.5
    assert any((patient["label"] == 3).any() for patient in patients)


def test_tasks_agree_with_each_other(patients):
    for patient in patients:
        tasks = {name: int(value) for name, value in patient["tasks"].items()}
        histology = HISTOLOGIES[tasks["histology"]]
        assert TASKS["histology"][tasks["histology"]] == histology
        assert tasks["idh"] == (histology != "glioblastoma")
        assert tasks["codel_1p19q"] == (histology == "oligodendroglioma")
        grade = TASKS["grade"][tasks["grade"]]
        if histology == "glioblastoma":
            assert grade == "4"
        if histology == "oligodendroglioma":
            assert grade in ("2", "3")
    for task in ("idh", "codel_1p19q", "mgmt"):
        assert {int(patient["tasks"][task]) for patient in patients} == {0, 1}
