"""Bars on a terminal, lines elsewhere."""

import io

import pytest

from gmmas_jax.cli import progress
from gmmas_jax.cli.progress import CaseProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 1e9)
    stream = io.StringIO()
    with CaseProgress("work", 2, stream=stream) as shown:
        shown.done(1, "a")
        shown.done(2, "b")
    assert stream.getvalue() == "work 2/2\n"
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    with CaseProgress("work", 9, stream=stream) as shown:
        shown.done(1, "a")
    assert stream.getvalue().endswith("work 1/9\n")


@pytest.mark.parametrize("total", [3, None])
def test_a_bar_on_a_terminal(total):
    stream = Terminal()
    with CaseProgress("work", total, stream=stream) as shown:
        assert ("work" in stream.getvalue()) == (total is not None)
        shown.done(1, "first", total=3)
        shown.done(3, "third", total=3)
    last = stream.getvalue().rstrip().rpartition("\r")[2]
    assert "3/3" in last
    assert "third" in last
