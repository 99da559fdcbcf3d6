"""A session kept as a real notebook: a heading a turn, a code cell a step, failures included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ovagent_jupyter.storage.notebook_file import NotebookFile
from ovagent_jupyter.storage.notebook_outputs import NotebookOutput
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import session_file

if TYPE_CHECKING:
    from nbformat import NotebookNode


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


def preload() -> None:
    """Load nbformat, which takes a second or two; safe in any thread."""
    import nbformat  # noqa: F401


class SessionNotebook:
    """The notebook of one session, ``<directory>/<session_id>.ipynb``.

    A session that is resumed is continued in the same file. The file is replaced as a whole
    after each turn, so that it can be opened at any time; what another program has changed in
    it stays.

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
        self._file = NotebookFile(self.path, self._new)
        self._waiting: list[NotebookNode] = []
        """Cells that are not written yet."""
        self._runs: int | None = None

    def append_turn(self, turn: RecordedTurn) -> None:
        """Add a turn and write the notebook.

        Raises:
            StorageError: It cannot be written; the file is as it was, and the turn is written
                with the next one.
        """
        if self._runs is None:
            found = self._file.read()
            self._runs = sum(cell.cell_type == "code" for cell in found.cells)
        self._waiting.append(self._markdown(_heading(turn), turn.turn_id))
        self._waiting.extend(self._code(cell, turn.turn_id) for cell in turn.cells)
        if turn.result:
            self._waiting.append(self._markdown(turn.result, turn.turn_id))
        self._file.append(self._waiting)
        self._waiting.clear()

    def _new(self) -> NotebookNode:
        from nbformat.v4 import new_notebook

        began = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        title = f"# Session {self._session_id}\n\nBegun {began}. Every turn, as it really ran."
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(
            metadata={
                "kernelspec": kernel,
                "language_info": {"name": "python"},
                "ovagent": {"session_id": self._session_id},
            }
        )
        notebook.nbformat_minor = 5
        notebook.cells.append(self._markdown(title, ""))
        return cast("NotebookNode", notebook)

    def _markdown(self, text: str, turn_id: str) -> NotebookNode:
        from nbformat.v4 import new_markdown_cell

        cell = new_markdown_cell(
            self._redactor.text(text), metadata={"ovagent": {"turn_id": turn_id}}
        )
        return cast("NotebookNode", cell)

    def _code(self, cell: RecordedCell, turn_id: str) -> NotebookNode:
        from nbformat.v4 import new_code_cell

        count = (self._runs or 0) + 1 if cell.execution_count is None else cell.execution_count
        self._runs = count
        note: dict[str, object] = {"turn_id": turn_id}
        if cell.step:
            note["step"] = cell.step
        if cell.seconds is not None:
            note["seconds"] = round(cell.seconds, 3)
        made = new_code_cell(
            self._redactor.text(cell.code),
            execution_count=count,
            metadata={"ovagent": note},
            outputs=[self._output(output, count) for output in cell.outputs],
        )
        return cast("NotebookNode", made)

    def _output(self, output: NotebookOutput, count: int) -> NotebookNode:
        from nbformat.notebooknode import from_dict

        clean = {name: self._clean(name, value) for name, value in output.items()}
        if clean.get("output_type") == "execute_result":
            clean["execution_count"] = count
        return cast("NotebookNode", from_dict(clean))

    def _clean(self, name: str, value: object) -> object:
        """A part of an output without keys; images are left alone, base64 looks like anything."""
        if name == "data" and isinstance(value, Mapping):
            return {
                mime: content if str(mime).startswith("image/") else self._redactor.value(content)
                for mime, content in value.items()
            }
        return self._redactor.value(value)


def _heading(turn: RecordedTurn) -> str:
    """The request as a quotation, since it is the user's text, and the plan below it."""
    quoted = "\n".join(f"> {line}" for line in turn.request.strip().splitlines() or [""])
    if not turn.plan:
        return quoted
    steps = "\n".join(f"{number}. {line}" for number, line in enumerate(turn.plan, start=1))
    return f"{quoted}\n\n{steps}"
