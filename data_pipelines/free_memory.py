"""How much memory is free for this process: of the machine, and of its container or batch job."""

from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def free_memory(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Returns bytes that can still be taken.

    What a container (Docker, Kubernetes) or a batch job (Slurm) may take is often far less than
    what is free on its machine, and a process that takes more is killed.

    Args:
        cgroups: Where Linux shows control groups.
        own: The file that names those of this process.
    """
    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_left_in_groups(cgroups, own)]))


def _left_in_groups(cgroups: Path, own: Path) -> Iterator[int]:
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # No Linux.
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # Version 2.
            root, files = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Within a container the own group may be shown as the root.
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            left = _left(folder, *files)
            if left is not None:
                yield left
            if folder == root:
                break


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Returns what one group may still take; None without a limit. Cached files give way."""
    try:
        most = (folder / limit).read_text(encoding="utf-8").strip()
        if most == "max":
            return None
        used = int((folder / usage).read_text(encoding="utf-8"))
        told = (folder / "memory.stat").read_text(encoding="utf-8").split()
    except OSError:
        return None
    facts = dict(zip(told[::2], told[1::2], strict=False))
    return int(most) - used + int(facts.get(cache, 0))
