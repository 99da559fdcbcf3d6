"""Reads Python for what it does to the user's work; see ``preflight``."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from ovagent_jupyter.execution import effect_names as names
from ovagent_jupyter.execution.effect_syntax import (
    constant,
    cut,
    is_all,
    is_copy,
    joined,
    keyword,
    keywords,
    layer_of,
    matrix_part,
    matrix_parts,
    normal,
    root_of,
    shown,
    text_of,
)
from ovagent_jupyter.execution.effects import EffectKind

Add = Callable[[ast.AST, EffectKind, str], None]
Magic = Callable[[ast.Call, str, list[str]], None]
_OF_ANNOTATED = frozenset(
    "obs var uns obsm varm obsp varp layers obs_names var_names n_obs n_vars raw".split()
)
_OF_TABLES = frozenset("columns iloc loc groupby dropna iterrows merge value_counts".split())
_IPYTHON = frozenset({"run_cell_magic", "run_line_magic", "system", "getoutput"})


class EffectReader(ast.NodeVisitor):
    """Walks statements in order and tells effects as it meets them.

    It knows what names mean as far as the text says it: imports, paths that are constants, and
    names of copies, whose changes touch nobody's work.

    Args:
        add: Takes each effect.
        magic: Takes each call that IPython makes of a magic.
        work_dir: Where the code would run.
        inputs: Files that the user gave.
    """

    def __init__(
        self, add: Add, magic: Magic, work_dir: Path | None, inputs: Collection[str]
    ) -> None:
        self._add = add
        self._magic = magic
        self._work_dir = work_dir
        self._inputs = {normal(path) for path in inputs}
        self._imported: dict[str, str] = {}
        self._assigned: set[str] = set()
        self._paths: dict[str, str] = {}
        self._copies: set[str] = set()
        self._annotated: set[str] = set()
        self._tables: set[str] = set()
        self._been_read: set[str] = set()
        self._own: set[str] = set()

    # -- names ---------------------------------------------------------------------------------

    def visit_Module(self, node: ast.Module) -> None:
        """Learn what the names look like, then read in order."""
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                if part.attr in _OF_ANNOTATED:
                    self._annotated.add(part.value.id)
                elif part.attr in _OF_TABLES:
                    self._tables.add(part.value.id)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """Note what a name stands for."""
        for alias in node.names:
            root = alias.name.partition(".")[0]
            self._imported[alias.asname or root] = alias.name if alias.asname else root

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Note what a name stands for."""
        for alias in node.names:
            self._imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _dotted(self, node: ast.AST) -> str:
        """The full name of a function; empty when the text does not say."""
        if isinstance(node, ast.Attribute):
            above = self._dotted(node.value)
            return f"{above}.{node.attr}" if above else ""
        if not isinstance(node, ast.Name):
            return ""
        if node.id in self._imported:
            return self._imported[node.id]
        if node.id in self._assigned:
            return ""
        return names.ALIASES.get(node.id, node.id if node.id in _BUILTINS else "")

    def _looks_annotated(self, name: str) -> bool:
        return name in self._annotated or name.startswith(("adata", "mdata"))

    def _looks_tabular(self, name: str) -> bool:
        return name in self._tables or name == "df" or name.endswith("_df")

    # -- assignments ---------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        """The value, then what it is put into."""
        self.visit(node.value)
        for target in node.targets:
            self._put(node, target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The same with a type."""
        if node.value is not None:
            self.visit(node.value)
            self._put(node, node.target, node.value)

    def _put(self, node: ast.AST, target: ast.AST, value: ast.AST) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self._put(node, one, ast.Constant(value=None))
            return
        if not isinstance(target, ast.Name):
            self._put_into(node, target, value)
            return
        self._part_of_itself(node, target, value)
        self._assigned.add(target.id)
        path = self._path(value)
        self._paths.pop(target.id, None)
        if path:
            self._paths[target.id] = path
        self._copies.discard(target.id)
        if is_copy(value) and root_of(value) != target.id:
            self._copies.add(target.id)
        if isinstance(value, ast.Call) and self._dotted(value.func).startswith("pandas."):
            self._tables.add(target.id)

    def _put_into(self, node: ast.AST, target: ast.AST, value: ast.AST) -> None:
        root = root_of(target)
        if root in self._copies or root in ("self", "cls", ""):
            return
        part = matrix_part(target)
        new_layer = isinstance(target, ast.Subscript) and part.startswith("layers[")
        if part and not (
            new_layer and target is layer_of(target) and part not in matrix_parts(value)
        ):
            self._add(node, EffectKind.IN_PLACE, f"changes {root}.{part}")
        elif isinstance(target, ast.Attribute) and target.attr in ("obs", "var"):
            self._part_of_itself(node, target, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """``adata.X *= 2`` changes it whatever the operator."""
        self.visit(node.value)
        part, root = matrix_part(node.target), root_of(node.target)
        if part and root not in self._copies and root not in ("self", "cls", ""):
            self._add(node, EffectKind.IN_PLACE, f"changes {root}.{part}")

    def visit_Delete(self, node: ast.Delete) -> None:
        """A column or a layer that is deleted."""
        for target in node.targets:
            root = root_of(target)
            if isinstance(target, ast.Name) or root in self._copies:
                continue
            holder = target.value if isinstance(target, ast.Subscript) else None
            if matrix_part(target):
                self._add(node, EffectKind.IN_PLACE, f"deletes {text_of(target)}")
            elif isinstance(holder, ast.Attribute) and holder.attr in _OF_ANNOTATED - {"uns"}:
                self._add(node, EffectKind.DROP, f"drops {text_of(target)}")
            elif isinstance(holder, ast.Name) and self._looks_tabular(holder.id):
                self._add(node, EffectKind.DROP, f"drops columns of {root}")

    def _part_of_itself(self, node: ast.AST, target: ast.AST, value: ast.AST) -> None:
        """``adata = adata[...]``: what is not taken is gone."""
        same = ast.unparse(target)
        while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            if value.func.attr in names.PART_METHODS and text_of(value.func.value) == cut(same):
                things = names.DROPPING_METHODS.get(value.func.attr, "rows")
                if things or self._looks_tabular(same):
                    self._add(node, EffectKind.DROP, f"drops {things} of {cut(same)}")
                return
            value = value.func.value
        if not isinstance(value, ast.Subscript):
            return
        holder = value.value
        if isinstance(holder, ast.Attribute) and holder.attr in ("loc", "iloc"):
            holder = holder.value
        if ast.unparse(holder) != same or same in self._copies:
            return
        things = self._things(same, holder is not value.value, value.slice)
        if things:
            self._add(node, EffectKind.DROP, f"drops {things} of {cut(same)}")

    def _things(self, name: str, located: bool, index: ast.expr) -> str:  # noqa: FBT001
        if self._looks_annotated(name) and not located:
            if not isinstance(index, ast.Tuple):
                return "" if is_all(index) else "cells"
            axes = zip(("cells", "genes"), index.elts, strict=False)
            return " and ".join(axis for axis, part in axes if not is_all(part))
        if isinstance(index, ast.List | ast.ListComp) and (self._looks_tabular(name) or located):
            return "columns"
        chosen = isinstance(index, ast.Compare | ast.BoolOp | ast.UnaryOp) and not (
            isinstance(index, ast.UnaryOp) and isinstance(index.operand, ast.Constant)
        )
        joined = isinstance(index, ast.BinOp) and isinstance(index.op, ast.BitAnd | ast.BitOr)
        if located or chosen or joined:
            return "rows or columns" if located and isinstance(index, ast.Tuple) else "rows"
        own = self._looks_tabular(name) or name.endswith((".obs", ".var"))
        return "rows" if own and not isinstance(index, ast.Constant) else ""

    # -- calls ---------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        """A call, by the full name of the function or by that of the method."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _IPYTHON:
            holder = node.func.value
            if isinstance(holder, ast.Call) and text_of(holder.func) == "get_ipython":
                self._magic(node, node.func.attr, [constant(one) for one in node.args])
                return
        name = self._dotted(node.func)
        if name:
            self._outside_world(node, name)
            self._on_data(node, name)
            self._on_files(node, name)
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func)

    def _outside_world(self, node: ast.Call, name: str) -> None:
        if name.startswith(names.NETWORK) and not name.startswith(names.NOT_NETWORK):
            self._add(node, EffectKind.NETWORK, f"uses the network: {name}")
        if name.startswith(names.SHELL) and name not in names.NOT_SHELL:
            words = {constant(part) for part in ast.walk(node) if isinstance(part, ast.Constant)}
            if words & names.INSTALLERS and words & set(names.INSTALLING):
                self._add(node, EffectKind.INSTALL, f"installs packages: {name}")
            else:
                self._add(node, EffectKind.SHELL, f"runs a program: {name}")
        if name in ("pip.main", "pip._internal.main", "ensurepip.bootstrap"):
            self._add(node, EffectKind.INSTALL, f"installs packages: {name}")
        if name in names.CODE_BUILTINS or name in names.CODE_LOADERS:
            harmless = names.SAFE_LOADS.get(name)
            if harmless is None or not harmless(keywords(node)):
                self._add(node, EffectKind.CODE_FROM_DATA, f"runs code that is in data: {name}")

    def _on_data(self, node: ast.Call, name: str) -> None:
        first = node.args[0] if node.args else keyword(node, "adata", "data", "X")
        root = root_of(first) if first is not None else ""
        kept = keywords(node)
        if not root or root in self._copies or (first is not None and is_copy(first)):
            return
        if kept.get("copy") is True or kept.get("inplace") is False:
            return
        short = name.rpartition(".")[2]
        if name in names.CHANGES_X:
            part = f"layers[{kept['layer']!r}]" if kept.get("layer") else "X"
            self._add(node, EffectKind.IN_PLACE, f"changes {root}.{part} ({short})")
        if name in names.DROPS:
            self._add(node, EffectKind.DROP, f"drops {names.DROPS[name]} of {root} ({short})")
        if name in names.DROPS_WITH_SUBSET and kept.get("subset") is True:
            self._add(node, EffectKind.DROP, f"drops genes of {root} ({short})")

    def _on_files(self, node: ast.Call, name: str) -> None:
        first, second = self._argument(node, 0), self._argument(node, 1)
        if name in names.READERS:
            self._read(node, first)
            if str(keywords(node).get("backed")) == "r+":
                self._changed(node, first)
        elif name in names.WRITERS:
            self.written(node, first)
        elif name in names.SECOND_ARGUMENT_WRITERS:
            self.written(node, second)
        elif name in ("open", "io.open", "gzip.open", "bz2.open", "h5py.File", "zarr.open"):
            mode = constant(node.args[1]) if len(node.args) > 1 else ""
            mode = mode or str(keywords(node).get("mode") or ("a" if name == "zarr.open" else "r"))
            self._by_mode(node, first, mode)
        if name in names.DELETES:
            self._add(node, EffectKind.DELETE, f"deletes {shown(first)}")
        elif name in names.MOVES:
            self._add(node, EffectKind.DELETE, f"moves {shown(first)} away")

    def _method(self, node: ast.Call, func: ast.Attribute) -> None:
        method, root, kept = func.attr, root_of(func.value), keywords(node)
        path = self._argument(node, 0)
        if method in names.SUBSETS and root not in self._copies:
            self._add(node, EffectKind.DROP, f"drops {names.SUBSETS[method]} of {root}")
        elif method in names.DROPPING_METHODS and kept.get("inplace") is True:
            if root not in self._copies:
                things = names.DROPPING_METHODS[method]
                self._add(node, EffectKind.DROP, f"drops {things} of {text_of(func.value)}")
        elif method in names.WRITING_METHODS or (
            method == "write" and path.rstrip("/").endswith(names.DATA_SUFFIXES)
        ):
            self.written(node, path)
        elif method in names.PATH_METHODS or method == "open":
            own = self._path(func.value)
            mode = names.PATH_METHODS.get(method) or constant(node.args[0] if node.args else None)
            if own:
                self._by_mode(node, own, mode or "r")
        elif method in ("unlink", "rmdir") and not self._dotted(func).startswith("os."):
            self._add(node, EffectKind.DELETE, f"deletes {shown(self._path(func.value))}")

    # -- files ---------------------------------------------------------------------------------

    def _argument(self, node: ast.Call, place: int) -> str:
        given = node.args[place] if len(node.args) > place else None
        if given is None and not (place and node.args):
            given = keyword(node, *names.PATH_KEYWORDS)
        return self._path(given) if given is not None else ""

    def _path(self, node: ast.AST) -> str:
        """The path that an expression stands for, as far as it is constant; empty when not."""
        match node:
            case ast.Constant(value=str() as text):
                return text
            case ast.Name(id=name):
                return self._paths.get(name, "")
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return joined([self._path(left), self._path(right)])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._path(left) and self._path(left) + (self._path(right) or "*")
            case ast.JoinedStr(values=values):
                parts = [
                    self._path(one.value if isinstance(one, ast.FormattedValue) else one)
                    for one in values
                ]
                return "".join(part or "*" for part in parts) if parts and parts[0] else ""
            case ast.Call(func=func, args=args):
                name = self._dotted(func)
                if name in ("pathlib.Path.home", "os.path.expanduser") and not args:
                    return "~"
                if name in ("pathlib.Path", "os.path.join"):
                    return joined([self._path(one) for one in args])
                if name in ("str", "os.path.expanduser", "os.path.abspath") and args:
                    return self._path(args[0])
        return ""

    def _by_mode(self, node: ast.AST, path: str, mode: str) -> None:
        if set(mode) & set("wx"):
            self.written(node, path)
        elif set(mode) & set("a+"):
            self._changed(node, path)
        else:
            self._read(node, path)

    def _read(self, node: ast.AST, path: str) -> None:
        if path.lower().startswith(names.URLS):
            self._add(node, EffectKind.NETWORK, f"uses the network: {shown(path)}")
        elif path:
            if normal(path) not in self._own:
                self._been_read.add(normal(path))
            if self._is_outside(path) and normal(path) not in self._inputs:
                self._add(node, EffectKind.READ_OUTSIDE, f"reads {shown(path)}")

    def written(self, node: ast.AST, path: str) -> None:
        """A file is written anew."""
        if not path or path == os.devnull:
            return
        if path.lower().startswith(names.URLS):
            self._add(node, EffectKind.NETWORK, f"writes to {shown(path)}")
            return
        if self._is_input(path):
            self._add(node, EffectKind.OVERWRITE, f"overwrites {shown(path)}")
        self._own.add(normal(path))
        if self._is_outside(path):
            self._add(node, EffectKind.WRITE_OUTSIDE, f"writes {shown(path)}")

    def _changed(self, node: ast.AST, path: str) -> None:
        if path and normal(path) not in self._own:
            self._add(node, EffectKind.OVERWRITE, f"changes the file {shown(path)}")
            if self._is_outside(path):
                self._add(node, EffectKind.WRITE_OUTSIDE, f"writes {shown(path)}")

    def _is_input(self, path: str) -> bool:
        key = normal(path)
        if key in self._own:
            return False
        if key in self._been_read or key in self._inputs:
            return True
        with suppress(OSError, ValueError):
            return self._work_dir is not None and (self._work_dir / path).is_file()
        return False

    def _is_outside(self, path: str) -> bool:
        if path == os.devnull:
            return False
        if path.startswith("~"):
            return True
        if self._work_dir is not None and Path(path).is_absolute():
            return not Path(normal(path)).is_relative_to(self._work_dir)
        return Path(path).is_absolute() or normal(path).startswith("..")


_BUILTINS = frozenset({"open", "eval", "exec", "str"})
