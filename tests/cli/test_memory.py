import argparse

import pytest

from gmmas_jax.cli.memory import memory_size


def test_sizes():
    assert memory_size("8G") == memory_size("8gib") == 8 * 2**30
    assert memory_size("500 MiB") == 500 * 2**20
    assert memory_size("1.5gb") == 3 * 2**29
    assert memory_size("4096") == 4096


@pytest.mark.parametrize("wrong", ["", "G", "-1G", "0", "nan", "inf", "much"])
def test_no_size(wrong):
    with pytest.raises(argparse.ArgumentTypeError, match="expected for example 8G"):
        memory_size(wrong)
