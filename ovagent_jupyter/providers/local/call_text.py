"""Reads the text of a tool call: as it is being written, and once it is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from ovagent_jupyter.messages import ToolCall

Parse = Callable[[str], Sequence[tuple[str, Mapping[str, object]]]]
"""Name and arguments of each call in a text; a ValueError where it is none."""

_NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.)*)"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*(?=\S)')


class CallProgress:
    """The arguments of a call in JSON, as they come: nothing of what stands around them.

    Of calls in other formats the text so far is kept, and nothing is told.
    """

    def __init__(self) -> None:
        self.text = ""
        """What has come."""
        self.name = ""
        """The tool, once it is known."""
        self._at: int | None = None
        self._depth = 0
        self._quoted = False
        self._escaped = False
        self._done = False

    def feed(self, text: str) -> str:
        """The next characters of the arguments."""
        self.text += text
        if not self.name and (named := _NAME.search(self.text)):
            self.name = named[1]
        if self._at is None and (found := _ARGUMENTS.search(self.text)):
            self._at = found.end()
        if self._at is None:
            return ""
        start = self._at
        while self._at < len(self.text) and not self._done:
            self._step(self.text[self._at])
            self._at += 1
        return self.text[start : self._at] if self._at > start else ""

    def _step(self, character: str) -> None:
        """Follow the nesting, to see where the arguments end."""
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = character == "\\"
            self._quoted = character != '"'
        elif character == '"':
            self._quoted = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
        self._done = self._depth <= 0 and not self._quoted and character in '}]"'

    @property
    def raw_arguments(self) -> str:
        """What stands where the arguments should."""
        found = _ARGUMENTS.search(self.text)
        return self.text[found.end() :].strip() if found else self.text.strip()


def whole_calls(written: CallProgress, parse: Parse, new_id: Callable[[], str]) -> list[ToolCall]:
    """The calls in a text; one with unreadable arguments where only its tool can be told.

    Args:
        written: The text between the marks.
        parse: The model's own format.
        new_id: Makes ids, as a local model gives none.
    """
    try:
        return [ToolCall(new_id(), name, arguments) for name, arguments in parse(written.text)]
    except ValueError:
        if not written.name:
            return []
        raw = written.raw_arguments
        return [ToolCall(new_id(), written.name, unreadable=raw or written.text)]


def parse_json_call(text: str) -> list[tuple[str, Mapping[str, object]]]:
    """A call as ``{"name": …, "arguments": {…}}``, or a list of such.

    Raises:
        ValueError: It is neither.
    """
    return named_calls(json.loads(text.strip()))


def named_calls(parsed: object) -> list[tuple[str, Mapping[str, object]]]:
    """Name and arguments of calls that were parsed.

    Raises:
        ValueError: Something has no name, or arguments that are no object.
    """
    calls: list[tuple[str, Mapping[str, object]]] = []
    for call in parsed if isinstance(parsed, list) else [parsed]:
        name = call.get("name") if isinstance(call, Mapping) else None
        if not isinstance(name, str) or not isinstance(call, Mapping):
            raise ValueError("a call without a name")
        arguments = call.get("arguments", call.get("parameters"))
        if isinstance(arguments, str):
            arguments = json.loads(arguments) if arguments.strip() else {}
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, Mapping):
            raise ValueError("arguments that are no object")
        calls.append((name, arguments))
    return calls
