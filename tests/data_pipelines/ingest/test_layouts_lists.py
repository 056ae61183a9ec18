"""Lists of paths: in every dialect, with nothing guessed and every bad line named."""

import json
from pathlib import Path

import numpy as np
import pytest

from gmmas_jax.errors import UserError
from tests.cli.cohorts import save
from tests.data_pipelines.ingest.layout_trees import find, names, plant

ORDER = ("t1n", "t1c", "t2w", "t2f")


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def test_fets(tmp_path):
    plant(tmp_path, *(f"{p}/{k}.nii.gz" for p in ("a", "b") for k in ("1", "2", "3", "4", "5")))
    text = (
        "PatientID,Timestamp,T1,T1GD,T2,T2FLAIR,Label\n"
        "007,2019-01,a/1.nii.gz,a/2.nii.gz,a/3.nii.gz,a/4.nii.gz,a/5.nii.gz\n"
        "007,2020-01,,b/2.nii.gz,,b/4.nii.gz,\n"
    )
    found = find(write(tmp_path / "list.csv", text), "fets")
    first, second = found.rows
    assert (first.case_id, first.patient_id, first.timepoint) == ("007_2019-01", "007", "2019-01")
    assert first.label_convention == "brats2021"
    assert names(first, tmp_path) == {
        "t1n": "a/1.nii.gz",
        "t1c": "a/2.nii.gz",
        "t2w": "a/3.nii.gz",
        "t2f": "a/4.nii.gz",
        "seg": "a/5.nii.gz",
    }
    assert set(second.images) == {"t1c", "t2f"}
    assert second.patient_id == "007"


def test_a_list_with_other_columns_tells_no_convention(tmp_path):
    plant(tmp_path, "1.nii.gz", "2.nii.gz")
    text = "ID,T1ce,Segmentation\n1,1.nii.gz,2.nii.gz\n"
    found = find(write(tmp_path / "list.csv", text), "fets")
    assert (found.rows[0].seg is not None, found.rows[0].label_convention) == (True, None)
    assert any("label convention not known" in note for note in found.notes)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects_of_spreadsheets(tmp_path, separator, line_end, encoding):
    plant(tmp_path, "Köln Süd/t1 nativ.nii.gz", "Köln Süd/flair.nii.gz")
    lines = [
        ["PatientID", "T1", "T2FLAIR"],
        ["0012", "Köln Süd/t1 nativ.nii.gz", "Köln Süd/flair.nii.gz"],
    ]
    text = "".join(separator.join(cells) + line_end for cells in lines)
    (row,) = find(write(tmp_path / "Liste März.csv", text, encoding), "fets").rows
    assert row.case_id == "0012"
    assert names(row, tmp_path)["t1n"] == "Köln Süd/t1 nativ.nii.gz"


def test_gandlf_by_names_or_by_declared_order(tmp_path):
    plant(tmp_path, "x/x_t1ce.nii.gz", "x/x_flair.nii.gz", "x/seg.nii.gz", "y/1.nii", "y/2.nii")
    header = "SubjectID,Channel_0,Channel_1,Label,ValueToPredict\n"
    named = write(
        tmp_path / "a.csv", header + "x,x/x_t1ce.nii.gz,x/x_flair.nii.gz,x/seg.nii.gz,1\n"
    )
    found = find(named, "gandlf")
    assert set(found.rows[0].images) == {"t1c", "t2f"}
    assert (found.rows[0].seg is not None, found.rows[0].label_convention) == (True, None)
    assert any("ValueToPredict was left alone" in note for note in found.notes)

    bare = write(tmp_path / "b.csv", header + "y,y/1.nii,y/2.nii,,\n")
    found = find(bare, "gandlf")
    assert not found.rows
    assert "neither the name 1.nii nor a declared order" in found.refused[0]
    (row,) = find(bare, "gandlf", channel_order=("t2w", "t1n")).rows
    assert names(row, tmp_path) == {"t1n": "y/2.nii", "t2w": "y/1.nii"}

    found = find(named, "gandlf", channel_order=("t2f", "t1c"))
    assert "channel 0 is x_t1ce.nii.gz, declared as t2f; its name tells t1c" in found.refused[0]


def test_each_bad_line_is_named_and_the_others_are_kept(tmp_path):
    plant(tmp_path / "data", "good/t1.nii.gz", "good/t2.nii.gz", "folder/t1.nii.gz")
    plant(tmp_path, "outside/t1.nii.gz")
    text = (
        "SubjectID,T1,T2\n"
        "good,good/t1.nii.gz,good/../good/t2.nii.gz\n"
        "good,good/t1.nii.gz,good/../good/t2.nii.gz\n"  # The same row twice is one case.
        "leaves,../outside/t1.nii.gz,\n"
        "absent,good/t3.nii.gz,\n"
        ",good/t1.nii.gz,\n"
        "folder,folder,\n"
        "nothing,,\n"
        "twice,good/t1.nii.gz,\n"
        "twice,good/t2.nii.gz,\n"
        f"absolute,{tmp_path}/outside/t1.nii.gz,\n"
    )
    found = find(write(tmp_path / "data" / "list.csv", text), "fets")
    assert [row.case_id for row in found.rows] == ["good", "absolute"]
    assert any("line 3: the same as line 2" in note for note in found.notes)
    for expected in (
        "line 4: '../outside/t1.nii.gz' leads out of the list's folder",
        "line 5: ",
        "line 6, column SubjectID: empty",
        "line 7: ",
        "nothing: no sequence found",
        "twice: found 2 times",
    ):
        assert any(expected in text for text in found.refused), expected
    assert len(found.refused) == 6
    assert any("t3.nii.gz: no such file" in text for text in found.refused)
    assert any("is a folder" in text for text in found.refused)


