"""CSS of a child: a few harmless properties, meant for its own output only."""

from __future__ import annotations

import re
from collections.abc import Collection

MOST_RULES = 20_000
_PROPERTIES = frozenset(
    """background background-color border-collapse border-color border-radius border-spacing
    border-style border-width caption-side color display empty-cells font-family font-size
    font-style font-variant font-weight height letter-spacing line-height list-style-type
    max-height max-width min-height min-width opacity overflow overflow-wrap overflow-x
    overflow-y table-layout text-align text-decoration text-indent text-overflow text-
    transform vertical-align white-space width word-break word-wrap""".split()
) | {
    f"{name}{side}"
    for name in ("border", "margin", "padding")
    for side in ("", "-top", "-right", "-bottom", "-left")
}
"""Nothing that takes an element out of its place: no position, float, transform or z-index."""
_FUNCTIONS = frozenset({"rgb", "rgba", "hsl", "hsla", "linear-gradient"})
"""Nothing that loads: no url, image, image-set, element, attr, var or env."""
_VALUE = re.compile(r"[\w\s#.,%()+/!\"'-]{1,1000}")
_FUNCTION = re.compile(r"([\w-]*)\s*\(")
_NEGATIVE = re.compile(r"(?<![\w#-])-\s*\.?[0-9]")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_RULE = re.compile(r"([^{}]{1,20000})\{([^{}]*)\}")
_STEP = re.compile(
    r"(?P<tag>[A-Za-z][A-Za-z0-9]{0,20}|\*)?"
    r"(?P<marks>(?:[.#][A-Za-z_][\w-]{0,100}"
    r"|:(?:hover|first-child|last-child|only-of-type|nth-child\((?:odd|even|[0-9n+]{1,9})\))){0,8})"
)
_MARK = re.compile(r"([.#])([A-Za-z_][\w-]*)")
_CLASS = re.compile(r"[A-Za-z_][\w-]{0,100}")
_DEEPEST = 8


def own_class(name: str) -> str:
    """The name of a class as it is written out; the page's own classes cannot be meant.

    A class of the front end could cover the page: JupyterLab's dialogs are one.
    """
    if name == "dataframe":
        return name
    return f"out-{name}" if _CLASS.fullmatch(name) else "out"


def declarations(style: str) -> str:
    """The harmless declarations of a ``style`` attribute or of a rule."""
    kept = []
    for part in _COMMENT.sub("", style).split(";"):
        name, _, value = part.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name in _PROPERTIES and _harmless(value):
            kept.append(f"{name}:{value}")
    return ";".join(kept)


def _harmless(value: str) -> bool:
    if not _VALUE.fullmatch(value) or _NEGATIVE.search(value) or value.count('"') % 2:
        return False
    if value.count("'") % 2:
        return False
    return all(found[1].lower() in _FUNCTIONS for found in _FUNCTION.finditer(value))


def rules(sheet: str, prefix: str, tags: Collection[str]) -> str:
    """The harmless rules of a style sheet, each meant only for what lies below ``#prefix``.

    Args:
        sheet: CSS.
        prefix: The identity of the output, and the prefix of all identities in it.
        tags: Element names that a selector may hold.
    """
    sheet = _COMMENT.sub("", sheet)
    written = []
    for count, found in enumerate(_RULE.finditer(sheet)):
        if count >= MOST_RULES:
            break
        kept = declarations(found[2])
        scoped = [_scoped(one, prefix, tags) for one in found[1].split(",")]
        meant = [one for one in scoped if one]
        if kept and meant:
            written.append(f"{','.join(meant)}{{{kept}}}")
    return "\n".join(written)


def _scoped(selector: str, prefix: str, tags: Collection[str]) -> str:
    """A selector below the output, or nothing when it is not plain: no siblings, no conditions."""
    words = selector.replace(">", " > ").split()
    if not words or len(words) > _DEEPEST:
        return ""
    steps = [f"#{prefix}"]
    for word in words:
        if word == ">":
            steps.append(word)
            continue
        found = _STEP.fullmatch(word)
        if not found or (found["tag"] and found["tag"].lower() not in {*tags, "*"}):
            return ""
        steps.append((found["tag"] or "") + _MARK.sub(lambda m: _mark(m, prefix), found["marks"]))
    if steps[-1] == ">":
        return ""
    return " ".join(steps)


def _mark(found: re.Match[str], prefix: str) -> str:
    return f".{own_class(found[2])}" if found[1] == "." else f"#{prefix}-{found[2]}"
