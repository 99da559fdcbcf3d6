"""The work people do still goes, confined: every step, and what libraries need of a system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.sandbox.probe import probe
from ovagent_jupyter.omics.rendering import PRELUDE
from ovagent_jupyter.omics.step import STEPS
from tests.conformance.test_steps import CASES, around, prepared
from tests.execution.conftest import Kernel
from tests.execution.sandbox.test_levels import CONFINED, offers
from tests.omics import cells

WORK = {
    "numba": "from numba import njit\n@njit\ndef f(x):\n    return x + 1\nassert f(1) == 2",
    "numba in parallel": (
        "import numba, numpy as np\n@numba.njit(parallel=True)\ndef f(x):\n    s = 0.0\n"
        "    for i in numba.prange(len(x)):\n        s += x[i]\n    return s\n"
        "assert f(np.ones(1000)) == 1000"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor as P\n"
        "assert list(P(8).map(abs, [-1, 2])) == [1, 2]"
    ),
    "a linear solver": "import numpy as np\nnp.linalg.svd(np.random.rand(300, 300))",
    "fork": "import os\np = os.fork()\nif not p:\n    os._exit(0)\nassert os.waitpid(p, 0)[1] == 0",
    "joblib": (
        "from joblib import Parallel, delayed\n"
        "assert Parallel(2)(delayed(abs)(i) for i in (-1, 2)) == [1, 2]"
    ),
    "a subprocess": "import subprocess\nassert subprocess.check_output(['ls']) is not None",
    "a pipeline": (
        "import subprocess\nassert subprocess.check_output("
        "\"printf 'b\\na\\n' | sort | head -1\", shell=True) == b'a\\n'"
    ),
    "another interpreter": (
        "import subprocess, sys\n"
        "assert b'numpy' in subprocess.check_output([sys.executable, '-c', 'import numpy;"
        "print(numpy)'])"
    ),
    "a shell line": "!echo hello > said.txt\nassert open('said.txt').read() == 'hello\\n'",
    "a shell cell": "%%bash\necho hello | grep -q hello",
    "figures": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('a.pdf')",
    "h5py": (
        "import h5py\nwith h5py.File('a.h5', 'w') as f:\n    f['x'] = [1, 2]\n"
        "assert list(h5py.File('a.h5')['x']) == [1, 2]"
    ),
    "h5ad, backed": (
        "import anndata as ad, numpy as np\nad.AnnData(np.eye(3)).write_h5ad('a.h5ad')\n"
        "assert ad.read_h5ad('a.h5ad', backed='r').shape == (3, 3)"
    ),
    "zarr": (
        "import anndata as ad, numpy as np\nad.AnnData(np.eye(3)).write_zarr('a.zarr')\n"
        "assert ad.read_zarr('a.zarr').shape == (3, 3)"
    ),
    "a memory map": (
        "import numpy as np\nm = np.memmap('m', 'f8', 'w+', shape=(9,))\nm[0] = 1\nm.flush()"
    ),
    "sqlite": "import sqlite3\nc = sqlite3.connect('x.db')\nc.execute('create table t (a)')",
    "archives": (
        "import shutil, os\nos.makedirs('d', exist_ok=True)\nopen('d/f', 'w').write('x')\n"
        "shutil.make_archive('a', 'gztar', 'd')\nshutil.unpack_archive('a.tar.gz', 'e')\n"
        "assert open('e/f').read() == 'x'"
    ),
    "copies with their times": (
        "import shutil\nopen('f', 'w').write('x')\nshutil.copy2('f', 'g')\nshutil.move('g', 'h')"
    ),
    "temporary files": (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d, "
        "tempfile.NamedTemporaryFile(dir=d) as f:\n    f.write(b'x')"
    ),
    "asyncio and a subprocess": (
        "import asyncio\np = await asyncio.create_subprocess_exec('true')\n"
        "assert await p.wait() == 0"
    ),
    "an alarm": (
        "import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: None)\nsignal.alarm(1)\n"
        "signal.pause()"
    ),
    "who and where": (
        "import getpass, platform, socket, os, pathlib, locale\ngetpass.getuser()\n"
        "platform.platform()\nsocket.gethostname()\nos.cpu_count()\npathlib.Path.home().exists()"
    ),
    "packages that are installed": (
        "import importlib.metadata as m\nassert len(list(m.distributions())) > 20"
    ),
    "psutil": "import psutil\npsutil.virtual_memory()\npsutil.Process().memory_info()",
    "time zones": "from zoneinfo import ZoneInfo\nZoneInfo('Europe/Berlin')",
}
"""What must go at every level."""

OWN_WORLD = {
    "a script of its own": (
        "import os, subprocess\nopen('r.sh', 'w').write('#!/bin/sh\\nawk -F, \"{s+=\\$2} END "
        "{print s}\" t.csv\\n')\nopen('t.csv', 'w').write('a,1\\nb,2\\n')\n"
        "os.chmod('r.sh', 0o755)\nassert subprocess.check_output(['./r.sh']) == b'3\\n'"
    ),
    "a pool of processes": (
        "import multiprocessing as mp\nwith mp.get_context('fork').Pool(2) as p:\n"
        "    assert p.map(abs, [-1, 2]) == [1, 2]"
    ),
    "spawned processes": (
        "import multiprocessing as mp\nwith mp.get_context('spawn').Pool(2) as p:\n"
        "    assert p.map(abs, [-1, 2]) == [1, 2]"
    ),
    "a server of forks": (
        "import multiprocessing as mp\nwith mp.get_context('forkserver').Pool(2) as p:\n"
        "    assert p.map(abs, [-1, 2]) == [1, 2]"
    ),
    "a manager": (
        "import multiprocessing as mp\nwith mp.Manager() as m:\n    d = m.dict()\n"
        "    d['a'] = 1\n    assert dict(d) == {'a': 1}"
    ),
    "shared memory": (
        "from multiprocessing import shared_memory as s\nm = s.SharedMemory(create=True, size=9)\n"
        "m.buf[0] = 1\nm.close()\nm.unlink()"
    ),
    "loky": (
        "from joblib import Parallel, delayed\nimport os\n"
        "pids = Parallel(2, backend='loky')(delayed(os.getpid)() for _ in range(4))\n"
        "assert os.getpid() not in pids"
    ),
}
"""What takes semaphores, shared memory or sockets: at level ``confined`` the user's, so refused."""


