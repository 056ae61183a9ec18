"""When a prediction is withheld: the one place that decides it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.clinical.wording import percent

NO_EVIDENCE = (
    "this network learned them from generated patients alone, whose type follows rules that the "
    "program's authors wrote, and it was not shown that real tumours follow these rules"
)
"""Why answers about the tumour's type are no evidence after training on generated patients."""


@dataclass(frozen=True)
class Evidence:
    """Which of a network's tasks are shown, and as what.

    Attributes:
        withheld: tasks that are left out of all results.
        experimental: tasks that are shown, marked as no evidence.
        reason: why, for either; None where neither is.
    """

    withheld: tuple[str, ...] = ()
    experimental: tuple[str, ...] = ()
    reason: str | None = None


ALL_SHOWN = Evidence()


def evidence_of(tasks: Iterable[str], *, trained_on: str, experimental: bool) -> Evidence:
    """Decides what may be said of the tumour's type.

    Args:
        tasks: those that the network has heads for.
        trained_on: one of `export.provenance.TRAINED_ON`.
        experimental: whether the user asked for answers that are no evidence.
    """
    known = set(tasks)
    names = tuple(task for task in TASKS if task in known)
    if trained_on != "generated" or not names:
        return ALL_SHOWN
    if experimental:
        return Evidence(experimental=names, reason=NO_EVIDENCE)
    return Evidence(withheld=names, reason=NO_EVIDENCE)


@dataclass(frozen=True)
class AbstentionRule:
    """Limits beyond which the model says nothing.

    Attributes:
        min_probability: the most probable class must reach it.
        max_uncertainty: epistemic uncertainty in nats (mutual information between prediction and
            dropout mask; Houlsby et al. 2011) must not exceed it. 0.05 nats is a standard deviation
            of about 0.16 over the passes at a probability of 0.5, and of 0.13 at 0.8.
        min_tumour_ml: a whole tumour smaller than this counts as none found.
    """

    min_probability: float = 0.6
    max_uncertainty: float = 0.05
    min_tumour_ml: float = 0.1

    def tumour_found(self, whole_tumour_ml: float) -> bool:
        """Returns whether the outlined volume counts as a tumour."""
        return whole_tumour_ml >= self.min_tumour_ml

    def reason(
        self,
        probabilities: Sequence[float] | np.ndarray,
        *,
        uncertainty: float | None,
        tumour_found: bool,
    ) -> str | None:
        """Says why the prediction is withheld.

        Args:
            probabilities: [k] float.
            uncertainty: in nats, None when it was not estimated.
            tumour_found: whether there is a tumour to classify.

        Returns:
            The reason in words, or None when the prediction stands.
        """
        if not tumour_found:
            return "no tumour was found"
        highest = float(np.max(probabilities))
        if not highest >= self.min_probability:  # NaN is withheld too
            found, limit = percent(highest), percent(self.min_probability)
            if found == limit:
                found = f"just under {limit}"
            return f"the highest probability, {found}, is below the limit of {limit}"
        if uncertainty is not None and not uncertainty <= self.max_uncertainty:
            return (
                f"repeated passes disagree ({uncertainty:.3f} nats, limit {self.max_uncertainty:g})"
            )
        return None
