"""The comparison of MU-Net and U-Net from cohort to page, small; and what it says."""

import csv
import json

import numpy as np
import pytest

from gmmas_jax.cli.slice_comparison import compare, networks, parameters, summarise
from gmmas_jax.clinical.slice_page import verdict
from gmmas_jax.errors import UserError
from tests.cli.cohorts import write_cohort

SMALL = (
    *("model.widths=4,8,16", "model.layers.group_size=4", "data.patch=16,16,1"),
    *("data.batch_size=2", "inference.window=16,16,4", "train.steps=4", "train.log_every=1"),
)


def run(mask, volumes):
    cases = [
        {"case": str(i), "lesion_ml": ml, "dice": dice, "lesion_slices": m, "all_slices": m}
        for i, ((ml, dice), m) in enumerate(zip(volumes, mask, strict=True))
    ]
    return {"cases": cases}


def test_pixels_are_pooled_and_dice_is_by_case():
    matrices = [[[8, 2], [0, 10]], [[80, 0], [20, 0]]]
    summary = summarise([run(matrices, [(5.0, 0.9), (1.0, 0.1)])])
    assert summary["lesion_slices"]["overall_accuracy"] == pytest.approx(98 / 120)
    assert summary["dice"]["mean"] == pytest.approx(0.5)
    assert summary["by_size"]["small"]["mean"] == pytest.approx(0.1)
    assert summary["by_size"]["medium"]["mean"] == pytest.approx(0.9)
    assert summary["by_size"]["small"]["mean_iou"] == pytest.approx((80 / 100 + 0) / 2)
    assert summary["by_size"]["medium"]["mean_iou"] == pytest.approx((8 / 10 + 10 / 12) / 2)


def test_a_case_without_a_lesion_has_no_size():
    matrices = [[[8, 2], [0, 10]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    summary = summarise([run(matrices, [(5.0, 0.9), (0.0, 1.0), (0.0, 1.0)])])
    assert summary["dice"]["n"] == 3
    assert {size: one["n"] for size, one in summary["by_size"].items()} == {"small": 1}


def test_the_verdict_says_plainly_when_it_is_not_reached():
    def result(unet, munet):
        return {
            "summary": {
                name: {"lesion_slices": {"mean_iou_of_seeds": values}}
                for name, values in (("U-Net", unet), ("MU-Net", munet))
            }
        }

    below, above = (
        verdict(result(*ious)) for ious in (([0.7, 0.7], [0.6, 0.7]), ([0.6, 0.7], [0.7, 0.7]))
    )
    assert "did not reach that of U-Net (-0.0500 on average, at least as good with 1 of 2" in below
    assert "MU-Net reached that of U-Net (+0.0500 on average, at least as good with 2 of 2" in above


def test_the_narrowed_network_has_about_as_many_parameters():
    unet, munet, narrowed = networks(())
    wanted = parameters(munet, ())
    assert parameters(unet, ()) > 1.08 * wanted
    assert abs(parameters(narrowed, ()) / wanted - 1) < 0.005


@pytest.mark.slow
def test_from_a_cohort_to_the_page(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", cases=4)
    with cohort.open() as file:
        rows = list(csv.DictReader(file))
    for row, split in zip(rows, ("train", "train", "val", "test"), strict=True):
        row["split"] = split
    with cohort.open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "out"
    result = compare(cohort, out, seeds=[0], overrides=SMALL, real=cohort)
    assert json.loads((out / "comparison.json").read_text())["summary"] == result["summary"]
    curve = result["networks"]["MU-Net"]["runs"][0]["curve"]
    assert [point["step"] for point in curve] == [1, 2, 3, 4]
    assert all(np.isfinite(point["mean_iou"]) for point in curve)
    page = (out / "comparison.html").read_text()
    assert page.count("<h3") == 1 + 4
    assert "Research use only" in page


def test_a_cohort_without_a_split_is_refused(tmp_path):
    cohort = write_cohort(tmp_path)
    with pytest.raises(UserError, match="no case has the split val"):
        compare(cohort, tmp_path / "out", seeds=[0], overrides=SMALL)
