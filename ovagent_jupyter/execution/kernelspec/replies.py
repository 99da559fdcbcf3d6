"""What a confined kernel answers to a Jupyter client, made anew from what may pass.

Nothing here raises on what a reply contains. What is missing or has the wrong type becomes the
empty value of its type, so that a client never meets a reply it cannot read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ovagent_jupyter.execution.bundles import (
    JSON_TYPE,
    clean_bundle,
    clean_text,
    raw_size,
)
from ovagent_jupyter.execution.outputs import read_error

Content = dict[str, object]

LARGEST_REPLY = 4_000_000
"""Characters of one reply; the history and the completions of a cell are far smaller."""
LONGEST_PROMPT = 2_000
MOST_EXPRESSIONS = 100

REPLIES: Mapping[str, str] = MappingProxyType(
    {
        "execute_request": "execute_reply",
        "complete_request": "complete_reply",
        "inspect_request": "inspect_reply",
        "history_request": "history_reply",
        "is_complete_request": "is_complete_reply",
        "kernel_info_request": "kernel_info_reply",
        "comm_info_request": "comm_info_reply",
        "shutdown_request": "shutdown_reply",
        "interrupt_request": "interrupt_reply",
    }
)
"""The requests that are passed on, and what each is answered with.

Comms are not among them: what they carry is code for the browser. Nor is the debugger, which needs
a network.
"""

_SHAPES: Mapping[str, Mapping[str, object]] = {
    "complete_reply": {"matches": [], "cursor_start": 0, "cursor_end": 0, "metadata": {}},
    "history_reply": {"history": []},
    "is_complete_reply": {"status": "unknown", "indent": ""},
    "kernel_info_reply": {
        "protocol_version": "5.3",
        "implementation": "",
        "implementation_version": "",
        "language_info": {},
        "banner": "",
    },
    "comm_info_reply": {},
    "shutdown_reply": {"restart": False},
    "interrupt_reply": {},
}
"""What a reply may hold, and the value of each that is missing."""
_PYTHON: Mapping[str, str] = {
    "name": "python",
    "version": "",
    "mimetype": "text/x-python",
    "file_extension": ".py",
}
_STATUS = frozenset({"ok", "error", "aborted", "abort"})
_COMPLETENESS = frozenset({"complete", "incomplete", "invalid", "unknown"})


def clean_reply(kind: str, content: Mapping[str, object]) -> Content:
    """A reply of a kind in ``REPLIES``, with nothing in it that a client would act on."""
    if raw_size({JSON_TYPE: content}, LARGEST_REPLY) > LARGEST_REPLY:
        content = {"status": "error", "ename": "TooLarge", "evalue": "The reply was too large."}
    status = content.get("status")
    reply: Content = {"status": status if isinstance(status, str) and status in _STATUS else "ok"}
    if status == "error":
        error = read_error(content)
        reply |= {
            "ename": error.name if error else "UnknownError",
            "evalue": error.message if error else "",
            "traceback": list(error.traceback) if error else [],
        }
    make = _MADE.get(kind)
    return reply | (make(content) if make else _shaped(kind, content))


def clean_prompt(content: Mapping[str, object]) -> Content:
    """What a cell asks its user for."""
    prompt = content.get("prompt")
    text = clean_text(prompt[:LONGEST_PROMPT]) if isinstance(prompt, str) else ""
    return {"prompt": text, "password": content.get("password") is True}


def _execute(content: Mapping[str, object]) -> Content:
    payload = content.get("payload")
    pages = [page for each in payload if (page := _page(each))] if isinstance(payload, list) else []
    told = content.get("user_expressions")
    expressions = list(told.items())[:MOST_EXPRESSIONS] if isinstance(told, dict) else []
    return {
        "execution_count": count_of(content),
        "payload": pages,
        "user_expressions": {clean_text(k): _expression(v) for k, v in expressions},
    }


def count_of(content: Mapping[str, object]) -> int:
    """The number of an execution."""
    count = content.get("execution_count")
    # A truth value is a number to Python, and none to the protocol.
    if isinstance(count, bool) or not isinstance(count, int):
        return 0
    return count if 0 <= count < 1 << 31 else 0


def _page(payload: object) -> Content:
    """The text of a pager; other payloads edit the user's notebook or end the client."""
    if not isinstance(payload, dict) or payload.get("source") != "page":
        return {}
    data = payload.get("data")
    text = data.get("text/plain") if isinstance(data, dict) else None
    if not isinstance(text, str):
        return {}
    return {"source": "page", "data": {"text/plain": clean_text(text)}, "start": 0}


