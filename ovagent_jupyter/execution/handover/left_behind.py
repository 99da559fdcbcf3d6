"""What could not cross the border, named as the user would write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST = 200


def shown(text: str, longest: int = _LONGEST) -> str:
    """Text that may come from the child, safe to print: no control characters, bounded."""
    clean = "".join(c if c.isprintable() else "?" for c in text[: longest + 1])
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """One thing that could not cross the border, and why."""

    path: str
    """Where it is, as the user would write it: ``adata.uns['f']``."""
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def dotted(name: str, path: Iterable[object]) -> str:
    """A slot as the user would write it: ``adata.uns['f']``."""
    steps = list(path)
    text = name
    for position, step in enumerate(steps):
        if position == 0 and step in _ATTRIBUTES:
            text += f".{_ATTRIBUTES[str(step)]}"
        elif steps[0] == "raw" and position == 1:
            text += f".{_ATTRIBUTES.get(str(step), step)}"
        elif not (position == 0 and step == "column"):
            text += f"[{step!r}]"
    return shown(text)


_ATTRIBUTES = {
    name: name
    for name in (
        "X", "obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers", "raw", "mod",
        "obs_names", "var_names", "index", "columns", "attrs",
        "images", "labels", "points", "shapes", "tables",
    )
} | {"obs_columns": "obs.columns", "var_columns": "var.columns"}  # fmt: skip
_ATTRIBUTES |= {"obs_attrs": "obs.attrs", "var_attrs": "var.attrs", "axis": "axis"}
