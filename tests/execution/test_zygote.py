"""The zygote: what it forks is as what is started, whatever it imported; and what ends it."""

from __future__ import annotations

import ast
import os
import shutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution import seed
from ovagent_jupyter.execution.environment import CACHE
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.forking import possible
from ovagent_jupyter.execution.warm import Keeper
from ovagent_jupyter.execution.zygote import modules_for
from tests.execution.conftest import Kernel
from tests.execution.forks import fork, is_forked, keeper, options
from tests.execution.test_child import SECRET, planted

__all__ = ["keeper"]  # a fixture
pytestmark = pytest.mark.skipif(not possible(), reason="only Linux has what it takes")
LEVELS = (Isolation.NAMESPACES, Isolation.CONFINED, Isolation.PROCESS)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that this process can import, and children too."""
    place = tmp_path / "modules"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    return place


def write(place: Path, name: str, code: str) -> None:
    """A module that is imported here, so that a zygote may import it."""
    (place / f"{name}.py").write_text(textwrap.dedent(code))
    __import__(name)


FACTS = """
import json, locale, multiprocessing, os, re, resource, signal, stat, sys, tempfile
import numpy
def facts():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    kinds = []
    for name in os.listdir("/proc/self/fd"):
        try:
            kinds.append(stat.S_IFMT(os.fstat(int(name)).st_mode))
        except OSError:
            pass
    here = str(os.path.dirname(os.getcwd()))
    return {
        "status": {key: status[key].strip() for key in (
            "NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "CapBnd", "SigIgn", "SigCgt", "SigBlk",
            "Umask", "Uid", "Gid")},
        "descriptors": sorted(kinds),
        "signals": [str(signal.getsignal(n)).split(" at ")[0] for n in range(1, 32)],
        "limits": [resource.getrlimit(n) for n in range(10) if n != resource.RLIMIT_NPROC],
        "environment": sorted((k, v.replace(here, "")) for k, v in os.environ.items()),
        "path": sys.path, "flags": str(sys.flags), "prefix": sys.prefix,
        "program": [sys.executable, sys.argv[1:2], __name__],
        "folders": [os.path.relpath(each, here) for each in (os.getcwd(), tempfile.gettempdir())],
        "places": [os.path.relpath(os.path.expanduser("~"), here)],
        "session": os.getsid(0) == os.getpid(), "pid": os.getpid() if os.getpid() < 9 else "",
        "nice": os.nice(0), "readable": os.access("/proc/self/environ", os.R_OK),
        "locale": locale.setlocale(locale.LC_ALL), "tz": os.environ.get("TZ"),
        "start": multiprocessing.get_start_method(),
        "names": sorted(n for n in globals() if not n.startswith("_")),
        "joblib": os.environ.get("JOBLIB_MULTIPROCESSING"),
        "streams": [str(type(each)) for each in (sys.stdin, sys.stdout, sys.stderr)],
        "hooks": [sys.excepthook.__qualname__, sys.displayhook.__class__.__name__],
        "recursion": sys.getrecursionlimit(),
    }
