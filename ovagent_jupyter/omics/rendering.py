"""Writing the code of a step: literals, calls and wrapped lines, safe for any user text."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from math import isfinite
from numbers import Integral, Real

from ovagent_jupyter.errors import DataError
from ovagent_jupyter.omics.step import Param, Params

PRELUDE = """\
import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc"""
"""Imports that run before the first step; the code of every step relies on them."""

LINE = 88
"""Longest line of rendered code, where an argument list can be broken."""


class Code(str):
    """An expression that goes into rendered code as it is."""

    __slots__ = ()


def literal(value: object) -> str:
    """A value as Python source: ``Code`` as it is, text quoted and escaped.

    Raises:
        DataError: The value has no literal form.
    """
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        plain = value.isprintable() and not set(value) & {'"', "\\"}
        return f'"{value}"' if plain else repr(str(value))
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, Integral):  # numpy's numbers too, which repr would write as np.int64(1)
        return repr(int(value))
    if isinstance(value, Real):
        number = float(value)
        return repr(number) if isfinite(number) else f'float("{number}")'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    raise DataError(
        f"A parameter holds a {type(value).__name__}, which cannot be written as code.",
        next_step="Give a number, text, a list or a mapping of these.",
    )


def variable(value: object) -> Code:
    """The name of a variable, checked, as code.

    Raises:
        DataError: It is not a name.
    """
    text = str(value)
    if not text.isidentifier() or keyword.iskeyword(text):
        raise DataError(
            f"{text!r} is not the name of a variable.",
            next_step="Assign the data to a variable and give its name.",
        )
    return Code(text)


def call(function: str, *args: object, **kwargs: object) -> str:
    """A call as source; keywords whose value is None are left out, long calls are wrapped."""
    parts = [literal(arg) for arg in args]
    parts += [f"{key}={literal(value)}" for key, value in kwargs.items() if value is not None]
    line = f"{function}({', '.join(parts)})"
    if len(line) <= LINE:
        return line
    return function + "(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def mapping(name: str, value: object) -> str:
    """``name = {...}`` with one entry a line."""
    items = value.items() if isinstance(value, dict) else ()
    lines = [f"    {literal(k)}: {literal(v)},\n" for k, v in items]
    return f"{name} = {{\n{''.join(lines)}}}"


def words(value: object) -> list[str]:
    """One string or a list of them, as a list."""
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def filled(
    write: Callable[[Code, Params], str], params: tuple[Param, ...] = ()
) -> Callable[[str, Params], str]:
    """The render function of a step: defaults filled in, the variable's name checked."""
    defaults = {param.name: param.default for param in params}

    def render(name: str, given: Params) -> str:
        return write(variable(name), {**defaults, **given})

    return render
