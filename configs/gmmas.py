"""GMMAS as we build it: the published widths, with what we think is better, each a field.

| field of `model` | published (`gmmas_paper.py`) | here, and why |
| --- | --- | --- |
| layers.norm | batch | group: two patches make no statistics, and sites differ |
| layers.dtype | float32 | bfloat16 for convolutions and products; the rest stays float32 |
| layers.upsample | transpose | resize: no checkerboard, no parameters |
| layers.initializer | torch | he: normal kernels for rectifiers, zero biases |
| global_alignment | none | crop: a patch gets the global features of its own place |
| deep_supervision | 0 | 2: the coarser levels of the decoder are trained directly |
| encoder.downsample_branches | 4 | 1: the same function with a quarter of the parameters |
| encoder.stem_dropout | 0.2 | 0: hiding whole sequences does it, and one convolution is enough |
| transformer.positions | learned | sincos: the window may differ from the training patch |
| transformer.attention_dropout | 0.1 | 0: attention can be fused |
| classifier.activation | none | gelu: three linear layers in a row are one |
| classifier.padding | valid | same: any patch size |
| classifier.evidence | false | true: heads also read measurements of the segmented tumour |
| classifier.normalize | false | true: the tasks' first gradients do not drown the others' |

Augmentation is nnU-Net's (docs/reference/augmentation.md) with bias fields and thick slices, and
mirrored left-right alone. The whole brain is seen at 96^3. The tasks leave out MGMT, which is
hardly visible on MRI; add it in a copy of this file, to `model.tasks` and `objective.tasks`. On
NVIDIA GPUs try `--config.model.transformer.attention=cudnn` (flash attention).

Command: gmmas train --config configs/gmmas.py --cohort cohort.csv --workdir runs/gmmas
Hardware: one GPU of 80 GB or a TPU slice; `--config.model.layers.remat=all` on smaller ones.
Time and result: not yet run.
"""

from typing import Any

from ml_collections import ConfigDict

from gmmas_jax.config import base_config, is_debug


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; "debug" shrinks it to seconds on a CPU, every part still there."""
    config = base_config()
    config.name = "gmmas"
    with config.unlocked():
        config.model = ConfigDict(_model())
    config.data.update(whole=(96, 96, 96), batch_size=8, sequence_drop="uniform")
    _augment(config)
    config.objective.update(
        tasks=("idh", "codel_1p19q", "histology", "grade"),
        dice_over="regions",
        cross_entropy_weight=1.0,
        deep_weights=(0.5, 0.25),
        tasks_see_tumour=True,
    )
    config.optimizer.update(
        learning_rate=3e-4, weight_decay=1e-2, schedule="poly", warmup_steps=1000, clip_norm=1.0
    )
    config.train.update(steps=100_000, ema_decay=0.999)
    if is_debug(arg):
        _shrink(config)
    return config.lock()


def _augment(config: ConfigDict) -> None:
    """Switches on what nnU-Net does, with its probabilities, and what clinical scans need."""
    augment = config.augment
    for name, probability in {
        "rotation": 0.2,
        "scaling": 0.2,
        "gaussian_noise": 0.1,
        "blur": 0.2,
        "brightness": 0.15,
        "contrast": 0.15,
        "low_resolution": 0.25,
        "inverted_gamma": 0.1,
        "natural_gamma": 0.3,
        # Not of nnU-Net: coils that no correction evens out, and slices of 2 to 6 mm.
        "bias": 0.15,
        "thick_slices": 0.2,
    }.items():
        augment[name].probability = probability
    # Brightness and contrast take the place of what every example gets.
    augment.update(intensity_scale=0.0, intensity_shift=0.0)


def _model() -> dict[str, Any]:
    encoder = {
        "widths": (16, 32, 64, 128),
        "blocks": (1, 2, 2, 4),
        "downsample_branches": 1,
        "stem_stride": 1,
        "stem_dropout": 0.0,
    }
    return {
        "tasks": {"idh": 2, "codel_1p19q": 2, "histology": 3, "grade": 3},
        "num_classes": 4,
        "layers": {
            "dtype": "bfloat16",
            "norm": "group",
            "group_size": 8,
            "initializer": "he",
            "remat": "transformer",
            "upsample": "resize",
        },
        "encoder": encoder,
        "transformer": {
            "dim": 512,
            "layers": 4,
            "heads": 8,
            "mlp_dim": 4096,
            "positions": "sincos",
            "attention": "xla",
            "dropout": 0.1,
            "attention_dropout": 0.0,
        },
        "global_unet": encoder | {"middle": (256, 512)},
        "classifier": {
            "local_width": 64,
            "deep_width": 256,
            "mixed_width": 320,
            "hidden": (512, 32),
            "activation": "gelu",
            "padding": "same",
            "dropout": 0.2,
            "evidence": True,
            "normalize": True,
        },
        "global_alignment": "crop",
        "deep_supervision": 2,
        "detail_width": 0,
        "detail_convolutions": 0,
        "skip_fusion": "concat",
    }


def _shrink(config: ConfigDict) -> None:
    model = config.model
    for encoder in (model.encoder, model.global_unet):
        encoder.update(widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1))
    model.global_unet.middle = (16, 24)
    model.transformer.update(dim=24, layers=1, heads=2, mlp_dim=32)
    model.classifier.update(local_width=4, deep_width=8, mixed_width=8, hidden=(8,))
    config.data.update(spacing_mm=4.0, patch=(32, 32, 32), whole=(16, 16, 16), batch_size=2)
    config.optimizer.warmup_steps = 1
    config.train.update(steps=4, log_every=1, checkpoint_every=2)
    config.inference.update(window=(32, 32, 32), overlap=0.25)
