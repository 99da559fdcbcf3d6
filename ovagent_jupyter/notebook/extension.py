"""Loading and unloading: the magics, the asynchronous cell driver, completion."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import TYPE_CHECKING

from ovagent_jupyter.notebook.magics import OVAgent

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

MAGIC = "ovagent"
_CELL = f"%%{MAGIC}"
_LOADED = "_ovagent_extension"
"""Attribute of the shell that holds what is loaded: loading is per shell, not per process."""


def load(shell: InteractiveShell) -> None:
    """Add the magics to a session; does nothing when they are there."""
    if getattr(shell, _LOADED, None) is None:
        setattr(shell, _LOADED, Extension(shell))


def unload(shell: InteractiveShell) -> None:
    """Take everything away again; does nothing when nothing is loaded."""
    extension: Extension | None = getattr(shell, _LOADED, None)
    if extension is not None:
        setattr(shell, _LOADED, None)
        extension.close()


class Extension:
    """What one ``%load_ext`` adds to a shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._cell_runs = False
        self.magics = OVAgent(shell)
        shell.register_magics(self.magics)
        shell.configurables.append(self.magics)  # type: ignore[arg-type]  # typed too narrowly
        shell.input_transformers_cleanup.append(self._rewrite)
        shell.events.register("pre_run_cell", self._cell_begins)
        shell.events.register("post_run_cell", self._cell_ends)
        self._matcher = _matcher(self.magics)
        if shell.Completer is not None:
            shell.Completer.custom_matchers.append(self._matcher)
        atexit.register(self.magics.close)

    def close(self) -> None:
        """Undo all of the above and end the child kernel."""
        shell = self._shell
        self.magics.close()
        atexit.unregister(self.magics.close)
        shell.input_transformers_cleanup.remove(self._rewrite)
        shell.events.unregister("pre_run_cell", self._cell_begins)
        shell.events.unregister("post_run_cell", self._cell_ends)
        shell.configurables.remove(self.magics)  # type: ignore[arg-type]  # as above
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop(MAGIC, None)
        if shell.Completer is not None:
            shell.Completer.custom_matchers.remove(self._matcher)

    def _cell_begins(self, _info: object) -> None:
        self._cell_runs = True

    def _cell_ends(self, _result: object) -> None:
        self._cell_runs = False

    def _rewrite(self, lines: list[str]) -> list[str]:
        """Turn a ``%%ovagent`` cell into one ``await`` where that is possible.

        A magic that returns a coroutine is not awaited. Inside ``%%time`` or ``%%capture`` a
        cell is running already, and the synchronous magic serves.
        """
        head = lines[0].rstrip("\n") if lines else ""
        if head.split(maxsplit=1)[:1] != [_CELL] or not self._can_await():
            return lines
        line = head.removeprefix(_CELL).strip()
        body = "".join(lines[1:])
        return [f"await get_ipython()._ovagent_extension.magics.drive({line!r}, {body!r})\n"]

    def _can_await(self) -> bool:
        shell = self._shell
        return bool(shell.autoawait and hasattr(shell, "kernel") and not self._cell_runs)


def _matcher(magics: OVAgent) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """What Tab offers on a line of ours: our words, and then no names of Python.

    A hook for ``complete_command`` would be simpler; Python's names stand beside what it finds.
    """
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(priority=1_000, identifier=MAGIC)  # type: ignore[untyped-decorator]
    def match(context: CompletionContext) -> SimpleMatcherResult:
        before = context.text_until_cursor
        first, *words = before.split() or [""]
        if first not in {f"%{MAGIC}", _CELL} or before.endswith(first):
            return {"completions": []}
        from ovagent_jupyter.notebook.arguments import completions

        typed = "" if before[-1].isspace() else words.pop()
        found = completions(typed, words, magics.checkpoints)
        return {
            "completions": [SimpleCompletion(text=name) for name in found],
            "matched_fragment": typed,
            "suppress": True,
        }

    return match  # type: ignore[no-any-return]
