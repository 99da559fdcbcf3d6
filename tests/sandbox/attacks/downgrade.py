"""Attacks on the level itself: dying on purpose, poisoning the start of the next child."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.sandbox.attack import Category, attack
from tests.sandbox.guest import Scene
from tests.sandbox.judges import any_of, flagged, harmed
from tests.sandbox.rituals import boot_poisoned, then_next_child

DOWNGRADE = Category.DOWNGRADE
loosened = any_of(flagged("weaker"), flagged("poisoned"), harmed)


def loosening(text: str, **traits: object):
    """An attack after which the next child must be as the first was."""
    return attack(
        DOWNGRADE, text, loosened, parent=True, executor=True, fresh=True, ritual=then_next_child,
        **traits,
    )  # fmt: skip


@loosening("dies on purpose, so that something weaker is tried")
def die_on_purpose(s: Scene) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@loosening("crashes on purpose, so that something weaker is tried")
def crash_on_purpose(s: Scene) -> None:
    os.abort()


@loosening("puts modules that are imported at the start where the next child works", work=True)
def poison_work_directory(s: Scene) -> None:
    code = f"import builtins; builtins.owned = {s.tag!r}\n"
    for name in ("sitecustomize", "usercustomize", "zmq", "ipykernel", "json", "IPython", "site"):
        Path(f"{name}.py").write_text(code)
    Path("owned.pth").write_text(f"import builtins; builtins.owned = {s.tag!r}\n")
    Path("pyvenv.cfg").write_text("home = .\n")
    Path("ipython_config.py").write_text(
        f"c.InteractiveShellApp.exec_lines = ['owned = {s.tag!r}']\n"
    )


@loosening("puts startup files into the home that it has")
def poison_own_home(s: Scene) -> None:
    line = f"import builtins; builtins.owned = {s.tag!r}\n"
    for variable in ("HOME", "IPYTHONDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        place = Path(os.environ.get(variable, "."))
        for name in ("profile_default/startup/00.py", "usercustomize.py", ".pythonrc.py"):
            try:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_text(line)
            except OSError as error:
                print(error)


@loosening("changes settings in its own environment")
def change_own_environment(s: Scene) -> None:
    for name in ("OVAGENT_ISOLATION", "OVAGENT_FALLBACK_FLOOR", "OVAGENT_SANDBOX_FALLBACK_POLICY"):
        os.environ[name] = "in_process"
    os.environ["PYTHONSTARTUP"] = os.path.abspath("startup.py")


def booting(text: str, **traits: object):
    """An attack by a package of the user that runs when the kernel starts."""
    judge = any_of(flagged("weaker"), flagged("broken"), harmed)
    return attack(
        DOWNGRADE, text, judge, parent=True, executor=True, fresh=True, ritual=boot_poisoned,
        **traits,
    )  # fmt: skip


@booting("a poisoned package ends the kernel while it starts")
def boot_and_leave(s: Scene) -> None:
    os._exit(70)


@booting("a poisoned package crashes the kernel while it starts")
def boot_and_crash(s: Scene) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@booting("a poisoned package kills what keeps the kernel while it starts")
def boot_and_kill_keepers(s: Scene) -> None:
    for pid in (os.getppid(), *s.keepers):
        if pid not in (s.harness, 1):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    os._exit(1)


@booting("a poisoned package says in the supervisor's name that the level cannot be had")
def boot_and_forge_status(s: Scene) -> None:
    line = b'{"event": "failed", "stage": "namespaces", "why": "not here"}\n'
    for number in range(1, 64):
        try:
            os.write(number, line)
        except OSError:
            pass
    os._exit(70)


@booting("a poisoned package changes the user's files while the kernel starts")
def boot_and_write(s: Scene) -> None:
    try:
        Path(s.home, "from-a-package").write_text("owned")
    finally:
        os._exit(0)
