"""MU-Net: a U-Net on axial slices whose skips are fused by channel and spatial attention.

Purpose: the smallest of the three systems, to be reproduced whole.
Command: gmmas train --config configs/munet.py --cohort cohort.csv --workdir runs/munet
Hardware: one GPU of 8 GiB, as published; two CPU cores with narrower widths.
Time and result: `python -m gmmas_jax.cli.slice_comparison` trains and compares both networks.

The two networks differ in `model.fusion` alone. A step shows one slice of each of its cases; 200
epochs over every slice with lesion, as published, are about 1,750 steps of 8 for each case.
"""

from ml_collections import ConfigDict

from gmmas_jax.config import base_config, is_debug


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; "debug" shrinks it to seconds on a CPU, every part still there."""
    config = base_config()
    config.name = "munet"
    with config.unlocked():
        config.model = ConfigDict(
            {
                "network": "unet",
                "sequences": ("t1c", "t2f"),
                # The tumour as a whole, as it was drawn.
                "num_classes": 2,
                "widths": (64, 128, 256, 512, 1024),
                "fusion": "msf",
                "layers": {
                    "dtype": "float32",
                    "norm": "batch",
                    "group_size": 8,
                    "initializer": "he",
                    "remat": "none",
                    "upsample": "transpose",
                },
            }
        )
    config.data.update(
        spacing_mm=1.0,
        patch=(256, 256, 1),
        whole=(16, 16, 16),
        batch_size=8,
        slices="lesion",
        sequence_drop="none",
    )
    config.augment.update(flip=(0.0, 0.0, 0.0), intensity_scale=0.0, intensity_shift=0.0)
    config.objective.update(
        tasks=(), dice_over="labels", smooth=1.0, whole_weight=0.0, weighting="fixed"
    )
    # Without decay AdamW is Adam.
    config.optimizer.update(name="adamw", learning_rate=1e-3, schedule="poly", weight_decay=0.0)
    config.train.update(steps=20_000, log_every=50, checkpoint_every=1_000)
    # All of a slice at once; slices do not see each other, and need no overlap.
    config.inference.update(window=(256, 256, 8), overlap=0.0, min_island_ml=0.1)
    if is_debug(arg):
        config.model.widths = (8, 16, 32)
        config.data.update(spacing_mm=4.0, patch=(32, 32, 1), batch_size=2)
        config.train.update(steps=4, log_every=1, checkpoint_every=2)
        config.inference.window = (32, 32, 8)
    return config.lock()
