import json
import subprocess
import sys

import pytest

from gmmas_jax.cli import main
from gmmas_jax.cli.data_speed import page

RATE = {"samples_per_s": 6.0, "least": 5.0, "greatest": 8.0, "rounds": 3}


def test_page_has_every_stage_and_the_ratio_to_each_peer():
    result = {
        "date": "2026-01-01",
        "machine": {"cores": 1},
        "config": "c",
        "patch": [8, 8, 8],
        "batch_size": 2,
        "stages": {"crop": RATE, "whole": RATE | {"samples_per_s": 9.0}},
        "peers": {"MONAI, crop": RATE | {"samples_per_s": 4.0}, "MONAI, whole": RATE},
    }
    text = page(result)
    assert "| crop | 6.0 | 5.0 | 8.0 | 3 |" in text
    assert "- MONAI, crop: 1.50\n- MONAI, whole: 1.50\n" in text
    assert "theirs" not in page(result | {"peers": {}})


@pytest.mark.slow
@pytest.mark.multiprocess
def test_every_stage_is_measured(tmp_path):
    # In a process of its own: it keeps to one core from then on.
    words = (
        *("bench", "data", "--config", "configs/gmmas_mini.py:debug", "--rounds", "1"),
        *("--out", str(tmp_path)),
    )
    subprocess.run([sys.executable, "-m", "gmmas_jax", *words], check=True)
    (path,) = tmp_path.glob("data_speed-*.json")
    result = json.loads(path.read_text())
    assert result["machine"]["cores"] == 1
    assert {"crop", "batches (tf.data)", "augment", "whole"} <= set(result["stages"])
    assert all(rate["samples_per_s"] > 0 for rate in result["stages"].values())
    assert path.with_suffix(".md").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cores", "100000"), "--cores is 100000; expected at most"),
        (("--rounds", "0"), "--rounds is 0; expected at least 1"),
        (("--config.augment.nonsense=1",), "nonsense"),
    ],
)
def test_mistakes(words, told, capsys):
    assert main(["bench", "data", "--config", "configs/gmmas_mini.py:debug", *words]) == 2
    assert told in capsys.readouterr().err
