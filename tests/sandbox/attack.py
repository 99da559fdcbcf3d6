"""One attempt to escape: what it is, the code that runs in the child, and who judges it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sandbox.faces import Shot
    from tests.sandbox.witness import Witness

Judge = Callable[["Witness", "Shot"], str]
"""What the attack achieved, as seen from outside; empty when it achieved nothing."""
Ritual = Callable[["Stage"], Any]
"""How an attack is carried out when it is more than one cell."""
Ready = Callable[["Witness"], bool]
"""Whether this machine has what the attack is aimed at."""


class Category(StrEnum):
    """The threat categories of the threat model."""

    FILES = "secrets in files"
    PROCESSES = "secrets of other processes"
    KERNELS = "keys of other kernels"
    WRITES = "writes outside"
    PERSISTENCE = "persistence"
    METADATA = "metadata and set-id bits"
    NETWORK = "network"
    LOCAL_IPC = "local IPC"
    FOREIGN = "signals, ptrace and limits of foreign processes"
    SURFACE = "kernel surface"
    DESCRIPTORS = "inherited descriptors, terminals, stdio"
    EXHAUSTION = "exhaustion"
    LIVENESS = "liveness"
    FLOODS = "output floods"
    ACTIVE = "active MIME, payloads, escapes, stdin"
    MESSAGES = "forged protocol messages"
    RESULTS = "hostile result files"
    DOWNGRADE = "downgrade and loosening"
    INJECTION = "prompt injection through output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attempt."""

    id: str
    category: Category
    text: str
    """What it tries, in one line."""
    code: str
    """The source of a function of one argument, the scene."""
    judge: Judge
    minor: bool = False
    """Success has no impact beyond knowing that something is there."""
    fresh: bool = False
    """It harms its own child: another one is started before and after."""
    ritual: Ritual | None = None
    """How it is carried out; None is one cell."""
    timeout: float = 10.0
    """Seconds the cell may run."""
    caps: Mapping[str, object] = field(default_factory=dict)
    """Limits of its child: fields of SandboxSpec."""
    work: bool = False
    """Its child works in a directory that later children work in as well."""
    slow: bool = False
    """It takes more than a few seconds; not tried on partial setups in CI."""
    ready: Ready | None = None
    """Whether the machine has its target; None is always."""
    parent: bool = False
    """What stands against it is our reading of the child, not the system. A kernelspec is read by
    another program, which has no such part, so it is not tried there."""
    executor: bool = False
    """It is about what only our executor does, such as fetching objects."""

    @property
    def alone(self) -> bool:
        """Whether it needs a child of its own."""
        return self.fresh or bool(self.caps) or self.work

    @property
    def function(self) -> str:
        """The name of the function in the code."""
        return self.id.replace("-", "_")


@dataclass(slots=True)
class Stage:
    """What a ritual works with."""

    attack: Attack
    witness: Witness
    face: Any
    """The way to the child: see faces.py."""
    cell: str
    """The code of the attack, ready to run."""
    tag: str
    """A random word of this attempt."""
    setup: str
    """The name of the way the child is confined."""


ATTACKS: dict[str, Attack] = {}
"""All attacks by id, in the order of their modules."""


def attack(
    category: Category, text: str, judge: Judge, **traits: Any
) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
    """Enter the decorated function as an attack."""

    def enter(function: Callable[[Any], object]) -> Callable[[Any], object]:
        ident = function.__name__.replace("_", "-")
        assert ident not in ATTACKS, ident
        ATTACKS[ident] = Attack(
            id=ident, category=category, text=text, code=_source(function), judge=judge, **traits
        )
        return function

    return enter


def _source(function: Callable[[Any], object]) -> str:
    """The function's own lines, without decorators, after the imports of its module it needs."""
    text = textwrap.dedent(inspect.getsource(function))
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    module = inspect.getmodule(function)
    assert module is not None
    imports = [
        ast.unparse(one)
        for one in ast.parse(inspect.getsource(module)).body
        if isinstance(one, ast.Import | ast.ImportFrom)
        and not (isinstance(one, ast.ImportFrom) and str(one.module).startswith(("tests", "__f")))
        and used & {alias.asname or alias.name for alias in one.names}
    ]
    constants = [
        f"{name} = {value!r}"
        for name in sorted(used)
        if name.isupper()
        and isinstance(value := getattr(module, name, None), str | int | float)
        and not isinstance(value, StrEnum)
    ]
    return "\n".join([*imports, *constants, *text.splitlines()[node.lineno - 1 :]]) + "\n"
