"""What an expression says by itself: its root, its text, the matrix that it leads to."""

from __future__ import annotations

import ast
import os
from pathlib import PurePosixPath

LONGEST_SHOWN = 60


def normal(path: str) -> str:
    """A path without detours, as text."""
    return os.path.normpath(str(path))


def joined(parts: list[str]) -> str:
    """Paths put together; what is not known in them is a star."""
    if not parts or not parts[0]:
        return ""
    return str(PurePosixPath(parts[0], *(part or "*" for part in parts[1:])))


def shown(path: str) -> str:
    """A path as it is quoted; one that is not known is a file."""
    return repr(cut(path)) if path else "a file"


def cut(text: str) -> str:
    """Text of a bounded length."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def text_of(node: ast.AST) -> str:
    """An expression as text."""
    return cut(ast.unparse(node))


def constant(node: ast.AST | None) -> str:
    """A constant text; empty when it is something else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def keyword(node: ast.Call, *wanted: str) -> ast.expr | None:
    """The value of the first keyword argument of these names."""
    return next((one.value for one in node.keywords if one.arg in wanted), None)


def keywords(node: ast.Call) -> dict[str, object]:
    """The keyword arguments: constants as they are, others as their text."""
    return {
        one.arg: one.value.value if isinstance(one.value, ast.Constant) else text_of(one.value)
        for one in node.keywords
        if one.arg
    }


def root_of(node: ast.AST) -> str:
    """The name that a chain of attributes, indexes and calls begins with."""
    while True:
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func.value
        else:
            return node.id if isinstance(node, ast.Name) else ""


def is_copy(node: ast.AST) -> bool:
    """Whether an expression makes a copy: nothing done to it reaches the original."""
    if not isinstance(node, ast.Call):
        return False
    func = node.func
    return (isinstance(func, ast.Attribute) and func.attr in ("copy", "deepcopy", "to_memory")) or (
        isinstance(func, ast.Name) and func.id == "deepcopy"
    )


def is_all(node: ast.AST) -> bool:
    """Whether an index takes everything."""
    if isinstance(node, ast.Slice):
        return node.lower is None and node.upper is None and node.step is None
    return isinstance(node, ast.Constant) and node.value is ...


def layer_of(node: ast.AST) -> ast.AST | None:
    """The part of a chain that names a layer."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        above = node.value
        named = isinstance(above, ast.Attribute) and above.attr == "layers"
        if named and isinstance(node, ast.Subscript):
            return node
        node = above
    return None


def matrix_part(node: ast.AST) -> str:
    """``X``, ``raw`` or a layer when a chain leads there; empty when it does not."""
    layer = layer_of(node)
    if isinstance(layer, ast.Subscript):
        return f"layers[{text_of(layer.slice)}]"
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute) and node.attr in ("X", "raw"):
            above = node.value
            inside_raw = isinstance(above, ast.Attribute) and above.attr == "raw"
            return "raw" if inside_raw else node.attr
        node = node.value
    return ""


def matrix_parts(node: ast.AST) -> set[str]:
    """All that ``matrix_part`` tells of what is inside an expression."""
    return {matrix_part(part) for part in ast.walk(node)}
