"""The search for repairs finds those that help, and none where none does."""

import numpy as np
import pytest

from benchmarks.postprocessing import Outline, check_seed, choose, options, score, table
from gmmas_jax.errors import UserError
from gmmas_jax.inference.postprocessing import Cleaning
from tests.inference.tiny import tiny_weights

VOXEL_ML = 0.001


def truth() -> np.ndarray:
    label = np.zeros((20, 20, 20), np.uint8)
    label[4:14, 4:14, 4:14] = 2
    label[6:12, 6:12, 6:12] = 3
    label[7:11, 7:11, 7:11] = 1
    return label


def test_a_right_outline_needs_no_repair():
    found = [Outline(truth(), truth() > 0, truth())]
    rows = []
    assert choose(found, voxel_ml=VOXEL_ML, report=rows.append) == Cleaning()
    assert rows[0]["mean"] == 1.0
    assert options(Cleaning()) == "no repair helps"


def test_the_repair_of_the_only_fault_is_chosen():
    hollow = truth()
    hollow[7:11, 7:11, 7:11] = 2
    found = [Outline(hollow, hollow > 0, truth()), Outline(truth(), truth() > 0, truth())]
    rows = []
    chosen = choose(found, voxel_ml=VOXEL_ML, report=rows.append)
    assert chosen == Cleaning(fill_core=True)
    assert options(chosen) == "--config.inference.fill_core=true"
    assert [row["setting"] for row in rows if row["kept"]] == ["no repair", "fill_core"]
    assert "| 1 | fill_core | True |" in table(rows)


def test_of_values_that_help_alike_the_mildest_is_chosen():
    small, large = truth(), truth()
    small[16:19, :5, :6] = 2
    large[16:20, :5, :6] = 2
    # Ten pieces of 0.09 mL and one of 0.12: what drops the one too brings less than the least gain.
    wrong = [small] * 10 + [large]
    found = [Outline(label, label > 0, truth()) for label in wrong + [truth()] * 29]
    assert choose(found, voxel_ml=VOXEL_ML) == Cleaning(min_island_ml=0.1)


def test_a_healthy_patient_counts():
    speck = np.zeros((20, 20, 20), np.uint8)
    speck[0, 0, :2] = 2
    numbers = score(
        [Outline(speck, speck > 0, np.zeros_like(speck))], Cleaning(), voxel_ml=VOXEL_ML
    )
    assert numbers["WT"] == 0.0
    assert numbers["TC"] == numbers["ET"] == 1.0
    assert numbers["healthy_ml"] == numbers["healthy_worst_ml"] == pytest.approx(0.002)


def test_the_seed_of_the_training_is_refused():
    weights = tiny_weights()
    weights.config["seed"] = 3
    check_seed(weights, 4)
    with pytest.raises(UserError, match="--seed 3: the seed of the training"):
        check_seed(weights, 3)
