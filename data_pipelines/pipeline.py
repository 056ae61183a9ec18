"""Batches for training and cases for evaluation, from prepared cases on disk.

Here is what picks voxels or needs two cases: where a patch lies, which sequences it shows,
Tumor-CutMix, two views. What transforms a patch (flips, noise, contrast) runs on the accelerator
and is not here.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.balance import balanced, class_groups
from data_pipelines.batches import Batch, counter_batches
from data_pipelines.composite_case import Mixer
from data_pipelines.examples import VIEW_FIELDS, Targets, case_example, example_kinds
from data_pipelines.index_stream import every_case_once
from data_pipelines.prepared import PreparedIndex
from data_pipelines.sampling import (
    SEQUENCE_DROPS,
    SequenceDrop,
    example_generator,
    patch_start,
    shown_sequences,
)
from data_pipelines.views import near_start, two_subsets, view_keys
from gmmas_jax.errors import UserError


def train_batches(
    index: PreparedIndex,
    *,
    seed: int,
    batch_size: int,
    patch: Sequence[int],
    foreground: float,
    sequence_drop: SequenceDrop,
    tasks: Sequence[str],
    balance: Sequence[str] = (),
    unlabelled_share: float | None = None,
    cutmix: float = 0.0,
    cutmix_task: Sequence[str] = ("histology", "grade"),
    cutmix_feather: int = 0,
    views: int = 1,
    view_overlap: float = 1.0,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 2,
) -> Iterator[Batch]:
    """Returns an endless iterator over the batches of one process.

    The global batch of a step is a function of (seed, step) and the index, for any number of
    processes and workers: training resumes bitwise with `start_step`.

    Args:
        index: Cases to train on.
        seed: Of order, patches, sequence masks and all else that is drawn here.
        batch_size: Examples of a step over all processes.
        patch: d, h, w; a case that is smaller lies in the middle of zeros.
        foreground: Share of patches that are centred on tumour (`sampling.patch_start`).
        sequence_drop: See `sampling.shown_sequences`; with two views, `views.two_subsets` draws.
        tasks: Names of `TASKS`.
        balance: Tasks whose classes are seen equally often, see `balance.class_groups`; none:
            every case once an epoch.
        unlabelled_share: With `balance`, the share of examples without these labels.
        cutmix: Share of the examples that are composites (`cutmix.combine`), among those whose case
            has a tumour and a partner.
        cutmix_task: See `cutmix.Partners`.
        cutmix_feather: Voxels over which the two images blend.
        views: 1, or 2 for objectives that compare two views of an example.
        view_overlap: Share of its extent along each axis that the second view's patch has in common
            with the first's at least; 1 for the same patch.
        start_step: Steps that were already done.
        process_index: This process.
        process_count: Number of processes.
        workers: Threads that read.

    Returns:
        Batches of NumPy arrays, b = batch_size / process_count:
        image float16 [b d h w 4], z-scores, 0 where absent or not shown; present float32 [b 4];
        whole float16 [b D H W 4]; box float32 [b 2 3], see `sampling.patch_box`;
        label uint8 [b d h w]; whole_label uint8 [b D H W]; label_valid float32 [b];
        targets {task: float32 [b k]}, one-hot, or the proportions of a composite, all 0 where
        unknown; target_valid {task: float32 [b]};
        case_index int32 [b], into `index.cases`, of a composite its first case.
        With two views also view_image, view_present, view_whole, view_box, view_label: the same of
        the second view; view_keys uint32 [b 2 2], a key for each view's augmentation
        (`jax.random.wrap_key_data`).

    Raises:
        UserError: If there is no case, or an argument does not fit (named as in a config).
    """
    check_settings(
        patch=patch,
        foreground=foreground,
        sequence_drop=sequence_drop,
        cutmix=cutmix,
        cutmix_feather=cutmix_feather,
        views=views,
        view_overlap=view_overlap,
    )
    order = every_case_once(len(index.cases), seed=seed)
    if balance:
        groups = class_groups(index.cases, balance, unlabelled_share=unlabelled_share)
        order = balanced(groups, seed=seed)
    targets = Targets(index, tasks)
    mixer = Mixer(index, seed=seed, share=cutmix, tasks=cutmix_task, feather=cutmix_feather)

    def read(counter: int, position: int) -> Batch:
        arrays = index.open(position)
        known, composite = targets.of(position), None
        mixed = mixer.draw(counter, position, arrays)
        if mixed is not None:
            arrays, composite = mixed.arrays, mixed.composite
            known = targets.mixed(position, mixed.partner, composite.share)
        generator = example_generator(seed, counter)
        shown = shown_sequences(generator, arrays.present, drop=sequence_drop)
        shape = arrays.image.shape[:3]
        start = patch_start(
            generator,
            shape=shape,
            patch=patch,
            foreground=arrays.foreground,
            foreground_share=foreground,
        )
        second: Batch = {}
        if views == 2:
            generator = example_generator(seed, counter, "views")
            shown, other = two_subsets(generator, arrays.present)
            beside = near_start(generator, start, shape=shape, patch=patch, overlap=view_overlap)
            view = case_example(arrays, start=beside, patch=patch, shown=other, composite=composite)
            second = {f"view_{name}": view[name] for name in VIEW_FIELDS}
            second["view_keys"] = view_keys(generator)
        first = case_example(arrays, start=start, patch=patch, shown=shown, composite=composite)
        return first | second | known | {"case_index": np.array(position, np.int32)}

    return counter_batches(
        read,
        example_kinds(patch, index.whole, tasks, views=views),
        order,
        batch_size=batch_size,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
        workers=workers,
    )


def evaluation_cases(
    index: PreparedIndex, *, tasks: Sequence[str], process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Yields every case of this process's share once, whole, as a batch of one.

    Every process takes the same number of steps, so that none waits for another in a collective
    operation: where the cases do not come out even, the last case is repeated as padding.

    Returns:
        Batches as those of `train_batches` with one view, with the shape of the case in place of
        the patch's, and case_valid float32 [1]: 0 for padding, whose label_valid and target_valid
        are 0 as well.
    """
    targets = Targets(index, tasks)
    cases = len(index.cases)
    for first in range(0, cases, process_count):
        valid = first + process_index < cases
        position = min(first + process_index, cases - 1)
        arrays = index.open(position)
        shape = arrays.image.shape[:3]
        example = case_example(arrays, start=(0, 0, 0), patch=shape, shown=arrays.present)
        known = targets.of(position)
        if not valid:
            example["label_valid"] = np.zeros((), np.float32)
            known["target_valid"] = {task: np.zeros((), np.float32) for task in tasks}
        yield (
            {name: array[None] for name, array in example.items()}
            | {
                name: {task: array[None] for task, array in by_task.items()}
                for name, by_task in known.items()
            }
            | {
                "case_index": np.array([position], np.int32),
                "case_valid": np.array([valid], np.float32),
            }
        )


