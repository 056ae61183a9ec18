"""GMMAS for a laptop: every part of the network, small, at 2 mm.

Purpose: the demo, tests of whole runs, and trying an idea in minutes.
Command: gmmas train --config configs/gmmas_mini.py --cohort cohort.csv --workdir runs/mini
Hardware: two CPU cores, 4 GiB.
Time and result: `make demo` trains it on generated patients; the README says how long that took and
    what it reached, and each run writes its own `metrics.json`.
"""

from typing import Any

from ml_collections import ConfigDict

from gmmas_jax.config import base_config, is_debug

TASKS = {"idh": 2, "codel_1p19q": 2, "histology": 3, "mgmt": 2}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; "debug" shrinks it to seconds on a CPU, every part still there."""
    config = base_config()
    config.name = "gmmas_mini"
    with config.unlocked():
        config.model = ConfigDict(_model())
    config.data.update(
        spacing_mm=2.0,
        patch=(48, 48, 48),
        whole=(32, 32, 32),
        batch_size=2,
        foreground=0.75,
        sequence_drop="published",
    )
    config.augment.update(intensity_scale=0.25, intensity_shift=0.25, gamma=0.0, noise=0.1)
    config.objective.update(
        tasks=tuple(TASKS),
        dice_over="labels",
        smooth=20.0,
        deep_weights=(0.5,),
        whole_weight=0.3,
        tasks_see_tumour=True,
    )
    config.optimizer.update(
        learning_rate=3e-3, schedule="cosine", warmup_steps=40, weight_decay=1e-3, clip_norm=5.0
    )
    config.train.update(steps=900, log_every=10, checkpoint_every=200, ema_decay=0.99)
    # The window is larger than the patch and holds a whole brain: one pass for most cases.
    config.inference.update(window=(80, 96, 80), overlap=0.25, min_island_ml=0.5)
    if is_debug(arg):
        _shrink(config)
    return config.lock()


def _model() -> dict[str, Any]:
    return {
        "tasks": TASKS,
        "num_classes": 4,
        "layers": {
            "dtype": "float32",
            "norm": "group",
            "group_size": 8,
            "initializer": "he",
            "remat": "none",
            "upsample": "resize",
        },
        "encoder": {
            "widths": (24, 48, 64, 96),
            "blocks": (1, 1, 1, 1),
            "downsample_branches": 1,
            # Features live at 4 mm; the detail head brings in the intensities at 2 mm.
            "stem_stride": 2,
            "stem_dropout": 0.0,
        },
        "transformer": {
            "dim": 96,
            "layers": 2,
            "heads": 4,
            "mlp_dim": 192,
            "positions": "sincos",
            "attention": "xla",
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
        "global_unet": {
            "widths": (16, 24, 32, 48),
            "blocks": (1, 1, 1, 1),
            "downsample_branches": 1,
            "stem_stride": 2,
            "stem_dropout": 0.0,
            "middle": (64, 96),
        },
        "classifier": {
            "local_width": 8,
            "deep_width": 16,
            "mixed_width": 16,
            "hidden": (64,),
            "activation": "gelu",
            "padding": "same",
            "dropout": 0.2,
            "evidence": True,
            "normalize": True,
        },
        "global_alignment": "crop",
        "deep_supervision": 1,
        "detail_width": 12,
        "detail_convolutions": 0,
        "skip_fusion": "concat",
    }


def _shrink(config: ConfigDict) -> None:
    model = config.model
    model.encoder.update(widths=(8, 8, 16, 16))
    model.global_unet.update(widths=(8, 8, 8, 8), middle=(8, 16))
    model.transformer.update(dim=24, layers=1, heads=2, mlp_dim=32)
    model.classifier.update(local_width=4, deep_width=8, mixed_width=8, hidden=(8,))
    model.detail_width = 4
    config.data.update(spacing_mm=4.0, patch=(32, 32, 32), whole=(16, 16, 16))
    config.optimizer.warmup_steps = 1
    config.train.update(steps=4, log_every=1, checkpoint_every=2)
    config.inference.update(window=(32, 32, 32))
