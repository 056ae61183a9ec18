"""Every effect does what it is there for, alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

from gmmas_jax.synthesis.effects import Effect, Effects
from gmmas_jax.synthesis.frame import Frame, whole_frame
from gmmas_jax.synthesis.genotype import draw_genotype, resized
from tests.synthesis.coarse_head import SPACING
from tests.synthesis.conftest import NONE

SCANNER = ("thick_slices", "blur", "misalignment", "ghosting", "bias", "noise", "gamma")
BRAIN = (
    "contrast",
    "regional",
    "surface",
    "falloff",
    "border",
    "remains",
    "atrophy",
    "hyperintensities",
    "vessels",
    "sinuses",
    "choroid_plexus",
    "protocol",
    "head_shape",
    "own_sequence",
    "coverage",
    "dura",
    "full_head",
    "sharp_sulci",
    "tubular_vessels",
)
TUMOUR = (
    *("midline_shift", "faint", "thin_ring", "solid_enhancement", "specks", "haemorrhage"),
    *("cyst", "multifocal", "butterfly", "infiltration", "uneven_uptake", "resection"),
    *("superficial", "even_spread", "fading", "effacement", "texture", "free_water", "wet_core"),
    *("protein", "hidden_on_t1", "small_core", "like_oedema"),
    *("large_core", "hidden_on_t2", "uneven_oedema", "dense_ring"),
    *("dim_on_flair", "mild_on_t2"),
)
MOVES_LABELS = (
    *("midline_shift", "thin_ring", "multifocal", "butterfly", "infiltration", "resection"),
    *("superficial", "even_spread", "fading", "effacement", "head_shape"),
    *("small_core", "large_core"),
)
MOVES_NO_LABELS = (
    *("contrast", "regional", "surface", "hyperintensities", "protocol", "uneven_uptake"),
    *("texture", "free_water", "wet_core", "protein", "hidden_on_t1", "like_oedema"),
    *("falloff", "border", "hidden_on_t2", "uneven_oedema", "dense_ring", "own_sequence"),
    *("dim_on_flair", "coverage", "mild_on_t2"),
)
OUTLINE = "generous_outline"
KEYS = [jax.random.fold_in(jax.random.key(11), number) for number in range(8)]


COARSE = whole_frame(SPACING)
NEAR = Frame(jnp.array([-10.0, -30.0, 20.0]), jnp.ones(3), COARSE.shape)
"""A patch of voxels of 1 mm: a scanner's doings and tubes are too small for the coarse head's."""


@pytest.fixture(name="tidy", scope="module")
def _tidy(draw):
    return [draw(key) for key in KEYS]


@pytest.fixture(name="tidy_near", scope="module")
def _tidy_near(draw):
    return [draw(key, frame=NEAR) for key in KEYS]


def _alone(name):
    return NONE._replace(**{name: Effect(1.0, getattr(Effects(), name).magnitude)})


def _sequences(patient):
    return np.moveaxis(patient["image"], -1, 0)


def _changed(one, other, what):
    return [(a[what] != b[what]).any() for a, b in zip(one, other, strict=True)]


def test_every_effect_is_told_apart_here():
    assert sorted((*SCANNER, *BRAIN, "mask", *TUMOUR, OUTLINE)) == sorted(Effects._fields)


@pytest.mark.parametrize("name", [name for name in Effects._fields if name != OUTLINE])
def test_alone_at_probability_1_it_changes_the_image(draw, tidy, tidy_near, name):
    frame = COARSE
    if name in (*SCANNER, "tubular_vessels"):
        frame, tidy = NEAR, tidy_near
    with_it = [draw(key, effects=_alone(name), frame=frame) for key in KEYS]
    share = np.mean(_changed(with_it, tidy, "image"))
    # Some need a ring, or a tumour that has none, or priors that are less alike than the coarse
    # head's, or more of a head near the ends of its box; all else is seen in every patient.
    least = {"superficial": 1 / len(KEYS), "coverage": 0.5}
    assert share >= least.get(name, 0.25 if name in TUMOUR else 1.0)
    if name in (*SCANNER, *MOVES_NO_LABELS):
        assert not any(_changed(with_it, tidy, "label"))
    if name in MOVES_LABELS:
        assert any(_changed(with_it, tidy, "label"))


@pytest.mark.parametrize("name", Effects._fields)
def test_at_probability_0_it_changes_nothing(draw, tidy, name):
    without = NONE._replace(**{name: Effect(0.0, 5.0)})
    seen = [draw(key, effects=without) for key in KEYS[:2]]
    assert not any(_changed(seen, tidy[:2], "image"))
    assert not any(_changed(seen, tidy[:2], "label"))


@pytest.mark.parametrize(
    "name",
    [
        *("faint", "specks", "haemorrhage", "cyst", "uneven_uptake"),
        *("texture", "free_water", "wet_core", "protein", "hidden_on_t1", "like_oedema"),
        *("hidden_on_t2", "uneven_oedema", "dense_ring", "dim_on_flair", "mild_on_t2"),
    ],
)
def test_what_befalls_the_core_stays_there(draw, tidy, name):
    """Where there was no tumour, the image is the same; `specks` alone adds enhancement."""
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone(name))
        # A sigmoid's tail reaches everywhere: a hundredth of the brain's signal counts.
        differs = (np.abs(after["image"] - before["image"]) > 3).any(-1)
        # A tumour's faint border has a share of voxels that are labelled background.
        around = np.pad(before["label"] > 0, 1)
        near = np.max([np.roll(around, s, a) for a in range(3) for s in (-1, 0, 1)], axis=0)
        assert differs[~near[1:-1, 1:-1, 1:-1]].mean() < 0.01


def test_a_cyst_is_seen_in_rings_and_in_tumours_without(draw, tidy):
    seen = [draw(key, effects=_alone("cyst")) for key in KEYS]
    rings = [bool(patient["features"]["ring_enhancement"]) for patient in tidy]
    changed = _changed(seen, tidy, "image")
    assert {True, False} <= set(rings)
    for wanted in (True, False):
        assert any(c for c, ring in zip(changed, rings, strict=True) if ring == wanted)


def test_faint_tumours_enhance_less(draw, tidy):
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("faint"))
        enhancing = before["label"] == 3
        if enhancing.any():
            seen, usual = (p["image"][enhancing][:, 1].mean() for p in (after, before))
            assert seen < usual


def test_uneven_uptake_dims_enhancement_in_places(draw, tidy):
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("uneven_uptake"))
        enhancing = before["label"] == 3
        lost = (before["image"] - after["image"])[enhancing]
        if enhancing.any():
            assert lost[:, 1].max() > 3
            assert lost[:, 1].min() > -1
            assert not lost[:, [0, 2, 3]].any()


def test_a_generous_outline_adds_enhancement_at_its_border_and_changes_no_image(draw, tidy):
    added = 0
    for key, patient in zip(KEYS, tidy, strict=True):
        places = np.argwhere(patient["label"] == 3)
        if not len(places):
            continue
        middle = COARSE.start + SPACING * jnp.asarray(places[0])
        frame = Frame(middle - jnp.asarray(COARSE.shape) / 2, jnp.ones(3), COARSE.shape)
        before, after = (draw(key, effects=e, frame=frame) for e in (NONE, _alone(OUTLINE)))
        np.testing.assert_array_equal(after["image"], before["image"])
        changed = after["label"] != before["label"]
        assert (after["label"][changed] == 3).all()
        assert np.isin(before["label"][changed], (1, 2)).all()
        # From a border inside what is shown: beyond it lies enhancement that is not seen here.
        near = binary_dilation(before["label"] == 3, iterations=3)[3:-3, 3:-3, 3:-3]
        assert near[changed[3:-3, 3:-3, 3:-3]].all()
        added += changed.sum()
    assert added > 500


def _rings(draw, tidy, name):
    """Yields patients with a ring, with an effect and without; the others' labels stay."""
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone(name))
        if before["features"]["ring_enhancement"]:
            yield after, before
        else:
            np.testing.assert_array_equal(after["label"], before["label"])


