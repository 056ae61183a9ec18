"""Builds the content of findings.json from a prediction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gmmas_jax.cases.findings import SCHEMA_VERSION, STATEMENT, validate_findings
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.clinical.abstention import ALL_SHOWN, AbstentionRule, Evidence
from gmmas_jax.clinical.diagnosis import IntegratedDiagnosis, integrate


def build_findings(
    *,
    case_id: str,
    model: Mapping[str, str],
    present: Iterable[str],
    warnings: Iterable[str],
    volumes_ml: Mapping[str, Mapping[str, float]],
    probabilities: Mapping[str, Sequence[float] | np.ndarray],
    uncertainty: Mapping[str, float | None],
    calibrated: Iterable[str],
    rule: AbstentionRule,
    evidence: Evidence = ALL_SHOWN,
    created: datetime | None = None,
) -> dict[str, Any]:
    """Applies the abstention rule and the integrated diagnosis, and validates the result.

    Args:
        case_id: name of the case.
        model: {"name", "config", "weights_sha256", "trained_on"}.
        present: sequences the prediction was made from.
        warnings: what the reader and the preparation noticed, in words.
        volumes_ml: as `clinical.volumes.volumes_ml` returns it; must hold the region WT.
        probabilities: by task, [k] float in the order of `TASKS`.
        uncertainty: by task, mutual information in nats; a task may be absent or None.
        calibrated: tasks whose probabilities were calibrated on held-out cases.
        rule: when a prediction is withheld.
        evidence: tasks that are withheld whatever is predicted, or shown as an experiment.
        created: moment of creation; now by default.

    Returns:
        The document, valid by the schema.

    Raises:
        ValueError: a task's probabilities do not sum to 1.
        UserError: the document would not be valid by the schema.
    """
    rows = {
        task: _normalised(row)
        for task, row in probabilities.items()
        if task not in evidence.withheld
    }
    tumour_found = rule.tumour_found(volumes_ml["regions"]["WT"])
    tasks = {
        task: _task(
            task,
            row,
            uncertainty=uncertainty.get(task),
            calibrated=task in set(calibrated),
            rule=rule,
            tumour_found=tumour_found,
            experimental=task in evidence.experimental,
        )
        for task, row in rows.items()
    }
    diagnosis = IntegratedDiagnosis((), ())
    if tumour_found:
        diagnosis = integrate(
            rows, abstained={t for t, entry in tasks.items() if entry["abstained"]}
        )
    given = set(present)
    findings = {
        "schema_version": SCHEMA_VERSION,
        "case": case_id,
        "model": dict(model),
        "sequences": {
            "present": [s for s in SEQUENCES if s in given],
            "missing": [s for s in SEQUENCES if s not in given],
        },
        "warnings": list(warnings),
        "volumes_ml": {kind: dict(values) for kind, values in volumes_ml.items()},
        "tasks": tasks,
        "tasks_withheld": {
            "tasks": list(evidence.withheld),
            "reason": evidence.reason if evidence.withheld else None,
        },
        "integrated_diagnosis": {
            "ranked": [
                {"diagnosis": c.diagnosis, "probability": round(c.probability, 6)}
                for c in diagnosis.ranked
            ],
            "contradictions": list(diagnosis.contradictions),
        },
        "statement": STATEMENT,
        "created": (created or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    validate_findings(findings, source=f"findings of {case_id}")
    return findings


def _normalised(row: Sequence[float] | np.ndarray) -> list[float]:
    """Returns probabilities [k] as floats that sum to 1 beyond float32's rounding."""
    values = np.clip(np.asarray(row, np.float64), 0.0, None)
    if not np.isfinite(values).all() or abs(values.sum() - 1) > 1e-3:
        raise ValueError(f"expected probabilities that sum to 1, got {row}")
    return [float(value) for value in values / values.sum()]


def _task(
    task: str,
    row: list[float],
    *,
    uncertainty: float | None,
    calibrated: bool,
    rule: AbstentionRule,
    tumour_found: bool,
    experimental: bool,
) -> dict[str, Any]:
    reason = rule.reason(row, uncertainty=uncertainty, tumour_found=tumour_found)
    classes = TASKS[task]
    return {
        "classes": list(classes),
        "probabilities": [round(value, 6) for value in row],
        "prediction": None if reason else classes[int(np.argmax(row))],
        "calibrated": calibrated,
        "uncertainty": None if uncertainty is None else round(max(float(uncertainty), 0.0), 6),
        "abstained": reason is not None,
        "reason": reason,
        "experimental": experimental,
    }
