"""The order of examples: any number of hosts, any step to start from, every case once an epoch."""

from itertools import chain

import numpy as np
import pytest

from data_pipelines.host_tensorflow import tf
from data_pipelines.index_stream import every_case_once, index_stream
from gmmas_jax.errors import UserError


def batches(cases: int, steps: int, *, seed: int, batch_size: int = 4, hosts: int = 1, **arguments):
    """Returns the global batches, lists of (counter, case), put together from every host."""
    share = batch_size // hosts
    streams = [
        index_stream(
            every_case_once(cases, seed=seed),
            batch_size=batch_size,
            process_index=host,
            process_count=hosts,
            **arguments,
        )
        .batch(share)
        .take(steps)
        .as_numpy_iterator()
        for host in range(hosts)
    ]
    return [
        [
            pair
            for counters, chosen in parts
            for pair in zip(counters.tolist(), chosen.tolist(), strict=True)
        ]
        for parts in zip(*streams, strict=True)
    ]


@pytest.mark.parametrize("cases", [1, 2, 7, 10])
def test_every_number_of_hosts_makes_the_same_global_batches(cases: int):
    one = batches(cases, 6, seed=3)
    assert [counter for counter, _ in chain(*one)] == list(range(24))
    for hosts in (2, 4):
        assert batches(cases, 6, seed=3, hosts=hosts) == one


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_stream_that_starts_later_goes_on_where_the_first_would(hosts: int):
    assert batches(7, 4, seed=0, start_step=5, hosts=hosts) == batches(7, 9, seed=0)[5:]


@pytest.mark.parametrize("cases", [1, 3, 8])
def test_each_epoch_holds_every_case_once(cases: int):
    order = [case for _, case in chain(*batches(cases, 4 * cases, seed=11))]
    epochs = [order[i : i + cases] for i in range(0, len(order), cases)]
    assert len(epochs) == 16
    assert all(sorted(epoch) == list(range(cases)) for epoch in epochs)
    if cases == 8:
        assert len({tuple(epoch) for epoch in epochs}) > 12


def test_seeds_give_different_orders_and_negative_ones_are_accepted():
    orders = {tuple(case for _, case in chain(*batches(9, 3, seed=seed))) for seed in (-1, 0, 1)}
    assert len(orders) == 3


def epoch(number: int, *, cases: int = 20, seed: int = 0) -> tuple[int, ...]:
    places = tf.data.Dataset.range(number * cases, (number + 1) * cases)
    return tuple(
        places.map(every_case_once(cases, seed=seed))
        .batch(cases)
        .get_single_element()
        .numpy()
        .tolist()
    )


def test_orders_do_not_come_round_again():
    # TensorFlow's own key would repeat itself after 256 epochs, and 256 seeds.
    numbers = (0, 1, 256, 512, 2**16, 2**31, 2**32, 10**12)
    assert len({epoch(number) for number in numbers}) == len(numbers)
    assert len({epoch(0, seed=seed) for seed in (*numbers, -1, 2**63)}) == len(numbers) + 2


def test_neighbouring_epochs_are_as_unlike_as_by_chance():
    orders = np.array([epoch(number) for number in range(40)])
    alike = (orders[1:] == orders[:-1]).mean() * 20
    assert 0.6 < alike < 1.4  # One place of the order on average; the deviation is 0.16.
    first = np.bincount(orders[:, 0], minlength=20)
    assert first.max() <= 8  # 2 on average.


@pytest.mark.parametrize(
    ("batch_size", "hosts", "told"), [(3, 2, "batch_size is 3"), (0, 1, "batch_size is 0")]
)
def test_what_cannot_be_shared_out_is_refused(batch_size: int, hosts: int, told: str):
    with pytest.raises(UserError, match=told):
        index_stream(every_case_once(5, seed=0), batch_size=batch_size, process_count=hosts)


def test_no_case_is_refused():
    with pytest.raises(UserError, match="no case"):
        every_case_once(0, seed=0)