def test_rings_are_smaller_in_oedema_that_reaches_further(draw, tidy):
    shrunk = 0
    for after, before in _rings(draw, tidy, "small_core"):
        core, usual = (np.isin(p["label"], (1, 3)).sum() for p in (after, before))
        shrunk += core < 0.6 * usual
        # What the core loses, oedema takes: the tumour as a whole stays about as large.
        assert (after["label"] > 0).sum() > 0.5 * (before["label"] > 0).sum()
    assert shrunk


def test_rings_are_larger_in_oedema_that_reaches_less(draw, tidy):
    grown = 0
    for after, before in _rings(draw, tidy, "large_core"):
        core, usual = (np.isin(p["label"], (1, 3)).sum() for p in (after, before))
        oedema, as_usual = (
            (p["label"] == 2).sum() / (p["label"] > 0).sum() for p in (after, before)
        )
        grown += core > 1.4 * usual and oedema < as_usual
    assert grown


def test_oedema_reaches_somewhere_however_large_the_core():
    genotype = draw_genotype(jax.random.key(0))
    assert resized(genotype, jnp.float32(3.0)).ranges["oedema_reach"] > 0


@pytest.mark.parametrize(
    ("name", "place"),
    [("hidden_on_t2", 2), ("own_sequence", 1), ("dim_on_flair", 3), ("mild_on_t2", 2)],
)
def test_what_befalls_one_sequence_changes_no_other(draw, tidy, name, place):
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone(name))
        changed = [
            (a != b).any() for a, b in zip(_sequences(after), _sequences(before), strict=True)
        ]
        assert changed == [sequence == place for sequence in range(4)]


