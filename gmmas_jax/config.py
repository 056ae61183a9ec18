"""Experiments as Python files: loading one, changing its fields, and what every one begins with.

A config file defines `get_config(arg="")`, which returns `base_config()` with its own values filled
in. `base_config` is the one list of all fields; the `model` section alone is free, since its fields
are the network's arguments. Configs import nothing of the library but this module.
"""

import ast
import difflib
import importlib.util
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.effects import Effects

_PACKAGE = Path(__file__).parent
_CONFIG_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Where configs lie in an installed wheel, and in the repository."""

_OPEN_SECTIONS = ("model", "objective.class_weights", "objective.fixed_weights")
"""Sections whose fields depend on the network or the tasks."""

_NULLABLE = frozenset(
    {
        *("data.unlabelled_share", "objective.label_weights", "optimizer.clip_norm"),
        *("train.best_metric", "train.ema_decay"),
    }
)
"""Fields that may be absent also where a config gives them a value."""

_FAULTS_OF_A_FILE = (
    *(AttributeError, ImportError, KeyError, NameError, SyntaxError, TypeError, ValueError),
)


def base_config() -> ConfigDict:
    """Returns a config with every field but the network's, locked against misspelt names.

    What the fields mean is said where each section is used: `data` in `data_pipelines.pipeline`,
    `synthesis` in `synthesis.stream.make_generation`,
    `augment` in `augment.patch.make_augmentation`, `objective` in
    `objectives.combine.make_objective`, `optimizer` in `train.optimizer.make_optimizer`, `train` in
    `train.run.TrainSettings`, `mesh` in `train.sharding.make_mesh`, `inference` in `inference`.
    """
    config = ConfigDict(
        {
            "name": "",
            "seed": 0,
            "model": ConfigDict(),
            "data": {
                "spacing_mm": 1.0,
                "patch": (128, 128, 128),
                "whole": (128, 128, 128),
                "batch_size": 2,
                "foreground": 0.5,
                "sequence_drop": "published",
                "balance": (),
                "unlabelled_share": placeholder(float),
                "cutmix": 0.0,
                "cutmix_task": ("histology", "grade"),
                "cutmix_feather": 0,
                "slices": "none",
                "views": 1,
                "view_overlap": 1.0,
            },
            "synthesis": {
                "healthy": 0.05,
                "all_sequences": 0.5,
                "shown": (0.5, 0.5, 0.5, 0.5),
                "effects": {name: effect._asdict() for name, effect in Effects()._asdict().items()},
            },
            "augment": {
                "flip": (0.5, 0.0, 0.0),
                "intensity_scale": 0.1,
                "intensity_shift": 0.1,
                "gamma": 0.0,
                "noise": 0.0,
                # Off by their probability; the other numbers are what switching on means.
                "sequence_dropout": 0.0,
                "rotation": {"probability": 0.0, "degrees": 30.0},
                "scaling": {"probability": 0.0, "lowest": 0.7, "highest": 1.4},
                "shear": {"probability": 0.0, "strength": 0.1},
                "elastic": {"probability": 0.0, "displacement": 0.2, "nodes": 7},
                "bias": {"probability": 0.0, "strength": 0.3, "nodes": 4},
                "blur": _sequence_range(0.5, 1.0),
                "low_resolution": _sequence_range(1.0, 2.0),
                "thick_slices": _sequence_range(2.0, 6.0),
                "gaussian_noise": {"probability": 0.0, "highest": 0.1},
                "rician_noise": {"probability": 0.0, "highest": 0.1},
                "brightness": {"probability": 0.0, "lowest": 0.75, "highest": 1.25},
                "contrast": {"probability": 0.0, "lowest": 0.75, "highest": 1.25},
                "inverted_gamma": {"probability": 0.0, "lowest": 0.7, "highest": 1.5},
                "natural_gamma": {"probability": 0.0, "lowest": 0.7, "highest": 1.5},
            },
            "objective": {
                "tasks": ("idh", "codel_1p19q", "grade"),
                "dice_over": "regions",
                "sum_classes": False,
                "batch_sums": False,
                "cross_entropy_weight": 1.0,
                "label_weights": placeholder(tuple),
                "smooth": 1e-5,
                "epsilon": 0.0,
                "deep_weights": (),
                "whole_weight": 1.0,
                "class_weights": ConfigDict(),
                "weighting": "uncertainty",
                "fixed_weights": ConfigDict(),
                "tasks_see_tumour": False,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-4,
                "schedule": "poly",
                "warmup_steps": 0,
                "power": 0.9,
                "final_fraction": 0.0,
                "weight_decay": 1e-2,
                "clip_norm": placeholder(float),
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "momentum": 0.99,
                "nesterov": True,
            },
            "train": {
                "weights": "",
                "steps": 100_000,
                "log_every": 50,
                "checkpoint_every": 1000,
                "keep_checkpoints": 2,
                "evaluate_every": 0,
                "best_metric": placeholder(str),
                "ema_decay": placeholder(float),
                "max_nonfinite": 10,
                "microbatches": 1,
                "split_above_bytes": 2**20,
            },
            "mesh": {"data": -1, "fsdp": 1},
            "inference": {
                "window": (128, 128, 128),
                "overlap": 0.5,
                "flips": False,
                "fill_core": False,
                "fill_tumour": False,
                "min_enhancing_ml": 0.0,
                "min_enhancing_island_ml": 0.0,
                "enhancing_touches_core": False,
                "min_core_island_ml": 0.0,
                "min_certain_ml": 0.0,
                "min_island_ml": 0.0,
                "substitutes": (),
            },
        }
    )
    return config.lock()


def _sequence_range(lowest: float, highest: float) -> dict[str, float]:
    return {
        "probability": 0.0,
        "sequence_probability": 0.5,
        "lowest": lowest,
        "highest": highest,
    }


def is_debug(arg: str) -> bool:
    """Says whether a config's argument asks for a run of seconds.

    Raises:
        UserError: On an argument other than "" and "debug".
    """
    if arg not in ("", "debug"):
        raise UserError(f"Config argument is {arg!r}; expected none, or 'debug' as in x.py:debug.")
    return arg == "debug"


def load_config(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Loads a config file and changes fields of it.

    Args:
        spec: A path, such as `configs/gmmas.py`, with an optional argument after a colon, such as
            `configs/gmmas.py:debug`. A path that does not exist from here is looked up by its name
            among the configs that come with the program.
        overrides: `section.field=value`, each read as the type that the field has; tuples as
            `96,96,96`, absent values as `none`.

    Returns:
        The config, locked.

    Raises:
        UserError: If there is no such file, it is faulty, or an override does not fit.
    """
    path_text, _, arg = spec.partition(":")
    path = _find(path_text)
    config = _execute(path, arg)
    _check_fields(path, config)
    for override in overrides:
        _apply(config, override)
    # `lock` passes over a config that is locked, and with it over sections that were replaced.
    return config.unlock().lock()


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as nested dicts that JSON can hold and give back unchanged."""
    return {name: _plain(value) for name, value in config.items()}


def with_inference(config: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Changes how cases are predicted in a config that was stored.

    Args:
        config: Nested dicts, of this version or an earlier one that knew fewer settings.
        overrides: `inference.field=value`, as for `load_config`.

    Returns:
        A copy; settings that it lacked have their defaults.

    Raises:
        UserError: If an override does not fit.
    """
    section = to_dict(base_config().inference) | dict(config["inference"])
    changed = ConfigDict({"inference": section})
    for override in overrides:
        _apply(changed, override)
    return {**config, **to_dict(changed)}


