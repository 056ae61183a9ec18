"""The weights `base`: as `weights_mini.py` in all but size, features at full resolution.

Purpose: `gmmas predict --weights base`, where there is an accelerator, or patience.
Command: gmmas train --config configs/weights_base.py --generated --workdir runs/weights-base
Hardware: one accelerator; 5.9 GiB of memory on an H200.
Time: 6.5 minutes on an H100 beside other work, and 1.2 of compiling; an earlier run on an H200 made
55 patients a second (`benchmarks/results`). Result: the model card in `gmmas_jax/weights/base`.

The shipped weights were stopped by the clock at 4,390 steps, with the cosine in the share of the
time; `steps` is what a run by number takes in its place. They were computed in bfloat16 and are
shipped to be computed with in float32. The generator had 44 effects then: their config.json has
them, and a run of today is on another generator. With the next four it was trained once more, and
was not better (docs/explanation/synthetic-to-real.md).
`inference.min_certain_ml` was chosen by `benchmarks/postprocessing.py` for the shipped weights.
"""

from ml_collections import ConfigDict

from gmmas_jax.config import base_config, is_debug

TASKS = {"idh": 2, "codel_1p19q": 2, "histology": 3}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; "debug" shrinks it to seconds on a CPU, every part still there."""
    config = base_config()
    config.name = "weights_base"
    with config.unlocked():
        config.model = ConfigDict(
            {
                "tasks": TASKS,
                "num_classes": 4,
                "layers": {
                    "dtype": "bfloat16",
                    "norm": "group",
                    "group_size": 8,
                    "initializer": "he",
                    "remat": "none",
                    "upsample": "resize",
                },
                "encoder": {
                    "widths": (32, 64, 128, 160),
                    "blocks": (1, 1, 2, 1),
                    "downsample_branches": 1,
                    "stem_stride": 1,
                    "stem_dropout": 0.0,
                },
                "transformer": {
                    "dim": 128,
                    "layers": 2,
                    "heads": 4,
                    "mlp_dim": 256,
                    "positions": "sincos",
                    "attention": "xla",
                    "dropout": 0.0,
                    "attention_dropout": 0.0,
                },
                "global_unet": {
                    "widths": (16, 32, 48, 64),
                    "blocks": (1, 1, 1, 1),
                    "downsample_branches": 1,
                    "stem_stride": 2,
                    "stem_dropout": 0.0,
                    "middle": (96, 128),
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
                "detail_width": 0,
                "detail_convolutions": 0,
                "skip_fusion": "concat",
            }
        )
    config.data.update(
        spacing_mm=1.0, patch=(96, 96, 96), whole=(64, 64, 64), batch_size=4, foreground=0.65
    )
    config.synthesis.update(healthy=0.15, all_sequences=0.4)
    config.augment.update(flip=(0.0, 0.0, 0.0), intensity_scale=0.2, intensity_shift=0.2)
    config.objective.update(
        tasks=tuple(TASKS),
        dice_over="labels",
        smooth=50.0,
        deep_weights=(0.5,),
        whole_weight=0.3,
        tasks_see_tumour=True,
    )
    config.optimizer.update(
        learning_rate=1e-3, schedule="cosine", warmup_steps=100, weight_decay=1e-3, clip_norm=5.0
    )
    config.train.update(steps=4_400, log_every=50, checkpoint_every=400, ema_decay=0.998)
    # A brain in one window.
    config.inference.update(window=(160, 192, 160), overlap=0.25, min_certain_ml=0.3)
    if is_debug(arg):
        _shrink(config)
    return config.lock()


def _shrink(config: ConfigDict) -> None:
    model = config.model
    model.encoder.update(widths=(8, 8, 16, 16))
    model.global_unet.update(widths=(8, 8, 8, 8), middle=(8, 16))
    model.transformer.update(dim=24, layers=1, heads=2, mlp_dim=32)
    model.classifier.update(local_width=4, deep_width=8, mixed_width=8, hidden=(8,))
    config.data.update(spacing_mm=4.0, patch=(32, 32, 32), whole=(16, 16, 16))
    config.optimizer.warmup_steps = 1
    config.train.update(steps=4, log_every=1, checkpoint_every=2)
    config.inference.update(window=(32, 32, 32))
