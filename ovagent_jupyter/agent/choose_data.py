"""Which of the user's variables a turn works on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from ovagent_jupyter.errors import DataError
from ovagent_jupyter.omics.state import is_anndata

SHOWN = 5
"""Candidates named in a question."""
_MENTION = re.compile(r"(?<!\w)@([A-Za-z_]\w*)")


def anndata_names(namespace: Mapping[str, object]) -> list[str]:
    """Names of the AnnData objects in the user's variables, IPython's own left out."""
    return [n for n, value in namespace.items() if not n.startswith("_") and is_anndata(value)]


def mentioned(text: str) -> list[str]:
    """Names written as ``@name`` in a request, in order."""
    return list(dict.fromkeys(_MENTION.findall(text)))


def choose_inputs(
    text: str, namespace: Mapping[str, object], explicit: Sequence[str] = ()
) -> tuple[str | None, tuple[str, ...]]:
    """The main AnnData and all names handed to the child.

    Args:
        text: The request.
        namespace: The user's variables.
        explicit: Names the user chose; they win over what the request says.

    Returns:
        (name of the main AnnData or None, all names).

    Raises:
        DataError: A name is not there, or several AnnData could be meant.
    """
    wanted = list(explicit) or mentioned(text)
    _check_there(wanted, namespace)
    candidates = [name for name in wanted if is_anndata(namespace[name])]
    if not candidates and not explicit:
        candidates = _distinct(anndata_names(namespace), namespace)
        named = [n for n in candidates if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", text)]
        candidates = named or candidates
    if not candidates and explicit:
        kinds = ", ".join(f"{name} ({type(namespace[name]).__name__})" for name in explicit)
        raise DataError(
            f"None of these is an AnnData: {kinds}.",
            next_step="Name an AnnData; of a MuData take one part, as in rna = mdata['rna'].",
        )
    if not candidates:
        return None, tuple(wanted)
    if len(candidates) > 1 and not wanted:
        raise _several(candidates, namespace)
    return candidates[0], tuple(dict.fromkeys([candidates[0], *wanted]))


def _check_there(names: Sequence[str], namespace: Mapping[str, object]) -> None:
    for name in names:
        if name in namespace:
            continue
        public = [n for n in namespace if not n.startswith("_")]
        near = get_close_matches(name, public, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Load it in a cell above first."
        raise DataError(f"There is no variable named {name!r}.", next_step=hint)


def _distinct(names: list[str], namespace: Mapping[str, object]) -> list[str]:
    """One name per object: ``adata`` and an alias of it are not two candidates."""
    by_object: dict[int, str] = {}
    for name in names:
        by_object.setdefault(id(namespace[name]), name)
    return list(by_object.values())


def _several(candidates: list[str], namespace: Mapping[str, object]) -> DataError:
    shown = ", ".join(f"{n} ({_shape(namespace[n])})" for n in candidates[:SHOWN])
    more = f" and {len(candidates) - SHOWN} more" if candidates[SHOWN:] else ""
    return DataError(
        "Which data do you mean?",
        why=f"There are {len(candidates)} AnnData objects here: {shown}{more}.",
        next_step=f"Name one in the request, for example @{candidates[0]}.",
    )


def _shape(value: object) -> str:
    rows, columns = getattr(value, "shape", (0, 0))
    return f"{rows:,} × {columns:,}"
