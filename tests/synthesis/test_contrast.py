"""The order of the tissues' signals, which physics gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.synthesis.contrast import TISSUES, Weighting, draw_signals, draw_weighting
from gmmas_jax.synthesis.effects import Effect, Effects

T1N, T1C, T2W, T2F = range(4)


@pytest.fixture(name="signals", scope="module")
def _signals():
    """[draws tissues 4], at the gadolinium concentrations of ring-enhancing tumours."""
    k_draw, k_dose = jax.random.split(jax.random.key(0))
    dose = jax.random.uniform(k_dose, (500,), minval=0.35, maxval=1.2)
    return np.asarray(jax.vmap(draw_signals)(jax.random.split(k_draw, 500), dose, jnp.zeros(500)))


@pytest.mark.parametrize(
    ("sequence", "brighter", "darker", "share"),
    [
        (T1N, "white", "grey", 0.93),
        (T1N, "grey", "fluid", 1.0),
        (T2W, "fluid", "grey", 1.0),
        (T2W, "grey", "white", 1.0),
        (T2W, "oedema", "grey", 0.95),
        (T2F, "grey", "fluid", 1.0),
        (T2F, "white", "fluid", 1.0),
        (T2F, "oedema", "white", 0.95),
        (T2F, "oedema", "grey", 0.9),
        # The T2-FLAIR mismatch.
        (T2W, "mucinous", "solid", 0.9),
        (T2F, "solid", "mucinous", 0.8),
        (T2F, "oedema", "mucinous", 0.9),
        (T2F, "mucinous", "fluid", 0.98),
        (T1N, "oedema", "mucinous", 0.95),
        (T1C, "enhancing", "grey", 1.0),
        (T1C, "enhancing", "white", 1.0),
        (T1C, "enhancing", "necrosis", 1.0),
        (T1C, "enhancing", "oedema", 1.0),
    ],
)
def test_order(signals, sequence, brighter, darker, share):
    one, other = (signals[:, TISSUES.index(name), sequence] for name in (brighter, darker))
    assert (one > other).mean() >= share


def test_only_enhancing_tissue_takes_up_contrast(signals):
    change = signals[..., T1C] / signals[..., T1N]
    for name in TISSUES:
        ratio = np.median(change[:, TISSUES.index(name)])
        if name in ("enhancing", "vessel"):
            assert ratio > 1.2
        else:
            assert 0.9 < ratio < 1.1


def test_signals_are_positive_and_vary(signals):
    assert np.isfinite(signals).all()
    assert (signals > 0).all()
    assert (signals.std(0) > 0).all()


def _drawn(**weighting):
    key = jax.random.key(3)
    return np.asarray(draw_signals(key, jnp.float32(0.4), jnp.float32(0), Weighting(**weighting)))


def _changed(one, other):
    """Returns the (tissue, column) pairs in which two tables of signals differ."""
    return {(TISSUES[t], int(c)) for t, c in np.argwhere(~np.isclose(one, other, rtol=1e-5))}


def test_a_protocol_that_tells_grey_from_white_less_does_so_on_t2w_alone():
    usual, alike = _drawn(), _drawn(likeness=1.0)
    assert _changed(usual, alike) == {("grey", T2W)}
    white, grey = TISSUES.index("white"), TISSUES.index("grey")
    assert alike[grey, T2W] == pytest.approx(usual[white, T2W])
    half = _drawn(likeness=0.5)[grey, T2W]
    assert half == pytest.approx(np.sqrt(usual[white, T2W] * usual[grey, T2W]))


def test_a_core_like_oedema_is_as_bright_as_oedema_that_is_not_hidden():
    necrosis, oedema = map(TISSUES.index, ("necrosis", "oedema"))
    usual, alike = _drawn(), _drawn(resemblance=1.0, hidden_t2=1.0)
    np.testing.assert_allclose(alike[necrosis, 2:], usual[oedema, 2:], rtol=1e-5)
    assert (alike[necrosis, :2] == usual[necrosis, :2]).all()


def test_suppression_takes_fluid_from_flair_alone():
    usual, less = _drawn(), _drawn(suppression=0.75)
    assert _changed(usual, less) == {("fluid", T2F)}
    fluid = TISSUES.index("fluid")
    assert less[fluid, T2F] == pytest.approx(usual[fluid, T2F] / 4)


def test_hidden_oedema_has_the_t1_of_the_tissue_around():
    usual, hidden = _drawn(), _drawn(hidden=1.0)
    assert _changed(usual, hidden) == {("oedema", T1N), ("oedema", T1C)}
    white, grey, oedema = map(TISSUES.index, ("white", "grey", "oedema"))
    expected = (usual[white, :2] + usual[grey, :2]) / 2
    np.testing.assert_allclose(hidden[oedema, :2], expected, rtol=1e-5)


def test_oedema_hidden_on_t2_has_the_signal_of_the_tissue_around_on_t2_alone():
    usual, hidden = _drawn(), _drawn(hidden_t2=1.0)
    assert _changed(usual, hidden) == {("oedema", T2W)}
    white, grey, oedema = map(TISSUES.index, ("white", "grey", "oedema"))
    assert hidden[oedema, T2W] == pytest.approx((usual[white, T2W] + usual[grey, T2W]) / 2)


def test_a_dim_core_has_the_signal_of_the_tissue_around_on_flair_alone():
    usual, dim, half = _drawn(), _drawn(dim=1.0), _drawn(dim=0.5)
    core = ("necrosis", "solid", "enhancing")
    assert _changed(usual, dim) == {(tissue, T2F) for tissue in core}
    white, grey, *places = map(TISSUES.index, ("white", "grey", *core))
    expected = (usual[white, T2F] + usual[grey, T2F]) / 2
    np.testing.assert_allclose(dim[places, T2F], expected, rtol=1e-5)
    np.testing.assert_allclose(half[places, T2F], (usual[places, T2F] + expected) / 2, rtol=1e-5)


def test_a_tumour_mild_on_t2_is_nearer_to_the_tissue_around_on_t2_alone():
    usual, half = _drawn(), _drawn(mild=0.5)
    tumour = ("necrosis", "solid", "mucinous", "enhancing", "oedema")
    assert _changed(usual, half) == {(tissue, T2W) for tissue in tumour}
    white, grey, *places = map(TISSUES.index, ("white", "grey", *tumour))
    around = (usual[white, T2W] + usual[grey, T2W]) / 2
    np.testing.assert_allclose(half[places, T2W], (usual[places, T2W] + around) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("part", "tissues"),
    [
        ("oedema", {"oedema"}),
        ("core", {"necrosis", "solid", "mucinous", "enhancing"}),
    ],
)
def test_water_brightens_t2w_and_darkens_t1(part, tissues):
    usual, wet = _drawn(), _drawn(**{part: 0.5})
    assert {tissue for tissue, _ in _changed(usual, wet)} == tissues
    places = [TISSUES.index(tissue) for tissue in tissues]
    assert (wet[places, T2W] > usual[places, T2W]).all()
    assert (wet[places, T1N] < usual[places, T1N]).all()


def test_the_water_of_a_core_brightens_flair_but_of_mucinous_tissue():
    usual, wet = (_drawn(core=core)[:, T2F] for core in (0.0, 0.6))
    for tissue in ("necrosis", "solid", "mucinous"):
        place = TISSUES.index(tissue)
        assert (wet[place] > usual[place]) == (tissue != "mucinous")


def test_flair_takes_the_t1_of_a_wet_core_for_shorter_than_it_is():
    """Its brightness beyond what T2 gives: that of a T1 shorter than the usual core's."""
    usual, wet = (_drawn(core=core) for core in (0.0, 0.6))
    gain = wet[:, T2F] / usual[:, T2F]
    solid, mucinous = TISSUES.index("solid"), TISSUES.index("mucinous")
    assert gain[solid] > 1.5 > gain[mucinous]


