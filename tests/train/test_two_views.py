"""A second view reaches the loss: unchanged, wide, in microbatches, on one device and several."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from two_views import batch_of_two_views, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="batch", scope="module")
def _batch():
    return batch_of_two_views()


def test_the_second_view_reaches_the_loss_as_it_was_read(batch):
    seen = run(batch)
    for name in ("view_image", "view_whole", "view_label", "view_present", "view_box"):
        expected = batch[name].astype(np.float64).sum()
        np.testing.assert_allclose(seen[name], expected, rtol=1e-4, atol=1e-2)
    assert batch["view_image"].any()
    whole = run(batch, microbatches=1)
    np.testing.assert_allclose(seen["w"], whole["w"], rtol=1e-5)
    assert not np.allclose(seen["w"], 1)


@pytest.mark.multiprocess
def test_several_devices_see_the_same_second_view(batch):
    process = subprocess.run(
        [sys.executable, str(ROOT / "tests/train/two_views.py")],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4 "
            "--xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["devices"] == 4
    for name, value in run(batch).items():
        np.testing.assert_allclose(found["seen"][name], value, rtol=1e-4, atol=1e-3, err_msg=name)
