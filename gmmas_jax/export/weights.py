"""A folder of weights: `weights.safetensors`, `config.json`, `model_card.md`. No pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, deserialize
from safetensors import numpy as safetensors_numpy

from gmmas_jax.cases.files import atomic_path, output_folder, write_json, write_text
from gmmas_jax.errors import UserError
from gmmas_jax.export.provenance import trained_on
from gmmas_jax.models.build import make_model
from gmmas_jax.train.state import example_inputs

WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "model_card.md"

_DIGEST = "tensors_sha256"
"""The one entry of the file's metadata: with two, their order, and so the file's bytes, would vary
from one writing to the next."""

DTYPES = ("float32", "bfloat16")
"""What the large arrays of a file may be stored as."""

_STORED = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Weights:
    """A trained network, ready to be built.

    Attributes:
        params: Nested dicts of float32 arrays, NumPy or JAX.
        batch_stats: Running statistics of BatchNorm; empty for a network without.
        config: The whole config of the experiment, JSON-able.
        sha256: Of `weights.safetensors`; empty for weights that were not read from a file.
        name: Under which they come with the program; empty for all others.
    """

    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]
    config: Mapping[str, Any]
    sha256: str = ""
    name: str = ""

    @property
    def trained_on(self) -> str:
        """One of `provenance.TRAINED_ON`."""
        return trained_on(self.config)

    @property
    def variables(self) -> dict[str, Any]:
        """What the network's `apply` takes."""
        return {"params": self.params} | (
            {"batch_stats": self.batch_stats} if self.batch_stats else {}
        )


def save_weights(
    folder: str | os.PathLike[str],
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    config: Mapping[str, Any],
    card: str,
    *,
    dtype: str = "float32",
) -> str:
    """Writes the folder, each file whole or not at all, the weights last.

    The same weights give the same bytes.

    Args:
        folder: Made if need be; files of these names in it are replaced.
        params: The network's parameters, nested dicts of arrays.
        batch_stats: Running statistics of BatchNorm; empty for a network without.
        config: The whole config, nested dicts of JSON-able values.
        card: The model card, Markdown.
        dtype: One of `DTYPES`. "bfloat16" halves the file: matrices and kernels are rounded to
            it; vectors (biases, scales) and running statistics, which are small, stay float32.

    Returns:
        sha256 of `weights.safetensors`.

    Raises:
        UserError: If the folder cannot be written.
        ValueError: If a weight is not finite, or there is no such dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    root = output_folder(folder)
    tensors = _tensors({"params": params, "batch_stats": batch_stats})
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(
                f"{name} holds values that are not finite; such weights predict nothing"
            )
    if dtype == "bfloat16":
        tensors = {name: _rounded(name, tensor) for name, tensor in tensors.items()}
    content = safetensors_numpy.save(tensors, metadata={_DIGEST: _digest(tensors)})
    write_text(root / CARD_FILE, card)
    write_json(root / CONFIG_FILE, config)
    with atomic_path(root / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_weights(folder: str | os.PathLike[str], *, check_network: bool = True) -> Weights:
    """Reads the folder and checks that the weights are those of the network in `config.json`.

    Args:
        folder: As `save_weights` wrote it.
        check_network: Whether to compare the weights with the network, which takes two seconds;
            not needed where both came with this version of the program.

    Returns:
        The weights as NumPy arrays, float32 whatever they are stored as.

    Raises:
        UserError: If a file is missing or damaged, or the weights are those of another network
            than the one `config.json` describes.
    """
    root = Path(folder)
    config = _read_config(root / CONFIG_FILE)
    path = root / WEIGHTS_FILE
    content = _read(path)
    tensors, digest = _parse(path, content)
    if digest is not None and digest != _digest(tensors):
        raise UserError(
            f"{path}: damaged: the numbers in it are not those that were written (their sha256 "
            "differs). Copy or download the file again."
        )
    if check_network:
        _check_network(root, {name: tensor.shape for name, tensor in tensors.items()}, config)
    widened = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    tree = unflatten_dict(widened, sep="/")
    return Weights(
        params=tree["params"],
        batch_stats=tree.get("batch_stats", {}),
        config=config,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _tensors(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays by name, such as 'params/encoder/stem/kernel', sorted."""
    flat = flatten_dict(dict(tree), sep="/")
    return {name: np.ascontiguousarray(flat[name]) for name in sorted(flat)}


def _rounded(name: str, tensor: np.ndarray) -> np.ndarray:
    """Returns what is stored of an array in bfloat16."""
    if tensor.ndim < 2 or not name.startswith("params/"):
        return tensor
    return tensor.astype(ml_dtypes.bfloat16)


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a folder of weights with "
            f"{WEIGHTS_FILE}, {CONFIG_FILE} and {CARD_FILE}. Check the path."
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    content = _read(path)
    try:
        config = json.loads(content)
    except ValueError as error:
        raise UserError(
            f"{path}: no valid JSON ({error}); expected the config that the weights were trained "
            "with. Copy the folder again."
        ) from error
    needed = ("model", "data", "inference")
    missing = [name for name in needed if not isinstance(config, dict) or name not in config]
    if missing:
        raise UserError(
            f"{path}: has no section {', '.join(missing)}; expected the whole config of the "
            "experiment, as training writes it. Copy the folder again."
        )
    return config


def _parse(path: Path, content: bytes) -> tuple[dict[str, np.ndarray], str | None]:
    """Returns the tensors, and the digest written with them if there is one."""
    try:
        # The library's reader for NumPy knows no bfloat16.
        tensors = {
            name: np.frombuffer(entry["data"], _STORED[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in deserialize(content)
        }
        # The library offers metadata for files only; the format is 8 bytes of length, then JSON.
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: damaged or no safetensors file ({error}). Copy or download the file again."
        ) from error
    return tensors, metadata.get(_DIGEST)


def _check_network(
    root: Path, found: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> None:
    expected = _expected_shapes(root, config)
    if found == expected:
        return
    names = [n for n in sorted(found.keys() | expected.keys()) if found.get(n) != expected.get(n)]
    lines = [
        f"{name}: {_shape(found.get(name))} in {WEIGHTS_FILE}, {_shape(expected.get(name))} by "
        f"{CONFIG_FILE}"
        for name in names[:_SHOWN]
    ]
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise UserError(
        f"{root}: the weights are those of another network than {CONFIG_FILE} describes: "
        f"{'; '.join(lines)}{more}. Use the {CONFIG_FILE} that was written with the weights."
    )


def _expected_shapes(root: Path, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Traces the initialisation of the network; computes nothing."""
    try:
        model = make_model(**config["model"])
        inputs = example_inputs(config["data"]["patch"], config["data"]["whole"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{root / CONFIG_FILE}: describes no network of this version ({error}). Use the "
            "version of gmmas that wrote it."
        ) from error
    variables = jax.eval_shape(lambda key: model.init(key, *inputs, train=False), jax.random.key(0))
    flat = flatten_dict(dict(variables), sep="/")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a number"
