"""The rules of the house, each with a proof that it can fail."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import ovagent_jupyter

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ovagent_jupyter"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_DEPTH = 2
MAX_NEW_MODULES = 25
ATTIC = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"})
ATTIC_ALLOWED = frozenset({"server/base.py"})
"""jupyter_server's own word for a handler's parent."""

HEAVY = (
    "aiolimiter", "anndata", "anthropic", "cachetools", "genai_prices", "httpx", "httpx2",
    "huggingface_hub", "igraph", "ipywidgets", "jiter", "jupyter_client", "matplotlib", "mlx",
    "mlx_lm", "nbclient", "nbformat", "numpy", "openai", "opentelemetry", "pandas", "pydantic",
    "rapidfuzz", "scanpy", "scipy", "sklearn", "sqlalchemy", "transformers", "zmq",
)  # fmt: skip
"""Packages that neither the import nor ``%load_ext`` may load."""


class Module(NamedTuple):
    """One source file."""

    name: str
    """Path inside its root, with forward slashes."""
    source: str

    @property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.source)


def modules_in(folder: Path) -> list[Module]:
    """All Python files below a folder."""
    return [
        Module(path.relative_to(folder).as_posix(), path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.py"))
        if "__pycache__" not in path.parts
    ]


# -- rules: a module in, complaints out --------------------------------------------------------


def long_file(module: Module) -> Iterator[str]:
    """A file is read in one sitting."""
    lines = len(module.source.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"has {lines} lines"


def long_function(module: Module) -> Iterator[str]:
    """A function fits on a screen."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


def attic_name(module: Module) -> Iterator[str]:
    """A name says what is inside."""
    if module.name in ATTIC_ALLOWED:
        return
    for part in module.name.removesuffix(".py").split("/"):
        if set(part.split("_")) & ATTIC:
            yield f"{part} says nothing of what it holds"


def no_caption(module: Module) -> Iterator[str]:
    """The first line is the module's caption: they are the map of the house."""
    first = module.source.split("\n", 1)[0]
    if not re.match(r'"""[A-Z`%_a-z].*[.:](""")?$', first):
        yield f"begins with {first[:60]!r}, not with a caption that ends in a full stop"


def stray_exception(module: Module) -> Iterator[str]:
    """There is one tree of exceptions."""
    if module.name == "errors.py":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            for parent in map(ast.unparse, node.bases):
                name = parent.rsplit(".", 1)[-1]
                if name in {"BaseException", "Exception", "KeyboardInterrupt"} or re.search(
                    r"(Error|Exception)$", name
                ):
                    yield f"{node.name} belongs in errors.py"


def too_deep(module: Module) -> Iterator[str]:
    """At most two folders above a file."""
    if module.name.count("/") > MAX_DEPTH:
        yield "lies too deep"


