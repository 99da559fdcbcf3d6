"""Outputs of code as notebooks keep them (nbformat 4.5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

NotebookOutput = Mapping[str, object]
"""One output as nbformat writes it."""


class CodeOutput(Protocol):
    """What is read of an output: ``execution.Output`` has all of it."""

    @property
    def kind(self) -> str:
        """One of stream, display, update, result, error, clear."""
        ...

    @property
    def stream(self) -> str:
        """One of stdout, stderr; empty for other kinds."""
        ...

    @property
    def text(self) -> str:
        """Text of a stream, or of an error's last line."""
        ...

    @property
    def data(self) -> Mapping[str, str]:
        """MIME type → content."""
        ...

    @property
    def metadata(self) -> Mapping[str, object]:
        """What was sent beside the content."""
        ...

    @property
    def display_id(self) -> str:
        """Identity of a display that is updated later."""
        ...


class CodeFailure(Protocol):
    """What is read of an exception: ``execution.CodeError`` has all of it."""

    @property
    def name(self) -> str:
        """Its class."""
        ...

    @property
    def message(self) -> str:
        """Its text."""
        ...

    @property
    def traceback(self) -> Sequence[str]:
        """Its traceback, line by line."""
        ...


def notebook_outputs(
    outputs: Iterable[CodeOutput], error: CodeFailure | None = None
) -> tuple[NotebookOutput, ...]:
    """The outputs of one cell as they would stand below it in a notebook.

    Pieces of one stream are joined, displays stand as last updated, and what was cleared is
    left out. The exception, where there is one, comes last with its traceback.
    """
    kept: list[dict[str, object]] = []
    displays: dict[str, dict[str, object]] = {}
    for output in outputs:
        match output.kind:
            case "clear":
                kept.clear()
            case "stream":
                _add_stream(kept, output)
            case "display" | "result":
                kept.append(_display(output))
                if output.display_id:
                    displays[output.display_id] = kept[-1]
            case "update" if output.display_id in displays:
                displays[output.display_id]["data"] = _bundle(output.data)
            case "error" if error is None:
                name, _, message = output.text.partition(": ")
                kept.append(_error(name, message, output.text.splitlines()))
    if error is not None:
        kept.append(_error(error.name, error.message, error.traceback))
    return tuple(kept)


def _add_stream(kept: list[dict[str, object]], output: CodeOutput) -> None:
    name = output.stream or "stdout"
    if kept and kept[-1].get("name") == name:
        kept[-1]["text"] = f"{kept[-1]['text']}{output.text}"
    else:
        kept.append({"output_type": "stream", "name": name, "text": output.text})


def _display(output: CodeOutput) -> dict[str, object]:
    shown: dict[str, object] = {
        "output_type": "display_data" if output.kind == "display" else "execute_result",
        "data": _bundle(output.data),
        "metadata": dict(output.metadata),
    }
    if output.kind == "result":
        shown["execution_count"] = None
    return shown


def _error(name: str, message: str, traceback: Sequence[str]) -> dict[str, object]:
    return {
        "output_type": "error",
        "ename": name,
        "evalue": message,
        "traceback": list(traceback),
    }


def _bundle(data: Mapping[str, str]) -> dict[str, object]:
    """The MIME bundle; JSON types are objects in a notebook, not text."""
    return {
        mime: _parsed(content) if mime.endswith(("/json", "+json")) else content
        for mime, content in data.items()
    }


def _parsed(content: str) -> object:
    try:
        return json.loads(content)
    except (ValueError, TypeError):  # TypeError: it is an object already
        return content
