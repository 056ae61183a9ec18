"""The arrows between the packages, and names that newer JAX no longer has."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = ("tensorflow", "torch", "flax.nnx", "nibabel", "apache_beam", "data_pipelines")

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import gmmas_jax

names = ["gmmas_jax"] + [
    module.name for module in pkgutil.walk_packages(gmmas_jax.__path__, "gmmas_jax.")
]
for name in names:
    importlib.import_module(name)
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
"""

# Pattern of a deprecated or removed name, and what is written instead.
OUTDATED = {
    r"\bjax\.tree_(map|leaves|flatten|unflatten)\b": "jax.tree.*",
    r"\bjax\.experimental\.(pjit|shard_map|host_callback)\b": "jax.jit, jax.shard_map, jax.debug",
    r"\bfrom jax\.experimental import .*\b(pjit|shard_map)\b": "jax.jit, jax.shard_map",
    r"\bjax\.(pmap|device_put_sharded|device_put_replicated)\b": "jax.jit with NamedSharding",
    r"\bjax\.sharding\.use_mesh\b": "jax.set_mesh",
    r"\bwith (self\.)?mesh\b\s*[:,]": "with jax.set_mesh(mesh)",
    r"\bjax\.random\.PRNGKey\b": "jax.random.key",
    r"\bjnp\.empty(_like)?\b": "jnp.zeros (empty is uninitialised memory since JAX 0.11)",
    r"\bjnp\.clip\([^)]*a_(min|max)=": "jnp.clip(x, min, max)",
    r"\boptax\.global_norm\b": "optax.tree.norm",
    r"\bflax\.training\.checkpoints\b": "Orbax",
    r"\bflax\.nnx\b|\bfrom flax import .*\bnnx\b": "flax.linen",
}


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported_names(path: Path) -> Iterator[str]:
    """Yields the dotted name of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.multiprocess
def test_importing_the_library_loads_nothing_that_it_must_not():
    """Fails when any module of the library needs what only the data side may import."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert "gmmas_jax.cases.labels" in report["imported"]
    assert [name for name in report["loaded"] if within(name, *FORBIDDEN)] == []


@pytest.mark.parametrize("path", [*python_files("data_pipelines")], ids=lambda path: path.name)
def test_the_data_side_knows_only_cases_and_errors(path: Path):
    library = [name for name in imported_names(path) if within(name, "gmmas_jax", "configs")]
    assert [n for n in library if not within(n, "gmmas_jax.cases", "gmmas_jax.errors")] == []


def test_only_the_command_line_reaches_from_the_library_to_the_data_side():
    """And there only inside functions: the test above sees what a module imports on loading."""
    reaching = {
        path.relative_to(ROOT / "gmmas_jax").parts[0]
        for path in python_files("gmmas_jax")
        if any(within(name, "data_pipelines") for name in imported_names(path))
    }
    assert reaching <= {"cli.py", "cli"}


def test_nothing_inside_the_library_imports_the_command_line():
    importing = [
        str(path)
        for path in python_files("gmmas_jax", "data_pipelines")
        if path.name != "__main__.py"
        and "cli" not in path.relative_to(ROOT).parts
        and any(within(name, "gmmas_jax.cli") for name in imported_names(path))
    ]
    assert importing == []


@pytest.mark.parametrize(("pattern", "instead"), [*OUTDATED.items()], ids=lambda value: value[:40])
def test_no_outdated_name_is_used(pattern: str, instead: str):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()} (write {instead})"
        for path in python_files("gmmas_jax", "data_pipelines", "configs", "benchmarks")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


def test_meshes_are_made_with_automatic_axes():
    """`jax.make_mesh` makes explicit axes by default, under which Linen's dropout fails."""
    calls = [
        (path, ast.unparse(node))
        for path in python_files("gmmas_jax", "benchmarks", "tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "jax.make_mesh"
    ]
    assert [(str(path), call) for path, call in calls if "axis_types" not in call] == []
