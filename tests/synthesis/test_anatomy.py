"""The cached anatomy file."""

import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.anatomy import FORMAT, anatomy_affine, load_anatomy
from tests.synthesis.coarse_head import SPACING, coarse_maps


@pytest.fixture(name="path")
def _path(tmp_path):
    path = tmp_path / "anatomy.npz"
    maps = np.round(coarse_maps() * 255).astype(np.uint8)
    np.savez_compressed(path, format=FORMAT, spacing_mm=SPACING, maps=maps)
    return path


def test_cached_maps_are_read(path):
    anatomy = load_anatomy(path, spacing_mm=SPACING)
    np.testing.assert_allclose(anatomy.maps, coarse_maps(), atol=1 / 255)
    assert anatomy.spacing_mm == SPACING


def test_affine_puts_voxels_where_they_are():
    affine = anatomy_affine(2.0)
    # The outer faces of the first and the last voxel are those of the box.
    np.testing.assert_allclose(affine @ [-0.5, -0.5, -0.5, 1], [-80, -114, -74, 1])
    np.testing.assert_allclose(affine @ [79.5, 95.5, 79.5, 1], [80, 78, 86, 1])


def test_other_spacing_and_other_files_are_refused(path, tmp_path):
    with pytest.raises(UserError, match=r"8 mm, expected version 1 at 2 mm"):
        load_anatomy(path, spacing_mm=2.0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not an anatomy file"):
        load_anatomy(path, spacing_mm=SPACING)
    np.savez(tmp_path / "other.npz", maps=np.zeros(3))
    with pytest.raises(UserError, match="not an anatomy file"):
        load_anatomy(tmp_path / "other.npz", spacing_mm=SPACING)


@pytest.mark.slow
def test_maps_are_made_from_the_atlas_once(tmp_path):
    path = tmp_path / "made.npz"
    made = load_anatomy(path, spacing_mm=8.0)
    assert made.maps.shape == (6, 20, 24, 20)
    brain, grey, white = (np.asarray(made.maps[i]) for i in range(3))
    # Under 2 litres, fluid included, and a rim of blurred voxels; more grey matter than white.
    assert 1.3 < (brain > 0.5).sum() * 0.512 / 1000 < 3.0
    assert 0.8 < grey.sum() / white.sum() < 2.5
    assert ((grey + white) <= 1.1).all()
    for prior in made.maps[3:]:
        assert float(prior.max()) == pytest.approx(1.0, abs=0.01)
    before = path.read_bytes()
    np.testing.assert_array_equal(load_anatomy(path, spacing_mm=8.0).maps, made.maps)
    assert path.read_bytes() == before
