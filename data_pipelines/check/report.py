"""The report on the screen: short however many cases there are."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.check.cohort import Report
from data_pipelines.check.findings import CODES, Finding

_SHOWN = 3
_LONGEST = 400


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
    by_case: dict[str | None, list[Finding]] = defaultdict(list)
    for finding in findings:
        # Findings about the cohort as a whole stand each for itself.
        by_case[finding.case_id or finding.found].append(finding)
    for of_case in list(by_case.values())[:_SHOWN]:
        yield _cut(f"         - {_words(of_case[0])}" + _more(len(of_case) - 1, "in this case"))
    if len(by_case) > _SHOWN:
        yield f"         - and {len(by_case) - _SHOWN} more {'cases' if cases else ''}".rstrip()
    # One thing to do for the group; where findings differ in it, the one of the code.
    remedies = {finding.remedy or kind.remedy for finding in findings}
    yield f"         > {remedies.pop() if len(remedies) == 1 else kind.remedy}"


def _words(finding: Finding) -> str:
    name = ""
    if finding.file:
        name = Path(finding.file).name
        # A file named by its case names both.
        if finding.case_id and finding.case_id not in name:
            name = f"{finding.case_id}, {name}"
    elif finding.case_id:
        name = finding.case_id
    expected = f" (expected {finding.expected})" if finding.expected else ""
    return f"{name}: {finding.found}{expected}" if name else f"{finding.found}{expected}"


def _more(count: int, where: str) -> str:
    return f" (and {count} more {where})" if count else ""


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