def test_a_dense_ring_is_darker_on_t2(draw, tidy):
    darker = 0
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("dense_ring"))
        enhancing = before["label"] == 3
        if enhancing.any():
            seen, usual = (p["image"][enhancing][:, 2].mean() for p in (after, before))
            darker += seen < 0.95 * usual
    assert darker >= 2


def test_oedema_is_uneven_around_rings_alone_and_the_core_as_before(draw, tidy):
    changed = 0
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("uneven_oedema"))
        if not before["features"]["ring_enhancement"]:
            np.testing.assert_array_equal(after["image"], before["image"])
            continue
        difference = np.abs(after["image"] - before["image"]).max(-1)
        changed += (difference[before["label"] == 2] > 10).sum()
        # Of voxels at the core's border, a part is oedema.
        middle = binary_erosion(np.isin(before["label"], (1, 3)))
        assert not (difference[middle] > 10).any()
    assert changed > 50


def test_what_stripping_left_lies_at_the_surface_in_patches_dark_and_bright(draw, tidy):
    kinds, shares = set(), []
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("remains"))
        inside = before["image"].any(-1)
        np.testing.assert_array_equal(after["image"].any(-1), inside)
        change = np.log(after["image"][inside].clip(1) / before["image"][inside].clip(1))
        deep = distance_transform_edt(inside)[inside] * SPACING > 17
        assert np.abs(change[deep]).max() < 0.05
        # Neither brain nor tumour: what is tumour stays tumour or becomes nothing.
        assert np.isin(after["label"][before["label"] != after["label"]], (0, 2)).all()
        shares.append((np.abs(change) > 0.2).any(-1).mean())
        # On T1, where no healthy tissue but fluid is dark, and none bright.
        seen, usual = (p["image"][inside][:, 0] for p in (after, before))
        middle = np.median(usual)
        kinds |= {"dark"} if ((seen < 0.35 * middle) & (usual > 0.7 * middle)).any() else set()
        kinds |= {"bright"} if (seen > max(1.5 * middle, 1.2 * usual.max())).any() else set()
    assert kinds == {"dark", "bright"}
    assert 0.002 < np.mean(shares) < 0.3


def test_dura_darkens_the_surface_all_around_and_nothing_below(draw, tidy):
    thick = []
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("dura"))
        inside = before["image"].any(-1)
        np.testing.assert_array_equal(after["image"].any(-1), inside)
        ratio = after["image"][inside] / before["image"][inside]
        depth = distance_transform_edt(inside)[inside] * SPACING
        np.testing.assert_allclose(ratio[depth > 17], 1.0, atol=0.02)
        # T2, on which the fluid there is brightest.
        thick.append(np.log(ratio[depth <= SPACING][:, 2]).mean())
        assert np.isin(after["label"][before["label"] != after["label"]], (0, 2)).all()
    assert max(thick) < 0
    assert min(thick) < -0.2


