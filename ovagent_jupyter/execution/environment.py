"""What a child process may see: variables of an allow-list, and directories of its own."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = "OVAGENT_CHILD"
"""Set in the environment of a child that was already started with a scrubbed environment."""
SOCKETS = "OVAGENT_SOCKETS"
"""Numbers of the descriptors on which the kernel listens, in the order of its ports."""
BROKER = "OVAGENT_BROKER"
"""Number of the descriptor by which a child asks for a connection to a granted host."""
EXCHANGE = "OVAGENT_EXCHANGE"
"""Number of the descriptor by which objects come to a child and go back."""
OWN_ROOT = "OVAGENT_CHILD_ROOT"
"""Directory that the child removes itself, because nobody else knows it."""
CACHE = "OVAGENT_CACHE"
"""Directory of caches that outlive a child."""

_ALLOWED = """
    PATH LANG LANGUAGE TZ TZDIR
    LC_ALL LC_COLLATE LC_CTYPE LC_MESSAGES LC_MONETARY LC_NUMERIC LC_TIME
    VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV PYTHONPATH PYTHONUTF8 PYTHONHASHSEED
    LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH R_HOME R_LIBS_USER
    OMP_NUM_THREADS OMP_THREAD_LIMIT OMP_PROC_BIND OMP_PLACES OMP_DYNAMIC KMP_DUPLICATE_LIB_OK
    MKL_NUM_THREADS MKL_DYNAMIC OPENBLAS_NUM_THREADS BLIS_NUM_THREADS VECLIB_MAXIMUM_THREADS
    NUMBA_NUM_THREADS NUMBA_THREADING_LAYER NUMBA_DISABLE_JIT NUMBA_CPU_NAME
    NUMEXPR_NUM_THREADS NUMEXPR_MAX_THREADS CUDA_VISIBLE_DEVICES
    JPY_SESSION_NAME
"""
ALLOWED = frozenset(_ALLOWED.split())
"""Where programs and libraries are, language, time zone, thread counts. No key is ever among it."""


COMPILED = Path("cache", "numba")
"""Where compiled code is, below the root of a child."""


@dataclass(frozen=True, slots=True)
class ChildDirectories:
    """The directories that a child may write to, below one private root."""

    root: Path
    work: Path
    """Where the code runs, and where it leaves its files."""

    @classmethod
    def below(cls, root: Path, work: Path | None = None) -> ChildDirectories:
        """The directories below a root; ``work`` may lie elsewhere."""
        return cls(root, work if work is not None else root / "work")

    @property
    def home(self) -> Path:
        """Its HOME, so that no dot file of the user is read or written."""
        return self.root / "home"

    @property
    def temp(self) -> Path:
        """Its TMPDIR; the name is short because sockets are made in it."""
        return self.root / "tmp"

    @property
    def cache(self) -> Path:
        """Its compiled code; code of others is never taken from where a child could write."""
        return self.root / COMPILED.parent

    @property
    def compiled(self) -> Path:
        """What Numba compiles."""
        return self.root / COMPILED

    @property
    def exchange(self) -> Path:
        """Where it leaves what is fetched from it."""
        return self.root / "exchange"

    @property
    def writable(self) -> tuple[Path, ...]:
        """All that it may write to; the root itself is not among it."""
        return (self.work, self.home, self.temp, self.cache, self.exchange)

    def make(self) -> None:
        """Create what is missing, readable by this user only."""
        for path in (self.root, *self.writable, *map(Path, self._settings().values())):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def variables(self) -> dict[str, str]:
        """The variables that lead programs into these directories."""
        return {"HOME": str(self.home), "TMPDIR": str(self.temp)} | self._settings()

    def _settings(self) -> dict[str, str]:
        return {
            "IPYTHONDIR": str(self.home / "ipython"),
            "MPLCONFIGDIR": str(self.home / "matplotlib"),
            "JUPYTER_CONFIG_DIR": str(self.home / "jupyter-config"),
            "JUPYTER_DATA_DIR": str(self.home / "jupyter-data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "jupyter-runtime"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_DATA_HOME": str(self.home / "data"),
        }


def child_environment(
    source: Mapping[str, str], directories: ChildDirectories, *, semaphores: bool = True
) -> dict[str, str]:
    """The whole environment of a child.

    Args:
        source: The environment to take the allowed variables from.
        directories: Where the child may write.
        semaphores: Whether it can have some; joblib would warn that it works with threads.
    """
    kept = {name: source[name] for name in sorted(ALLOWED & source.keys())}
    kept |= directories.variables()
    kept |= {
        MARK: "1",
        "NUMBA_CACHE_DIR": str(directories.compiled),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # tqdm's advice to install widgets: a child has no front end that could show them.
        "PYTHONWARNINGS": "ignore:IProgress not found",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    if not semaphores:
        kept["JOBLIB_MULTIPROCESSING"] = "0"
    if site.ENABLE_USER_SITE:
        # HOME moves; what the user installed with --user must still be found.
        kept["PYTHONUSERBASE"] = site.getuserbase()
    path = python_path(kept.get("PYTHONPATH", ""))
    if path:
        kept["PYTHONPATH"] = path
    return kept


def python_path(present: str) -> str:
    """PYTHONPATH with this package on it when it runs from a checkout."""
    root = str(Path(__file__).resolve().parents[2])
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    # The child works elsewhere: what is relative here would be another folder there.
    entries = [str(Path(entry).absolute()) for entry in present.split(os.pathsep) if entry]
    if root not in entries and root not in {os.path.realpath(place) for place in installed}:
        entries.append(root)
    return os.pathsep.join(entries)
