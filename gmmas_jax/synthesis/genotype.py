"""What each molecular type of glioma looks like on MRI: the ranges that the generator draws from.

Appearance, as published:

- glioblastoma, IDH-wildtype: enhancing ring around necrosis, large oedema (Ellingson 2015, Curr
  Neurol Neurosci Rep 15:506; Carrillo et al. 2012, AJNR 33:1349: IDH-mutant tumours have less
  enhancement, less oedema);
- astrocytoma, IDH-mutant: T2-FLAIR mismatch, that is a core as bright as fluid on T2 and dark on
  FLAIR but for its rim (Patel et al. 2017, Clin Cancer Res 23:6078; Broen et al. 2018,
  Neuro-Oncology 20:1393: specific, found in about half), sharp border, little enhancement;
- oligodendroglioma, IDH-mutant and 1p/19q-codeleted: indistinct border, mixed signal,
  calcification, cortical and frontal (Jenkinson et al. 2006, Brain 129:1884; Koeller and Rushing
  2005, RadioGraphics 25:1669), patchy enhancement in up to half.

MGMT promoter methylation is drawn apart from everything visible: on public data nobody has shown
that MRI tells it (Saeed et al. 2022, arXiv:2201.06086; Kim et al. 2022, Cancers 14:4827). A model
that "predicts" it on these patients is overfitting.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

HISTOLOGIES = ("glioblastoma", "astrocytoma", "oligodendroglioma")
# Share of each type in a generated cohort. Balanced further than life (glioblastoma is about three
# in four diffuse gliomas of adults), so that small cohorts hold every class.
SHARES = (0.5, 0.27, 0.23)
# Columns follow HISTOLOGIES. Grades 2, 3, 4 given the type (WHO CNS5: glioblastoma is grade 4).
GRADE_SHARES = ((0.0, 0.0, 1.0), (0.45, 0.35, 0.2), (0.6, 0.4, 0.0))
MGMT_METHYLATED = 0.5
_LEAST_REACH = 0.25
"""Of oedema, as a share of the usual, however large the core."""

# (low, high) of a uniform draw for glioblastoma, astrocytoma, oligodendroglioma. Lengths are in mm.
RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "radius": ((7.0, 27.0), (12.0, 33.0), (11.0, 32.0)),
    "roughness": ((0.12, 0.34), (0.10, 0.24), (0.20, 0.40)),
    "softness": ((0.02, 0.05), (0.02, 0.05), (0.06, 0.14)),
    "oedema_reach": ((5.0, 32.0), (2.0, 20.0), (3.0, 22.0)),
    "ring": ((2.5, 8.0), (2.0, 6.0), (2.0, 6.0)),
    "mass_effect": ((0.05, 0.30), (0.03, 0.20), (0.0, 0.12)),
    "gadolinium": ((0.12, 0.50), (0.10, 0.35), (0.10, 0.35)),
}
# Probability of each feature for the three types.
CHANCES: dict[str, tuple[float, float, float]] = {
    "ring_enhancement": (0.90, 0.04, 0.04),
    "patchy_enhancement": (0.30, 0.22, 0.40),
    "mismatch": (0.0, 0.65, 0.03),
    "calcification": (0.02, 0.05, 0.65),
    "satellite": (0.30, 0.15, 0.15),
}


class Genotype(NamedTuple):
    """A patient's drawn type: scalars; classes are indices into `cases.tasks.TASKS`."""

    histology: jax.Array
    grade: jax.Array
    mgmt: jax.Array
    ranges: dict[str, jax.Array]
    features: dict[str, jax.Array]

    def tasks(self) -> dict[str, jax.Array]:
        """Returns the class index [] int32 of every task that a generated patient has."""
        return {
            "idh": (self.histology > 0).astype(jnp.int32),
            "codel_1p19q": (self.histology == 2).astype(jnp.int32),
            "histology": self.histology,
            "grade": self.grade,
            "mgmt": self.mgmt,
        }


def draw_genotype(key: jax.Array) -> Genotype:
    """Draws type, grade, MGMT status and the numbers that shape the tumour.

    Args:
        key: Typed PRNG key.

    Returns:
        The genotype; `ranges` has the keys of `RANGES` (float32), `features` those of `CHANCES`
        (bool).
    """
    k_type, k_grade, k_mgmt, k_ranges, k_features = jax.random.split(key, 5)
    histology = jax.random.choice(k_type, 3, p=jnp.asarray(SHARES)).astype(jnp.int32)
    grade = jax.random.categorical(k_grade, jnp.log(jnp.asarray(GRADE_SHARES)[histology] + 1e-9))
    mgmt = jax.random.bernoulli(k_mgmt, MGMT_METHYLATED)
    keys = jax.random.split(k_ranges, len(RANGES))
    ranges = {
        name: jax.random.uniform(
            k, minval=jnp.asarray(bounds)[histology, 0], maxval=jnp.asarray(bounds)[histology, 1]
        )
        for k, (name, bounds) in zip(keys, RANGES.items(), strict=True)
    }
    keys = jax.random.split(k_features, len(CHANCES))
    features = {
        name: jax.random.bernoulli(k, jnp.asarray(chances)[histology])
        for k, (name, chances) in zip(keys, CHANCES.items(), strict=True)
    }
    return Genotype(histology, grade.astype(jnp.int32), mgmt.astype(jnp.int32), ranges, features)


def resized(genotype: Genotype, size: jax.Array) -> Genotype:
    """Returns a genotype whose core has another radius and whose oedema makes up for it.

    Args:
        genotype: As drawn.
        size: [] float32, factor on the radius; oedema reaches as much further as it is below 1, and
            less beyond 1.
    """
    ranges = dict(genotype.ranges)
    ranges["radius"] = ranges["radius"] * size
    ranges["oedema_reach"] = ranges["oedema_reach"] * jnp.maximum(2.0 - size, _LEAST_REACH)
    return genotype._replace(ranges=ranges)
