"""The cached anatomy file, and the head that it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.errors import UserError
from gmmas_jax.synthesis import generator
from gmmas_jax.synthesis.anatomy import (
    CHANNELS,
    FORMAT,
    PRIORS,
    anatomy_affine,
    load_anatomy,
    quantised,
    sample_anatomy,
)
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.frame import BOX_MM, Frame, whole_frame
from tests.synthesis.coarse_head import SPACING, coarse_maps, coarse_priors

BRAIN, GREY, WHITE, VENTRICLES = (
    CHANNELS.index(name) for name in ("brain", "grey", "white", "ventricles")
)


@pytest.fixture(name="path")
def _path(tmp_path):
    path = tmp_path / "anatomy.npz"
    arrays = {"maps": quantised(coarse_maps()), "priors": quantised(coarse_priors())}
    np.savez_compressed(path, format=FORMAT, spacing_mm=SPACING, **arrays)
    return path


def test_cached_maps_are_read(path):
    anatomy = load_anatomy(path, spacing_mm=SPACING)
    assert anatomy.maps.dtype == jnp.uint8
    np.testing.assert_array_equal(anatomy.maps, quantised(coarse_maps()))
    np.testing.assert_allclose(anatomy.priors, coarse_priors(), atol=1 / 255)
    assert anatomy.spacing_mm == SPACING


def test_affine_puts_voxels_where_they_are():
    affine = anatomy_affine(2.0)
    # The outer faces of the first and the last voxel are those of the box.
    np.testing.assert_allclose(affine @ [-0.5, -0.5, -0.5, 1], [-80, -114, -74, 1])
    np.testing.assert_allclose(affine @ [79.5, 95.5, 79.5, 1], [80, 78, 86, 1])


def test_other_spacing_and_other_files_are_refused(path, tmp_path):
    with pytest.raises(UserError, match=rf"8 mm, expected version {FORMAT} at 2 mm"):
        load_anatomy(path, spacing_mm=2.0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not an anatomy file"):
        load_anatomy(path, spacing_mm=SPACING)
    np.savez(tmp_path / "other.npz", maps=np.zeros(3))
    with pytest.raises(UserError, match="not an anatomy file"):
        load_anatomy(tmp_path / "other.npz", spacing_mm=SPACING)


def test_maps_are_sampled_as_scipy_does(anatomy):
    low = np.array([bound for bound, _ in BOX_MM])
    points = np.random.default_rng(0).uniform(low - 10, low + 200, (50, 3)).astype(np.float32)
    voxels = ((points - low) / SPACING - 0.5).T
    maps = np.asarray(anatomy.maps, np.float32) / 255
    sizes = np.array(maps.shape[:3])[:, None]
    expected = [
        ndimage.map_coordinates(maps[..., i], voxels, order=1, mode="constant", prefilter=False)
        for i in range(len(CHANNELS))
    ]
    # SciPy's constant mode ends at the outer voxels' centres; ours fades over one voxel.
    sampled = np.asarray(sample_anatomy(anatomy, jnp.asarray(points.T)))
    inner = ((voxels >= 0) & (voxels <= sizes - 1)).all(0)
    assert 10 < inner.sum() < 50
    np.testing.assert_allclose(sampled[inner], np.stack(expected, -1)[inner], atol=1e-4)
    outside = ((voxels <= -1) | (voxels >= sizes)).any(0)
    assert outside.any()
    assert (sampled[outside] == 0).all()


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "made.npz"
    return load_anatomy(path, spacing_mm=4.0), path


@pytest.mark.slow
def test_maps_are_made_from_the_atlas_once(made):
    anatomy, path = made
    assert anatomy.maps.shape == (40, 48, 40, len(CHANNELS))
    assert anatomy.priors.shape == (len(PRIORS), 40, 48, 40)
    shares = np.asarray(anatomy.maps, np.float32) / 255
    brain, grey, white = (shares[..., i] for i in (BRAIN, GREY, WHITE))
    # Under 2 litres, fluid included, and a rim of blurred voxels; more grey matter than white.
    assert 1.3 < (brain > 0.5).sum() * 0.064 / 1000 < 2.3
    assert 0.8 < grey.sum() / white.sum() < 2.5
    assert ((grey + white) <= 1.1).all()
    for prior in anatomy.priors:
        assert float(prior.max()) == pytest.approx(1.0, abs=0.01)
    before = path.read_bytes()
    np.testing.assert_array_equal(load_anatomy(path, spacing_mm=4.0).maps, anatomy.maps)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_ventricles_are_brain_filled_with_fluid(made):
    anatomy, _ = made
    brain = np.asarray(anatomy.maps[..., BRAIN]) > 127
    assert (ndimage.binary_fill_holes(brain) == brain).all()
    # The bodies of the lateral ventricles, beside the midline above the thalamus.
    places = jnp.array([[12.0, -14.0, 24.0], [-12.0, -14.0, 24.0]]).T
    maps = np.asarray(sample_anatomy(anatomy, places))
    assert (maps[:, BRAIN] > 0.95).all()
    assert (maps[:, VENTRICLES] > 0.3).all()
    assert (maps[:, [GREY, WHITE]].sum(1) < 0.6).all()


@pytest.mark.slow
def test_no_brain_is_cut_by_the_box(made):
    """200 heads, looked at in a frame that reaches beyond the box."""
    anatomy, _ = made
    beyond = 3
    frame = whole_frame(8.0)
    shape = tuple(size + 2 * beyond for size in frame.shape)
    wide = Frame(frame.start - beyond * frame.step, frame.step, shape)
    effects = Effects()

    @jax.jit
    def brains(keys, anatomy):
        def one(key):
            traits = generator.draw_traits(key, anatomy, effects)
            brain = sample_anatomy(anatomy, generator._in_atlas(traits, anatomy, wide))[..., 0]
            return generator.brain_mask(traits.keys["mask"], brain, wide, effects) > 0.5

        return jax.lax.map(one, keys)

    inside = jax.device_get(brains(jax.random.split(jax.random.key(0), 200), anatomy))
    within = np.zeros(shape, bool)
    within[(slice(beyond, -beyond),) * 3] = True
    assert inside[:, within].any(-1).all()
    cut = (inside & ~within).sum((1, 2, 3))
    assert (cut == 0).all(), f"{(cut > 0).sum()} of 200 heads, at most {cut.max()} voxels"
