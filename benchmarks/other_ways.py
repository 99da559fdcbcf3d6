"""The usual ways to take an AnnData to another process and back, to measure ours against."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

LOOP = """
import ctypes, gc, json, sys
import anndata, cloudpickle, zmq
for line in sys.stdin:
    exec(json.loads(line), globals())
    print("done", flush=True)
"""


class Other(Protocol):
    """One way."""

    @abstractmethod
    def there(self, adata: Any) -> None:
        """Take the object to the other process; back when it is a variable there."""

    @abstractmethod
    def back(self) -> Any:
        """Take it back."""


class Worker:
    """A process that runs lines of code, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run("pass")

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def begin(self, code: str) -> None:
        """Have it run some code."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait until it has."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError("the other process ended")

    def run(self, code: str) -> None:
        """Have it run some code, and wait."""
        self.begin(code)
        self.end()

    def forget(self) -> None:
        """Have it give back the memory of the last object."""
        self.run("adata = None; gc.collect(); ctypes.CDLL(None).malloc_trim(0)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


class ByFile:
    """An h5ad file that one writes and the other reads.

    Args:
        worker: The other process.
        folder: Where the file lies.
    """

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._path = folder / "adata.h5ad"

    def there(self, adata: Any) -> None:
        """Write here, read there."""
        adata.write_h5ad(self._path)
        self._worker.run(f"adata = anndata.read_h5ad({str(self._path)!r})")

    def back(self) -> Any:
        """Write there, read here."""
        import anndata

        self._worker.run(f"adata.write_h5ad({str(self._path)!r})")
        return anndata.read_h5ad(self._path)


class ByPickle:
    """cloudpickle over a ZMQ socket, as kernels and task queues do.

    Args:
        worker: The other process.
        folder: Where the socket lies.
    """

    def __init__(self, worker: Worker, folder: Path) -> None:
        import zmq

        self._worker = worker
        self._socket: Any = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.bind(f"ipc://{folder}/socket")
        worker.run(
            "socket = zmq.Context.instance().socket(zmq.PAIR)\n"
            f"socket.connect('ipc://{folder}/socket')"
        )

    def there(self, adata: Any) -> None:
        """Pickle here, unpickle there."""
        import cloudpickle  # type: ignore[import-untyped] # noqa: TID251 - only measured

        self._worker.begin("adata = cloudpickle.loads(socket.recv(copy=False).buffer)")
        self._socket.send(cloudpickle.dumps(adata), copy=False)
        self._worker.end()

    def back(self) -> Any:
        """Pickle there, unpickle here."""
        import cloudpickle  # noqa: TID251 - only measured

        self._worker.begin("socket.send(cloudpickle.dumps(adata), copy=False)")
        value = cloudpickle.loads(self._socket.recv(copy=False).buffer)
        self._worker.end()
        return value

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()


def footprint(pids: tuple[int, ...], *folders: Path) -> int:
    """Bytes of memory that processes take: their own pages, memory files, files on tmpfs."""
    own = sum(_own_pages(pid) for pid in pids)
    files: dict[tuple[int, int], int] = {}
    for pid in pids:
        for name in _names(Path(f"/proc/{pid}/fd")):
            try:
                if "memfd:" not in name.readlink().name:
                    continue
                about = name.stat()
            except OSError:
                continue
            files[about.st_dev, about.st_ino] = about.st_blocks * 512
    on_tmpfs = sum(p.stat().st_blocks * 512 for folder in folders for p in folder.iterdir())
    return own + sum(files.values()) + on_tmpfs


def _names(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _own_pages(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