def test_wet_oedema_is_at_least_so_bright_on_flair():
    usual, bright, enough = (_drawn(oedema=1.1, least=least) for least in (0.0, 5.0, 0.5))
    assert _changed(usual, bright) == {("oedema", T2F)}
    assert not _changed(usual, enough)
    white, grey, oedema = map(TISSUES.index, ("white", "grey", "oedema"))
    healthy = (usual[white, T2F] + usual[grey, T2F]) / 2
    assert bright[oedema, T2F] == pytest.approx(5.0 * healthy)


def test_oedema_that_is_wet_alone_has_a_least_signal_on_flair():
    effects = Effects()._replace(free_water=Effect(0.5, 1.1))
    keys = jax.random.split(jax.random.key(4), 300)
    drawn = jax.vmap(lambda key: draw_weighting(key, effects))(keys)
    wet, least = np.asarray(drawn.oedema) > 0, np.asarray(drawn.least)
    assert 0.3 < wet.mean() < 0.7
    assert (least[~wet] == 0).all()
    assert 1.15 <= least[wet].min() < 1.2
    assert 1.45 < least[wet].max() <= 1.5
    assert abs(np.corrcoef(least[wet], np.asarray(drawn.oedema)[wet])[0, 1]) < 0.3


def test_dense_tissue_that_enhances_is_dark_on_t2_and_bright_on_t1():
    usual, dense = _drawn(), _drawn(dense=0.8)
    assert {tissue for tissue, _ in _changed(usual, dense)} == {"enhancing"}
    enhancing, grey = TISSUES.index("enhancing"), TISSUES.index("grey")
    assert dense[enhancing, T2W] < 1.1 * usual[grey, T2W] < usual[enhancing, T2W]
    assert dense[enhancing, T2F] < usual[enhancing, T2F]
    assert dense[enhancing, T1N] > usual[enhancing, T1N]


