"""The report of one case, report.html: for the physician, and a part in plain words."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.clinical.abstention import NO_EVIDENCE, AbstentionRule
from gmmas_jax.clinical.overlay import Panel
from gmmas_jax.clinical.pages import data_uri, render
from gmmas_jax.clinical.suggestion import Suggestion, suggest
from gmmas_jax.clinical.wording import (
    LABEL_COLOURS,
    LABEL_TITLES,
    MISSING_CONSEQUENCES,
    REGION_TITLES,
    SEQUENCE_TITLES,
    TASK_CAUTIONS,
    TASK_TITLES,
    class_title,
    percent,
)


def case_report(
    findings: Mapping[str, Any], panels: Sequence[Panel], *, rule: AbstentionRule
) -> str:
    """Renders the page from the findings and the pictures alone.

    Args:
        findings: a valid findings.json document.
        panels: as `overlay.draw_panels` returns them.
        rule: the limits the findings were made with.

    Returns:
        HTML with the pictures inside.
    """
    suggestion = suggest(findings, rule=rule)
    found = rule.tumour_found(findings["volumes_ml"]["regions"]["WT"])
    present = findings["sequences"]["present"]
    tasks = findings["tasks"]
    return render(
        "case_report.html.j2",
        case=findings["case"],
        created=findings["created"].replace("T", " ").replace("Z", " UTC"),
        sequences=[{"title": SEQUENCE_TITLES[s], "present": s in present} for s in SEQUENCES],
        outlined=_outlined(findings, found),
        suggestion=suggestion,
        contradictions=findings["integrated_diagnosis"]["contradictions"],
        warnings=findings["warnings"],
        missing=[MISSING_CONSEQUENCES[s] for s in findings["sequences"]["missing"]],
        withheld=_withheld(findings, found),
        experimental=_experimental(tasks) if found else "",
        rows=_picture_rows(panels),
        legend=[
            {"title": LABEL_TITLES[name], "colour": LABEL_COLOURS[name]}
            for name in ("TU", "ED", "ET", "NCR", "RC")
            if findings["volumes_ml"]["labels"].get(name, 0) > 0
        ],
        volumes=_volume_rows(findings["volumes_ml"]),
        # Without a tumour the numbers mean nothing, so they are not shown at all.
        tasks=[_task_card(name, task, rule) for name, task in tasks.items() if found],
        calibration=_calibration_note(tasks),
        limit_percent=round(100 * rule.min_probability),
        limit_uncertainty=f"{rule.max_uncertainty:g}",
        ranked=[
            {"title": entry["diagnosis"], "first": i == 0, **_share(entry["probability"])}
            for i, entry in enumerate(findings["integrated_diagnosis"]["ranked"])
        ],
        plain=_plain_words(findings, suggestion, found),
        model=findings["model"],
        schema_version=findings["schema_version"],
    )


def millilitres(volume: float) -> str:
    """Returns a volume as it is written in a report."""
    if 0 < volume < 0.1:
        return "< 0.1 mL"
    return f"{volume:.1f} mL"


def _roughly(volume: float) -> str:
    return millilitres(volume) if volume < 2 else f"{volume:.0f} mL"


def _share(probability: float) -> dict[str, Any]:
    """Returns the length of a bar and its text."""
    return {"percent": round(100 * probability, 1), "text": percent(probability)}


def _outlined(findings: Mapping[str, Any], found: bool) -> str:
    regions = findings["volumes_ml"]["regions"]
    cavity = regions.get("RC", 0.0)
    after = f" A resection cavity of {millilitres(cavity)} was outlined." if cavity else ""
    if not found:
        specks = regions["WT"]
        what = (
            f"Only {millilitres(specks)} was outlined, too little to count as" if specks else "No"
        )
        return f"{what} {'a tumour' if specks else 'tumour was outlined'}.{after}"
    enhancing = regions.get("ET")
    if enhancing is None:
        part = "."
    elif enhancing == 0:
        part = ", none of it enhancing."
    else:
        part = f", {millilitres(enhancing)} of it enhancing."
    return f"A tumour of {millilitres(regions['WT'])} was outlined{part}{after}"


def _picture_rows(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    rows = []
    for (where, outlined), row in groupby(panels, key=lambda p: (p.where, p.outlined)):
        rows.append(
            {
                "where": where[:1].upper() + where[1:],
                "outlined": outlined,
                "panels": [
                    {
                        "title": SEQUENCE_TITLES[panel.sequence],
                        "source": None if panel.image is None else data_uri(panel.image),
                    }
                    for panel in row
                ],
            }
        )
    return rows


def _volume_rows(volumes: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Returns the whole tumour, its parts, and the regions made of them."""
    labels, regions = volumes["labels"], volumes["regions"]
    whole = regions["WT"]

    def row(kind: str, title: str, volume: float, *, of_whole: bool = True) -> dict[str, str]:
        share = percent(volume / whole) if of_whole and whole else "–"
        return {"kind": kind, "title": title, "volume": millilitres(volume), "share": share}

    rows = [row("total", REGION_TITLES["WT"], whole)]
    rows += [row("part", LABEL_TITLES[n], labels[n]) for n in ("ED", "ET", "NCR") if n in labels]
    if "TC" in regions:
        title = f"{REGION_TITLES['TC']}: enhancing and non-enhancing core"
        rows.append(row("total", title, regions["TC"]))
    if "RC" in labels:
        rows.append(row("total", LABEL_TITLES["RC"], labels["RC"], of_whole=False))
    return rows


