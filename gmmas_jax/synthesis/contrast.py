"""From tissue to signal: relaxation times and the pulse sequences that weigh them.

Every patient gets relaxation times drawn around published means and sequence timings drawn around
clinical protocols, so that contrasts keep their physical order and vary as between scanners. Brain
values are those measured near 3 T (Wansapura et al. 1999, J Magn Reson Imaging 9:531; Stanisz et
al. 2005, Magn Reson Med 54:507); tumour values follow quantitative MRI of gliomas (Hattingen et al.
2017, Oncotarget 8:57827), rounded. The fluid-like core of the T2-FLAIR mismatch is given a T1
between solid tumour's and fluid's, which is what makes FLAIR suppress it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.effects import Effects, draw_by_name

TISSUES = (
    "white", "grey", "fluid", "vessel", "gliosis",
    "necrosis", "solid", "mucinous", "enhancing", "oedema", "calcium", "blood",
    "cavity",
)  # fmt: skip
# Proton density (water = 1), T1 in ms, T2 in ms.
RELAXATION = (
    (0.70, 850.0, 70.0),
    (0.82, 1350.0, 90.0),
    (1.00, 4000.0, 1600.0),
    (0.90, 1600.0, 110.0),
    (0.82, 1350.0, 150.0),
    (0.94, 2200.0, 240.0),
    (0.90, 1900.0, 190.0),
    (0.96, 2800.0, 400.0),
    (0.88, 1500.0, 150.0),
    (0.85, 1400.0, 155.0),
    (0.45, 1100.0, 45.0),
    (0.88, 650.0, 75.0),
    (0.99, 3300.0, 1000.0),
)
# Spread of the log of (proton density, T1, T2) between patients: small for healthy tissue.
SPREAD = (
    (0.02, 0.05, 0.06), (0.02, 0.05, 0.06), (0.01, 0.05, 0.15), (0.03, 0.10, 0.10),
    (0.03, 0.10, 0.15),
    (0.03, 0.20, 0.32), (0.03, 0.14, 0.20), (0.02, 0.08, 0.28), (0.03, 0.14, 0.22),
    (0.03, 0.13, 0.14), (0.15, 0.15, 0.20), (0.03, 0.30, 0.45),
    (0.01, 0.12, 0.30),
)  # fmt: skip
_CORE = {"necrosis": 1.0, "solid": 1.0, "mucinous": 1.0, "enhancing": 0.35}
"""Tissues of the core, and how much of its water each takes: what enhances is dense with cells."""

_PROTEIN = ("necrosis", "solid")  # Mucinous tissue's T1 is long; what enhances is no fluid.
_WATER_T1 = 0.45  # T1 rises less than T2 does with free water: this power of T2's factor.
_CORE_WATER_T1 = 0.3  # Of the core, whose water is bound: less still.
_CORE_FLAIR_T1 = 0.8  # On FLAIR it falls instead, by this power: a wet core is bright there.
RELAXIVITY = 4.5  # of gadolinium chelates, per mM per s
VESSEL_GADOLINIUM = 1.0  # mM

_SEEN_ON_FLAIR = (1.15, 1.5)
"""Signal of wet oedema on FLAIR at the least, as a multiple of healthy tissue's: what FLAIR does
not show is not outlined. Of seven real cases its median is 1.3 to 2.2 times healthy brain's."""


class Weighting(NamedTuple):
    """How a patient's tissue or protocol differs from the usual; scalars, 0 for not at all.

    Attributes:
        oedema: Log of the factor on oedema's T2; T1 rises with it.
        core: The same of what lies inside it, fluid and blood apart; T1 rises less, or for FLAIR
            falls, mucinous and enhancing tissue apart; enhancing tissue takes part by a third.
        protein: Log of the factor by which T1 is shorter in it, mucinous and enhancing tissue
            apart.
        resemblance: How like that of oedema which is not hidden the signal of necrosis is, on T2
            and FLAIR.
        hidden: How like healthy tissue oedema is on T1.
        hidden_t2: The same on T2, where FLAIR shows it all the same.
        likeness: How like white matter's the T2-weighted signal of grey matter is.
        suppression: Share of fluid's signal lost on FLAIR.
        dense: Log of the factor by which T2 of enhancing tissue is shorter; T1 is too, but less.
        apart: How unlike the pulse sequence before contrast the one after it is.
        dim: How like healthy tissue the core is on FLAIR, enhancing tissue too. Mucinous tissue
            mostly is so by itself, or darker.
        mild: How like healthy tissue all of the tumour but blood and fluid is on T2.
        least: Oedema's signal on FLAIR at the least, as a multiple of healthy tissue's.
    """

    oedema: jax.Array | float = 0.0
    core: jax.Array | float = 0.0
    protein: jax.Array | float = 0.0
    resemblance: jax.Array | float = 0.0
    hidden: jax.Array | float = 0.0
    hidden_t2: jax.Array | float = 0.0
    likeness: jax.Array | float = 0.0
    suppression: jax.Array | float = 0.0
    dense: jax.Array | float = 0.0
    apart: jax.Array | float = 0.0
    dim: jax.Array | float = 0.0
    mild: jax.Array | float = 0.0
    least: jax.Array | float = 0.0


