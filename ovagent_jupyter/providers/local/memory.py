"""Whether a model fits: what its weights weigh, and what the machine has free."""

from __future__ import annotations

import os
from pathlib import Path

from ovagent_jupyter.errors import RunnerNotAvailable

SPARE = 0.9
"""Share of the free memory that weights may take: a conversation needs the rest."""


def weights_size(folder: Path) -> int:
    """Bytes of a model's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def free_memory() -> int | None:
    """Bytes that can be filled without swapping; None where the machine does not tell."""
    known = [size for size in (_machine(), _group()) if size is not None]
    return min(known, default=None)


def require_room(model_id: str, needed: int, allowed: int | None) -> None:
    """Check that weights fit.

    Raises:
        RunnerNotAvailable: They do not.
    """
    free = free_memory()
    limit = allowed if allowed is not None else None if free is None else int(free * SPARE)
    if limit is not None and needed > limit:
        raise RunnerNotAvailable(
            f"The model {model_id!r} does not fit into memory.",
            why=f"Its weights take {gib(needed)}, and {gib(limit)} can be used.",
            next_step="Choose a smaller or more quantized model, or close what holds memory.",
        )


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return _without_proc()
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else None


def _without_proc() -> int | None:
    """A Mac tells only what it has, of which the system gives apps about three quarters."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    except (OSError, ValueError):
        return None


def _group() -> int | None:
    """What a container may still take; None outside of one."""
    group = Path("/sys/fs/cgroup")
    try:
        cap = (group / "memory.max").read_text("ascii").strip()
        used = int((group / "memory.current").read_text("ascii"))
        told = dict(map(str.split, (group / "memory.stat").read_text("ascii").splitlines()))
    except (OSError, ValueError):
        return None
    # Files that were read count as used, and are dropped as soon as somebody needs the room.
    used -= int(told.get("inactive_file", 0))
    return max(0, int(cap) - used) if cap.isdigit() else None


def gib(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
