"""One registry class for all tables: a name leads to a thing or to where it is imported from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from ovagent_jupyter.errors import RegistryError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Row:
    """One entry: the value, or the place to import it from, and who put it there."""

    value: object
    lazy: bool
    owner: str


class Registry(Generic[T]):
    """Name → thing of one kind, loaded when it is first asked for.

    Third parties add rows through the entry point group ``ovagent_jupyter.<kind>``; these are
    listed by name without importing them.

    Args:
        kind: What the table holds, in the singular ("step", "executor").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._rows: dict[str, _Row] = {}
        self._entry_points_read = False

    def register(self, name: str, value: T, *, owner: str = "") -> None:
        """Add a thing under a name.

        Raises:
            RegistryError: The name is taken; both owners are named.
        """
        self._add(name, _Row(value, lazy=False, owner=owner or _caller()))

    def register_lazy(self, name: str, target: str, *, owner: str = "") -> None:
        """Add a name whose thing is imported from ``"module:attribute"`` on first use.

        Raises:
            RegistryError: The name is taken or the target is not ``module:attribute``.
        """
        if ":" not in target:
            raise RegistryError(
                f"{self.kind} {name!r} has the target {target!r}.",
                next_step="Write it as 'package.module:attribute'.",
            )
        self._add(name, _Row(target, lazy=True, owner=owner or _caller()))

    def get(self, name: str) -> T:
        """The thing of that name.

        Raises:
            RegistryError: The name is unknown, or its module cannot be imported.
        """
        self._read_entry_points()
        row = self._rows.get(name)
        if row is None:
            raise RegistryError(
                f"There is no {self.kind} named {name!r}.",
                next_step=f"Known: {', '.join(sorted(self._rows)) or 'none'}.",
            )
        if row.lazy:
            row = _Row(self._load(name, row), lazy=False, owner=row.owner)
            self._rows[name] = row
        return cast(T, row.value)

    def _load(self, name: str, row: _Row) -> object:
        try:
            if isinstance(row.value, str):
                module, _, attribute = row.value.partition(":")
                return cast(object, getattr(import_module(module), attribute))
            # Not asked for its class: the package importlib_metadata brings one of its own.
            return cast(object, cast(EntryPoint, row.value).load())
        except (ImportError, AttributeError) as error:
            raise RegistryError(
                f"The {self.kind} {name!r} cannot be loaded.",
                why=f"{error} (registered by {row.owner})",
                next_step="Install the missing package, or uninstall the plugin that names it.",
            ) from error

    def _add(self, name: str, row: _Row) -> None:
        taken = self._rows.get(name)
        if taken is not None:
            raise RegistryError(
                f"The {self.kind} {name!r} is registered twice.",
                why=f"by {taken.owner} and by {row.owner}",
                next_step="Give one of them another name.",
            )
        self._rows[name] = row

    def _read_entry_points(self) -> None:
        if self._entry_points_read:
            return
        before = dict(self._rows)
        try:
            for point in entry_points(group=f"ovagent_jupyter.{self.kind}"):
                owner = point.dist.name if point.dist else "an unnamed package"
                self._add(point.name, _Row(point, lazy=True, owner=owner))
        except RegistryError:
            # All or none, so that the next call says the same instead of missing rows.
            self._rows = before
            raise
        self._entry_points_read = True

    def __contains__(self, name: object) -> bool:
        self._read_entry_points()
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        self._read_entry_points()
        return iter(tuple(self._rows))

    def __len__(self) -> int:
        self._read_entry_points()
        return len(self._rows)


def _caller() -> str:
    """Name of the module that called ``register``, to name owners in errors."""
    return str(sys._getframe(2).f_globals.get("__name__", "unknown"))
