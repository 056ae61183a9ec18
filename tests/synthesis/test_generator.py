"""What a generated patient must be, whatever the draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.synthesis import generator
from gmmas_jax.synthesis.effects import PLAIN, Effect, Effects
from gmmas_jax.synthesis.frame import Frame, frame_at, whole_frame
from gmmas_jax.synthesis.generator import deform, draw_traits, generate, head_extent
from gmmas_jax.synthesis.genotype import HISTOLOGIES
from tests.synthesis.coarse_head import SPACING

DRAWS = 24
PER_PLACE = Effects().without(
    *("thick_slices", "blur", "misalignment", "ghosting", "noise"),
)
"""Without what acts along an image's axes and what is drawn per voxel."""


@pytest.fixture(name="patients", scope="module")
def _patients(draw):
    """Half of them tidy, half with all that may befall them."""
    return [
        draw(jax.random.fold_in(jax.random.key(3), i), effects=(PLAIN, Effects())[i % 2])
        for i in range(DRAWS)
    ]


def test_same_key_same_patient_other_key_another(draw):
    one, same, other = (draw(jax.random.key(seed), effects=Effects()) for seed in (5, 5, 6))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one["image"] != other["image"]).any()
    assert (one["label"] != other["label"]).any()


def test_a_patch_shows_the_patient_of_the_whole(draw):
    """The same voxels of the same patient, seen in a frame that begins elsewhere."""
    frame = whole_frame(SPACING)
    moved = np.array([3, 2, 4])
    patch = Frame(frame.start + frame.step * moved, frame.step, frame.shape)
    common = tuple(slice(step, None) for step in moved)
    seen = tuple(slice(0, size - step) for step, size in zip(moved, frame.shape, strict=True))
    for seed in range(6):
        whole, part = (
            draw(jax.random.key(seed), frame=f, effects=PER_PLACE) for f in (frame, patch)
        )
        differs = np.abs(whole["image"][common] - part["image"][seen])
        # A voxel on a border may round to the other side.
        assert (differs > 0.5).any(-1).mean() < 1e-3
        assert (whole["label"][common] != part["label"][seen]).mean() < 1e-3
        assert (whole["label"][common] > 0).any()