def check_settings(
    *,
    patch: Sequence[int],
    foreground: float,
    sequence_drop: str,
    cutmix: float,
    cutmix_feather: int,
    views: int,
    view_overlap: float,
) -> None:
    """Checks those arguments of `train_batches` that no case has to be known for.

    Raises:
        UserError: If one does not fit.
    """
    if len(patch) != 3 or min(patch) < 1:
        raise UserError(f"data.patch is {tuple(patch)}; expected three sizes of at least 1.")
    if not 0 <= foreground <= 1:
        raise UserError(f"data.foreground is {foreground}; expected a share between 0 and 1.")
    if sequence_drop not in SEQUENCE_DROPS:
        raise UserError(
            f"data.sequence_drop is {sequence_drop!r}; expected one of {', '.join(SEQUENCE_DROPS)}."
        )
    if not 0 <= cutmix <= 1:
        raise UserError(f"data.cutmix is {cutmix}; expected a share between 0 and 1.")
    if cutmix_feather < 0:
        raise UserError(f"data.cutmix_feather is {cutmix_feather}; expected voxels, 0 or more.")
    if views not in (1, 2):
        raise UserError(f"data.views is {views}; expected 1 or 2.")
    if not 0 < view_overlap <= 1:
        raise UserError(f"data.view_overlap is {view_overlap}; expected a share above 0 up to 1.")
