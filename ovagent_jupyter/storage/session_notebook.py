"""A session kept as a real notebook: a heading a turn, a code cell a step, failures included."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from uuid import uuid4

from ovagent_jupyter.storage.notebook_outputs import NotebookOutput
from ovagent_jupyter.storage.paths import ensure_dir, storage_error
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import session_file


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCell:
    """One piece of code that ran, with what it showed."""

    code: str
    """Its source."""
    outputs: Sequence[NotebookOutput] = ()
    """As nbformat writes them; ``notebook_outputs`` makes them."""
    execution_count: int | None = None
    """Number of the run; None counts on from the cell before."""
    step: str = ""
    """Id of the omics step, kept in the cell's metadata."""
    seconds: float | None = None
    """Wall time, kept in the cell's metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTurn:
    """One turn, as the notebook tells it."""

    request: str
    """What the user wrote."""
    turn_id: str = ""
    """Id of the turn, kept in the cells' metadata."""
    plan: Sequence[str] = ()
    """The steps in words, one a line."""
    cells: Sequence[RecordedCell] = ()
    """What ran, in order; the last one may have failed."""
    result: str = ""
    """What came of it, below the code."""


class SessionNotebook:
    """The notebook of one session, ``<directory>/<session_id>.ipynb``.

    A session that is resumed is continued in the same file. The file is replaced as a whole
    after each turn, so that it can be opened at any time. It is written as JSON: importing
    nbformat would take longer than all the rest, and the tests hold what is written against it.

    Args:
        directory: Where session notebooks are kept.
        session_id: Id of the session.
        redactor: Keeps keys out of it.

    Raises:
        StorageError: The id could not be the name of a file.
    """

    def __init__(self, directory: Path, session_id: str, redactor: Redactor) -> None:
        self.path = session_file(directory, session_id, ".ipynb")
        self._session_id = session_id
        self._redactor = redactor
        self._notebook: dict[str, object] | None = None
        self._runs = 0

    def append_turn(self, turn: RecordedTurn) -> None:
        """Add a turn and write the notebook.

        Raises:
            StorageError: It cannot be written; the file is as it was, and the turn is written
                with the next one.
        """
        if self._notebook is None:
            self._notebook = self._opened()
        cells = cast(list[object], self._notebook["cells"])
        cells.append(self._markdown(_heading(turn), turn.turn_id))
        cells.extend(self._code(cell, turn.turn_id) for cell in turn.cells)
        if turn.result:
            cells.append(self._markdown(turn.result, turn.turn_id))
        text = json.dumps(self._notebook, indent=1, ensure_ascii=False) + "\n"
        # A lone surrogate is no UTF-8, but its backslash form is what JSON writes for it.
        _write_whole(self.path, text.encode(errors="backslashreplace"))

    def _opened(self) -> dict[str, object]:
        """The notebook of a resumed session, or a new one."""
        try:
            found = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return self._new()
        except OSError as error:
            raise storage_error("The notebook", self.path, "cannot be read", error) from error
        except ValueError:  # no JSON, or no UTF-8
            found = None
        if not _is_notebook(found):
            _move_aside(self.path)
            return self._new()
        self._runs = sum(cell.get("cell_type") == "code" for cell in found["cells"])
        return cast(dict[str, object], found)

    def _new(self) -> dict[str, object]:
        began = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        title = f"# Session {self._session_id}\n\nBegun {began}. Every turn, as it really ran."
        return {
            "cells": [self._markdown(title, "")],
            "metadata": {
                "kernelspec": {
                    "name": "python3",
                    "display_name": "Python 3",
                    "language": "python",
                },
                "language_info": {"name": "python"},
                "ovagent": {"session_id": self._session_id},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }

    def _markdown(self, text: str, turn_id: str) -> dict[str, object]:
        return {
            "cell_type": "markdown",
            "id": _cell_id(),
            "metadata": {"ovagent": {"turn_id": turn_id}},
            "source": _lines(self._redactor.text(text)),
        }

    def _code(self, cell: RecordedCell, turn_id: str) -> dict[str, object]:
        self._runs = self._runs + 1 if cell.execution_count is None else cell.execution_count
        note: dict[str, object] = {"turn_id": turn_id}
        if cell.step:
            note["step"] = cell.step
        if cell.seconds is not None:
            note["seconds"] = round(cell.seconds, 3)
        return {
            "cell_type": "code",
            "execution_count": self._runs,
            "id": _cell_id(),
            "metadata": {"ovagent": note},
            "outputs": [self._output(output) for output in cell.outputs],
            "source": _lines(self._redactor.text(cell.code)),
        }

    def _output(self, output: NotebookOutput) -> dict[str, object]:
        clean = {name: self._clean(name, value) for name, value in output.items()}
        if clean.get("output_type") == "execute_result":
            clean["execution_count"] = self._runs
        return clean

    def _clean(self, name: str, value: object) -> object:
        """A part of an output without keys; images are left alone, base64 looks like anything."""
        if name == "data" and isinstance(value, Mapping):
            return {
                mime: content if str(mime).startswith("image/") else self._redactor.value(content)
                for mime, content in value.items()
            }
        return self._redactor.value(value)


def _is_notebook(found: object) -> bool:
    """Whether a file's JSON is a notebook of the format that we continue."""
    if not isinstance(found, dict) or found.get("nbformat") != 4:  # noqa: PLR2004 - its major
        return False
    minor, cells = found.get("nbformat_minor"), found.get("cells")
    has_cell_ids = isinstance(minor, int) and minor >= 5  # noqa: PLR2004 - the first with ids
    return has_cell_ids and isinstance(cells, list) and all(isinstance(c, dict) for c in cells)


def _cell_id() -> str:
    return uuid4().hex[:12]


def _lines(text: str) -> list[str]:
    """A source as notebooks write it: one string a line, so that two versions can be compared."""
    return text.splitlines(keepends=True)


def _heading(turn: RecordedTurn) -> str:
    """The request as a quotation, since it is the user's text, and the plan below it."""
    quoted = "\n".join(f"> {line}" for line in turn.request.strip().splitlines() or [""])
    if not turn.plan:
        return quoted
    steps = "\n".join(f"{number}. {line}" for number, line in enumerate(turn.plan, start=1))
    return f"{quoted}\n\n{steps}"


def _move_aside(path: Path) -> None:
    """Keep a file that is not a notebook under a name that no session has."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.broken-{number}.ipynb")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise storage_error("The notebook", path, "cannot be moved aside", error) from error


def _write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old one or the new one.

    Raises:
        StorageError: It cannot be written; the old file is as it was.
    """
    ensure_dir(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise storage_error("The notebook", path, "cannot be written", error) from error
    finally:
        with suppress(FileNotFoundError):
            scratch.unlink()
