"""What a model is told of the user's data: names, shapes, types and common levels."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ovagent_jupyter.agent.choose_data import anndata_names, choose_inputs, mentioned
from ovagent_jupyter.agent.turn import TurnRequest
from ovagent_jupyter.omics.state import is_anndata

MAX_OBJECTS = 10
"""Objects that are described of those that a question names."""
MAX_UNNAMED = 3
"""AnnData objects that are described when a question names none."""
MAX_LENGTH = 8_000
"""Characters of all that is told."""

_ROOM = 7_000
"""Characters of the descriptions together."""
_BRIEF = 3_000
"""The same, for several objects of which none was named."""
_LISTED = 400
"""Characters of a list of names or kinds."""
_COLUMNS = 1_500
"""Characters of the columns of a table."""
_LOOKED_AT = 1_000
"""Entries of a list or dict whose kinds are counted."""


def describe_data(asked: TurnRequest) -> str:
    """What a model is told of the user's variables; no values of cells.

    Those that the question names with ``@``, or that were handed over with it; without such,
    the AnnData objects.

    Raises:
        DataError: A name of the question is not there.
    """
    named = _named(asked)
    names, others = named or _unnamed(asked)
    if not names:
        return ""
    room = (_ROOM if named or len(names) == 1 else _BRIEF) // len(names)
    said = [_described(name, asked.namespace[name], room) for name in names]
    if others:
        from ovagent_jupyter.omics.summary import cut_name, listed

        said.append(f"Also there, but not described: {listed(map(cut_name, others), _LISTED)}")
    return "\n\n".join(said)


def _named(asked: TurnRequest) -> tuple[list[str], list[str]] | None:
    """What the question names: names to describe, and those beyond; None where it names none."""
    named = list(dict.fromkeys([*asked.inputs, *mentioned(asked.text)]))
    if any(name not in asked.namespace for name in named):
        choose_inputs(asked.text, asked.namespace, named)  # says which, and what is near to it
    return (named[:MAX_OBJECTS], named[MAX_OBJECTS:]) if named else None


def _unnamed(asked: TurnRequest) -> tuple[list[str], list[str]]:
    """The AnnData objects: those to describe, and the others."""
    held = _distinct(asked.namespace)
    written = [n for n in held if len(n) > 1 and re.search(rf"(?<!\w){n}(?!\w)", asked.text)]
    described = (written or held)[:MAX_UNNAMED]
    return described, [name for name in held if name not in described]


def _distinct(namespace: Mapping[str, object]) -> list[str]:
    """One name for each AnnData object."""
    by_object: dict[int, str] = {}
    for name in anndata_names(namespace):
        by_object.setdefault(id(namespace[name]), name)
    return list(by_object.values())


def _described(name: str, value: object, room: int) -> str:
    # here, for this module is read before anybody asks
    from ovagent_jupyter.omics.summary import MAX_LENGTH as LONGEST
    from ovagent_jupyter.omics.summary import cut_name, summarize

    if is_anndata(value):
        from ovagent_jupyter.omics import describe

        return summarize(describe(value, name), min(room, LONGEST))
    shown = f"{cut_name(name)}: {cut_name(type(value).__name__)}"
    for holds, say in _KINDS:
        if holds(value):
            return f"{shown}, {say(value)}"[:room]
    return f"{shown}; what it holds is not told"


def _made_by(module: str, *kinds: str) -> Callable[[object], bool]:
    """Whether a value is of these classes; never imports the package, which has made the value."""

    def holds(value: object) -> bool:
        loaded = sys.modules.get(module)
        return loaded is not None and isinstance(value, tuple(getattr(loaded, k) for k in kinds))

    return holds


def _frame(value: Any) -> str:
    from ovagent_jupyter.omics.summary import cut_name, listed

    columns = (f"{cut_name(label)} ({cut_name(held)})" for label, held in value.dtypes.items())
    rows, wide = value.shape
    return f"{rows:,} rows x {wide:,} columns: {listed(columns, _COLUMNS)}"


def _values(value: Any) -> str:
    return f"{len(value):,} values of {_dtype(value)}"


def _array(value: Any) -> str:
    return f"{' x '.join(f'{size:,}' for size in value.shape) or 'one'} values of {_dtype(value)}"


def _dtype(value: Any) -> str:
    from ovagent_jupyter.omics.summary import cut_name

    return cut_name(value.dtype)


def _parts(value: Any) -> str:
    """A MuData: its parts are AnnData."""
    from ovagent_jupyter.omics.summary import cut_name, listed

    parts = (f"{cut_name(k)} ({p.n_obs:,} x {p.n_vars:,})" for k, p in value.mod.items())
    size = f"{value.n_obs:,} cells x {value.n_vars:,} variables"
    return f"{size}; parts: {listed(parts, _LISTED)}"


def _entries(value: Any) -> str:
    """A container: kinds of what is in it. Keys are values of the user too."""
    from ovagent_jupyter.omics.summary import cut_name, listed

    inside = value.values() if isinstance(value, dict) else value
    kinds = Counter(type(entry).__name__ for entry in islice(inside, _LOOKED_AT))
    said = listed((f"{count:,} {cut_name(kind)}" for kind, count in kinds.items()), _LISTED)
    first = f", of the first {_LOOKED_AT:,}" if len(value) > _LOOKED_AT else ""
    return f"{len(value):,} entries{first}: {said}" if kinds else "empty"


_KINDS: tuple[tuple[Callable[[object], bool], Callable[[Any], str]], ...] = (
    (_made_by("pandas", "DataFrame"), _frame),
    (_made_by("pandas", "Series", "Index"), _values),
    (_made_by("numpy", "ndarray"), _array),
    (_made_by("scipy.sparse", "spmatrix", "sparray"), _array),
    (_made_by("mudata", "MuData"), _parts),
    (lambda value: isinstance(value, dict | list | tuple | set | frozenset), _entries),
)
"""What is said of objects of a kind."""