def _expression(value: object) -> Content:
    if not isinstance(value, dict):
        return {"status": "ok", "data": {}, "metadata": {}}
    error = read_error(value) if value.get("status") == "error" else None
    if error is not None:
        return {
            "status": "error",
            "ename": error.name,
            "evalue": error.message,
            "traceback": list(error.traceback),
        }
    return {"status": "ok", "data": clean_bundle(value.get("data")), "metadata": {}}


def _inspect(content: Mapping[str, object]) -> Content:
    data = clean_bundle(content.get("data"))
    return {"found": content.get("found") is True and bool(data), "data": data, "metadata": {}}


def _complete(content: Mapping[str, object]) -> Content:
    reply = _shaped("complete_reply", content)
    matches = reply["matches"]
    assert isinstance(matches, list)
    reply["matches"] = [match for match in matches if isinstance(match, str)]
    return reply


def _history(content: Mapping[str, object]) -> Content:
    entries = _shaped("history_reply", content)["history"]
    assert isinstance(entries, list)
    return {"history": [entry for entry in entries if _is_entry(entry)]}


def _is_entry(entry: object) -> bool:
    """Whether it is a session, a number and the input, or the input with its output."""
    if not isinstance(entry, list) or len(entry) != 3:  # noqa: PLR2004 - these three
        return False
    session, number, text = entry
    texts = text if isinstance(text, list) and len(text) == 2 else [text]  # noqa: PLR2004
    return (
        type(session) is int
        and type(number) is int
        and all(isinstance(each, str) or (each is None and len(texts) > 1) for each in texts)
    )


def _is_complete(content: Mapping[str, object]) -> Content:
    reply = _shaped("is_complete_reply", content)
    if reply["status"] not in _COMPLETENESS:
        reply["status"] = "unknown"
    return reply


def _kernel_info(content: Mapping[str, object]) -> Content:
    reply = _shaped("kernel_info_reply", content)
    language = reply["language_info"]
    assert isinstance(language, dict)
    about: Content = dict(_PYTHON)
    about |= {name: each for name, each in language.items() if isinstance(each, str)}
    mode = language.get("codemirror_mode")
    if isinstance(mode, dict):
        about["codemirror_mode"] = mode
    reply["language_info"] = about
    # No links to follow, and none of what needs comms or a network: debugger, subshells.
    return reply | {"help_links": [], "supported_features": []}


def _comm_info(_content: Mapping[str, object]) -> Content:
    return {"comms": {}}


def _shaped(kind: str, content: Mapping[str, object]) -> Content:
    return {
        name: _clean(content[name]) if type(content.get(name)) is type(missing) else missing
        for name, missing in _SHAPES[kind].items()
    }


def _clean(value: object) -> object:
    """JSON with every text clean; the depth is bounded by who calls."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {clean_text(str(name)): _clean(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_MADE: Mapping[str, Callable[[Mapping[str, object]], Content]] = {
    "complete_reply": _complete,
    "execute_reply": _execute,
    "history_reply": _history,
    "inspect_reply": _inspect,
    "is_complete_reply": _is_complete,
    "kernel_info_reply": _kernel_info,
    "comm_info_reply": _comm_info,
}
