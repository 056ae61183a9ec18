"""Splits: by patient, in proportion, and what stays when the cohort grows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.splits import moved, split_counts, split_rows
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cli import main
from gmmas_jax.errors import UserError

BY = ("idh", "site")


def cohort(patients: int, *, exams: int = 1, first: int = 0) -> list[Row]:
    """Returns rows of patients: a quarter mutant, one in ten of unknown IDH, three sites."""
    return [
        Row(
            case_id=f"P{i:04d}-{exam}",
            patient_id=f"P{i:04d}",
            idh=None if i % 10 == 9 else ("mutant" if i % 4 == 0 else "wildtype"),
            site="ABC"[i % 3],
        )
        for i in range(first, first + patients)
        for exam in range(exams)
    ]


def split(rows, **changes):
    return split_rows(rows, **{"test": 0.15, "val": 0.15, "by": BY} | changes)


def sets(rows, column: str = "split") -> dict:
    return {row.patient_id: getattr(row, column) for row in rows}


def test_all_exams_of_a_patient_go_together():
    rows = split(cohort(200, exams=3), folds=5)
    for column in ("split", "fold"):
        pairs = {(row.patient_id, getattr(row, column)) for row in rows}
        assert len(pairs) == 200


def test_every_stratum_is_within_one_patient_of_its_share():
    rows = split(cohort(400))
    strata = Counter((row.idh, row.site) for row in rows)
    found = Counter((row.idh, row.site, row.split) for row in rows)
    for (idh, site), number in strata.items():
        for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs(found[idh, site, name] - share * number) < 1
    total = Counter(row.split for row in rows)
    assert abs(total["test"] - 60) <= 4
    assert abs(total["val"] - 60) <= 4


def test_strata_of_one_patient_are_not_all_for_training():
    rows = [replace(row, site=row.patient_id) for row in cohort(400)]
    total = Counter(row.split for row in split(rows))
    assert 35 < total["test"] < 90
    assert 35 < total["val"] < 90


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does():
    rows = cohort(100)
    assert sets(split(rows, folds=5), "fold") == sets(split(rows[::-1], folds=5), "fold")
    assert sets(split(rows)) == sets(split(rows[::-1]))
    assert sets(split(rows)) != sets(split(rows, seed=1))


def test_few_patients_move_when_others_are_added():
    before = sets(split(cohort(400)))
    after = sets(split(cohort(440)))
    assert sum(before[name] != after[name] for name in before) <= 20  # 5 %; dealt anew it is 47 %.
    # Patients of another stratum move nobody.
    others = [replace(row, site="D") for row in cohort(40, first=400)]
    same = sets(split(cohort(400) + others))
    assert all(same[name] == value for name, value in before.items())


def test_patients_that_have_a_split_or_fold_keep_it_and_new_ones_fill_up():
    first = split(cohort(300), folds=5)
    grown = split(first + cohort(100, first=300), folds=5)
    for column in ("split", "fold"):
        before, after = sets(first, column), sets(grown, column)
        assert all(after[name] == value for name, value in before.items())
    assert None not in sets(grown).values()
    total = Counter(sets(grown).values())
    assert abs(total["test"] - 60) <= 8
    anew = split(first + cohort(100, first=300), folds=5, overwrite=True)
    assert sets(anew) == sets(split(cohort(400), folds=5))
    assert sets(anew) != sets(grown)


def test_exams_without_split_follow_their_patient():
    rows = [Row(case_id=f"{p}-{e}", patient_id=p) for p in map(str, range(40)) for e in (0, 1)]
    rows[0] = replace(rows[0], split="val")
    found = split(rows, by=())
    assert found[0].split == found[1].split == "val"


def test_folds_are_of_equal_size_in_each_stratum_and_leave_testing_out():
    rows = split(cohort(400), folds=5)
    assert all((row.fold is None) == (row.split == "test") for row in rows)
    for idh in ("wildtype", "mutant"):
        for site in "ABC":
            own = [
                row for row in rows if (row.idh, row.site) == (idh, site) and row.fold is not None
            ]
            sizes = Counter(row.fold for row in own)
            assert max(sizes.values()) - min(sizes[fold] for fold in range(5)) <= 1
    # Not the validation split under another name.
    assert len({row.fold for row in rows if row.split == "val"}) == 5


def test_without_folds_those_that_are_there_stay_unless_overwritten():
    rows = split(cohort(60), folds=3)
    assert sets(split(rows), "fold") == sets(rows, "fold")
    assert set(sets(split(rows, overwrite=True), "fold").values()) == {None}


def test_a_patient_in_two_splits_is_refused():
    rows = cohort(30, exams=2)
    rows[0], rows[1] = replace(rows[0], split="train"), replace(rows[1], split="test")
    with pytest.raises(UserError, match=r"column split: 1 patients .* P0000 \(test, train\)"):
        split(rows)
    assert len(split(rows, overwrite=True)) == 60
    rows = cohort(30, exams=2)
    rows[0], rows[1] = replace(rows[0], fold=0), replace(rows[1], fold=1)
    with pytest.raises(UserError, match="column fold"):
        split(rows, folds=2, test=0.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"test": 1.0}, "--test: 1; expected a share"),
        ({"val": -0.1}, "--val: -0.1"),
        ({"test": 0.5, "val": 0.5}, "--test and --val together: 1;"),
        ({"folds": 1}, "--folds is 1"),
        ({"by": ("idh", "age")}, "--by: 'age'"),
        ({"test": 1e-5}, "the split 'test' would be empty"),
    ],
)
def test_what_does_not_fit_is_named(change, told):
    with pytest.raises(UserError, match=told):
        split(cohort(60), **change)


def test_fewer_folds_than_there_are_is_refused():
    with pytest.raises(UserError, match="folds up to 4, --folds asks for 3"):
        split(split(cohort(60), folds=5), folds=3)


def test_counts_are_of_patients():
    rows = split(cohort(100, exams=2))
    counts = split_counts(rows, BY)
    assert list(counts) == ["patients", "idh", "site"]
    assert sum(counts["patients"]["all"].values()) == 100
    assert sum(counts["idh"][""].values()) == 10


def test_paths_follow_the_manifest(tmp_path: Path):
    row = Row(case_id="a", patient_id="a", t1c="a/t1c.nii.gz", seg="/data/seg.nii.gz")
    source, out = tmp_path / "cohort.csv", tmp_path / "splits" / "seed0" / "cohort.csv"
    found = moved([row], source, out)[0]
    assert (found.t1c, found.seg) == ("../../a/t1c.nii.gz", "/data/seg.nii.gz")
    assert moved([row], source, tmp_path / "other.csv") == [row]


def test_the_verb_writes_the_manifest_and_says_what_is_where(tmp_path: Path, capsys):
    source, out = tmp_path / "cohort.csv", tmp_path / "new" / "cohort.csv"
    write_manifest(source, cohort(100))
    words = ["split", str(source), "--out", str(out), "--folds", "3", "--by", "idh, site"]
    assert main(words) == 0
    assert read_manifest(out) == split(cohort(100), folds=3)
    printed = capsys.readouterr().out
    assert "patients" in printed
    assert "unknown" in printed
    assert main([*words, "--test", "2"]) == 2
    assert "--test: 2; expected a share" in capsys.readouterr().err
