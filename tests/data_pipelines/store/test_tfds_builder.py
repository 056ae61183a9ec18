"""TFDS reads a store without this package's code, and makes its other formats of it."""

import json

import numpy as np

from data_pipelines.store.tfds_builder import Gliomas, tfds


def same(record, arrays):
    for name in ("image", "whole"):
        np.testing.assert_array_equal(record[name], getattr(arrays, name))
    for name in ("label", "whole_label"):
        expected = getattr(arrays, name)
        assert (record[name].shape == (2, 2, 2)) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(record[name], expected)
    np.testing.assert_array_equal(record["present"], arrays.present)


def test_tfds_reads_every_split(rows, build):
    index = build(rows).index
    builder = tfds.builder_from_directory(index.root)
    assert builder.name == "gliomas"
    found = {
        record["case_id"].decode(): record
        for split in builder.info.splits
        for record in builder.as_dataset(split=split).as_numpy_iterator()
    }
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 1,
        "val": 2,
    }
    for position, case in enumerate(index.cases):
        same(found[case.case_id], index.open(position))
    assert builder.info.features["idh"].int2str(int(found["one"]["idh"])) == "mutant"
    assert found["two"]["idh"] == -1
    assert [int(found[name]["has_label"]) for name in ("one", "two", "three")] == [1, 1, 0]
    provenance = json.loads(found["one"]["meta"])["provenance"]
    assert len(provenance["inputs"]["t1n"]) == 64


def test_array_record_for_random_access_by_tfds(rows, build, tmp_path):
    index = build(rows).index
    builder = Gliomas(store=index.root, data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source(split="val")
    by_id = {source[i]["case_id"].decode(): source[i] for i in (1, 0)}
    for position in (1, 2):
        same(by_id[index.cases[position].case_id], index.open(position))