USUAL = Weighting()


def draw_weighting(key: jax.Array, effects: Effects) -> Weighting:
    """Draws how a patient's tissue and protocol differ from the usual."""
    groups = (
        (
            *("free_water", "wet_core", "hidden_on_t1", "hidden_on_t2", "protocol", "protein"),
            "like_oedema",
        ),
        ("dense_ring", "own_sequence"),
        ("dim_on_flair",),
        ("mild_on_t2",),
    )
    drawn = draw_by_name(key, groups, 3)
    low, high = _SEEN_ON_FLAIR

    def strength(name: str, number: int = 0) -> jax.Array:
        effect, (happens, *shares) = getattr(effects, name), drawn[name]
        return jnp.where(happens < effect.probability, effect.magnitude * shares[number], 0.0)

    wet = strength("free_water")
    return Weighting(
        oedema=wet,
        core=strength("wet_core"),
        protein=strength("protein"),
        resemblance=strength("like_oedema"),
        hidden=strength("hidden_on_t1"),
        hidden_t2=strength("hidden_on_t2"),
        likeness=strength("protocol"),
        suppression=strength("protocol", 1),
        dense=strength("dense_ring"),
        apart=strength("own_sequence"),
        dim=strength("dim_on_flair"),
        mild=strength("mild_on_t2"),
        least=jnp.where(wet > 0.0, low + (high - low) * drawn["free_water"][2], 0.0),
    )


