"""What a cell would do to the user's work, told before it runs. Advice, never a boundary.

A program can hide any of this from whoever reads its text; what confines it is the sandbox. The
text is read as IPython would run it, and only read: nothing here changes code.
"""

from __future__ import annotations

import ast
import difflib
import re
import shlex
import warnings
from collections.abc import Callable, Collection
from pathlib import Path

from ovagent_jupyter.execution import effect_names as names
from ovagent_jupyter.execution.effect_reader import EffectReader
from ovagent_jupyter.execution.effects import Effect, EffectKind, effects_line

__all__ = ["Effect", "EffectKind", "effects_line", "effects_of"]

LONGEST = 500_000
"""Characters of code that are looked at."""
LONGEST_SHOWN = 60
_DEEPEST = 4
"""Cell magics in cell magics."""
_MAGIC = re.compile(r"^\s*(?:[%!]|.*=\s*[%!]|.*\?\s*$|\s*>>>|\s*In \[)", re.MULTILINE)
_OPTIONS = re.compile(r"^(?:-\w+\s*[0-9]*\s+)*")
_AWAIT = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def effects_of(
    code: str, *, work_dir: Path | None = None, inputs: Collection[str] = ()
) -> tuple[Effect, ...]:
    """The effects of a cell on the user's work, by line. Never raises.

    Args:
        code: The cell, magics and shell lines included.
        work_dir: Where it would run; paths below it are the code's own business.
        inputs: Files that the user gave; to write one of them is told.
    """
    found = _Preflight(work_dir, inputs)
    found.read(code, lambda line: line)
    return tuple(sorted(found.effects))


class _Preflight:
    """Reads one cell, and the cells within it.

    Args:
        work_dir: Where it would run.
        inputs: Files that the user gave.
    """

    def __init__(self, work_dir: Path | None, inputs: Collection[str]) -> None:
        self.effects: set[Effect] = set()
        self._reader = EffectReader(self._add, self._magic, work_dir, inputs)
        self._line_of: Callable[[int], int] = int
        self._depth = 0

    def read(self, code: str, line_of: Callable[[int], int]) -> None:
        """Read code whose lines are at ``line_of`` in the cell."""
        if self._depth >= _DEEPEST or len(code) > LONGEST:
            self.effects.add(Effect(line_of(1), EffectKind.UNREADABLE, "cannot be read: too long"))
            return
        transformed, back = _transformed(code)
        before, self._line_of = self._line_of, lambda line: line_of(back(line))
        self._depth += 1
        try:
            self._reader.visit(_parsed(transformed))
        except SyntaxError as error:
            line = line_of(back(error.lineno or 1))
            self.effects.add(Effect(line, EffectKind.UNREADABLE, "cannot be read: no valid Python"))
        except (ValueError, RecursionError, MemoryError):
            self.effects.add(Effect(line_of(1), EffectKind.UNREADABLE, "cannot be read"))
        finally:
            self._depth -= 1
            self._line_of = before

    def _add(self, node: ast.AST, kind: EffectKind, text: str) -> None:
        self.effects.add(Effect(self._line_of(getattr(node, "lineno", 1)), kind, text))

    def _magic(self, node: ast.Call, method: str, arguments: list[str]) -> None:
        """A call that IPython makes of a magic or of a shell line."""
        first = self._line_of(node.lineno)
        if method in ("system", "getoutput"):
            self._shell(node, arguments[0] if arguments else "")
            return
        name, line, *rest = [*arguments, "", ""]
        body = rest[0] if method == "run_cell_magic" else ""
        if name in names.PYTHON_MAGICS:
            if method == "run_cell_magic":
                # Before the body, the line itself: options, or a statement of a %%timeit.
                self.read(body, lambda number: first + number)
            else:
                self.read(_OPTIONS.sub("", line.strip()), lambda _: first)
        elif name == "writefile":
            self._reader.written(node, line.split()[-1] if line.split() else "")
        elif name in names.INSTALLERS:
            self._install(node, f"{name} {line}")
        elif name == "run":
            self._add(node, EffectKind.CODE_FROM_DATA, f"runs the file {_short(line)}")
        elif name in ("rm", "rmdir"):
            self._add(node, EffectKind.DELETE, f"deletes files: {_short(line)}")
        elif name not in names.HARMLESS_MAGICS:
            self._shell(node, body or line, f"%{'%' * bool(body)}{name}")

    def _shell(self, node: ast.AST, text: str, name: str = "") -> None:
        told = False
        for command in re.split(r"&&|\|\||[;|\n]", text):
            told = self._command(node, command) or told
        if not told:
            shown = f"{name} " * bool(name) + _short(text)
            self._add(node, EffectKind.SHELL, f"runs a shell command: {shown}")

    def _command(self, node: ast.AST, command: str) -> bool:
        """Tell what one shell command does; True when that says it all."""
        words = _words(command)
        tool = words[0].rpartition("/")[2] if words else ""
        if _installs(words):
            self._add(node, EffectKind.INSTALL, f"installs packages: {_short(command)}")
            return True
        if tool in names.REMOVING_COMMANDS:
            self._add(node, EffectKind.DELETE, f"deletes files: {_short(command)}")
        if tool in names.NETWORK_COMMANDS:
            self._add(node, EffectKind.NETWORK, f"uses the network: {tool}")
        return False

    def _install(self, node: ast.AST, command: str) -> None:
        if _installs(_words(command)):
            self._add(node, EffectKind.INSTALL, f"installs packages: {_short(command)}")


def _installs(words: list[str]) -> bool:
    tools = [word.rpartition("/")[2].rstrip("0123456789.") for word in words]
    place = next((n for n, tool in enumerate(tools) if tool in names.INSTALLERS), None)
    known = place is not None and place <= _BEFORE_INSTALLER
    if not known and tools[:1] not in (["apt"], ["apt-get"], ["brew"], ["npm"]):
        return False
    return any(word in names.INSTALLING for word in words)


_BEFORE_INSTALLER = 5
"""Words as in ``sudo -H python -m pip``."""


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 1]}…"


def _parsed(code: str) -> ast.AST:
    with warnings.catch_warnings():
        # A wrong escape in a string is for the run to tell.
        warnings.simplefilter("ignore")
        tree: ast.AST = compile(code, "<cell>", "exec", _AWAIT, dont_inherit=True)
        return tree


def _transformed(code: str) -> tuple[str, Callable[[int], int]]:
    """The code as IPython would run it, and the line of the cell for each of its lines."""
    if not _MAGIC.search(code):
        return code, int
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after: str = TransformerManager().transform_cell(code)
    except Exception:  # noqa: BLE001 - a transformer may raise anything on text that is no code
        return code, int
    old, new = code.splitlines(), after.splitlines()
    if len(old) == len(new):
        return after, int
    place: dict[int, int] = {}
    for _, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for line in range(j1, j2):
            place[line + 1] = min(i1 + line - j1, max(i2 - 1, i1)) + 1
    return after, lambda line: place.get(line, line)
