"""The comparison of windows counts the cases that have a region, and signs the change rightly."""

import pytest

from benchmarks.windows import gains, page


def row(dice: float, volume_ml: float) -> dict[str, float]:
    return {
        **{f"dice_{region}": dice for region in ("WT", "TC", "ET")},
        **{f"ml_{region}": volume_ml for region in ("WT", "TC")},
        **{"ml_ET": volume_ml / 10, "false_ml": 2.0, "missed_ml": 4.0},
    }


BEFORE = [row(0.5, 20.0), row(0.6, 8.0)]
AFTER = [row(0.7, 20.0), row(0.5, 8.0)]


def test_a_change_is_that_of_the_same_case_and_of_regions_with_a_millilitre():
    change = gains(AFTER, BEFORE)
    assert change["WT"]["n"] == 2
    assert change["WT"]["dice"] == pytest.approx(0.05)
    # The second case has 0.8 mL that enhances.
    assert change["ET"]["n"] == 1
    assert change["ET"]["dice"] == pytest.approx(0.2)
    assert change["ET"]["ci95"] is None


def test_the_page_gives_changes_against_the_first_window():
    result = {
        "config": "c",
        "date": "2026-01-01",
        "weights_sha256": "0" * 64,
        "patch": (8, 8, 8),
        "cases": 2,
        "seed": 1,
        "overlap": 0.25,
        "windows": [
            {"window": size, "rows": rows, "means": means, "gains": gains(rows, BEFORE)}
            for size, rows, means in (
                ((16, 16, 16), BEFORE, {r: {"dice": 0.55} for r in ("WT", "TC", "ET")}),
                ((8, 8, 8), AFTER, {r: {"dice": 0.6} for r in ("WT", "TC", "ET")}),
            )
        ],
    }
    first, second = page(result).splitlines()[-2:]
    assert first == "| 16×16×16 | 0.550, n = 2 | 0.550, n = 2 | 0.550, n = 1 | 2.0 | 4.0 |"
    assert second.startswith("| 8×8×8 | 0.600 (+0.050 [-0.100, +0.200]), n = 2 |")
    assert second.endswith("| 0.600, n = 1 | 2.0 | 4.0 |")