@pytest.fixture(params=CONFINED, ids=lambda level: level.name.lower(), scope="module")
def level(request: pytest.FixtureRequest) -> Isolation:
    """Each level that an operating system confines."""
    wanted: Isolation = request.param
    if not offers(wanted):
        pytest.skip("the host does not offer this level")
    return wanted


@pytest.fixture
async def worker(level: Isolation) -> AsyncIterator[Kernel]:
    """A child of that level."""
    executor = Kernel(isolation=level)
    await executor.start()
    yield executor
    await executor.shutdown()


async def failures(worker: Kernel, work: dict[str, str]) -> dict[str, str]:
    """What of the work does not go, and why."""
    failed = {}
    for name, code in work.items():
        await worker.start()
        result = await worker.run(code, timeout=60)
        if not result.ok:
            failed[name] = f"{result.status}: {result.error}"
    return failed


async def test_common_work_goes(worker: Kernel) -> None:
    assert await failures(worker, WORK) == {}


async def test_what_is_shared_goes_where_it_is_its_own(worker: Kernel, level: Isolation) -> None:
    failed = await failures(worker, OWN_WORLD)
    if level is Isolation.NAMESPACES:
        assert failed == {}
    else:
        assert failed.keys() <= OWN_WORLD.keys()
        assert not [why for why in failed.values() if why.startswith(("dead", "timeout"))], failed


@pytest.fixture(scope="module")
def analysed() -> Any:
    """Cells that hold whatever a step may read."""
    return cells.analysed()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("default")
async def test_every_step_goes(analysed: Any, tmp_path: Path) -> None:
    """Each of the steps, in one child of the strongest level."""
    await every_step_goes((await probe()).strongest, analysed, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("default")
async def test_every_step_goes_without_namespaces(analysed: Any, tmp_path: Path) -> None:
    """The same at level ``confined``, which many containers have."""
    await every_step_goes(Isolation.CONFINED, analysed, tmp_path)


async def every_step_goes(level: Isolation, analysed: Any, tmp_path: Path) -> None:
    """Run each step on the data that it declares to read."""
    files = tmp_path / "files"
    files.mkdir()
    options = LaunchOptions(spec=SandboxSpec(read=(files,)))
    executor = Kernel(isolation=level, options=options)
    await executor.start()
    failed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files)
        try:
            assert (await executor.run(PRELUDE, timeout=120)).ok
            for name, params in CASES:
                others = around(name, analysed)
                data = {"adata": prepared(STEPS.get(name), params, analysed), **others}
                code = STEPS.get(name).render("adata", located(params, files))
                if not STEPS.get(name).reads and name.startswith("load"):
                    data.pop("adata")
                await executor.put(data)
                result = await executor.run(code, timeout=120)
                if not result.ok:
                    failed[name] = f"{result.status}: {result.error}"
        finally:
            await executor.shutdown()
    assert {name for name, _ in CASES} == set(STEPS)
    assert failed == {}


def located(params: Any, folder: Path) -> dict[str, object]:
    """Parameters with the files to read where they are; what is written stays a bare name."""
    return {
        name: str(folder / value)
        if name == "path" and isinstance(value, str) and (folder / value).exists()
        else value
        for name, value in params.items()
    }
