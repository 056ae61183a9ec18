import psutil
import pytest

from data_pipelines.free_memory import free_memory

MIB = 2**20


def plant(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def version_2(limit, used, cached):
    stat = f"anon 1\ninactive_file {cached}\nactive_file 7"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    whole = psutil.virtual_memory()._replace(available=1000 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: whole)


def test_the_limit_of_a_group_above_counts(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    plant(tmp_path / "job", version_2(500 * MIB, 300 * MIB, 100 * MIB))
    plant(tmp_path / "job" / "step", version_2("max", 250 * MIB, 0))
    assert free_memory(tmp_path, own) == 300 * MIB
    plant(tmp_path / "job" / "step", version_2(400 * MIB, 250 * MIB, 0))
    assert free_memory(tmp_path, own) == 150 * MIB


def test_a_container_sees_its_group_as_the_root(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/docker/0123\n")
    plant(tmp_path, version_2(90 * MIB, 80 * MIB, 0))
    assert free_memory(tmp_path, own) == 10 * MIB


def test_groups_of_version_1(tmp_path):
    own = tmp_path / "own"
    own.write_text("12:cpu,cpuacct:/x\n4:memory:/slurm/job_1\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    values = (200 * MIB, 50 * MIB, f"total_inactive_file {20 * MIB}")
    plant(tmp_path / "memory" / "slurm" / "job_1", dict(zip(names, values, strict=True)))
    assert free_memory(tmp_path, own) == 170 * MIB


def test_without_groups_what_is_free_on_the_machine(tmp_path):
    assert free_memory(tmp_path, tmp_path / "none") == 1000 * MIB
    own = tmp_path / "own"
    own.write_text("0::/\n")
    assert free_memory(tmp_path, own) == 1000 * MIB
