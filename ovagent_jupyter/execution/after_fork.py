"""What a forked child makes anew, so that it is as one that was started by itself."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

if TYPE_CHECKING:
    from ovagent_jupyter.execution.sandbox.launcher import Plan

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables that OpenBLAS looks at, in this order."""


class CachedFunction(Protocol):
    """A function that Numba compiles and keeps on disk."""

    def enable_caching(self) -> None:
        """Find anew where it is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the imports before the fork have left, besides the modules."""

    variables: Mapping[str, str]
    """Variables of the environment that they have set."""
    compiled: Sequence[CachedFunction]
    """Functions whose place on disk was found."""


def become_kernel(plan: Plan, loaded: Loaded) -> NoReturn:
    """Be the child's kernel in this process, which is confined already.

    Args:
        plan: What the supervisor was told.
        loaded: What there is from before the fork.
    """
    code = 1
    try:
        # The guest could write to the parent by it, as if it were the supervisor.
        os.close(plan["status"])
        _be_inspectable()
        _take_environment({**plan["environment"], **loaded.variables})
        _take_signals()
        renew_random()
        _find_folders(loaded.compiled)
        _use_all_cores()
        sys.argv = plan["command"][plan["command"].index("-m") + 1 :]
        from ovagent_jupyter.execution.child_kernel import run_kernel

        run_kernel(sys.argv[1:])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter ends; nothing above may run in here
        sys.excepthook(*sys.exc_info())
    finally:
        _end(code)


def cached_functions() -> list[CachedFunction]:
    """The functions in memory that Numba keeps on disk; empty without Numba."""
    if "numba" not in sys.modules:
        return []
    from numba.core.caching import NullCache
    from numba.core.dispatcher import Dispatcher
    from numba.np.ufunc.ufuncbuilder import UFuncDispatcher

    found: list[CachedFunction] = []
    for each in gc.get_objects():
        if isinstance(each, Dispatcher | UFuncDispatcher):
            place = "_cache" if isinstance(each, Dispatcher) else "cache"
            if not isinstance(getattr(each, place), NullCache):
                found.append(cast("CachedFunction", each))
    return found


def renew_random() -> None:
    """Seed what would give the same numbers in every fork."""
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "multiprocessing.process" in sys.modules:
        process = sys.modules["multiprocessing.process"].current_process()
        process.authkey = os.urandom(32)


def _be_inspectable() -> None:
    """Undo what protects the supervisor, as a new program would: /proc/self shows it again."""
    from ovagent_jupyter.execution.sandbox import linux

    linux.prctl(linux.PR_SET_DUMPABLE, 1)


def _take_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    tempfile.tempdir = None


def _take_signals() -> None:
    """Those that an interpreter sets when it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _find_folders(compiled: Iterable[CachedFunction]) -> None:
    """Forget the folders that were found before the fork: they are not this child's."""
    matplotlib = sys.modules.get("matplotlib")
    for name in ("get_configdir", "get_cachedir"):
        found = getattr(getattr(matplotlib, name, None), "__wrapped__", None)
        if found is not None:
            setattr(matplotlib, name, functools.cache(found))
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR", "")
        for function in compiled:
            function.enable_caching()


def _use_all_cores() -> None:
    """Give OpenBLAS the threads that it would have: before the fork it was told to have one."""
    if "threadpoolctl" not in sys.modules:
        return
    told = [os.environ[name] for name in BLAS_THREADS if os.environ.get(name, "").isdecimal()]
    threads = int(told[0]) if told else len(os.sched_getaffinity(0))
    controller: Any = sys.modules["threadpoolctl"].ThreadpoolController()
    for library in controller.lib_controllers:
        if library.internal_api == "openblas":
            library.set_num_threads(threads)


def _end(code: int) -> NoReturn:
    """End as an interpreter does, without going back to where the fork was made."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)