def draw_signals(
    key: jax.Array,
    gadolinium: jax.Array,
    departure: jax.Array,
    weighting: Weighting = USUAL,
) -> jax.Array:
    """Draws a patient's and a protocol's numbers and returns the signal of each pure tissue.

    T1-weighted images use a partial inversion preparation (between spin echo and MPRAGE),
    T2-weighted a spin echo, FLAIR an inversion that nulls fluid:
    S = PD·|1 − κe^(−TI/T1)…|·e^(−TE/T2).

    Args:
        key: Typed PRNG key.
        gadolinium: [] float32, concentration in enhancing tumour, mM.
        departure: [] float32, standard deviation of the log by which each tissue's signal departs
            from the equation's; T1 before and after contrast depart alike, but for `apart`.
        weighting: How tissue and protocol differ from the usual.

    Returns:
        [tissues 4] float32, columns in the order t1n, t1c, t2w, t2f.
    """
    k_tissue, k_protocol, k_departure = jax.random.split(key, 3)
    spread = jnp.asarray(SPREAD) * jax.random.normal(k_tissue, (len(TISSUES), 3)).clip(-2.5, 2.5)
    density, t1, t2 = jnp.moveaxis(jnp.asarray(RELAXATION) * jnp.exp(spread), 1, 0)
    names = ("white", "grey", "oedema", "fluid", "necrosis", "solid", "mucinous", "enhancing")
    white, grey, oedema, fluid, necrosis, solid, mucinous, enhancing = map(TISSUES.index, names)
    wet = jnp.array([_CORE.get(tissue, 0.0) for tissue in TISSUES])
    rich = jnp.array([tissue in _PROTEIN for tissue in TISSUES])
    log_t2 = (weighting.core * wet).at[oedema].set(weighting.oedema)
    water = _CORE_WATER_T1 * weighting.core * wet
    log_t1 = water - weighting.protein * rich
    log_t1 = log_t1.at[oedema].set(_WATER_T1 * weighting.oedema)
    log_t2 = log_t2.at[enhancing].add(-weighting.dense)
    log_t1 = log_t1.at[enhancing].add(-_WATER_T1 * weighting.dense)
    t1, t2 = t1 * jnp.exp(log_t1), t2 * jnp.exp(log_t2)
    draw = jax.random.uniform(k_protocol, (9,))

    def between(index: int, low: float, high: float) -> jax.Array:
        return low + (high - low) * draw[index]

    dose = jnp.zeros(len(TISSUES)).at[enhancing].set(gadolinium)
    dose = dose.at[TISSUES.index("vessel")].set(VESSEL_GADOLINIUM * between(8, 0.2, 1.0))
    t1_after = 1.0 / (1.0 / t1 + RELAXIVITY * dose / 1000.0)
    before = _t1_weighting(draw[:3])
    own = _t1_weighting(
        jax.random.uniform(jax.random.fold_in(jax.random.clone(k_protocol), 1), (3,))
    )
    kappa, recovery, echo = before
    t1n = density * jnp.abs(1.0 - kappa * jnp.exp(-recovery / t1)) * jnp.exp(-echo / t2)
    kappa, recovery, echo = before + weighting.apart * (own - before)
    recovery = recovery * between(3, 0.92, 1.08)
    t1c = density * jnp.abs(1.0 - kappa * jnp.exp(-recovery / t1_after)) * jnp.exp(-echo / t2)
    t2w = (
        density
        * (1.0 - jnp.exp(-between(4, 3500.0, 6500.0) / t1))
        * jnp.exp(-between(5, 80.0, 115.0) / t2)
    )
    t2w = t2w.at[grey].multiply((t2w[white] / t2w[grey]) ** weighting.likeness)
    repetition, echo = between(6, 8000.0, 11000.0), between(7, 95.0, 140.0)
    fluid_t1 = t1[fluid]
    # The inversion time that nulls fluid for this repetition time.
    inversion = -fluid_t1 * jnp.log(0.5 * (1.0 + jnp.exp(-repetition / fluid_t1))) * 0.95
    # Real cores are dark on T1 and yet bright on FLAIR, which no one T1 gives.
    t1_inverted = t1 * jnp.exp(-(water + _CORE_FLAIR_T1 * weighting.core) * rich)
    saturation = 1.0 - 2.0 * jnp.exp(-inversion / t1_inverted) + jnp.exp(-repetition / t1_inverted)
    t2f = density * jnp.abs(saturation) * jnp.exp(-echo / t2)
    t2f = t2f.at[fluid].multiply(1.0 - weighting.suppression)
    signals = jnp.stack([t1n, t1c, t2w, t2f], axis=-1)
    hidden_after = weighting.hidden * (1.0 - weighting.apart)
    hidden = jnp.stack([weighting.hidden, hidden_after, weighting.hidden_t2, 0.0])
    usual, like = signals[oedema], (signals[white] + signals[grey]) / 2
    signals = signals.at[oedema].set(usual + hidden * (like - usual))
    alike = (usual[2:] / signals[necrosis, 2:]) ** weighting.resemblance
    signals = signals.at[necrosis, 2:].multiply(alike)
    core = jnp.array([necrosis, solid, enhancing])
    signals = signals.at[core, 3].add(weighting.dim * (like[3] - signals[core, 3]))
    tumour = jnp.array([necrosis, solid, mucinous, enhancing, oedema])
    signals = signals.at[tumour, 2].add(weighting.mild * (like[2] - signals[tumour, 2]))
    factors = jax.random.normal(k_departure, signals.shape).clip(-2, 2)
    after = factors[:, 0] + weighting.apart * (factors[:, 1] - factors[:, 0])
    signals = signals * jnp.exp(departure * factors.at[:, 1].set(after))
    least = weighting.least * (signals[white, 3] + signals[grey, 3]) / 2
    return signals.at[oedema, 3].max(least)


def _t1_weighting(draw: jax.Array) -> jax.Array:
    """Returns κ, the recovery in ms and the echo time in ms, [3], for uniform numbers [3]."""
    low, high = jnp.array([0.8, 520.0, 4.0]), jnp.array([1.25, 900.0, 14.0])
    return low + (high - low) * draw