def test_t1_after_contrast_by_a_sequence_of_its_own_has_another_contrast():
    """What takes up none differs between the two, and as far as another draw of the first would."""
    keys, zero = jax.random.split(jax.random.key(5), 400), jnp.zeros(())

    def of(tissue: str, apart: float) -> tuple[np.ndarray, np.ndarray]:
        """Log of a tissue's signal over white matter's, before and after contrast."""
        draws = jax.vmap(lambda key: draw_signals(key, zero, zero, Weighting(apart=apart)))
        signals = draws(jax.random.clone(keys))
        ratio = np.log(signals[:, TISSUES.index(tissue)] / signals[:, TISSUES.index("white")])
        return ratio[:, T1N], ratio[:, T1C]

    shared, same = of("oedema", 0.0)
    before, after = of("oedema", 1.0)
    np.testing.assert_array_equal(before, shared)
    assert 5.0 * np.std(same - shared) < np.std(after - before)
    assert np.std(after) == pytest.approx(np.std(before), rel=0.15)
    half = of("oedema", 0.5)[1]
    assert np.corrcoef(half, same)[0, 1] > 0.5
    assert np.corrcoef(half, after)[0, 1] > 0.5


def test_what_departs_from_physics_departs_alike_after_contrast_but_for_a_sequence_of_its_own():
    def factors(apart: float) -> np.ndarray:
        weighting = Weighting(apart=apart)
        usual, strayed = (
            draw_signals(jax.random.key(9), jnp.float32(0), jnp.float32(departure), weighting)
            for departure in (0.0, 0.2)
        )
        return np.asarray(strayed / usual)

    factor, alike = factors(1.0), factors(0.0)
    np.testing.assert_allclose(alike[:, T1C], alike[:, T1N], rtol=1e-5)
    assert np.abs(np.log(factor[:, T1C] / factor[:, T1N])).min() > 1e-4


def test_oedema_hidden_on_t1_is_seen_by_another_sequence_after_contrast():
    hidden = _drawn(hidden=1.0, apart=1.0)
    assert _changed(_drawn(apart=1.0), hidden) == {("oedema", T1N)}


def test_enhancing_tissue_takes_a_third_of_the_core_s_water():
    usual, wet = _drawn(), _drawn(core=0.9)
    gain = {name: wet[i, T2W] / usual[i, T2W] for i, name in enumerate(TISSUES)}
    assert 1.0 < gain["enhancing"] < gain["solid"] ** 0.6


def test_protein_brightens_the_core_on_t1_and_flair_but_not_what_is_mucinous_or_enhances():
    usual, rich = _drawn(), _drawn(protein=0.35)
    tissues = {"necrosis", "solid"}
    assert {tissue for tissue, _ in _changed(usual, rich)} == tissues
    places = [TISSUES.index(tissue) for tissue in tissues]
    assert (rich[places][:, (T1N, T2F)] > 1.02 * usual[places][:, (T1N, T2F)]).all()


def test_necrosis_takes_after_the_oedema_outside_but_on_t1():
    usual, alike, half = _drawn(), _drawn(resemblance=1.0), _drawn(resemblance=0.5)
    necrosis, oedema = TISSUES.index("necrosis"), TISSUES.index("oedema")
    assert _changed(usual, alike) == {("necrosis", T2W), ("necrosis", T2F)}
    np.testing.assert_allclose(alike[necrosis, T2W:], alike[oedema, T2W:], rtol=1e-5)
    between = np.sqrt(usual[necrosis, T2W:] * usual[oedema, T2W:])
    np.testing.assert_allclose(half[necrosis, T2W:], between, rtol=1e-5)


def test_the_core_s_water_raises_t1_less_than_that_of_oedema():
    usual, wet = _drawn(), _drawn(core=0.5, oedema=0.5)
    lost = 1 - wet[:, T1N] / usual[:, T1N]
    for tissue in ("necrosis", "solid", "mucinous", "enhancing"):
        assert 0 < lost[TISSUES.index(tissue)] < lost[TISSUES.index("oedema")]
