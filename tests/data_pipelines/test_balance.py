"""Class balance: exact proportions in every epoch, and every case of a class before any again."""

from collections import Counter

import pytest

from data_pipelines.balance import balanced, class_groups
from data_pipelines.index_stream import index_stream
from data_pipelines.prepared import PreparedCase
from gmmas_jax.errors import UserError


def case(name: str, **tasks: str) -> PreparedCase:
    return PreparedCase(name, name, "train", name, (8, 8, 8), ("t1c",), None, tasks)


CASES = (
    *(case(f"wild{i}", idh="wildtype", grade="4") for i in range(9)),
    *(case(f"unknown{i}") for i in range(4)),
    *(case(f"mutant{i}", idh="mutant", grade="2") for i in range(2)),
    case("half", idh="mutant"),
)


def order(groups, steps: int, *, batch_size: int = 4, hosts: int = 1, start_step: int = 0):
    """Returns the case indices of all hosts, step by step."""
    streams = [
        index_stream(
            balanced(groups, seed=3),
            batch_size=batch_size,
            start_step=start_step,
            process_index=host,
            process_count=hosts,
        )
        .batch(batch_size // hosts)
        .take(steps)
        .as_numpy_iterator()
        for host in range(hosts)
    ]
    return [
        case
        for parts in zip(*streams, strict=True)
        for _, cases in parts
        for case in cases.tolist()
    ]


def test_groups_are_the_classes_and_the_rest():
    groups = class_groups(CASES, ["idh"])
    assert groups.names == ("wildtype", "mutant", "unlabelled")
    assert [len(members) for members in groups.members] == [9, 3, 4]
    assert groups.quotas == (6, 6, 4)
    assert groups.epoch == 16


def test_a_tuple_of_tasks_makes_a_group_of_each_combination():
    groups = class_groups(CASES, ["idh", "grade"])
    assert groups.names == ("wildtype + 4", "mutant + 2", "unlabelled")
    # Half a label is none here.
    assert [CASES[i].case_id for i in groups.members[2]][-1] == "half"


@pytest.mark.parametrize(("share", "unlabelled"), [(0.0, 0), (0.25, 4), (0.5, 12)])
def test_the_unlabelled_share_is_as_stated(share: float, unlabelled: int):
    groups = class_groups(CASES, ["idh"], unlabelled_share=share)
    assert groups.epoch == 12 + unlabelled
    found = order(groups, groups.epoch // 4)
    assert sum("unknown" in CASES[i].case_id for i in found) == unlabelled


def test_each_epoch_holds_exactly_the_quotas():
    groups = class_groups(CASES, ["idh"])
    found = order(groups, 12 * groups.epoch // 4)
    for start in range(0, len(found), groups.epoch):
        epoch = found[start : start + groups.epoch]
        assert Counter(CASES[i].tasks.get("idh") for i in epoch) == {
            "wildtype": 6,
            "mutant": 6,
            None: 4,
        }
    orders = [tuple(found[i : i + groups.epoch]) for i in range(0, len(found), groups.epoch)]
    assert len(set(orders)) == 12


def test_every_case_of_a_class_is_seen_before_any_again():
    groups = class_groups(CASES, ["idh"])
    # After 3 epochs 18 of the wild type and of the mutant: 2 and 6 times each case.
    seen = Counter(order(groups, 3 * groups.epoch // 4))
    assert {seen[i] for i in groups.members[0]} == {2}
    assert {seen[i] for i in groups.members[1]} == {6}
    assert {seen[i] for i in groups.members[2]} == {3}


def test_hosts_and_resuming_change_nothing():
    groups = class_groups(CASES, ["idh"])
    one = order(groups, 20)
    assert order(groups, 20, hosts=2) == order(groups, 20, hosts=4) == one
    assert order(groups, 13, start_step=7) == one[28:]


@pytest.mark.parametrize(
    ("tasks", "share", "told"),
    [
        (["mood"], None, "'mood' is unknown"),
        (["mgmt"], None, "no case to train on has this label"),
        (["idh", "mgmt"], None, "no case to train on has all of these labels"),
        (["idh"], 1.0, "data.unlabelled_share is 1.0"),
        (["idh"], -0.1, "data.unlabelled_share is -0.1"),
    ],
)
def test_what_cannot_be_is_refused(tasks, share, told):
    with pytest.raises(UserError, match=told):
        class_groups(CASES, tasks, unlabelled_share=share)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UserError, match="every case has the labels"):
        class_groups(CASES[:9], ["idh"], unlabelled_share=0.5)
