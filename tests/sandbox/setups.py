"""The ways a child is confined in this suite, from not at all to fully."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.sandbox import landlock
from ovagent_jupyter.execution.sandbox.confinement import REQUIRED, Layers
from tests.sandbox.attack import Attack
from tests.sandbox.faces import ExecutorFace, Face, ForkedFace, NotebookFace

Maker = Callable[[Attack, Path], Face]
ENFORCED = "enforced"


@dataclass(frozen=True, slots=True)
class Setup:
    """One way."""

    name: str
    text: str
    """The heading of its column."""
    make: Maker
    full: bool = False
    """Whether no attack with impact may succeed on it."""
    client: str = "ours"
    """Who reads the child: our executor ("ours"), a client without any of our parts ("stock"), or
    such a client with our kernel ("foreign")."""
    whole: bool = False
    """Whether the table tells of attacks that need a child each, on this one as well."""
    engaged: Mapping[str, str] = field(default_factory=dict)
    """What the child must report of its protections."""

    def takes(self, attack: Attack) -> bool:
        """Whether an attack is carried out on it."""
        if self.client == "ours":
            return True
        return not attack.executor and not (attack.parent and self.client == "foreign")

    def not_engaged(self, protections: Mapping[str, str]) -> list[str]:
        """The protections that should be in force and were not found so inside the child."""
        return [name for name, wanted in self.engaged.items() if protections.get(name) != wanted]


def _executor(
    level: Isolation, layers: Layers | None = None, face: type[ExecutorFace] = ExecutorFace
) -> Maker:
    def make(attack: Attack, base: Path) -> Face:
        spec = SandboxSpec(read=(base / "granted.txt",), **dict(attack.caps))
        work = base / "work" if attack.work else None
        if work is not None:
            work.mkdir(exist_ok=True)
        options = LaunchOptions(spec=spec, layers=layers, work_dir=work, start_timeout=20)
        return face(options, isolation=level)

    return make


def _notebook(kernel: str) -> Maker:
    def make(attack: Attack, base: Path) -> Face:
        # Caps and grants are the user's settings, which the kernel reads when it is started.
        settings = {f"OVAGENT_SANDBOX_{name.upper()}": value for name, value in attack.caps.items()}
        settings["OVAGENT_SANDBOX_READ"] = base / "granted.txt"
        return NotebookFace(kernel, {name: str(value) for name, value in settings.items()})

    return make


def _all_of(level: Isolation) -> dict[str, str]:
    return dict.fromkeys(REQUIRED[level], ENFORCED)


def _level(name: str, text: str, level: Isolation) -> Setup:
    return Setup(name, text, _executor(level), full=True, whole=True, engaged=_all_of(level))


def _forked(name: str, text: str, level: Isolation) -> Setup:
    maker = _executor(level, face=ForkedFace)
    return Setup(name, text, maker, full=True, engaged=_all_of(level))


def _layers(name: str, text: str, *, engaged: tuple[str, ...], layers: Layers) -> Setup:
    # The level only says what the kernel is asked for when no layers are named.
    maker = _executor(Isolation.CONFINED, layers)
    return Setup(name, text, maker, engaged=dict.fromkeys(engaged, ENFORCED))


def _abi(version: int) -> Setup:
    return Setup(
        f"abi{version}",
        f"level 2, Landlock ABI {version}",
        _executor(Isolation.CONFINED, Layers(namespaces=False, landlock=version, seccomp=True)),
        full=True,
        engaged=_all_of(Isolation.CONFINED),
    )


NEWEST = min(landlock.abi(), landlock.NEWEST)
"""The Landlock ABI of this machine, as far as we use it."""

SETUPS: dict[str, Setup] = {
    setup.name: setup
    for setup in (
        Setup("stock", "stock kernel and client", _notebook("python3"), client="stock"),
        Setup("process", "plain child (level 1)", _executor(Isolation.PROCESS), whole=True),
        _layers(
            "landlock",
            "Landlock only",
            engaged=("landlock",),
            layers=Layers(namespaces=False, landlock=NEWEST, seccomp=False),
        ),
        _layers(
            "seccomp",
            "seccomp only",
            engaged=("seccomp",),
            layers=Layers(namespaces=False, landlock=0, seccomp=True),
        ),
        _layers(
            "namespaces",
            "namespaces only",
            engaged=("namespaces",),
            layers=Layers(namespaces=True, landlock=0, seccomp=False),
        ),
        _layers(
            "namespaces-seccomp",
            "namespaces and seccomp",
            engaged=("namespaces", "seccomp"),
            layers=Layers(namespaces=True, landlock=0, seccomp=True),
        ),
        *(_abi(version) for version in range(1, NEWEST)),
        _level("level2", "level 2", Isolation.CONFINED),
        _level("level3", "level 3", Isolation.NAMESPACES),
        _forked("level2-forked", "level 2, forked by a zygote", Isolation.CONFINED),
        _forked("level3-forked", "level 3, forked by a zygote", Isolation.NAMESPACES),
        Setup(
            "kernelspec",
            "kernelspec, by nbclient",
            _notebook("ovagent-sandbox"),
            full=True,
            whole=True,
            client="foreign",
        ),
    )
}
