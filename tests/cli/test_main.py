"""The command line itself: its exit codes, its one line for a mistake, and its light imports."""

import subprocess
import sys

import pytest

from gmmas_jax import __version__
from gmmas_jax.cli import VERBS, main
from gmmas_jax.errors import UserError

HEAVY = ("jax", "tensorflow", "flax", "scipy", "matplotlib", "nibabel", "numpy")


def told(capsys) -> str:
    """Returns the one line on the error stream."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"Example:\n  gmmas {verb}" in shown
    assert "--out" in shown or "--workdir" in shown


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"gmmas {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "gmmas: error: the following arguments are required: VERB"),
        (["fly"], "gmmas: error: argument VERB: invalid choice: 'fly'"),
        (["synth"], "gmmas synth: error: the following arguments are required: --out"),
        (["synth", "--out", "x", "--patients", "two"], "--patients: invalid int value: 'two'"),
        (["synth", "--out", "x", "--patients", "2", "--bird"], "unrecognized arguments: --bird"),
        (
            ["synth", "--out", "x", "--patients", "2", "--config.seed=1"],
            "unrecognized arguments: --config.seed=1",
        ),
        (
            ["train", "--config", "c", "--cohort", "c", "--workdir", "w", "--seed", "1"],
            "unrecognized arguments: --seed",
        ),
        (
            ["train", "--config", "c", "--cohort", "c", "--workdir", "w", "--config.seed"],
            "--config.seed has no value; expected --config.seed=VALUE",
        ),
    ],
)
def test_mistyped_commands_get_one_line(words, message, capsys):
    assert main(words) == 2
    assert message in told(capsys)


def test_mistake_is_told_in_one_line_and_traced_on_request(monkeypatch, capsys):
    def fail(_):
        raise UserError("cohort.csv: wrong")

    monkeypatch.setattr("gmmas_jax.cli.synth.run", fail)
    words = ["synth", "--out", "x", "--patients", "2"]
    assert main(words) == 2
    assert told(capsys) == "gmmas synth: error: cohort.csv: wrong"
    for debug in (["--debug", *words], [*words, "--debug"]):
        assert main(debug) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith("Traceback")
        assert lines[-1] == "gmmas synth: error: cohort.csv: wrong"


def test_interrupt_and_our_own_errors(monkeypatch, capsys):
    words = ["synth", "--out", "x", "--patients", "2"]

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gmmas_jax.cli.synth.run", interrupt)
    assert main(words) == 130
    assert told(capsys) == "gmmas synth: interrupted"

    def break_down(_):
        raise ZeroDivisionError

    monkeypatch.setattr("gmmas_jax.cli.synth.run", break_down)
    with pytest.raises(ZeroDivisionError):
        main(words)


@pytest.mark.multiprocess
def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from gmmas_jax.cli import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.multiprocess
def test_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "gmmas_jax", "fly"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("gmmas: error:")
