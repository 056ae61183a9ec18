"""GMMAS as published: the network of arXiv 2501.17758 and its authors' code, layer by layer.

For comparison with `gmmas.py`. Not copied are defects of the published code: dropout that stays on
at inference, softmax inside the network, different sequences hidden from the two branches, a linear
layer without use, and the choice of checkpoints on the test list. The published `grade` is low or
high; ours has the three grades of WHO CNS5, one output more. `--config.model.tasks.grade=2` gives
the published network to the last parameter, for weights and counts; the three grades are what can
be trained.

The authors trained in stages (a base, pseudo-labels, mixed tumours, the global U-Net alone, then
everything together with AdamW, learning rate 1e-5, weight decay 1e-3, batch 6 on 6 GPUs, 200
epochs). One stage from scratch, as here, has the learning rate and weight decay of their base:
2e-4 and 1e-5, batch 4, 200 epochs of the 682 cases whose grade they had.

Command: gmmas train --config configs/gmmas_paper.py --cohort cohort.csv --workdir runs/paper
Hardware: one GPU of 80 GB or more (float32, batch norm over 4 patches of 128^3).
Time and result: not yet run.
"""

from typing import Any

from ml_collections import ConfigDict

from gmmas_jax.config import base_config, is_debug


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; "debug" shrinks it to seconds on a CPU, every part still there."""
    config = base_config()
    config.name = "gmmas_paper"
    with config.unlocked():
        config.model = ConfigDict(_model())
    config.data.update(foreground=0.0, batch_size=4, sequence_drop="published")
    config.objective.update(
        tasks=("idh", "codel_1p19q", "grade", "mgmt"),
        dice_over="labels",
        sum_classes=True,
        cross_entropy_weight=0.0,
        smooth=0.0,
        epsilon=1e-5,
    )
    with config.unlocked():
        # Counts of the other class in the authors' training set.
        config.objective.class_weights = ConfigDict(
            {"idh": (112.0, 245.0), "codel_1p19q": (128.0, 166.0), "mgmt": (337.0, 320.0)}
        )
    config.optimizer.update(learning_rate=2e-4, weight_decay=1e-5, schedule="poly", power=0.9)
    config.train.steps = 34_100
    if is_debug(arg):
        _shrink(config)
    return config.lock()


def _model() -> dict[str, Any]:
    encoder = {
        "widths": (16, 32, 64, 128),
        "blocks": (1, 2, 2, 4),
        "downsample_branches": 4,
        "stem_stride": 1,
        "stem_dropout": 0.2,
    }
    return {
        "tasks": {"idh": 2, "codel_1p19q": 2, "grade": 3, "mgmt": 2},
        "num_classes": 4,
        "layers": {
            "dtype": "float32",
            "norm": "batch",
            "group_size": 8,
            "initializer": "torch",
            "remat": "transformer",
            "upsample": "transpose",
        },
        "encoder": encoder,
        "transformer": {
            "dim": 512,
            "layers": 4,
            "heads": 8,
            "mlp_dim": 4096,
            "positions": "learned",
            "attention": "xla",
            "dropout": 0.1,
            "attention_dropout": 0.1,
        },
        "global_unet": encoder | {"middle": (256, 512)},
        "classifier": {
            "local_width": 64,
            "deep_width": 256,
            "mixed_width": 320,
            "hidden": (512, 32),
            "activation": "none",
            "padding": "valid",
            "dropout": 0.2,
            "evidence": False,
            "normalize": False,
        },
        "global_alignment": "none",
        "deep_supervision": 0,
        "detail_width": 0,
        "detail_convolutions": 0,
        "skip_fusion": "concat",
    }


def _shrink(config: ConfigDict) -> None:
    model = config.model
    for encoder in (model.encoder, model.global_unet):
        encoder.update(widths=(4, 8, 12, 16), blocks=(1, 1, 1, 1))
    model.global_unet.middle = (16, 24)
    model.transformer.update(dim=24, layers=1, heads=2, mlp_dim=32)
    model.classifier.update(local_width=4, deep_width=8, mixed_width=8, hidden=(8, 8))
    config.data.update(spacing_mm=4.0, patch=(32, 32, 32), whole=(32, 32, 32), batch_size=2)
    config.train.update(steps=4, log_every=1, checkpoint_every=2)
    config.inference.update(window=(32, 32, 32), overlap=0.25)
