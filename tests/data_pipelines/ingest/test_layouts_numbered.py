"""nnU-Net data sets: the order of channels and the codes as told or declared, never guessed."""

import pytest

from gmmas_jax.errors import UserError
from tests.data_pipelines.ingest.layout_trees import (
    CHANNELS,
    find,
    names,
    plant,
    plant_nnunet,
)

CONVERTER_LABELS = {
    "background": 0,
    "whole tumor": [1, 2, 3],
    "tumor core": [2, 3],
    "enhancing tumor": [3],
}


@pytest.mark.parametrize(
    ("labels", "convention"),
    [
        (CONVERTER_LABELS, "nnunet_brats21"),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "ET": 3}, "nnunet_brats21"),
        ({"background": 0, "NCR": 1, "Oedema": 2, "enhancing tumour": 3}, "brats2023"),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, "brats2024"),
        ({"background": 0, "tumor": 1}, None),
        ({}, None),
    ],
)
def test_nnunet_labels_tell_the_convention(tmp_path, labels, convention):
    plant_nnunet(tmp_path, {"a_b": "Tr", "c": "Ts"}, {"channel_names": CHANNELS, "labels": labels})
    found = find(tmp_path, "nnunet")
    train, test = found.rows
    assert (train.case_id, train.split, train.label_convention) == ("a_b", "train", convention)
    assert (test.case_id, test.split, test.label_convention) == ("c", "test", None)
    assert names(train, tmp_path) == {
        "t2f": "imagesTr/a_b_0000.nii.gz",
        "t1n": "imagesTr/a_b_0001.nii.gz",
        "t1c": "imagesTr/a_b_0002.nii.gz",
        "t2w": "imagesTr/a_b_0003.nii.gz",
        "seg": "labelsTr/a_b.nii.gz",
    }
    assert any("label convention not known" in note for note in found.notes) == (convention is None)


def test_nnunet_order_is_never_guessed(tmp_path):
    plant_nnunet(tmp_path, {"a": "Tr"})
    with pytest.raises(UserError, match="never guessed"):
        find(tmp_path, "nnunet")
    (row,) = find(tmp_path, "nnunet", channel_order=("t2f", "t1n", "t1c", "t2w")).rows
    assert names(row, tmp_path)["t2f"] == "imagesTr/a_0000.nii.gz"
    plant_nnunet(tmp_path, {"a": "Tr"}, {"channel_names": CHANNELS})
    with pytest.raises(UserError, match="declared were t1n, t1c, t2w, t2f"):
        find(tmp_path, "nnunet", channel_order=("t1n", "t1c", "t2w", "t2f"))
    plant_nnunet(tmp_path, {"a": "Tr"}, {"channel_names": {"0": "T1", "1": "t1w"}})
    with pytest.raises(UserError, match="tell one sequence twice"):
        find(tmp_path, "nnunet")


def test_a_channel_too_many_costs_its_case_only(tmp_path):
    plant_nnunet(tmp_path, {"a": "Tr", "b": "Tr"}, {"channel_names": CHANNELS})
    plant(tmp_path, "imagesTr/a_0004.nii.gz")
    found = find(tmp_path, "nnunet")
    assert [row.case_id for row in found.rows] == ["b"]
    assert "a_0004.nii.gz: no such channel" in found.refused[0]


def test_nnunet_files_that_are_listed(tmp_path):
    plant(tmp_path, *(f"elsewhere/{n}.nii.gz" for n in range(4)), "elsewhere/mask.nii.gz")
    dataset = {
        "a": {
            "images": [f"elsewhere/{n}.nii.gz" for n in range(4)],
            "label": "elsewhere/mask.nii.gz",
        },
        "b": {"images": ["../x_0000.nii.gz"], "label": None},
        "c": {"images": "elsewhere/0.nii.gz"},
        "d": {"images": ["elsewhere/0.nii.gz"] * 5},
    }
    plant_nnunet(
        tmp_path, {"kept out": "Tr", "t": "Ts"}, {"channel_names": CHANNELS, "dataset": dataset}
    )
    found = find(tmp_path, "nnunet")
    train, test = found.rows
    assert (train.case_id, train.split, test.case_id) == ("a", "train", "t")
    assert names(train, tmp_path) == {
        "t2f": "elsewhere/0.nii.gz",
        "t1n": "elsewhere/1.nii.gz",
        "t1c": "elsewhere/2.nii.gz",
        "t2w": "elsewhere/3.nii.gz",
        "seg": "elsewhere/mask.nii.gz",
    }
    for expected in ("dataset, b: '../x_0000.nii.gz' leads out", "dataset, c: ", "d: 5 images"):
        assert any(expected in text for text in found.refused), expected
    assert len(found.refused) == 3


def test_strangers_among_numbered_files(tmp_path):
    plant_nnunet(tmp_path, {"a": "Tr"}, {"channel_names": CHANNELS})
    plant(tmp_path, "imagesTr/four_d.nii.gz", "labelsTr/nobody.nii.gz")
    found = find(tmp_path, "nnunet")
    assert [row.case_id for row in found.rows] == ["a"]
    assert found.refused[0].startswith("four_d: ")
    assert any("1 masks without images were left alone (nobody)" in note for note in found.notes)