def test_a_finer_frame_shows_the_same_patient(draw):
    """Every second voxel of a frame of half the step lies where the coarse frame's do."""
    frame = whole_frame(SPACING)
    finer = Frame(frame.start + frame.step * 5, frame.step / 2, frame.shape)
    coarse = tuple(slice(5, 5 + (size + 1) // 2) for size in frame.shape)
    whole = draw(jax.random.key(2), effects=PER_PLACE)
    part = draw(jax.random.key(2), effects=PER_PLACE, frame=finer)
    differs = np.abs(whole["image"][coarse] - part["image"][::2, ::2, ::2])
    assert (differs > 0.5).any(-1).mean() < 2e-3


def test_mgmt_changes_nothing_that_can_be_seen(draw):
    """The same patient with the other MGMT status has the same image and mask, bit for bit."""
    one, other = (draw(jax.random.key(7), effects=Effects(), mgmt=status) for status in (0, 1))
    assert (one["tasks"].pop("mgmt"), other["tasks"].pop("mgmt")) == (0, 1)
    np.testing.assert_array_equal(one["image"], other["image"])
    np.testing.assert_array_equal(one["label"], other["label"])
    assert one["tasks"] == other["tasks"]


def test_the_healthy_have_no_tumour(draw):
    """No label, and nothing that depends on one: the image is the same whatever its effects."""
    names = ("faint", "thin_ring", "solid_enhancement", "specks", "haemorrhage", "cyst")
    names += ("multifocal", "butterfly", "midline_shift", "infiltration")
    always = {name: getattr(Effects(), name)._replace(probability=1.0) for name in names}
    for seed in range(4):
        key = jax.random.key(seed)
        ill, well = (draw(key, effects=PER_PLACE, healthy=state) for state in (False, True))
        assert (ill["label"] > 0).any()
        assert not (well["label"] > 0).any()
        assert (ill["image"] != well["image"]).any()
        again = draw(key, effects=PER_PLACE._replace(**always), healthy=True)
        np.testing.assert_array_equal(well["image"], again["image"])


def test_shapes_are_static_and_known(anatomy):
    keys = jax.random.split(jax.random.key(0), 2)
    patient = jax.eval_shape(jax.vmap(functools.partial(generate, anatomy=anatomy)), keys)
    assert (patient["image"].shape, patient["image"].dtype) == ((2, 20, 24, 20, 4), jnp.float32)
    assert (patient["label"].shape, patient["label"].dtype) == ((2, 20, 24, 20), jnp.int32)
    assert {(v.shape, str(v.dtype)) for v in patient["tasks"].values()} == {((2,), "int32")}


def test_images_are_skull_stripped_scans(patients):
    for patient in patients:
        image = patient["image"]
        assert np.isfinite(image).all()
        inside = image > 0
        # One brain for all four sequences, zero around it, and no hole in it.
        assert (inside.all(-1) == inside.any(-1)).all()
        assert (image[~inside] == 0).all()
        brain = inside[..., 0]
        assert 0.12 < brain.mean() < 0.5
        assert (ndimage.binary_fill_holes(brain) == brain).all()
        assert 100 < image[brain].mean() < 900


def test_tumours_are_of_plausible_size_and_inside_the_brain(patients):
    for patient in patients:
        label, brain = patient["label"], patient["image"][..., 0] > 0
        assert set(np.unique(label)) <= {0, 1, 2, 3}
        assert not (label[~brain] > 0).any()
        assert (label > 0).sum() * SPACING**3 / 1000 < 600
    sizes = [(patient["label"] > 0).sum() * SPACING**3 / 1000 for patient in patients]
    assert np.median(sizes) > 20
    assert np.mean([size > 1 for size in sizes]) > 0.95
    assert {1, 2, 3} <= set(np.concatenate([np.unique(patient["label"]) for patient in patients]))


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


@pytest.mark.parametrize("bent", [False, True])
def test_the_centre_is_followed_to_where_the_deformation_puts_it(anatomy, monkeypatch, bent):
    effects = PLAIN._replace(head_shape=Effect(1.0, 1.5)) if bent else PLAIN
    place = jnp.array([38.0, -52.0, 44.0])
    monkeypatch.setattr(generator, "draw_centre", lambda *_: place)

    @jax.jit
    def follow(keys):
        def one(key):
            traits = draw_traits(key, anatomy, effects)
            head, bend = traits.keys["deform"], traits.habit.bend
            shown = deform(head, frame_at(traits.centre), bend).reshape(3)
            return traits.centre, traits.mirror, traits.mirror * shown - place

        return jax.lax.map(one, keys)

    centre, mirror, error = follow(jax.random.split(jax.random.key(4), 100))
    assert np.abs(error).max() < 0.1
    assert set(np.unique(mirror[:, 0])) == {-1, 1}
    assert (mirror[:, 1:] == 1).all()
    # It is far from where it was drawn: something was followed.
    assert np.abs(centre - mirror * place).max() > 5
    assert (np.sign(centre[:, 0]) == mirror[:, 0]).all()


def test_bending_scales_the_elastic_part_of_a_head():
    """The affine part has no second differences; the elastic one's grow with the bend."""
    key, frame = jax.random.key(2), whole_frame(16.0)
    straight, usual, twice = (
        np.asarray(deform(jax.random.clone(key), frame, bend)) for bend in (0.0, 1.0, 2.0)
    )
    for axis in (1, 2, 3):
        np.testing.assert_allclose(np.diff(straight, n=2, axis=axis), 0, atol=1e-3)
        bent = np.diff(usual, n=2, axis=axis)
        np.testing.assert_allclose(np.diff(twice, n=2, axis=axis), 2 * bent, atol=1e-3)
        assert np.abs(bent).max() > 1.0


def test_head_extent_is_the_box_of_the_brain(anatomy):
    @jax.jit
    def measure(key):
        traits = draw_traits(key, anatomy, PLAIN)
        frame = whole_frame(SPACING)
        brain = generator.sample_anatomy(anatomy, generator._in_atlas(traits, anatomy, frame))[
            ..., 0
        ]
        return brain, head_extent(traits, anatomy, PLAIN, spacing_mm=SPACING)

    brain, (low, high) = jax.device_get(measure(jax.random.key(1)))
    corners = np.argwhere(brain > 0.5).min(0), np.argwhere(brain > 0.5).max(0) + 1
    box = np.array([[-80, -114, -74]]) + SPACING * np.array(corners)
    np.testing.assert_allclose(np.stack([low, high]), box, atol=1e-3)
