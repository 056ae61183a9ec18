"""What is computed of the measurements: which cases count, what an effect is without and beyond."""

import numpy as np
import pytest

from benchmarks.ablation import (
    BEYOND,
    CHANCE,
    EVERY,
    TIDY,
    beyond,
    difference,
    kept_rows,
    line,
    trained_with,
)
from benchmarks.shipped_weights import case_rows, means, page
from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.effects import Effects

HEADER = "case_id," + ",".join(
    f"{kind}_{region}" for region in ("WT", "TC", "ET") for kind in ("dice", "reference_volume_ml")
)


def rows():
    return case_rows(f"{HEADER}\na,0.9,50,0.8,20,0.5,10\nb,0.7,30,0.2,5,0.0,0.4\n")


def test_a_region_counts_where_there_is_a_millilitre_of_it():
    found = means(rows())
    assert (found["WT"]["n"], found["ET"]["n"]) == (2, 1)
    assert found["WT"]["dice"] == pytest.approx(0.8)
    assert found["ET"]["dice"] == pytest.approx(0.5)
    assert found["ET"]["ci95"] is None


def test_the_page_has_every_case_and_counts_healthy_brains():
    text = page(
        {
            "config": "tiny",
            "date": "2026-01-01",
            "weights_sha256": "0",
            "trained_on": "generated",
            "machine": {"load_before": [0.1], "cores": 2},
            "prediction": {"seconds": 9.0, "peak_gib": 1.5},
            "cases": rows(),
            "means": means(rows()),
            "subsets": {"t1c+t2f": {"dice": {"WT": 0.8, "TC": 0.7, "ET": 0.6}}},
            "healthy_ml": [0.0, 0.5, 0.6],
        }
    )
    assert "| a | 0.900 | 0.800 | 0.500 | 50.0 | 20.0 | 10.0 |" in text
    assert "0.500, n = 1" in text
    assert "| t1c+t2f | 0.800 | 0.700 | 0.600 |" in text
    assert "at most 0.5 mL outlined: 2 of 3" in text


@pytest.mark.parametrize("name", Effects._fields)
def test_an_effect_alone_and_beyond_its_range(name):
    usual, own, held_out = (getattr(e, name) for e in (Effects(), trained_with(name), beyond(name)))
    assert own.probability == (usual.probability or 1.0)
    assert own.magnitude == usual.magnitude
    assert held_out.probability == 1.0
    harder = 1 / BEYOND if name in ("faint", "thin_ring", "small_core") else BEYOND
    if name in (
        *("cyst", "solid_enhancement", "superficial", "hidden_on_t1", "hidden_on_t2"),
        *("uneven_oedema", "protocol", "own_sequence", "dim_on_flair", "like_oedema"),
        *("full_head", "mild_on_t2"),
    ):
        harder = 1.0  # A share of all there is: more of it would be negative shares of the rest.
    assert held_out.magnitude == pytest.approx(harder * usual.magnitude)
    for other in (trained_with(name), beyond(name)):
        assert other._replace(**{name: getattr(TIDY, name)}) == TIDY


def test_all_effects_and_chance_are_scored_on_patients_with_all():
    assert trained_with(EVERY) == beyond(EVERY) == beyond(CHANCE) == Effects()
    assert trained_with(CHANCE) == TIDY


def test_an_ablation_goes_on_with_rows_of_its_own_kind(tmp_path):
    kept, how = tmp_path / "rows.jsonl", {"first": 2, "generator": 4}
    assert kept_rows(kept, how) == []
    kept.write_text('{"effect": "noise", "how": {"first": 2, "generator": 4}}\n')
    assert kept_rows(kept, how) == [{"effect": "noise"}]
    with pytest.raises(UserError, match="'noise' was not measured with"):
        kept_rows(kept, how | {"generator": 5})


def test_a_difference_is_of_the_same_cases():
    before = np.array([[0.5, 0.4, 0.3], [0.6, 0.6, 0.6]])
    found = difference("noise", before + np.array([0.3, 0.0, -0.3]), before)
    assert found["change"] == pytest.approx(0.0)
    assert found["by_region"] == pytest.approx({"WT": 0.3, "TC": 0.0, "ET": -0.3})
    row = line({"effect": "noise", "generated": found, "real": found})
    assert "| `noise` |" in row
    assert "+0.30 +0.00 -0.30" in row