def mocks(module: Module) -> Iterator[str]:
    """Tests use real components or the shipped fakes."""
    for node in ast.walk(module.tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        if any(name.startswith(("unittest.mock", "mock", "pytest_mock")) for name in names):
            yield f"line {node.lineno} imports a mock"


Rule = Callable[[Module], Iterator[str]]
PACKAGE_RULES: tuple[Rule, ...] = (
    long_file, long_function, attic_name, no_caption, stray_exception, too_deep,
)  # fmt: skip
TEST_RULES: tuple[Rule, ...] = (long_file, long_function, attic_name, no_caption, mocks)

BAD: dict[Rule, Module] = {
    long_file: Module("rooms.py", "x = 1\n" * (MAX_FILE_LINES + 1)),
    long_function: Module("rooms.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    attic_name: Module("execution/data_utils.py", ""),
    no_caption: Module("rooms.py", "from __future__ import annotations\n"),
    stray_exception: Module("agent/loop.py", "class Oops(errors.OVAgentError): ...\n"),
    too_deep: Module("a/b/c/rooms.py", ""),
    mocks: Module("test_x.py", "def f():\n    from unittest import mock\n"),
}


def complaints(rule: Rule, modules: list[Module]) -> list[str]:
    """What a rule says about files, one line each."""
    return [f"{module.name}: {text}" for module in modules for text in rule(module)]


@pytest.mark.parametrize("rule", PACKAGE_RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule: Rule) -> None:
    assert complaints(rule, modules_in(PACKAGE)) == []


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_tests_and_benchmarks_keep(folder: str, rule: Rule) -> None:
    assert complaints(rule, modules_in(ROOT / folder)) == []


@pytest.mark.parametrize("rule", BAD, ids=lambda rule: rule.__name__)
def test_each_rule_can_fail(rule: Rule) -> None:
    assert complaints(rule, [BAD[rule]]) != []
    fine = Module("rooms.py", '"""Where things are."""\n\nclass Room:\n    """One room."""\n')
    assert complaints(rule, [fine]) == []


def test_every_rule_has_a_bad_sample() -> None:
    assert set(BAD) == {*PACKAGE_RULES, *TEST_RULES}


# -- what importing does -------------------------------------------------------------------------

LOOK = """
import json, os, sys, threading
before = set(sys.modules)
descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
threads = set(threading.enumerate())
{action}
after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
sys.stderr.write("REPORT" + json.dumps({{
    "new": sorted(set(sys.modules) - before),
    "threads": len(set(threading.enumerate()) - threads),
    "descriptors": after - descriptors,
}}))
"""
SHELL = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
"""


class Footprint(NamedTuple):
    """What a piece of code did to a fresh interpreter."""

    new_modules: list[str]
    threads: int
    descriptors: int
    """Files and sockets that stayed open."""
    printed: str
    files: list[str]
    """What was written into an empty home and working directory."""


def footprint(action: str, place: Path, *, prepare: str = "") -> Footprint:
    """Run code in a fresh interpreter with an empty home and look at what it left."""
    homes = {
        name: str(place / "home" / name.lower())
        for name in ("OVAGENT_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
    }
    (place / "home").mkdir()
    (place / "work").mkdir()
    ipython = place / "ipython"
    ipython.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", prepare + LOOK.format(action=action)],
        cwd=place / "work",
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("COV_", "COVERAGE"))},
            **homes,
            "HOME": str(place / "home"),
            "IPYTHONDIR": str(ipython),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    printed, _, report = done.stderr.partition("REPORT")
    assert done.returncode == 0, done.stderr
    seen = json.loads(report)
    files = [
        path.relative_to(place).as_posix()
        for folder in ("home", "work")
        for path in (place / folder).rglob("*")
    ]
    return Footprint(
        seen["new"], seen["threads"], seen["descriptors"], done.stdout + printed, files
    )


def heavy(modules: list[str]) -> list[str]:
    """Those of the modules that belong to a heavy package."""
    return [name for name in modules if name.split(".", 1)[0] in HEAVY]


def test_import_does_nothing(tmp_path: Path) -> None:
    seen = footprint("import ovagent_jupyter", tmp_path)
    assert heavy(seen.new_modules) == []
    assert seen[1:] == (0, 0, "", [])


def test_load_ext_keeps_its_budget(tmp_path: Path) -> None:
    seen = footprint("shell.run_line_magic('load_ext', 'ovagent_jupyter')", tmp_path, prepare=SHELL)
    assert "ovagent_jupyter" in seen.new_modules
    assert heavy(seen.new_modules) == []
    assert len(seen.new_modules) <= MAX_NEW_MODULES, seen.new_modules
    assert seen[1:] == (0, 0, "", [])


def test_the_footprint_sees_what_it_should(tmp_path: Path) -> None:
    action = (
        "import sqlite3, threading, numpy; print('hello'); f = open('left.txt', 'w');"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    seen = footprint(action, tmp_path)
    assert "numpy" in heavy(seen.new_modules)
    assert (seen.threads, seen.printed, seen.files) == (1, "hello\n", ["work/left.txt"])
    assert seen.descriptors >= 1


# -- tables and public names -----------------------------------------------------------------------


def registries() -> set[str]:
    """Every module-level ``Registry(...)`` of the package, as ``module:NAME``."""
    found = set()
    for module in modules_in(PACKAGE):
        dotted = "ovagent_jupyter." + module.name.removesuffix(".py").replace("/", ".")
        for node in module.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if ast.unparse(node.value.func).split("[")[0].endswith("Registry"):
                    found.add(f"{dotted.removesuffix('.__init__')}:{ast.unparse(target)}")
    return found


@pytest.mark.parametrize("place", sorted(registries()))
def test_every_row_of_a_table_loads(place: str) -> None:
    module, _, name = place.partition(":")
    script = (
        f"from {module} import {name} as table\n"
        "assert len(table), 'the table is empty'\n"
        "for name in table: table.get(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_those_the_docs_list() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))
    assert listed == {name for name in ovagent_jupyter.__all__ if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(ovagent_jupyter.__all__))
def test_public_name_loads_and_is_documented(name: str) -> None:
    thing = getattr(ovagent_jupyter, name)
    if callable(thing):
        assert (thing.__doc__ or "").strip()


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = ovagent_jupyter.nothing_like_this


def shadowed(init: str, siblings: set[str]) -> set[str]:
    """Public names of a lazy package that are also names of its modules.

    Importing such a module binds the module to the name, and the thing cannot be had any more.
    """
    tree = ast.parse(init)
    lazy = any(isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in tree.body)
    public = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ),
        [],
    )
    return set(public) & siblings if lazy else set()


@pytest.mark.parametrize("init", sorted(PACKAGE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_no_module_hides_a_public_name(init: Path) -> None:
    siblings = {path.stem for path in init.parent.iterdir()}
    assert shadowed(init.read_text("utf-8"), siblings) == set()


def test_a_hidden_public_name_is_found() -> None:
    init = '__all__ = ["plan", "Plan"]\ndef __getattr__(name): ...\n'
    assert shadowed(init, {"plan", "order"}) == {"plan"}


# -- the project's own files -----------------------------------------------------------------------


def test_constraints_hold_names_and_versions_only() -> None:
    line = re.compile(r"[a-z0-9.\-]+==[\w.]+( ; [\w\s'.*<>=!]+)?")
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert [text for text in lines if not line.fullmatch(text)] == []


@pytest.mark.parametrize("title", ["README.md", "CHANGELOG.md", "LICENSE"])
def test_project_page_is_there(title: str) -> None:
    assert (ROOT / title).stat().st_size > 100