print(json.dumps(facts()))
"""


@pytest.mark.parametrize("level", LEVELS)
async def test_it_is_as_one_that_was_started(level: Isolation, keeper: Keeper) -> None:
    found = replace(options(), isolation=level)
    started = Kernel(isolation=level, options=found)
    await started.start()
    forked = await fork(keeper, found)
    # What the zygote has imported, because it is imported here, leaves its marks there too.
    same = "".join(f"import {name}\n" for name in modules_for((), found.python))
    try:
        one, other = [
            ast.literal_eval(
                (await kernel.run(FACTS.replace("import json,", f"{same}import json,", 1)))
                .stdout.replace("true", "True")
                .replace("false", "False")
                .replace("null", "None")
            )
            for kernel in (started, forked)
        ]
        for name in one:
            assert one[name] == other[name], name
        assert started.protections == forked.protections
    finally:
        await started.shutdown()
        await forked.shutdown()


async def test_two_of_them_draw_other_numbers(keeper: Keeper) -> None:
    import scanpy  # noqa: F401 - so that the zygote may import it

    code = (
        "import random, numpy, multiprocessing, tempfile, uuid\n"
        "print([random.random(), numpy.random.random(), numpy.random.default_rng().random(),"
        " multiprocessing.current_process().authkey.hex(), uuid.uuid4().hex,"
        " next(tempfile._get_candidate_names())])"
    )
    drawn = []
    for _ in range(2):
        kernel = await fork(keeper, options(), ("scanpy",))
        assert await kernel.value("'numpy' in __import__('sys').modules") == "True"
        drawn.append(ast.literal_eval((await kernel.run(code)).stdout))
        await kernel.shutdown()
    assert all(one != other for one, other in zip(*drawn, strict=True))


@pytest.mark.slow
async def test_it_computes_on_all_cores(keeper: Keeper) -> None:
    import matplotlib.pyplot  # noqa: F401 - so that the zygote may import them
    import scanpy  # noqa: F401

    warm = ("scanpy", "matplotlib.pyplot")
    found = replace(options(), environment=dict(os.environ))
    kernel = await fork(keeper, found, warm)
    cores = len(os.sched_getaffinity(0))
    try:
        assert await kernel.value("'scanpy' in __import__('sys').modules") == "True"
        seen = await kernel.run(
            "import threadpoolctl\n"
            "print(max(i['num_threads'] for i in threadpoolctl.threadpool_info()\n"
            "  if i['internal_api'] == 'openblas'))"
        )
        assert seen.stdout.strip() == str(cores)
        matrices = "import numpy\nm = numpy.ones((600, 600)); print((m @ m).sum())"
        assert (await kernel.run(matrices)).stdout.strip() == str(600.0**3)
        ranges = (
            "import numba\n@numba.njit(parallel=True)\ndef total(n):\n    s = 0\n"
            "    for i in numba.prange(n):\n        s += i\n    return s\nprint(total(1000))"
        )
        assert (await kernel.run(ranges)).stdout.strip() == "499500"
        jobs = (
            "from joblib import Parallel, delayed\n"
            "print(sum(Parallel(n_jobs=2)(delayed(abs)(i) for i in range(5))))"
        )
        assert (await kernel.run(jobs)).stdout.strip() == "10"
        neighbours = (
            "import anndata, scanpy as sc\nsc.settings.verbosity = 3\n"
            "a = anndata.AnnData(numpy.random.rand(300, 20).astype('f4'))\nsc.pp.neighbors(a)"
        )
        result = await kernel.run(neighbours)
        assert result.ok, result.error
        assert "computing neighbors" in "".join(output.text for output in result.outputs)
        figure = await kernel.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        assert [sorted(o.data) for o in figure.outputs] == [["image/png", "text/plain"]]
        place = await kernel.value("__import__('matplotlib').get_cachedir()")
        assert place == await kernel.value("__import__('os').environ['MPLCONFIGDIR']")
    finally:
        await kernel.shutdown()


async def test_what_it_compiles_stays_with_it(
    keeper: Keeper, modules: Path, tmp_path: Path
) -> None:
    write(
        modules,
        "compiled_here",
        """
        import numba
        @numba.njit(cache=True)
        def more(x):
            return x + 1
        """,
    )
    cache = tmp_path / "cache"
    found = options(PYTHONPATH=str(modules), **{CACHE: str(cache)})
    use = "import compiled_here; compiled_here.more(1); s = compiled_here.more.stats\n"
    hits = use + "print(sum(s.cache_hits.values()), sum(s.cache_misses.values()))"
    first = await fork(keeper, found, ("compiled_here",))
    try:
        assert (await first.run(hits)).stdout.split() == ["0", "1"]
        where = Path(ast.literal_eval(await first.value("__import__('numba').config.CACHE_DIR")))
        assert list(where.rglob("*compiled_here*.nbc"))
        zygote = psutil.Process(keeper.forking.pid or 0)
        assert not list(Path(zygote.environ()["NUMBA_CACHE_DIR"]).rglob("*.nbc"))
        place = seed.place_of(found.environment)
        assert place is not None
        shutil.copytree(where, place)
    finally:
        await first.shutdown()
    second = await fork(keeper, found, ("compiled_here",))
    try:
        assert (await second.run(hits)).stdout.split() == ["1", "0"]
    finally:
        await second.shutdown()


async def test_objects_go_there_and_come_back(keeper: Keeper) -> None:
    import anndata
    import numpy

    kernel = await fork(keeper, options(), ("anndata",))
    try:
        data = anndata.AnnData(numpy.ones((40, 5), dtype="f4"))
        report = await kernel.put({"data": data, "numbers": [1, 2]})
        assert not report.left_behind
        assert (await kernel.run("data.obs['mine'] = 7\nnumbers.append(3)")).ok
        changes = await kernel.changes(("numbers",))
        assert not changes.left_behind
        assert await kernel.value("data.X.sum()") == "np.float32(200.0)"
        assert await kernel.value("numbers") == "[1, 2, 3]"
    finally:
        await kernel.shutdown()


async def test_a_module_that_kept_a_stream_writes_to_the_cell(
    keeper: Keeper, modules: Path
) -> None:
    write(modules, "keeps_streams", "import sys\nout, err = sys.stdout, sys.stderr\n")
    found = options(PYTHONPATH=str(modules))
    kernel = await fork(keeper, found, ("keeps_streams",))
    try:
        result = await kernel.run(
            "import keeps_streams as k\nk.out.write('one')\nprint('two', file=k.err);"
        )
        assert [output.text for output in result.outputs if output.kind == "stream"] == [
            "one",
            "two\n",
        ]
    finally:
        await kernel.shutdown()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "import threading, time as t\n"
            "threading.Thread(target=t.sleep, args=(60,), daemon=True).start()",
            "threads",
        ),
        ("file = open('/dev/null')", "files open"),
        ("import zmq\nzmq.Context.instance()", ""),
    ],
)
async def test_imports_that_make_a_fork_unsafe(
    keeper: Keeper, modules: Path, code: str, why: str
) -> None:
    (modules / "unsafe.py").write_text(code)
    sys.modules["unsafe"] = sys
    try:
        found = options(PYTHONPATH=str(modules))
        assert await keeper.forking.prepare(found, ("unsafe",)) is None
        assert why in keeper.forking.why_not
        assert keeper.forking.why_not
        kernel = Kernel(isolation=found.isolation, options=found, warm=("unsafe",), keeper=keeper)
        await kernel.start()
        try:
            assert not is_forked(kernel)
            assert await kernel.value("1") == "1"
        finally:
            await kernel.shutdown()
    finally:
        del sys.modules["unsafe"]


def test_only_what_is_imported_here_is_imported_outside_of_the_sandbox() -> None:
    assert "wave" not in sys.modules
    assert modules_for(("wave", "json"), sys.executable)[:1] == ("json",)
    assert modules_for(("json",), "/usr/bin/python3") == ()


async def test_where_code_may_be_written_nothing_is_imported_from(
    keeper: Keeper, modules: Path
) -> None:
    spec = SandboxSpec(write=(modules / "inner",))
    (modules / "inner").mkdir()
    assert await keeper.forking.prepare(replace(options(), spec=spec), ()) is None
    assert "may write" in keeper.forking.why_not
    # What was written stays, so later sessions that may not write are not forked either.
    assert await keeper.forking.prepare(options(), ()) is None


async def test_it_holds_no_secret(keeper: Keeper) -> None:
    found = replace(options(), environment=planted() | {CACHE: "/nowhere"})
    kernel = await fork(keeper, found)
    try:
        assert keeper.forking.pid is not None
        assert SECRET not in str(psutil.Process(keeper.forking.pid).environ())
        assert SECRET not in (await kernel.run("print(open('/proc/self/environ').read())")).stdout
        assert await kernel.value("__import__('os').environ['OMP_NUM_THREADS']") == "'3'"
    finally:
        await kernel.shutdown()
