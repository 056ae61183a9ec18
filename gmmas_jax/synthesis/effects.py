"""What makes scans of patients differ from tidy ones: how often, and how much."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from gmmas_jax.errors import UserError


class Effect(NamedTuple):
    """One effect.

    Attributes:
        probability: Share of the patients (or, where it is said, sequences) that have it.
        magnitude: How strong it is at most, or its spread; the unit is the effect's.
    """

    probability: float
    magnitude: float

    @property
    def known_off(self) -> bool:
        """Whether it never happens, as far as can be told while tracing."""
        return isinstance(self.probability, int | float) and self.probability == 0


class Effects(NamedTuple):
    """All effects, static under `jit`; `config.synthesis.effects` has the same fields.

    Attributes:
        thick_slices: Per sequence. Thickest slice in mm.
        blur: Per sequence. Largest standard deviation of a Gaussian in mm.
        misalignment: Per sequence. Largest shift against the others, mm along each axis.
        ghosting: Per sequence. Largest strength of a shifted copy, as a share of the signal.
        bias: Per sequence. Standard deviation of the log of the bias field (Sled et al. 1998, IEEE
            TMI 17:87).
        noise: Per sequence. Largest standard deviation, as a share of the mean brain signal.
        gamma: Per sequence. Standard deviation of the log of the exponent on the signal.
        contrast: Standard deviation of the log by which each tissue's signal departs, in each
            sequence, from what physics and published relaxation times give (after SynthSeg, Billot
            et al. 2023, Med Image Anal 86:102789).
        regional: Per sequence. Standard deviation of the log by which healthy tissue of one place
            differs from that of another, 25 mm on: deep grey matter, myelination, iron.
        surface: Per sequence. Log at most by which signal rises toward the surface of the brain, as
            near the elements of a phased-array coil.
        falloff: Per sequence. Log at most by which signal is lost toward the vertex or the skull
            base, as where a coil ends.
        border: Per sequence. Standard deviation of the log by which signal is lost or gained in
            patches of the brain's border: air nearby, remains of skull and dura.
        remains: Bone, muscle or fat that skull-stripping left, of any signal. Thickness in mm at
            most.
        atrophy: Share of grey matter lost to fluid at most; the ventricles widen with it, by about
            12 mm at 0.4.
        hyperintensities: Lesions of white matter that are no tumour. Share of the white matter
            beside the ventricles at most.
        vessels: Enhancing vessels in sulci, as sheets. Density at most.
        sinuses: Venous sinuses and dura left inside the mask. Their fraction at most.
        choroid_plexus: Enhancing plexus in the ventricles. Its fraction at most.
        mask: A brain mask too wide or too narrow. Error in mm at most.
        midline_shift: Tissue pushed away by the tumour beyond its own mass effect. Factor at most.
        faint: Tumours that enhance faintly. Concentration of contrast agent at the least, as a
            share of the usual.
        small_core: Enhancing rings small for the oedema around, which reaches the further. Their
            radius at the least, as a share of the usual.
        large_core: Enhancing rings large for the oedema around, which reaches the less. Their
            radius at most, as a multiple of the usual.
        thin_ring: Rings of enhancement thinner than usual. Thickness in mm at the least.
        solid_enhancement: Cores that enhance throughout. How much of them, at most.
        specks: Scattered small enhancement in a core that else has none. Their share at most.
        haemorrhage: Blood in the core. Its share at most.
        cyst: A core of fluid. How like fluid, at most.
        multifocal: Foci apart from the first. Distance at most, in radii.
        butterfly: Tumours that cross the corpus callosum. How symmetric, at most.
        infiltration: Borders that fade. Softness at most, in radii.
        uneven_uptake: Enhancement that is dim in places, and is drawn as enhancing all the same.
            Share of the uptake lost there at most.
        generous_outline: Enhancement outlined by hand, with the narrow gaps in it and a margin.
            Standard deviation in mm of the blur whose level is the outline.
        resection: A cavity where the core was taken out: label 4, for which a network needs five
            classes. Its size at most, in radii.
        superficial: Tumours that begin near the cortex, whatever their type. How far its own prior
            gives way to that of oligodendroglioma, at most.
        even_spread: Oedema that spreads through grey matter as through white. How evenly at most.
        fading: Oedema that fades away, and is outlined where a third of it is left. Softness of its
            border at most, in radii.
        effacement: Sulci that the tumour presses shut. Share of their fluid lost at most.
        texture: Tumour tissue that is uneven on a larger scale, in each sequence otherwise.
            Standard deviation of the log at most.
        free_water: Oedema of longer T2, and T1, still seen on FLAIR. Log of the factor on T2 at
            most.
        wet_core: Cores of longer T2, and T1, which FLAIR shows the brighter; enhancing tissue by a
            third of it. Log of the factor on T2 at most.
        protein: Cores of shorter T1, which FLAIR then suppresses less. Log of the factor on T1 at
            most.
        like_oedema: Cores of rings that look on T2 and FLAIR like the oedema outside, so that the
            ring tells them apart, and T1, on which cores are mostly darker. How like at most.
        hidden_on_t1: Oedema that is hardly seen on T1. How like healthy tissue at most.
        protocol: T2-weighting that tells grey from white matter less, and FLAIR that suppresses
            fluid more. How much of either difference is lost, at most.
        hidden_on_t2: Oedema that is hardly seen on T2 and well on FLAIR. How like healthy tissue at
            most.
        uneven_oedema: Oedema around a ring that looks in places like a core that does not enhance.
            How like at most.
        head_shape: Heads less like the average one. Factor on the bends at most.
        dense_ring: Enhancing tissue dense with cells, dark on T2 and FLAIR beside wet oedema. Log
            of the factor on T2 lost at most.
        own_sequence: T1 after contrast taken by a pulse sequence of its own, so that the change
            from T1 before is not that of the contrast agent alone. How unlike it is at most.
        dim_on_flair: Cores, with what enhances in them, that FLAIR hardly shows. How like healthy
            tissue at most.
        coverage: Per sequence. Slices that end before the brain does, at the vertex or the skull
            base: nothing was measured beyond. How far at most, in mm from the end of the box that
            a head fills.
        dura: A thin layer around all of the brain that is dark in every sequence, in place of
            fluid: dura, bone. Thickness in mm at most.
        full_head: Little fluid between brain and skull. Share of it lost at most, and half of that
            at the least.
        sharp_sulci: Fluid told from grey matter more sharply than in the atlas, an average of many
            heads. What the power of their fractions is raised by at most.
        mild_on_t2: Tumours that T2 shows less than FLAIR does, core and oedema alike. How like
            healthy tissue at most.
        tubular_vessels: Vessels in sulci that are tubes, in place of the sheets. Radius in mm at
            most, on average.
    """

    thick_slices: Effect = Effect(0.5, 6.0)
    blur: Effect = Effect(0.5, 0.9)
    misalignment: Effect = Effect(0.3, 1.2)
    ghosting: Effect = Effect(0.1, 0.08)
    bias: Effect = Effect(0.5, 0.12)
    noise: Effect = Effect(1.0, 0.06)
    gamma: Effect = Effect(1.0, 0.18)
    contrast: Effect = Effect(0.6, 0.2)
    regional: Effect = Effect(0.6, 0.06)
    surface: Effect = Effect(0.4, 0.2)
    falloff: Effect = Effect(0.3, 1.4)
    border: Effect = Effect(0.3, 0.35)
    remains: Effect = Effect(0.4, 9.0)
    atrophy: Effect = Effect(0.4, 0.4)
    hyperintensities: Effect = Effect(0.35, 0.5)
    vessels: Effect = Effect(1.0, 0.10)
    sinuses: Effect = Effect(0.6, 0.8)
    choroid_plexus: Effect = Effect(0.7, 0.8)
    mask: Effect = Effect(0.5, 1.5)
    midline_shift: Effect = Effect(0.3, 1.6)
    faint: Effect = Effect(0.5, 0.2)
    small_core: Effect = Effect(0.25, 0.4)
    large_core: Effect = Effect(0.5, 1.5)
    thin_ring: Effect = Effect(0.3, 1.2)
    solid_enhancement: Effect = Effect(0.15, 1.0)
    specks: Effect = Effect(0.2, 0.15)
    haemorrhage: Effect = Effect(0.15, 0.5)
    cyst: Effect = Effect(0.1, 1.0)
    multifocal: Effect = Effect(0.2, 2.5)
    butterfly: Effect = Effect(0.05, 1.0)
    infiltration: Effect = Effect(0.3, 0.25)
    uneven_uptake: Effect = Effect(0.6, 0.8)
    generous_outline: Effect = Effect(1.0, 1.6)
    resection: Effect = Effect(0.0, 1.1)
    superficial: Effect = Effect(0.3, 0.8)
    even_spread: Effect = Effect(0.3, 0.5)
    fading: Effect = Effect(0.8, 0.2)
    effacement: Effect = Effect(0.4, 0.6)
    texture: Effect = Effect(0.8, 0.35)
    free_water: Effect = Effect(0.8, 0.7)
    wet_core: Effect = Effect(0.8, 0.6)
    protein: Effect = Effect(0.5, 0.3)
    like_oedema: Effect = Effect(0.5, 1.0)
    hidden_on_t1: Effect = Effect(0.5, 0.8)
    hidden_on_t2: Effect = Effect(0.5, 0.9)
    uneven_oedema: Effect = Effect(0.3, 0.7)
    protocol: Effect = Effect(0.8, 0.9)
    head_shape: Effect = Effect(0.7, 1.5)
    dense_ring: Effect = Effect(0.5, 0.8)
    own_sequence: Effect = Effect(0.6, 1.0)
    dim_on_flair: Effect = Effect(0.12, 1.0)
    coverage: Effect = Effect(0.12, 40.0)
    dura: Effect = Effect(0.85, 4.5)
    full_head: Effect = Effect(0.8, 1.0)
    sharp_sulci: Effect = Effect(0.9, 3.0)
    mild_on_t2: Effect = Effect(0.7, 0.7)
    tubular_vessels: Effect = Effect(0.85, 2.0)

    def without(self, *names: str) -> "Effects":
        """Returns the effects with some switched off.

        Raises:
            UserError: If there is no such effect.
        """
        for name in names:
            if name not in self._fields:
                raise UserError(
                    f"effects: {name!r} is unknown; expected some of {', '.join(self._fields)}."
                )
        return self._replace(**{name: Effect(0.0, getattr(self, name).magnitude) for name in names})

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Effects":
        """Makes them of {name: {"probability", "magnitude"}}.

        Raises:
            UserError: If one is missing or unknown, or a number is impossible.
        """
        known = set(cls._fields)
        if set(values) != known:
            wrong = ", ".join(sorted(known ^ set(values)))
            raise UserError(f"effects: {wrong}; expected exactly {', '.join(sorted(known))}.")
        made = {}
        for name, value in values.items():
            try:
                effect = Effect(**{part: float(number) for part, number in value.items()})
            except (AttributeError, TypeError, ValueError) as error:
                raise UserError(
                    f"effects.{name} is {value}; expected probability, magnitude: two numbers."
                ) from error
            if not 0 <= effect.probability <= 1 or not 0 <= effect.magnitude < math.inf:
                raise UserError(
                    f"effects.{name} is {effect}; expected a probability from 0 to 1 and a "
                    "magnitude that is not negative."
                )
            made[name] = effect
        return cls(**made)


def draw_by_name(
    key: jax.Array, groups: Sequence[Sequence[str]], count: int
) -> dict[str, jax.Array]:
    """Draws uniform numbers, [count] float32, for each effect of some groups.

    The groups are drawn apart, in the order in which they came: what a later one draws changes no
    patient that has none of its effects.
    """
    drawn: dict[str, jax.Array] = {}
    for number, names in enumerate(groups):
        own = jax.random.fold_in(jax.random.clone(key), number) if number else key
        drawn |= zip(names, jax.random.uniform(own, (count, len(names))).T, strict=True)
    return drawn


_KEPT = ("thick_slices", "bias", "noise", "gamma", "vessels")
PLAIN = (
    Effects()
    .without(*(name for name in Effects._fields if name not in _KEPT))
    ._replace(
        thick_slices=Effect(0.3, 6.0),
        bias=Effect(1.0, 0.12),  # In every scan, so that tidy patients stay as they were.
        vessels=Effect(1.0, 0.07),
        noise=Effect(1.0, 0.05),
    )
)
"""A tidy scanner and textbook tumours, for the demo: what a small network learns in minutes."""