def test_signal_falls_off_toward_one_end_of_the_head(draw, tidy):
    lost_at = set()
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("falloff"))
        for sequence in range(4):
            inside = before["image"][..., sequence] > 30
            ratio = np.where(inside, after["image"][..., sequence], 0).sum((0, 1))
            ratio = ratio / np.where(inside, before["image"][..., sequence], 0).sum((0, 1)).clip(1)
            ratio = ratio[inside.any((0, 1))]
            assert ratio[len(ratio) // 2] > 0.95
            # It falls toward that end all the way, and nowhere rises.
            end = "vertex" if ratio[-1] < ratio[0] else "base"
            step = np.diff(ratio if end == "vertex" else ratio[::-1])
            assert step.max() < 0.02
            if ratio.min() < 0.8:
                lost_at.add(end)
    assert lost_at == {"vertex", "base"}


def test_slices_end_before_the_brain_at_one_end_and_change_nothing_else(draw, tidy):
    ends, lost = set(), []
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("coverage"))
        # Something is there all the same: the brain's mask is that of all sequences.
        np.testing.assert_array_equal(after["image"] > 0, before["image"] > 0)
        for seen, usual in zip(_sequences(after), _sequences(before), strict=True):
            inside = usual > 30
            empty, whole = inside & (seen <= 0.5), inside & (seen == usual)
            # Between them at most the one layer in which the plane lies.
            assert (inside & ~empty & ~whole).sum() < 0.05 * inside.sum()
            lost.append(empty.sum() / inside.sum())
            if empty.any():
                heights = [np.nonzero(part)[2].mean() for part in (empty, whole)]
                ends.add("vertex" if heights[0] > heights[1] else "base")
    assert ends == {"vertex", "base"}
    # The coarse head leaves more room in its box than a real one: of that 0.04 are lost.
    assert 0.005 < np.mean(lost) < 0.1


def test_patches_of_the_border_are_lost_or_gained_and_the_depth_is_not(draw, tidy):
    signs = set()
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("border"))
        inside = before["image"][..., 0] > 0
        change = np.log(after["image"][inside].clip(1) / before["image"][inside].clip(1))
        deep = distance_transform_edt(inside)[inside] * SPACING > 20
        assert np.abs(change[deep]).max() < 0.02
        signs |= set(np.sign(change[np.abs(change) > 0.2]).astype(int).tolist())
    assert signs == {-1, 1}


def test_a_resection_takes_the_core_out_and_leaves_fluid(draw, tidy):
    taken = 0
    for key, before in zip(KEYS, tidy, strict=True):
        assert before["label"].max() <= 3
        after = draw(key, effects=_alone("resection"))
        cavity = after["label"] == 4
        taken += cavity.sum()
        if cavity.sum() > 20:
            fluid_like = after["image"][cavity].mean(0)
            rest = after["image"][(after["label"] == 0) & (after["image"][..., 0] > 0)].mean(0)
            assert fluid_like[0] < rest[0]  # dark on t1n
            assert fluid_like[2] > rest[2]  # bright on t2w
    assert taken > 100


def test_fading_oedema_is_outlined_further_out(draw, tidy):
    """The outline lies where less is left, so it is larger than where half would be left."""
    grown = 0
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("fading"))
        grown += (after["label"] > 0).sum() - (before["label"] > 0).sum()
    assert grown > 0.02 * sum((patient["label"] > 0).sum() for patient in tidy)


def test_texture_leaves_t1_more_even(draw, tidy):
    spread = np.zeros(4)
    for key, before in zip(KEYS, tidy, strict=True):
        after = draw(key, effects=_alone("texture"))
        core = before["label"] > 0
        change = np.log(after["image"][core] / before["image"][core].clip(1))
        spread += np.abs(change).mean(0)
    assert spread[:2].max() < 0.5 * spread[2:].min()


def test_fields_stay_finite_with_all_effects_at_once(draw):
    everything = Effects(*(Effect(1.0, effect.magnitude) for effect in Effects()))
    for key in KEYS[:4]:
        patient = draw(key, effects=everything)
        assert np.isfinite(patient["image"]).all()
        assert patient["image"].min() == 0
        assert jnp.isin(patient["label"], jnp.arange(5)).all()
