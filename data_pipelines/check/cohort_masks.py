"""Masks of all cases together: conventions, codes, volumes."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.check.exam import Exam
from data_pipelines.check.findings import Finding
from data_pipelines.check.mask import Mask
from gmmas_jax.cases.labels import LABELS

_FEWEST_VOLUMES = 20
_FAR = 5.0
_LEAST_SPREAD = 0.25
_FEWEST_SURFACES = 3
_EXPOSED_MORE = 0.15


def convention_findings(exams: Sequence[Exam]) -> Iterator[Finding]:
    """Yields doubts about the conventions that only the cohort as a whole can raise."""
    masks = [exam.mask for exam in exams if exam.mask is not None and exam.mask.values]
    counts = Counter(mask.convention for mask in masks if mask.convention is not None)
    if len(counts) > 1:
        found = ", ".join(f"{name}: {count} cases" for name, count in counts.most_common())
        yield Finding("cohort.conventions_mixed", found)
    values: dict[str, Counter[int]] = defaultdict(Counter)
    for mask in masks:
        if mask.convention is not None:
            values[mask.convention].update(mask.values)
    if values["brats2024"][4] and not values["brats2024"][3]:
        found = (
            f"declared brats2024, where 4 is the resection cavity and 3 enhancing tumour; "
            f"{values['brats2024'][4]} of {counts['brats2024']} files hold 4 and none holds 3"
        )
        yield Finding("cohort.other_convention", found)
    for convention in counts:
        yield from _codes_swapped(convention, [m for m in masks if m.convention == convention])


def volume_findings(exams: Sequence[Exam]) -> Iterator[Finding]:
    """Yields the cases of which a label's volume is an outlier.

    The distance is measured on the logarithm, in robust standard deviations (1.4826 times the
    median absolute deviation, 0.25 at least); from 20 cases on.
    """
    for label, volumes in _by_label(exams).items():
        if len(volumes) < _FEWEST_VOLUMES:
            continue
        logs = np.log([volume for _, volume in volumes])
        middle = float(np.median(logs))
        spread = max(1.4826 * float(np.median(np.abs(logs - middle))), _LEAST_SPREAD)
        for (case_id, volume), value in zip(volumes, logs, strict=True):
            distance = (value - middle) / spread
            if abs(distance) > _FAR:
                found = f"{volume:.3g} mL of {label}; the median is {np.exp(middle):.3g} mL"
                yield Finding(
                    "cohort.volume_outlier",
                    f"{found} ({distance:+.1f} robust standard deviations of the logarithm)",
                    case_id=case_id,
                )


def mask_statistics(exams: Sequence[Exam]) -> dict[str, Any]:
    """Returns conventions with their number of cases, and volumes per label in mL, JSON-able."""
    masks = [exam.mask for exam in exams if exam.mask is not None]
    return {
        "masks": len(masks),
        "conventions": dict(Counter(mask.convention or "unknown" for mask in masks)),
        "codes": {
            str(code): count
            for code, count in sorted(Counter(v for mask in masks for v in mask.values).items())
        },
        "volumes_ml": {
            label: summary([volume for _, volume in volumes])
            for label, volumes in _by_label(exams).items()
        },
    }


def summary(values: Sequence[float]) -> Mapping[str, float]:
    """Returns n, minimum, quartiles and maximum, rounded to four digits."""
    if not values:
        return {"n": 0}
    quartiles = np.percentile(values, [0, 25, 50, 75, 100])
    names = ("min", "q25", "median", "q75", "max")
    rounded = {name: float(f"{q:.4g}") for name, q in zip(names, quartiles, strict=True)}
    return {"n": len(values), **rounded}


def _by_label(exams: Sequence[Exam]) -> dict[str, list[tuple[str, float]]]:
    """Returns label name to case id and volume, where the label is there."""
    found: dict[str, list[tuple[str, float]]] = {}
    for label in LABELS[1:]:
        found[label] = [
            (exam.case_id, exam.mask.volumes_ml[label])
            for exam in exams
            if exam.mask is not None and label in exam.mask.volumes_ml
        ]
    return {label: volumes for label, volumes in found.items() if volumes}


def _codes_swapped(convention: str, masks: Sequence[Mask]) -> Iterator[Finding]:
    """Yields whether NCR adjoins background more than ED does, as if the two were exchanged."""
    both = [mask.exposed for mask in masks if 1 in mask.exposed and 2 in mask.exposed]
    if len(both) < _FEWEST_SURFACES:
        return
    core = float(np.median([exposed[1] for exposed in both]))
    oedema = float(np.median([exposed[2] for exposed in both]))
    if core > oedema + _EXPOSED_MORE:
        found = (
            f"declared {convention}: {core:.0%} of the surface of NCR adjoins background, and "
            f"{oedema:.0%} of that of ED (medians of {len(both)} cases)"
        )
        yield Finding("cohort.codes_swapped", found, expected="oedema outside of the core")
