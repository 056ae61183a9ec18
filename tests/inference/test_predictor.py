"""From a case to masks and probabilities, with a tiny network of random weights."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest

from gmmas_jax.cases.prepare import prepare, whole_volume
from gmmas_jax.cases.sequences import presence
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.inference.settings import InferenceSettings
from gmmas_jax.inference.sliding_window import make_tiling
from gmmas_jax.models.build import make_model
from tests.inference.tiny import tiny_case, tiny_predictor, tiny_weights
from tests.models.small import run


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tiny_predictor()


def changed(predictor: Predictor, **settings: Any) -> Predictor:
    """Returns the same compiled network with other settings of what is done around it."""
    other = copy.copy(predictor)
    other.settings = dataclasses.replace(predictor.settings, **settings)
    return other


def test_a_prediction_lies_on_the_grid_of_the_case(predictor: Predictor):
    case = tiny_case((31, 24, 19))
    prediction = predictor.predict(case)
    assert prediction.label.shape == case.grid.shape
    assert prediction.label.dtype == np.uint8
    assert len(np.unique(prediction.label)) > 1
    assert prediction.probabilities.shape == (*case.grid.shape, 4)
    assert prediction.probabilities.dtype == np.float32
    np.testing.assert_allclose(prediction.probabilities.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(prediction.label, prediction.probabilities.argmax(axis=-1))
    assert prediction.labels == ("background", "NCR", "ED", "ET")
    assert {task: len(row) for task, row in prediction.tasks.items()} == {"idh": 2, "histology": 3}
    assert all(row.sum() == pytest.approx(1, abs=1e-5) for row in prediction.tasks.values())
    assert all(0 < value < np.log(3) for value in prediction.uncertainty.values())
    assert prediction.present == ("t1n", "t1c", "t2w", "t2f")
    assert prediction.warnings == ()
    voxels = np.count_nonzero(np.isin(prediction.label, (1, 2, 3)))
    assert prediction.volumes_ml["regions"]["WT"] == pytest.approx(voxels / 1000)


def test_the_same_case_gives_the_same_bits(predictor: Predictor):
    first, second = predictor.predict(tiny_case()), predictor.predict(tiny_case())
    assert first.probabilities.tobytes() == second.probabilities.tobytes()
    assert first.uncertainty == second.uncertainty


def test_compiled_ahead_it_gives_the_same_bits(predictor: Predictor):
    ahead = tiny_predictor()
    ahead.compile_ahead()
    first, second = ahead.predict(tiny_case()), predictor.predict(tiny_case())
    assert first.probabilities.tobytes() == second.probabilities.tobytes()
    assert first.uncertainty == second.uncertainty
    for task, expected in second.tasks.items():
        np.testing.assert_array_equal(first.tasks[task], expected)


def test_voxels_of_an_absent_sequence_change_no_bit(predictor: Predictor):
    prepared = prepare(tiny_case(), spacing_mm=2.0)
    noise = prepared.image.copy()
    noise[..., 1] = np.random.default_rng(5).normal(size=noise.shape[:3])
    shown = presence(("t1n", "t2w", "t2f"))
    first = predictor.predict_prepared(prepared, shown)
    second = predictor.predict_prepared(dataclasses.replace(prepared, image=noise), shown)
    assert first.probabilities.tobytes() == second.probabilities.tobytes()
    assert {t: v.tobytes() for t, v in first.tasks.items()} == {
        t: v.tobytes() for t, v in second.tasks.items()
    }
    full = predictor.predict_prepared(prepared)
    assert np.abs(full.probabilities - first.probabilities).max() > 1e-3


def test_a_case_has_no_sequence_but_its_own(predictor: Predictor):
    prepared = prepare(tiny_case(without=("t1c",)), spacing_mm=2.0)
    asked = predictor.predict_prepared(prepared, presence(("t1c", "t2f")))
    only = predictor.predict_prepared(prepared, presence(("t2f",)))
    assert asked.probabilities.tobytes() == only.probabilities.tobytes()
    with pytest.raises(UserError, match="the case has t1n, t2w, t2f"):
        predictor.predict_prepared(prepared, presence(("t1c",)))


def test_missing_contrast_and_flair_are_told(predictor: Predictor):
    prediction = predictor.predict(tiny_case(without=("t1c", "t2f")))
    assert prediction.present == ("t1n", "t2w")
    assert [warning.split()[0] for warning in prediction.warnings] == ["t1c", "t2f"]


def test_one_window_gives_what_the_network_gives(predictor: Predictor):
    """A case of exactly one window: no blending, so the network itself is the reference."""
    weights = tiny_weights()
    case = tiny_case((20, 20, 20))
    prepared = prepare(case, spacing_mm=2.0)
    assert prepared.image.shape[:3] == (8, 8, 8)
    box = np.array([[[0.0] * 3, [1.0] * 3]], np.float32)
    outputs = run(
        make_model(**weights.config["model"]).apply,
        weights.variables,
        prepared.image[None],
        prepared.present[None],
        whole_volume(prepared.image, (8, 8, 8))[None],
        box,
    )
    logits = np.asarray(outputs["segmentation"][0], np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = predictor.predict_prepared(prepared)
    brain = prepared.brain
    np.testing.assert_allclose(found.probabilities[brain], expected[brain], atol=1e-5)
    np.testing.assert_array_equal(found.probabilities[~brain], [[1, 0, 0, 0]] * (~brain).sum())
    for task, row in found.tasks.items():
        logits = np.asarray(outputs["tasks"][task][0], np.float64)
        np.testing.assert_allclose(row, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_windows_in_batches_give_the_same(predictor: Predictor):
    prepared = prepare(tiny_case(), spacing_mm=2.0)
    one = predictor.predict_prepared(prepared)
    three = tiny_predictor(batch_size=3).predict_prepared(prepared)
    np.testing.assert_allclose(one.probabilities, three.probabilities, atol=1e-5)
    for task in one.tasks:
        np.testing.assert_allclose(one.tasks[task], three.tasks[task], atol=1e-5)
        assert one.uncertainty[task] == pytest.approx(three.uncertainty[task], abs=1e-5)


def test_flips_make_the_prediction_of_a_mirrored_case_the_mirrored_prediction(
    predictor: Predictor,
):
    predictor = changed(predictor, flips=True)
    prepared = prepare(tiny_case(), spacing_mm=2.0)
    mirrored = dataclasses.replace(
        prepared, image=prepared.image[::-1], brain=np.ascontiguousarray(prepared.brain[::-1])
    )
    one, other = predictor.predict_prepared(prepared), predictor.predict_prepared(mirrored)
    np.testing.assert_allclose(one.probabilities, other.probabilities[::-1], atol=1e-5)
    for task in one.tasks:
        np.testing.assert_allclose(one.tasks[task], other.tasks[task], atol=1e-5)


def test_only_windows_with_tumour_count_for_the_tasks(predictor: Predictor):
    tiling = make_tiling((24, 8, 8), (8, 8, 8), 0.0)
    label = np.zeros((24, 8, 8), np.uint8)
    label[8:16, :4, :4] = 2
    label[16, 0, 0] = 3  # 8 microlitres: too little
    np.testing.assert_allclose(predictor._window_weights(label, tiling), [0, 1, 0])
    label[16:18, :4, :4] = 3
    np.testing.assert_allclose(predictor._window_weights(label, tiling), [0, 0.8, 0.2])


def test_without_enough_tumour_the_window_with_most_counts_alone(predictor: Predictor):
    tiling = make_tiling((24, 8, 8), (8, 8, 8), 0.0)
    label = np.zeros((24, 8, 8), np.uint8)
    np.testing.assert_allclose(predictor._window_weights(label, tiling), [1, 0, 0])
    label[20, 0, 0] = 1
    np.testing.assert_allclose(predictor._window_weights(label, tiling), [0, 0, 1])


def test_a_case_without_tumour_is_told(predictor: Predictor):
    prediction = changed(predictor, min_tumour_ml=1e6).predict(tiny_case())
    assert "enough tumour" in prediction.warnings[-1]
    assert set(prediction.tasks) == {"idh", "histology"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": 1.0}, "inference.overlap is 1.0"),
        ({"window": [8, 8]}, "inference.window"),
        ({"samples": -1}, "inference.samples"),
        ({"overlaps": 0.5}, r"unknown fields \['overlaps'\]"),
    ],
)
def test_impossible_settings_are_named(change, message):
    section = {"window": [8, 8, 8], "overlap": 0.5, "flips": False} | change
    with pytest.raises(UserError, match=message):
        InferenceSettings.from_config(section)


def test_without_dropout_passes_nothing_is_estimated():
    prepared = prepare(tiny_case((12, 12, 12)), spacing_mm=2.0)
    assert tiny_predictor(samples=0).predict_prepared(prepared).uncertainty == {}


def test_a_window_that_the_network_cannot_take_is_told():
    with pytest.raises(UserError, match=r"inference\.window"):
        tiny_predictor(window=[7, 8, 8]).predict(tiny_case())