@pytest.mark.parametrize(
    ("layout", "header", "message"),
    [
        ("fets", "PatientID,Image", "expected an id and a column a sequence"),
        ("fets", "Scan,T1", "no column of ids"),
        ("fets", "PatientID,T1,T1w", "both hold t1n"),
        ("gandlf", "SubjectID,T1", "expected those of GaNDLF"),
    ],
)
def test_columns_that_are_missing_or_twice(tmp_path, layout, header, message):
    cells = ",".join("x" for _ in header.split(","))
    with pytest.raises(UserError, match=message):
        find(write(tmp_path / "list.csv", f"{header}\n{cells}\n"), layout)


def datalist(path: Path, document: object) -> Path:
    return write(path, json.dumps(document))


def test_monai(tmp_path):
    plant(tmp_path, *(f"{p}/{p}_{k}.nii.gz" for p in "abcd" for k in ("t1", "t1ce", "t2", "flair")))
    plant(tmp_path, "a/a_seg.nii.gz")
    save(tmp_path / "c" / "c_flair.nii.gz", np.zeros((3, 3, 3), np.uint8))

    def images(case: str) -> list[str]:
        return [f"{case}/{case}_{kind}.nii.gz" for kind in ("t1ce", "t1", "t2", "flair")]

    source = datalist(
        tmp_path / "list.json",
        {
            "training": [{"image": images("a"), "label": "a/a_seg.nii.gz", "fold": 3}],
            "validation": [{"image": images("b"), "patient_id": "P"}],
            "testing": ["c/c_flair.nii.gz", {"t1c": "d/d_t1ce.nii.gz", "case_id": 7}],
        },
    )
    found = find(source, "monai")
    assert not found.refused
    train, val, bare, keyed = found.rows
    assert [row.split for row in found.rows] == ["train", "val", "test", "test"]
    assert (train.case_id, train.fold, train.label_convention) == ("a", 3, None)
    assert names(train, tmp_path)["t1n"] == "a/a_t1.nii.gz"
    assert names(train, tmp_path)["seg"] == "a/a_seg.nii.gz"
    assert (val.case_id, val.patient_id) == ("b", "P")
    assert (bare.case_id, set(bare.images)) == ("c", {"t2f"})
    assert (keyed.case_id, set(keyed.images)) == ("7", {"t1c"})


def test_monai_order_told_by_the_file_or_declared(tmp_path):
    plant(tmp_path, "p/0.nii", "p/1.nii")
    item = {"image": ["p/0.nii", "p/1.nii"]}
    plain = datalist(tmp_path / "plain.json", {"training": [item]})
    assert "nor a declared order" in find(plain, "monai").refused[0]
    (row,) = find(plain, "monai", channel_order=("t2f", "t1n")).rows
    assert names(row, tmp_path) == {"t1n": "p/1.nii", "t2f": "p/0.nii"}
    assert row.case_id == "p"
    told = datalist(
        tmp_path / "told.json",
        {"modality": {"0": "T1w", "1": "FLAIR"}, "labels": {"0": "background", "1": "ET"}}
        | {"training": [item]},
    )
    (row,) = find(told, "monai").rows
    assert names(row, tmp_path) == {"t1n": "p/0.nii", "t2f": "p/1.nii"}
    with pytest.raises(UserError, match="expected the same"):
        find(told, "monai", channel_order=("t2f", "t1n"))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"image": ["../x.nii"]}, "leads out of the list's folder"),
        ({"image": ["t9.nii"]}, "no such file"),
        ({"image": 3}, "expected a path or a list of paths"),
        ({}, "no file in it"),
        (None, "is no object"),
        ({"image": ["t1.nii"], "case_id": "../a"}, "expected a name without slashes"),
        ({"t1": "t1.nii", "t1w": "t1.nii"}, "two files for t1n"),
    ],
)
def test_bad_items_of_a_datalist(tmp_path, item, message):
    plant(tmp_path, "t1.nii", "good/t1.nii.gz")
    source = datalist(tmp_path / "list.json", {"training": [{"t1n": "good/t1.nii.gz"}, item]})
    found = find(source, "monai")
    assert [row.case_id for row in found.rows] == ["good"]
    (text,) = found.refused
    assert message in text
    assert "training[1]" in text


@pytest.mark.parametrize("text", ["[1]", "{}", '{"training": 3}', "no json", ""])
def test_no_datalist(tmp_path, text):
    with pytest.raises(UserError, match=r"list\.json"):
        find(write(tmp_path / "list.json", text), "monai")


def test_auto_tells_lists_apart(tmp_path):
    save(tmp_path / "t1.nii.gz", np.zeros((3, 3, 3), np.uint8))
    made = {
        "fets": write(tmp_path / "a.csv", "PatientID,T1\n1,t1.nii.gz\n"),
        "gandlf": write(tmp_path / "b.csv", "SubjectID,Channel_0\n1,t1.nii.gz\n"),
        "monai": datalist(tmp_path / "c.json", {"training": ["t1.nii.gz"]}),
    }
    for layout, source in made.items():
        found = find(source, "auto")
        assert found.notes[0].startswith(f"layout {layout}, told by ")
        assert len(found.rows) == 1
