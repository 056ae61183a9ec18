"""What a batch holds of one case: the patch, the whole volume, and what is known of the patient."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.composite_case import paste
from data_pipelines.cutmix import Composite
from data_pipelines.host_tensorflow import tf
from data_pipelines.prepared import CaseArrays, PreparedIndex
from data_pipelines.sampling import cut, patch_box
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError

VIEW_FIELDS = ("image", "present", "whole", "box", "label")
"""What differs between two views of an example; the second's are called `view_image` and so on."""


def case_example(
    arrays: CaseArrays,
    *,
    start: Sequence[int],
    patch: Sequence[int],
    shown: np.ndarray,
    composite: Composite | None = None,
) -> dict[str, np.ndarray]:
    """Returns what a batch holds of one case, without what is known of the patient.

    Volumes keep the dtypes of the store: on their way to the device, bytes are what costs.

    Args:
        arrays: Of the case; of `composite_case.with_composite` where there is a composite.
        start: First voxel of the patch.
        patch: d, h, w.
        shown: float32 [4], the sequences to show.
        composite: What takes the place of a box of the case.
    """
    label, whole_label = arrays.label, arrays.whole_label
    if label is None or whole_label is None:
        label = np.zeros(arrays.image.shape[:3], np.uint8)
        whole_label = np.zeros(arrays.whole.shape[:3], np.uint8)
    image, label = cut(arrays.image, start, patch), cut(label, start, patch)
    if composite is not None:
        paste(image, start, composite.box, composite.image)
        paste(label, start, composite.box, composite.label)
    whole = np.array(arrays.whole)
    # Set, not multiplied: zero times a negative value is minus zero.
    for volume in (image, whole):
        volume[..., shown == 0] = 0
    return {
        "image": image,
        "present": shown,
        "whole": whole,
        "box": patch_box(start, patch, arrays.image.shape[:3]),
        "label": label,
        "whole_label": whole_label,
        "label_valid": np.array(arrays.label is not None, np.float32),
    }


def example_kinds(
    patch: Sequence[int], whole: Sequence[int], tasks: Sequence[str], *, views: int
) -> dict[str, Any]:
    """Returns dtype and shape of an example of `train_batches`."""
    channels = len(SEQUENCES)
    kinds: dict[str, Any] = {
        "image": tf.TensorSpec((*patch, channels), tf.float16),
        "present": tf.TensorSpec((channels,), tf.float32),
        "whole": tf.TensorSpec((*whole, channels), tf.float16),
        "box": tf.TensorSpec((2, 3), tf.float32),
        "label": tf.TensorSpec(patch, tf.uint8),
        "whole_label": tf.TensorSpec(whole, tf.uint8),
        "label_valid": tf.TensorSpec((), tf.float32),
        "case_index": tf.TensorSpec((), tf.int32),
        "targets": {task: tf.TensorSpec((len(TASKS[task]),), tf.float32) for task in tasks},
        "target_valid": {task: tf.TensorSpec((), tf.float32) for task in tasks},
    }
    if views == 2:
        kinds |= {f"view_{name}": kinds[name] for name in VIEW_FIELDS}
        kinds["view_keys"] = tf.TensorSpec((2, 2), tf.uint32)
    return kinds


class Targets:
    """What is known of each patient, as tables of a few bytes a case."""

    def __init__(self, index: PreparedIndex, tasks: Sequence[str]) -> None:
        """Tabulates the tasks of all cases.

        Raises:
            UserError: If a task is unknown.
        """
        self._tables: dict[str, np.ndarray] = {}
        for task in tasks:
            if task not in TASKS:
                raise UserError(f"tasks: {task!r} is unknown; expected some of {', '.join(TASKS)}.")
            table = np.zeros((len(index.cases), len(TASKS[task])), np.float32)
            for row, case in enumerate(index.cases):
                known = task_index(task, case.tasks.get(task))
                if known is not None:
                    table[row, known] = 1.0
            self._tables[task] = table

    def of(self, position: int) -> dict[str, dict[str, np.ndarray]]:
        """Returns `targets` (one-hot, float32 [k]) and `target_valid` (scalars) of a case."""
        rows = {task: table[position] for task, table in self._tables.items()}
        return {"targets": rows, "target_valid": {t: row.sum() for t, row in rows.items()}}

    def mixed(self, position: int, partner: int, share: float) -> dict[str, dict[str, np.ndarray]]:
        """Returns the same of a composite: in proportion where both are known, else unknown.

        Args:
            position: Of the first case.
            partner: Of the second.
            share: Of the first, 0 to 1.
        """
        first, second = self.of(position), self.of(partner)
        targets, valid = {}, {}
        for task, row in first["targets"].items():
            both = first["target_valid"][task] * second["target_valid"][task]
            proportions = np.float32(share) * row + np.float32(1 - share) * second["targets"][task]
            targets[task] = np.where(both > 0, proportions, np.float32(0))
            valid[task] = both
        return {"targets": targets, "target_valid": valid}
