"""The bricks of the generator against SciPy, and the rule that makes fractions a label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.synthesis.fields import (
    as_channels,
    blur_matrix,
    ghost_matrix,
    mix_along,
    noise,
    octave_noise,
    shift_matrix,
)
from gmmas_jax.synthesis.frame import Frame, frame_at, whole_frame
from gmmas_jax.synthesis.tumour import Tumour


@pytest.fixture(name="line", scope="module")
def _line():
    return np.random.default_rng(0).normal(size=24).astype(np.float32)


seen_noise = jax.jit(noise, static_argnames="scale_mm")


def _every_4_mm(key, scale_mm):
    return np.asarray(seen_noise(key, whole_frame(4.0), scale_mm=scale_mm))


@pytest.mark.parametrize("scale_mm", [3.5, 11.0])
def test_noise_has_mean_0_and_deviation_1(scale_mm):
    fields = np.stack([_every_4_mm(jax.random.key(seed), scale_mm) for seed in range(4)])
    # Four deviations of the mean of as many nodes, each of which weighs 3 on the field.
    nodes = fields.size * (4.0 / scale_mm) ** 3
    assert fields.mean() == pytest.approx(0, abs=12 / np.sqrt(nodes))
    assert fields.std() == pytest.approx(1, abs=0.03)
    # At every distance from the lattice's nodes: the mean over places and not of them.
    assert fields[:, :, :, ::4].std() == pytest.approx(1, abs=0.2)


def test_octaves_have_mean_0_and_deviation_1():
    draw = jax.jit(lambda key: octave_noise(key, whole_frame(4.0), scales_mm=(12.0, 5.0)))
    fields = [draw(jax.random.key(seed)) for seed in range(4)]
    assert np.mean(fields) == pytest.approx(0, abs=0.1)
    assert np.std(fields) == pytest.approx(1, abs=0.04)


def test_noise_is_a_function_of_place_and_key():
    whole = _every_4_mm(jax.random.key(1), 11.0)
    frame = whole_frame(4.0)
    part = Frame(frame.start + frame.step * jnp.array([3, 5, 7]), frame.step, (6, 7, 8))
    seen = seen_noise(jax.random.key(1), part, scale_mm=11.0)
    np.testing.assert_allclose(seen, whole[3:9, 5:12, 7:15], atol=1e-4)
    finer = Frame(frame.start, frame.step / 2, (12, 12, 12))
    seen = seen_noise(jax.random.key(1), finer, scale_mm=11.0)[::2, ::2, ::2]
    np.testing.assert_allclose(seen, whole[:6, :6, :6], atol=1e-4)
    point = frame.start + frame.step * jnp.array([30, 20, 10])
    alone = seen_noise(jax.random.key(1), frame_at(point), scale_mm=11.0)
    assert float(alone.squeeze()) == pytest.approx(whole[30, 20, 10], abs=1e-4)
    assert np.abs(_every_4_mm(jax.random.key(2), 11.0) - whole).mean() > 0.5


def test_noise_is_smooth_at_its_scale():
    change = [np.diff(_every_4_mm(jax.random.key(3), mm), axis=0).std() for mm in (11.0, 44.0)]
    assert change[0] / change[1] == pytest.approx(4, rel=0.5)


def test_frames_lie_where_they_say():
    frame = whole_frame(2.0)
    assert frame.shape == (80, 96, 80)
    np.testing.assert_allclose(frame.points()[:, 0, 0, 0], [-79, -113, -73])
    np.testing.assert_allclose(frame.points()[:, -1, -1, -1], [79, 77, 85])


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_blur_is_a_gaussian_of_what_is_inside(line, sigma):
    def blurred(values):
        return ndimage.gaussian_filter1d(values, sigma, mode="constant", truncate=9.0)

    expected = blurred(line) / blurred(np.ones_like(line))
    np.testing.assert_allclose(blur_matrix(24, jnp.float32(sigma)) @ line, expected, atol=1e-3)


def test_blur_of_nothing_changes_nothing():
    np.testing.assert_allclose(blur_matrix(9, jnp.float32(0.0)), np.eye(9), atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1.0, 0.3, -2.7, 30.0])
def test_shift_is_linear_with_edges_repeated(line, shift):
    expected = ndimage.shift(line, -shift, order=1, mode="nearest")
    np.testing.assert_allclose(shift_matrix(24, jnp.float32(shift)) @ line, expected, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 5.2, 30.0])
def test_ghost_folds_over(line, shift):
    expected = np.roll(line, -round(shift))
    np.testing.assert_array_equal(ghost_matrix(24, jnp.float32(shift)) @ line, expected)


def test_planes_become_channels_in_their_order():
    planes = np.random.default_rng(1).normal(size=(4, 3, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(as_channels(list(planes)), np.moveaxis(planes, 0, -1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mixing_acts_along_one_axis(axis):
    generator = np.random.default_rng(1)
    volume = generator.normal(size=(3, 4, 5)).astype(np.float32)
    matrix = generator.normal(size=(6, volume.shape[axis])).astype(np.float32)
    expected = np.moveaxis(np.tensordot(matrix, volume, (1, axis)), 0, axis)
    mixed = mix_along(jnp.asarray(volume), jnp.asarray(matrix), axis=axis)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("core", "oedema", "enhancing", "label"),
    [
        (0.0, 0.0, 0.0, 0),
        (0.4, 0.1, 0.1, 0),
        (0.2, 0.1, 0.2, 0),
        (0.5, 0.3, 0.1, 1),
        (0.3, 0.5, 0.1, 2),
        (0.1, 0.3, 0.5, 3),
        (0.3, 0.1, 0.5, 3),
    ],
)
def test_label_is_the_class_of_the_largest_fraction(core, oedema, enhancing, label):
    parts = dict.fromkeys(Tumour._fields, 0.0)
    # Five tissues count as one core.
    parts |= dict.fromkeys(("necrosis", "solid", "mucinous", "calcium", "blood"), core / 5)
    parts |= {"oedema": oedema, "enhancing": enhancing}
    tumour = Tumour(**{name: jnp.full((1, 1, 1), value) for name, value in parts.items()})
    found = tumour.label(frame_at(jnp.zeros(3)))
    assert found.dtype == jnp.int32
    assert int(found[0, 0, 0]) == label


@pytest.mark.parametrize(("oedema", "label"), [(0.30, 0), (0.36, 2), (0.49, 2)])
def test_oedema_that_fades_is_labelled_from_its_margin_on(oedema, label):
    parts = dict.fromkeys(Tumour._fields, jnp.zeros((1, 1, 1)))
    tumour = Tumour(**parts | {"oedema": jnp.full((1, 1, 1), oedema)})
    assert int(tumour.label(frame_at(jnp.zeros(3)), margin=1 / 3)[0, 0, 0]) == label
    assert int(tumour.label(frame_at(jnp.zeros(3)))[0, 0, 0]) == 0


def test_a_margin_does_not_take_from_the_core():
    parts = dict.fromkeys(Tumour._fields, jnp.zeros((1, 1, 1)))
    half = {"oedema": jnp.full((1, 1, 1), 0.4), "solid": jnp.full((1, 1, 1), 0.5)}
    label = Tumour(**parts | half).label(frame_at(jnp.zeros(3)), margin=1 / 3)
    assert int(label[0, 0, 0]) == 1
