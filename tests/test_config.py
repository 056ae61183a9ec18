"""Loading experiment files, changing fields, and the messages for mistakes."""

import json

import pytest

from gmmas_jax import config as config_module
from gmmas_jax.config import base_config, is_debug, load_config, to_dict
from gmmas_jax.errors import UserError

FILE = """
from gmmas_jax.config import base_config, is_debug

def get_config(arg=""):
    config = base_config()
    config.name = "example"
    config.model = {"width": 16, "scales": (1, 2), "remat": True, "attention": None,
                    "stages": ((1, 2), (3, 4)), "inner": {"rate": 0.1}}
    config.objective.class_weights = {"idh": (1.0, 2.0)}
    config.train.ema_decay = 0.99
    if is_debug(arg):
        config.train.steps = 3
    return config
"""


@pytest.fixture(name="path")
def _path(tmp_path):
    path = tmp_path / "example.py"
    path.write_text(FILE)
    return path


def test_file_and_argument(path):
    config = load_config(str(path))
    assert config.name == "example"
    assert config.train.steps == 100_000
    assert load_config(f"{path}:debug").train.steps == 3
    with pytest.raises(UserError, match="argument is 'fast'; expected none, or 'debug'"):
        load_config(f"{path}:fast")
    assert not is_debug("")


def test_result_is_locked(path):
    config = load_config(str(path), ["train.steps=5"])
    for section, field in ((config, "stepz"), (config.train, "stepz"), (config.model, "widht")):
        with pytest.raises((AttributeError, KeyError)):
            section[field] = 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.learning_rate=1e-3", 1e-3),
        ("optimizer.learning_rate=1", 1.0),
        ("train.steps=7", 7),
        ("train.steps=1_000", 1000),
        ("optimizer.nesterov=false", False),
        ("model.remat=False", False),
        ("name=a=b", "a=b"),
        ("data.patch=96,80,64", (96, 80, 64)),
        ("data.patch=(96, 80, 64)", (96, 80, 64)),
        ("model.scales=[4]", (4,)),
        ("model.stages=((5, 6),)", ((5, 6),)),
        ("objective.tasks=idh,mgmt", ("idh", "mgmt")),
        ("objective.tasks=('idh',)", ("idh",)),
        ("objective.deep_weights=0.5,0.25", (0.5, 0.25)),
        ("objective.class_weights.idh=2,3", (2.0, 3.0)),
        ("model.inner.rate=0.2", 0.2),
        ("model.attention=cudnn", "cudnn"),
        ("model.attention=3", 3),
        ("train.ema_decay=none", None),
        ("optimizer.clip_norm=1", 1.0),
        ("train.best_metric=dice", "dice"),
    ],
)
def test_override_takes_the_type_of_the_field(path, override, expected):
    value = load_config(str(path), [override])
    for key in override.partition("=")[0].split("."):
        value = value[key]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=3", r"no field train\.stepz\. Did you mean train\.steps\?"),
        ("train.steps.x=3", r"no field train\.steps\.x\."),
        ("trian.steps=3", r"Did you mean train\.steps\?"),
        ("model.widht=3", r"Did you mean model\.width\?"),
        ("train=3", r"train is a section; set one of its fields: train\.best_metric, "),
        ("train.steps", r"expected section\.field=value"),
        ("train.steps=2.5", r"train\.steps is '2\.5'; expected a whole number"),
        ("train.steps=none", r"expected a whole number"),
        ("optimizer.learning_rate=fast", r"expected a number"),
        ("optimizer.learning_rate=nan", r"expected a number"),
        ("optimizer.nesterov=1", r"expected true or false"),
        ("data.patch=a,b,c", r"data\.patch is 'a'; expected a whole number"),
        ("model.stages=3", r"expected a tuple"),
    ],
)
def test_mistaken_override_is_named(path, override, message):
    with pytest.raises(UserError, match=message):
        load_config(str(path), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config.train.stepz = 3", "AttributeError.*stepz"),
        ("config.train.steps = 'x'", "TypeError.*steps"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("return 3", "returned int; expected a ConfigDict"),
        ("return config.train", r"unknown field .*\."),
        ("with config.unlocked(): config.extra = 1", "unknown field extra"),
        ("with config.unlocked(): del config.train['steps']", r"field train\.steps is missing"),
    ],
)
def test_faulty_file_is_named(path, text, message):
    path.write_text(FILE.replace('config.name = "example"', text))
    with pytest.raises(UserError, match=message) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)


def test_syntax_error_and_missing_function(path):
    path.write_text("def get_config(:")
    with pytest.raises(UserError, match="SyntaxError"):
        load_config(str(path))
    path.write_text("x = 1")
    with pytest.raises(UserError, match="get_config"):
        load_config(str(path))
    path.write_text(FILE.replace('get_config(arg="")', "get_config()").replace("arg)", "'')"))
    assert load_config(str(path)).name == "example"
    with pytest.raises(UserError, match="takes no argument"):
        load_config(f"{path}:debug")


def test_known_configs_are_found_from_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.setattr(config_module, "_CONFIG_FOLDERS", (path.parent,))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_config("configs/example.py:debug").train.steps == 3
    with pytest.raises(UserError, match=r"Did you mean example\.py\? .* comes with"):
        load_config("configs/exmaple.py")


def test_dictionary_survives_json(path):
    config = to_dict(load_config(str(path)))
    assert json.loads(json.dumps(config)) == config
    assert config["model"]["stages"] == [[1, 2], [3, 4]]
    assert config["train"]["ema_decay"] == 0.99


def test_base_config_fits_what_reads_it():
    from gmmas_jax.objectives.combine import make_objective
    from gmmas_jax.train.optimizer import make_optimizer
    from gmmas_jax.train.run import TrainSettings

    config = to_dict(base_config())
    make_objective(**config["objective"])
    make_optimizer(steps=config["train"]["steps"], **config["optimizer"])
    TrainSettings(**config["train"])


def test_none_is_a_word_where_a_field_holds_words():
    config = load_config(
        "configs/gmmas.py", ["model.global_alignment=none", "optimizer.clip_norm=none"]
    )
    assert config.model.global_alignment == "none"
    assert config.optimizer.clip_norm is None