def _plain(value: Any) -> Any:
    if isinstance(value, ConfigDict):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _find(text: str) -> Path:
    path = Path(text)
    candidates = [path, *(folder / path.name for folder in _CONFIG_FOLDERS)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted({file.name for folder in _CONFIG_FOLDERS for file in folder.glob("*.py")})
    raise UserError(
        f"There is no config file {text}.{_nearest(path.name, known)} Give the path of a file, or "
        f"the name of one that comes with the program: {', '.join(known) or 'none'}."
    )


def _execute(path: Path, arg: str) -> ConfigDict:
    try:
        get_config = _load_module(path).get_config
        takes_argument = bool(inspect.signature(get_config).parameters)
        if arg and not takes_argument:
            raise UserError(f"{path} takes no argument, but ':{arg}' was given. Leave it out.")
        config = get_config(arg) if takes_argument else get_config()
    except _FAULTS_OF_A_FILE as error:
        raise UserError(f"{path} is faulty: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config returned {type(config).__name__}; expected a ConfigDict. Begin "
            "with gmmas_jax.config.base_config()."
        )
    return config


def _load_module(path: Path) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(f"gmmas_config_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"{path} is no Python file; a config's name must end in .py.")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def _check_fields(path: Path, config: ConfigDict) -> None:
    expected, found = _field_names(base_config()), _field_names(config)
    for name in sorted(found - expected):
        raise UserError(
            f"{path}: unknown field {name}.{_nearest(name, expected)} Correct or remove it."
        )
    for name in sorted(expected - found):
        raise UserError(
            f"{path}: the field {name} is missing. Begin with gmmas_jax.config.base_config()."
        )


def _field_names(config: ConfigDict, prefix: str = "") -> set[str]:
    """Returns the dotted names of all fields whose names are fixed."""
    names: set[str] = set()
    for key, value in config.items():
        name = prefix + key
        if isinstance(value, ConfigDict) and name not in _OPEN_SECTIONS:
            names |= _field_names(value, name + ".")
        else:
            names.add(name)
    return names


def _apply(config: ConfigDict, override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"Cannot read {override!r}; expected section.field=value.")
    *parents, key = name.split(".")
    section: Any = config
    for parent in parents:
        section = section[parent] if isinstance(section, ConfigDict) and parent in section else None
    if not isinstance(section, ConfigDict) or key not in section:
        raise UserError(
            f"The config has no field {name}.{_nearest(name, _all_names(config))} Correct the name."
        )
    if isinstance(section[key], ConfigDict):
        fields = ", ".join(f"{name}.{field}" for field in section[key])
        raise UserError(f"{name} is a section; set one of its fields: {fields or 'it has none'}.")
    value = _read(name, text, section[key], section.get_type(key))
    section[key] = value


def _all_names(config: ConfigDict, prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in config.items():
        inner = isinstance(value, ConfigDict)
        names += _all_names(value, f"{prefix}{key}.") if inner else [prefix + key]
    return names


def _read(name: str, text: str, current: Any, kind: type) -> Any:
    """Reads an override's text as the type of the field."""
    if text.lower() == "none":
        if current is None or name in _NULLABLE:
            return None
        if kind is not str:  # 'none' is also a word: model.global_alignment, model.layers.remat
            raise _unreadable(name, text, kind)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise _unreadable(name, text, kind)
        return text.lower() == "true"
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            raise _unreadable(name, text, kind) from None
        if not math.isfinite(value):
            raise _unreadable(name, text, kind)
        return value
    if kind is str:
        return text
    if kind in (tuple, list):
        return _read_sequence(name, text, current)
    return _literal(text)


def _read_sequence(name: str, text: str, current: Sequence[Any]) -> tuple[Any, ...]:
    if current and isinstance(current[0], (tuple, list)):
        value = _literal(text)
        if not isinstance(value, (tuple, list)):
            raise _unreadable(name, text, tuple)
        return tuple(value)
    inside = text.strip().removeprefix("(").removesuffix(")").removeprefix("[").removesuffix("]")
    items = [item.strip() for item in inside.split(",") if item.strip()]
    if not current:
        return tuple(_literal(item) for item in items)
    return tuple(_read(name, item.strip("'\""), current[0], type(current[0])) for item in items)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _unreadable(name: str, text: str, kind: type) -> UserError:
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return UserError(f"{name} is {text!r}; expected {words.get(kind, f'a {kind.__name__}')}.")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
