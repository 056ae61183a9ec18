"""One of each fault is planted into a cohort: the check names every one, and no clean case."""

import json
from collections import defaultdict

import pytest

from data_pipelines.check.cohort import check_cohort
from data_pipelines.check.findings import CODES
from data_pipelines.check.report import report_lines
from tests.data_pipelines.check.faults import plant

pytestmark = pytest.mark.multiprocess

FOLLOWS = {
    # What a fault brings with it, and what all of these coarse cases have.
    "missing": {"case.lacks_key_sequence"},
    "cut": {"geometry.unlike_cohort"},
    "one-slice": {"cohort.volume_outlier"},
    **{f"msd-{number}": {"cohort.volume_outlier"} for number in range(3)},
}
EVERYWHERE = {"geometry.thick_slices"}
ELSEWHERE = {
    "manifest.row": "test_rows",
    "file.unreadable": "test_exam",
    "geometry.affine": "test_exam",
    "case.lost": "test_cohort",
}


@pytest.fixture(name="checked", scope="module")
def _checked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    expected = plant(folder / "co hort")
    folder = folder / "co hort"
    report = check_cohort(folder / "cohort.csv", against=[folder / "pretraining.csv"], workers=2)
    return expected, report


def test_every_fault_is_named_and_no_clean_case(checked):
    expected, report = checked
    found = defaultdict(set)
    for finding in report.findings:
        found[finding.case_id or ""].add(finding.code)
    for case_id, codes in expected.items():
        rest = found[case_id] - EVERYWHERE - FOLLOWS.get(case_id, set())
        assert rest == codes, case_id
    assert set(found) == set(expected)


def test_every_code_is_tested(checked):
    _, report = checked
    found = {finding.code for finding in report.findings}
    assert found | set(ELSEWHERE) == set(CODES)


def test_findings_say_where_and_what_to_do(checked):
    expected, report = checked
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert document["version"] == 1
    assert len(document["cases"]) == len(expected) - 1
    for entry in document["findings"]:
        assert set(entry) == {
            *("code", "level", "case_id", "file", "found", "expected", "remedy"),
        }
        assert entry["found"]
        assert entry["remedy"]
        if entry["code"].startswith(("file.", "image.", "geometry.")):
            assert entry["case_id"]
    (differ,) = [e for e in document["findings"] if e["code"] == "geometry.label_differs"]
    assert differ["file"] == "label-differs/seg.nii.gz"
    assert differ["found"].count("40x48x38 voxels of 4x4x4 mm") == 2
    (nan,) = [e for e in document["findings"] if e["case_id"] == "nan" and e["level"] == "error"]
    assert (nan["file"], nan["expected"]) == ("nan/t1c.nii.gz", "finite values")
    assert nan["found"] == "1 voxels are NaN and 0 infinite, of 72960"
    levels = [entry["level"] for entry in document["findings"]]
    assert levels == sorted(levels, key=("error", "warning", "note").index)


def test_screen_stays_short(checked, tmp_path):
    _, report = checked
    lines = list(report_lines(report, tmp_path / "check.json"))
    codes = {finding.code for finding in report.findings}
    assert len(lines) <= 7 * len(codes) + 2
    text = "\n".join(lines)
    for code in codes:
        assert code in text
    assert "and 0 more" not in text
