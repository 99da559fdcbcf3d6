"""Keys and headers: values that never show themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn


class Secret:
    """A key that does not print, order, pickle or format itself; only ``reveal`` gives it.

    Two of the same key are equal, so that settings that did not change are seen not to have.

    Args:
        value: The key.
        source: Where it was found, for people: the name of a variable.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str = "") -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The key itself, for the header of a request and nothing else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest  # loads hashlib, which loading the extension needs not

        return compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(Secret)  # of the kind: a number made from a key would tell of it

    def __repr__(self) -> str:
        return f"Secret(from {self.source or 'an argument'})" if self._value else "Secret(none)"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not pickled.")


class Headers(Mapping[str, str]):
    """Headers of a request, whose values may be keys: only their names are shown.

    Args:
        values: Name → value.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values))

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._values) or 'none'})"
