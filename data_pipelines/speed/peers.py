"""The same training input made by MONAI and by batchgeneratorsv2, for comparison.

Both get the cases in memory, as float32 tensors, which is the best case for them: their own
preprocessing and files are not timed. Neither is a dependency of the project.

Their list of augmentations is nnU-Net's, with its probabilities, and the same for both and for
`ours`: blur and low resolution change every sequence, since MONAI has no probability per sequence.
MONAI draws one number for all sequences where the others draw one for each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]
"""Image float32 [4 d h w] and label uint8 [d h w] of one case."""

MakeSample = Callable[[], None]
"""Makes one augmented sample when called."""

_AXES = (0, 1, 2)


def monai_sampler(cases: Sequence[Arrays], patch: Sequence[int], *, augment: bool) -> MakeSample:
    """Returns a function that makes MONAI's next sample: `CacheDataset`, transforms, `DataLoader`.

    Args:
        cases: In memory.
        patch: d, h, w.
        augment: Whether to augment the crop.

    Raises:
        ImportError: If MONAI or PyTorch is not installed.
    """
    import torch
    from monai import transforms as mt
    from monai.data import CacheDataset, DataLoader

    torch.set_num_threads(1)
    keys = ["image", "label"]
    sigmas = {f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"}
    gamma = {"gamma": (0.7, 1.5), "retain_stats": True}
    chain: list[Any] = [
        # Once per case, and cached with it: found at every crop, it would take longer than that.
        mt.FgBgToIndicesd("label"),
        mt.RandCropByPosNegLabeld(
            keys,
            label_key="label",
            spatial_size=tuple(patch),
            pos=1,
            neg=1,
            num_samples=1,
            fg_indices_key="label_fg_indices",
            bg_indices_key="label_bg_indices",
        ),
    ]
    if augment:
        chain += [
            mt.RandAffined(
                keys,
                prob=0.36,
                rotate_range=(0.52, 0.52, 0.52),
                scale_range=(0.3, 0.3, 0.3),
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            mt.RandGaussianNoised("image", prob=0.1, std=0.3),
            mt.RandGaussianSmoothd("image", prob=0.2, **sigmas),
            mt.RandScaleIntensityd("image", factors=0.25, prob=0.15, channel_wise=True),
            mt.RandScaleIntensityFixedMeand("image", factors=0.25, prob=0.15, preserve_range=True),
            mt.RandSimulateLowResolutiond("image", prob=0.25, zoom_range=(0.5, 1.0)),
            mt.RandAdjustContrastd("image", prob=0.1, invert_image=True, **gamma),
            mt.RandAdjustContrastd("image", prob=0.3, **gamma),
            *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in _AXES),
        ]
    data = [
        {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}
        for image, label in cases
    ]
    dataset = CacheDataset(data, mt.Compose(chain), num_workers=0, progress=False)
    batches = _endless(lambda: iter(DataLoader(dataset, batch_size=1, shuffle=True)))

    def sample() -> None:
        next(batches)

    return sample


def batchgenerators_sampler(
    cases: Sequence[Arrays], patch: Sequence[int], *, augment: bool
) -> MakeSample:
    """Returns a function that makes the next sample as nnU-Net's trainer does.

    Args:
        cases: In memory.
        patch: d, h, w.
        augment: Whether to augment the crop.

    Raises:
        ImportError: If batchgeneratorsv2 or PyTorch is not installed.
    """
    import torch
    from batchgeneratorsv2.transforms.intensity import brightness, contrast, gamma, gaussian_noise
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    torch.set_num_threads(1)
    crop = SpatialTransform(
        tuple(patch),
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=0.2 if augment else 0.0,
        rotation=(-0.52, 0.52),
        p_scaling=0.2 if augment else 0.0,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
    )
    channelwise = {"synchronize_channels": False, "p_per_channel": 1}
    span = contrast.BGContrast((0.75, 1.25))
    gammas = contrast.BGContrast((0.7, 1.5))
    random: list[tuple[Any, float]] = [
        (gaussian_noise.GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
        (GaussianBlurTransform((0.5, 1.0), False, False, p_per_channel=1), 0.2),
        (brightness.MultiplicativeBrightnessTransform(span, **channelwise), 0.15),
        (contrast.ContrastTransform(span, preserve_range=True, **channelwise), 0.15),
        (SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 1), 0.25),
        (gamma.GammaTransform(gammas, 1, False, 1, 1), 0.1),
        (gamma.GammaTransform(gammas, 0, False, 1, 1), 0.3),
    ]
    steps: list[Any] = [crop]
    if augment:
        steps += [RandomTransform(transform, apply_probability=p) for transform, p in random]
        steps.append(MirrorTransform(allowed_axes=_AXES))
    transform = ComposeTransforms(steps)
    generator = np.random.default_rng(0)
    foreground = [np.argwhere(label > 0) for _, label in cases]

    def sample() -> None:
        position = int(generator.integers(len(cases)))
        image, label = cases[position]
        box = _crop_box(generator, label.shape, patch, foreground[position])
        with torch.no_grad():
            transform(
                image=torch.from_numpy(np.ascontiguousarray(image[(slice(None), *box)])),
                segmentation=torch.from_numpy(label[box][None].astype(np.int16)),
            )

    return sample


def _crop_box(
    generator: np.random.Generator,
    shape: Sequence[int],
    patch: Sequence[int],
    foreground: np.ndarray,
) -> tuple[slice, ...]:
    room = np.maximum(np.asarray(shape) - np.asarray(patch), 0)
    start = generator.integers(0, room, endpoint=True)
    if generator.random() < 0.5 and len(foreground):
        centre = foreground[generator.integers(len(foreground))]
        start = np.clip(centre - np.asarray(patch) // 2, 0, room)
    return tuple(slice(int(s), int(s) + size) for s, size in zip(start, patch, strict=True))


def _endless(make: Callable[[], Any]) -> Any:
    while True:
        yield from make()
