"""A config's section becomes effects or says why not; tidy scans and the documentation agree."""

from pathlib import Path

import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.effects import PLAIN, Effects


def test_plain_is_a_part_of_the_full():
    for name, plain in PLAIN._asdict().items():
        full = getattr(Effects(), name)
        # Tidy scans all have a field of bias, as all scans had: those patients stay as they were.
        assert name == "bias" or plain.probability <= full.probability
        assert plain.magnitude <= full.magnitude


def test_a_config_section_becomes_effects():
    values = {name: effect._asdict() for name, effect in PLAIN._asdict().items()}
    assert Effects.of(values) == PLAIN
    assert Effects.of(values | {"noise": {"probability": 0, "magnitude": 1}}).noise == (0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": {"probability": 1.2, "magnitude": 1}}, r"effects.noise is .*1.2.* from 0 to 1"),
        ({"bias": {"probability": 0.5, "magnitude": -1}}, r"effects.bias is .*not negative"),
        ({"bias": {"probability": 0.5, "magnitude": float("nan")}}, r"effects.bias is .*nan"),
        ({"nois": {"probability": 0.5, "magnitude": 1}}, r"effects: nois; expected exactly"),
        ({"noise": {"probability": 0.5}}, r"effects.noise is .*expected probability, magnitude"),
        ({"noise": {"probability": "much", "magnitude": 1}}, r"effects.noise is .*much"),
    ],
)
def test_a_wrong_config_section_says_what_is_wrong(change, message):
    values = {name: effect._asdict() for name, effect in Effects()._asdict().items()}
    with pytest.raises(UserError, match=message):
        Effects.of(values | change)


def test_a_missing_effect_is_named():
    values = {name: effect._asdict() for name, effect in Effects()._asdict().items()}
    del values["cyst"]
    with pytest.raises(UserError, match="effects: cyst; expected exactly"):
        Effects.of(values)
    with pytest.raises(UserError, match="effects: 'cysts' is unknown"):
        Effects().without("cysts")


def test_the_table_in_the_documentation_is_right():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "synthesis.md").read_text("utf-8")
    cells = [[c.strip() for c in line.split("|")[1:5]] for line in page.splitlines() if "|" in line]
    rows = {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}
    assert list(rows) == list(Effects._fields)
    for name, (probability, magnitude, plain) in rows.items():
        assert (float(probability), float(magnitude)) == getattr(Effects(), name)
        numbers = getattr(PLAIN, name)
        if numbers.probability == 0:
            assert plain == "–"
        else:
            assert tuple(map(float, plain.split(","))) == numbers
