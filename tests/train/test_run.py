"""Whole runs in this process: exact resume, the loop's order, steps that are not finite."""

import io
import json

import jax
import numpy as np
import pytest
from dummy_training import make_config, train

from gmmas_jax.errors import UserError
from gmmas_jax.train.checkpoint import Checkpoints, load_for_inference
from gmmas_jax.train.logging import read_log
from gmmas_jax.train.run import TrainSettings

TIMING = "samples_per_second"


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly(tmp_path_factory):
    """Every run here compiles the same two programs; the cache keeps them between runs."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def _losses(workdir):
    """Returns the log without what depends on the clock."""
    records = read_log(workdir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k != TIMING} for record in records]


def _equal(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    stream = io.StringIO()
    result = train(make_config(), workdir, stream=stream)
    return workdir, result, stream.getvalue()


def test_run_leaves_what_it_promises(whole):
    workdir, result, shown = whole
    assert (result.step, result.preempted) == (6, False)
    assert json.loads((workdir / "config.json").read_text()) == make_config()
    assert [record["step"] for record in read_log(workdir / "metrics.jsonl")] == [2, 4, 6]
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"3", "6"}
    assert list((workdir / "tensorboard").iterdir())
    assert "process 1 of 1: 1 of 1 devices" in shown
    assert "step 6/6 · loss" in shown
    losses = [record["loss"] for record in _losses(workdir)]
    assert losses[-1] < losses[0]


def test_resumed_run_equals_one_that_was_never_interrupted(whole, tmp_path):
    workdir, expected, _ = whole
    stream = io.StringIO()
    # Stopped in the middle of a line of the log, one step after the checkpoint of step 3.
    with pytest.raises(InterruptedError):
        train(make_config(), tmp_path, stop_after=4, stream=stream)
    assert [record["step"] for record in read_log(tmp_path / "metrics.jsonl")] == [2, 4]
    result = train(make_config(), tmp_path, stream=stream)
    assert "continuing from the checkpoint of step 3" in stream.getvalue()
    assert "another setting" not in stream.getvalue()
    for name in ("step", "skipped", "params", "opt_state", "ema"):
        assert _equal(getattr(expected.state, name), getattr(result.state, name)), name
    assert _losses(tmp_path) == _losses(workdir)


def test_finished_run_does_nothing_more(whole):
    workdir, expected, _ = whole
    before = (workdir / "metrics.jsonl").read_text()
    result = train(make_config(), workdir, stop_after=0)
    assert result.step == 6
    assert _equal(expected.state.params, result.state.params)
    assert (workdir / "metrics.jsonl").read_text() == before


def test_checkpoint_of_a_run_is_its_average(whole):
    workdir, result, _ = whole
    variables, meta = load_for_inference(workdir / "checkpoints")
    assert _equal(variables["params"], result.state.ema)
    assert meta["config"]["model"] == make_config()["model"]


def test_order_is_evaluate_save_batch(tmp_path, monkeypatch):
    events = []
    save = Checkpoints.save

    def spy(self, step, *arguments):
        events.append(f"save {step}")
        save(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", spy)

    def evaluate(state):
        events.append(f"evaluate {int(state.step)}")
        return {"dice": 0.1 * int(state.step)}

    config = make_config(
        train={
            **make_config()["train"],
            "steps": 5,
            "evaluate_every": 3,
            "keep_checkpoints": 1,
            "best_metric": "dice",
        }
    )
    with pytest.raises(UserError, match="best_metric 'dice', but this run has nothing to"):
        train(config, tmp_path)
    with pytest.raises(InterruptedError):
        train(config, tmp_path, evaluate=evaluate, stop_after=4)
    result = train(config, tmp_path, evaluate=evaluate)
    assert events == ["evaluate 3", "save 3", "evaluate 5", "save 5"]
    assert result.metrics == {"dice": 0.5}
    log = [(r["step"], r["kind"]) for r in read_log(tmp_path / "metrics.jsonl")]
    assert log == [
        (2, "train"),
        (3, "evaluation"),
        (4, "train"),
        (5, "train"),
        (5, "evaluation"),
    ]


def test_skipped_steps_are_counted_and_survived(tmp_path):
    stream = io.StringIO()
    result = train(make_config(), tmp_path, poisoned=(1, 2, 4), stream=stream)
    assert (int(result.state.step), int(result.state.skipped)) == (6, 3)
    records = read_log(tmp_path / "metrics.jsonl")
    assert [record["nonfinite"] for record in records] == [0.5, 0.5, 0.5]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert "50% skipped" in stream.getvalue()


def test_too_many_in_a_row_end_the_run_with_the_cases(tmp_path):
    with pytest.raises(UserError, match=r"in 3 steps in a row \(4 to 6; ") as caught:
        train(make_config(), tmp_path, poisoned=(1, 3, 4, 5))
    # Batches 3, 4 and 5 of 8 examples over 20 cases: examples 24 to 47.
    cases = {f"case-{counter % 20:02d}" for counter in range(24, 48)}
    assert all(case in str(caught.value) for case in cases)
    assert str(caught.value).count("case-") == len(cases)


def test_changed_settings_are_told_and_another_network_is_refused(whole):
    workdir, _, _ = whole
    stream = io.StringIO()
    train(make_config(optimizer__learning_rate=0.02), workdir, stream=stream)
    assert "another setting than before: optimizer.learning_rate was 0.01" in stream.getvalue()
    with pytest.raises(UserError, match=r"model\.width was 8 and is 4"):
        train(make_config(model={"width": 4, "batch_norm": False}), workdir)
    with pytest.raises(UserError, match=r"is at step 6, beyond train\.steps=4"):
        train(make_config(train__steps=4), workdir)


def _begun(sha256, **changes):
    provenance = {"begun_from": {"sha256": sha256}}
    return make_config(provenance=provenance, optimizer__warmup_steps=0, **changes)


def test_a_run_begins_with_given_weights(whole, tmp_path):
    """With no learning rate to speak of, it also ends with them."""
    _, trained, _ = whole
    given = jax.device_get({"params": trained.state.ema})
    config = _begun("a", train__steps=1, optimizer__learning_rate=1e-12)
    state = train(config, tmp_path, weights=given).state
    for part in (state.params["model"], state.ema):
        for one, other in zip(jax.tree.leaves(part), jax.tree.leaves(given), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    # What goes on has its own; what it began with cannot be changed any more.
    longer = _begun("a", train__steps=2)
    wrong = jax.tree.map(np.zeros_like, given)
    went_on = train(longer, tmp_path, weights=wrong).state
    assert jax.tree.all(jax.tree.map(lambda leaf: bool((leaf != 0).any()), went_on.ema))
    for other, words in ((_begun("b"), "weights of sha256 b"), (make_config(), "random weights")):
        with pytest.raises(UserError, match=rf"says to begin from .*{words}.*, but 2 steps"):
            train(other, tmp_path)


def test_weights_of_another_network_are_refused(whole, tmp_path):
    _, trained, _ = whole
    given = {"params": jax.device_get(trained.state.ema)}
    narrow = make_config(model={"width": 4, "batch_norm": False})
    with pytest.raises(
        UserError, match=r"train.weights: of another network .* classifier_histology/kernel"
    ):
        train(narrow, tmp_path, weights=given)
    del given["params"]["decoder"]
    with pytest.raises(UserError, match=r"of another network .* decoder/bias differs, and 1 more"):
        train(make_config(), tmp_path, weights=given)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(make_config(), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "train.steps is 0; expected at least 1"),
        ({"microbatches": 0}, "train.microbatches is 0"),
        ({"ema_decay": 1.0}, "train.ema_decay is 1.0"),
    ],
)
def test_impossible_settings_are_named(change, message):
    settings = {"steps": 1, "log_every": 1, "checkpoint_every": 1} | change
    with pytest.raises(UserError, match=message):
        TrainSettings(**settings)
