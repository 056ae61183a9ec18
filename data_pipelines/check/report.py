"""The report on the screen: short however many cases there are."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.check.cohort import Report
from data_pipelines.check.findings import CODES, Finding

_SHOWN = 3
_WIDTH = 110


def report_lines(report: Report, out: Path) -> Iterator[str]:
    """Yields the report: per code how many, what it means, the first cases, and what to do.

    Args:
        report: The report.
        out: Where all findings are, for the reader.
    """
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        groups[finding.code].append(finding)
    for code, findings in groups.items():
        yield from _group(code, findings)
        yield ""
    total = len(report.cases)
    clean = sum(not (case["errors"] or case["warnings"]) for case in report.cases)
    counts = ", ".join(
        f"{report.count(level)} {level}{'s' * (report.count(level) != 1)}"
        for level in ("error", "warning", "note")
    )
    yield f"{total} cases checked: {counts}; {clean} cases without error or warning"
    yield f"all findings: {out}"


def _group(code: str, findings: list[Finding]) -> Iterator[str]:
    kind = CODES[code]
    cases = len({finding.case_id for finding in findings if finding.case_id is not None})
    where = f"{cases} case{'s' * (cases != 1)}" if cases else "the cohort"
    yield f"{kind.level.upper():7}  {code}  ({where}): {kind.meaning}"
    remedies = {finding.remedy or kind.remedy for finding in findings}
    for finding in findings[:_SHOWN]:
        name = " ".join(part for part in (finding.case_id, finding.file) if part)
        words = f"{name}: {finding.found}" if name else finding.found
        if finding.expected:
            words += f" (expected {finding.expected})"
        yield _cut(f"         - {words}")
    if len(findings) > _SHOWN:
        yield f"         - and {len(findings) - _SHOWN} more"
    # One thing to do for the group; where findings differ in it, the one of the code.
    yield f"         > {remedies.pop() if len(remedies) == 1 else kind.remedy}"


def _cut(line: str) -> str:
    return line if len(line) <= 2 * _WIDTH else f"{line[: 2 * _WIDTH]}…"
