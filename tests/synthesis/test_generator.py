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


def test_vmap_gives_the_same_patients(compiled, anatomy):
    keys = jax.random.split(jax.random.key(7), 2)
    lowered = jax.jit(jax.vmap(generate, in_axes=(0, None))).lower(keys, anatomy)
    together = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(
        keys, anatomy
    )
    for i, key in enumerate(keys):
        alone = compiled(key)
        # Sums are ordered otherwise; a voxel on a border may fall to the other side.
        difference = np.abs(np.asarray(together["image"][i]) - alone["image"])
        assert np.quantile(difference, 0.99) < 0.5
        assert (np.asarray(together["label"][i]) != alone["label"]).mean() < 0.002
        for task, value in alone["tasks"].items():
            assert together["tasks"][task][i] == value


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


def test_mgmt_changes_nothing_that_can_be_seen(anatomy, monkeypatch):
    """The same patient with the other MGMT status has the same image and mask, bit for bit."""
    draw = generator.draw_genotype

    def with_mgmt(status):
        def drawn(key):
            return draw(key)._replace(mgmt=jnp.int32(status))

        monkeypatch.setattr(generator, "draw_genotype", drawn)
        # A new function: what was traced before must not be used again.
        lowered = jax.jit(lambda key, maps: generate(key, maps)).lower(jax.random.key(0), anatomy)
        compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
        return jax.device_get(compiled(jax.random.key(11), anatomy))

    without, with_methylation = with_mgmt(0), with_mgmt(1)
    assert (without["tasks"]["mgmt"], with_methylation["tasks"]["mgmt"]) == (0, 1)
    np.testing.assert_array_equal(without["image"], with_methylation["image"])
    np.testing.assert_array_equal(without["label"], with_methylation["label"])
