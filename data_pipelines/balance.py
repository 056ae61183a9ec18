"""The order of examples in which every class of a task is seen equally often.

As `index_stream.every_case_once`, it is a function of (seed, counter): nothing is counted while
training, and nothing is drawn that would have to be saved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.host_tensorflow import tf
from data_pipelines.index_stream import CaseOrder, shuffled
from data_pipelines.prepared import PreparedCase
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Groups:
    """The cases sorted by class, and how many examples of each an epoch holds.

    Attributes:
        names: Of the groups, for tables and messages: class names, or "unlabelled".
        members: Positions of the cases, one array int64 [n] per group, none empty.
        quotas: Examples of each group in one epoch.
    """

    names: tuple[str, ...]
    members: tuple[np.ndarray, ...]
    quotas: tuple[int, ...]

    @property
    def epoch(self) -> int:
        """Examples of one epoch."""
        return sum(self.quotas)


def class_groups(
    cases: Sequence[PreparedCase],
    tasks: Sequence[str],
    *,
    unlabelled_share: float | None = None,
) -> Groups:
    """Groups cases by the classes of some tasks.

    Each combination of classes that occurs is one group, and all get the same number of examples:
    the labelled cases divided by the groups, rounded up, so that an epoch is about as long as one
    without balance. A case that lacks one of the labels is unlabelled here.

    Args:
        cases: Of the index.
        tasks: Names of `TASKS`, at least one.
        unlabelled_share: Share of the examples that come from unlabelled cases, 0 up to but not
            including 1; None keeps their share of the cases.

    Raises:
        UserError: If a task is unknown, no case has all of its labels, or the share does not fit.
    """
    for task in tasks:
        if task not in TASKS:
            raise UserError(
                f"data.balance: {task!r} is unknown; expected some of {', '.join(TASKS)}."
            )
    by_class: dict[tuple[str, ...], list[int]] = {}
    unlabelled = []
    for position, case in enumerate(cases):
        if all(task in case.tasks for task in tasks):
            key = tuple(case.tasks[task] for task in tasks)
            by_class.setdefault(key, []).append(position)
        else:
            unlabelled.append(position)
    if not by_class:
        raise UserError(
            f"data.balance names {', '.join(tasks)}, but no case to train on has "
            f"{'all of these labels' if len(tasks) > 1 else 'this label'}. Name another task."
        )
    # In the order of the class axes, whatever the order of the manifest.
    keys = sorted(
        by_class, key=lambda key: [TASKS[t].index(c) for t, c in zip(tasks, key, strict=True)]
    )
    labelled = len(cases) - len(unlabelled)
    quotas = [-(-labelled // len(keys))] * len(keys)
    names = [" + ".join(key) for key in keys]
    members = [by_class[key] for key in keys]
    rest = _unlabelled_quota(sum(quotas), len(unlabelled), unlabelled_share)
    if rest:
        names.append("unlabelled")
        members.append(unlabelled)
        quotas.append(rest)
    return Groups(tuple(names), tuple(np.array(m, np.int64) for m in members), tuple(quotas))


def balanced(groups: Groups, *, seed: int) -> CaseOrder:
    """Returns the order that gives each group its quota in every epoch.

    An epoch is a permutation of its places, of which each group owns its quota. The examples of a
    group, numbered over all epochs, go through permutations of its cases: each of them is shown
    once before any is shown again.

    Args:
        groups: See `class_groups`.
        seed: Any integer; its lowest 64 bits count.
    """
    quotas = np.array(groups.quotas, np.int64)
    sizes = np.array([len(members) for members in groups.members], np.int64)
    ends = tf.constant(np.cumsum(quotas))
    first_place = tf.constant(np.cumsum(quotas) - quotas)
    first_member = tf.constant(np.cumsum(sizes) - sizes)
    quota_of, size_of = tf.constant(quotas), tf.constant(sizes)
    members = tf.constant(np.concatenate(groups.members))
    # Each its own, so that groups of one size do not go in step.
    seed_of = tf.constant([(seed + 1 + group) % 2**63 for group in range(len(quotas))], tf.int64)

    def case_of(counter: tf.Tensor) -> tf.Tensor:
        epoch, position = counter // groups.epoch, counter % groups.epoch
        place = shuffled(position, seed=seed, epoch=epoch, size=groups.epoch)
        group = tf.searchsorted(ends, place[None], side="right")[0]
        number = epoch * quota_of[group] + place - first_place[group]
        size = size_of[group]
        member = shuffled(number % size, seed=seed_of[group], epoch=number // size, size=size)
        return members[first_member[group] + member]

    return case_of


def _unlabelled_quota(labelled: int, cases: int, share: float | None) -> int:
    if share is None:
        return cases
    if not 0 <= share < 1:
        raise UserError(
            f"data.unlabelled_share is {share}; expected none, or a share from 0 up to below 1."
        )
    if share and not cases:
        raise UserError(
            f"data.unlabelled_share is {share}, but every case has the labels of data.balance. "
            "Leave it out."
        )
    return round(share / (1 - share) * labelled)
