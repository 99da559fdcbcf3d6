"""How much memory can be had: the machine's, or what a container has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovagent_jupyter.execution.handover.room import available

GB = 1 << 30


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:   {20 * GB // 1024} kB\n")
    return tmp_path / "proc"


def test_here_there_is_some() -> None:
    assert available() > 0


def test_without_groups_it_is_the_machines(proc: Path, tmp_path: Path) -> None:
    assert available(proc, tmp_path) == 20 * GB
    assert available(tmp_path, tmp_path) == 0


def test_a_container_has_what_its_group_leaves(proc: Path, tmp_path: Path) -> None:
    write(proc / "self/cgroup", "0::/pod/one\n")
    write(tmp_path / "g/pod/memory.max", "max\n")
    write(tmp_path / "g/pod/memory.current", f"{9 * GB}\n")
    group = tmp_path / "g/pod/one"
    write(group / "memory.max", f"{4 * GB}\n")
    write(group / "memory.current", f"{3 * GB}\n")
    assert available(proc, tmp_path / "g") == GB
    write(group / "memory.stat", f"anon 5\ninactive_file {GB}\nactive_file 7\nshmem {GB}\n")
    assert available(proc, tmp_path / "g") == 2 * GB + 7
    write(tmp_path / "g/pod/memory.max", f"{9 * GB}\n")
    assert available(proc, tmp_path / "g") == 0


def test_inside_a_container_the_path_is_the_hosts(proc: Path, tmp_path: Path) -> None:
    write(proc / "self/cgroup", "0::/kubepods/pod7/abc\n")
    write(tmp_path / "g/memory.max", f"{2 * GB}\n")
    write(tmp_path / "g/memory.current", f"{GB}\n")
    assert available(proc, tmp_path / "g") == GB


def test_the_older_version(proc: Path, tmp_path: Path) -> None:
    write(proc / "self/cgroup", "4:cpu,memory:/docker/1\n1:name=systemd:/\n0::/\n")
    group = tmp_path / "g/memory/docker/1"
    write(group / "memory.limit_in_bytes", f"{4 * GB}\n")
    write(group / "memory.usage_in_bytes", f"{3 * GB}\n")
    write(group / "memory.stat", f"total_inactive_file {GB}\n")
    write(tmp_path / "g/memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    write(tmp_path / "g/memory/memory.usage_in_bytes", f"{9 * GB}\n")
    assert available(proc, tmp_path / "g") == 2 * GB