def _withheld(findings: Mapping[str, Any], found: bool) -> list[str]:
    """Returns in words what is withheld and why."""
    tasks, never = findings["tasks"], findings["tasks_withheld"]
    if tasks and not found:
        return ["All predictions of the tumour's type: no tumour was found."]
    if never["tasks"]:
        return [f"{_titles(never['tasks'])}: {never['reason']}."]
    return [
        f"{TASK_TITLES[name]}: {task['reason']}."
        for name, task in tasks.items()
        if task["abstained"]
    ]


def _experimental(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns in words which answers are no evidence, and why; empty where all are."""
    names = [name for name, task in tasks.items() if task["experimental"]]
    return f"{_titles(names)}: {NO_EVIDENCE}." if names else ""


def _titles(tasks: Sequence[str]) -> str:
    return ", ".join(TASK_TITLES[name] for name in tasks)


def _task_card(name: str, task: Mapping[str, Any], rule: AbstentionRule) -> dict[str, Any]:
    highest = max(task["probabilities"])
    return {
        "title": TASK_TITLES[name],
        "caution": TASK_CAUTIONS.get(name),
        "reason": task["reason"],
        "experimental": task["experimental"],
        "answer": None if task["abstained"] else class_title(name, task["prediction"]),
        "bars": [
            {"title": class_title(name, label), "first": value == highest, **_share(value)}
            for label, value in zip(task["classes"], task["probabilities"], strict=True)
        ],
        "spread": _spread(task["uncertainty"], rule),
    }


def _spread(uncertainty: float | None, rule: AbstentionRule) -> dict[str, Any] | None:
    """Returns the uncertainty on a scale whose middle is the limit."""
    if uncertainty is None:
        return None
    ratio = uncertainty / rule.max_uncertainty
    level = "low" if ratio <= 0.5 else "moderate" if ratio <= 1 else "high"
    return {
        "level": level,
        "percent": round(min(100.0, 50 * ratio), 1),
        "text": f"{uncertainty:.3f}",
    }


def _calibration_note(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    raw = [TASK_TITLES[name] for name, task in tasks.items() if not task["calibrated"]]
    if not raw:
        return (
            "The percentages were calibrated on held-out cases: among such cases, of ten answers "
            "given with 80\u00a0%, about eight were right."
        )
    which = "The percentages are" if len(raw) == len(tasks) else f"For {', '.join(raw)} they are"
    return (
        f"{which} the model's own scores and were not calibrated: 80\u00a0% does not mean right in "
        "eight cases of ten."
    )


def _plain_words(findings: Mapping[str, Any], suggestion: Suggestion, found: bool) -> list[str]:
    regions = findings["volumes_ml"]["regions"]
    count = len(findings["sequences"]["present"])
    kinds = {1: "one of the four", 2: "two of the four", 3: "three of the four"}.get(
        count, "all four"
    )
    looked = (
        f"A computer program looked at {kinds} usual kinds of MRI pictures of the head. It is made "
        "for research. No doctor has checked what it says here."
    )
    if not found:
        return [looked, suggestion.plain, _PLAIN_END]
    size = (
        f"It outlined an area of about {_roughly(regions['WT'])} that looks changed by a tumour "
        "(for comparison: a tablespoon holds 15 mL). This area also contains swelling and tissue "
        "around the tumour itself."
    )
    enhancing = regions.get("ET", 0.0)
    if enhancing > 0:
        size += f" About {_roughly(enhancing)} of it took up the contrast agent."
    return [
        looked,
        size,
        f"{suggestion.plain} Only the examination of tissue, under the microscope and with genetic "
        "tests, can show what it is. The program can be wrong.",
        _PLAIN_END,
    ]


_PLAIN_END = (
    "This page says nothing about how an illness will go on or which treatment is right. Please "
    "take your questions to the doctors who know you: they see far more than these pictures."
)
