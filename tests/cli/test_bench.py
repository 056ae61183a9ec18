import json
import subprocess
import sys

import pytest

from gmmas_jax.cli import main
from gmmas_jax.cli.data_speed import ALL, PEERS_LIST, SAME, page
from gmmas_jax.config import base_config, to_dict

RATE = {"samples_per_s": 6.0, "least": 5.0, "greatest": 8.0, "rounds": 3}


def test_page_has_every_stage_and_both_ratios_to_each_peer():
    result = {
        "date": "2026-01-01",
        "machine": {"cores": 1},
        "config": "c",
        "patch": [8, 8, 8],
        "batch_size": 2,
        "stages": {
            "crop": RATE,
            ALL: RATE | {"samples_per_s": 9.0},
            SAME + ALL: RATE | {"samples_per_s": 12.0},
        },
        "peers": {
            "MONAI, crop": RATE,
            f"MONAI, {ALL}": RATE | {"samples_per_s": 4.0},
            f"batchgeneratorsv2, {ALL}": RATE,
        },
    }
    text = page(result)
    assert "| crop | 6.0 | 5.0 | 8.0 | 3 |" in text
    same, own = text.index("(a) same crops + same augmentations"), text.index("(b) ours as")
    assert "- MONAI: 3.00\n- batchgeneratorsv2: 2.00\n" in text[same:own]
    assert "- MONAI: 2.25\n- batchgeneratorsv2: 1.50\n" in text[own:]
    assert "peer" not in page(result | {"peers": {}, "stages": {"crop": RATE}})


def test_the_peers_list_is_a_section_of_the_config():
    section = to_dict(base_config())["augment"]
    for name, changes in PEERS_LIST.items():
        assert set(changes) <= set(section[name])


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
    assert {"crop", "batches (tf.data)", "augment", ALL} <= set(result["stages"])
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
