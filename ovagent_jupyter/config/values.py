"""What a value must look like: numbers, sizes, seconds, folders; and the error for others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ovagent_jupyter.errors import ConfigError

MIB = 1 << 20
GIB = 1 << 30

_SIZE = re.compile(
    r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII
)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def bad(name: str, value: object, remedy: str, why: str = "") -> ConfigError:
    """The error for a value: the setting, the value and what to write instead."""
    return ConfigError(f"{name}={value!r} cannot be used.", why=why, next_step=remedy)


def require_bool(name: str, value: object) -> None:
    """Check that it is True or False.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(value, bool):
        raise bad(name, value, "Use True or False.")


def count(name: str, value: object, least: int = 0, why: str = "") -> int:
    """A whole number, ``least`` or more.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad(name, value, f"Use a whole number, {least} or more.")
    if value < least:
        raise bad(name, value, f"Use a whole number, {least} or more.", why)
    return value


def seconds(name: str, value: object, least: float = 0.0, why: str = "") -> float:
    """A number of seconds above 0, at least ``least``.

    Raises:
        ConfigError: It is none.
    """
    remedy = f"Use {least:g} or more seconds." if least else "Use a number of seconds above 0."
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad(name, value, remedy)
    if not (value > 0 and math.isfinite(value)):
        raise bad(name, value, remedy)
    if value < least:
        raise bad(name, value, remedy, why)
    return float(value)


def amount(name: str, value: object, *, most: float = math.inf) -> float:
    """A number, 0 or more, up to ``most``.

    Raises:
        ConfigError: It is none.
    """
    limit = "0 or more" if math.isinf(most) else f"0 to {most:g}"
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (0 <= value <= most and math.isfinite(value))
    ):
        raise bad(name, value, f"Use a number, {limit}.")
    return float(value)


def size(name: str, value: object, least: int, why: str = "") -> int:
    """A number of bytes, also as text: ``"8G"``, ``"512M"``, ``"1.5 GiB"`` (powers of 1024).

    Raises:
        ConfigError: It is none, or below ``least``.
    """
    remedy = f"Use a size of {written(least)} or more, such as '8G'."
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise bad(name, value, remedy)
        amount = float(found["number"]) * 1024 ** _POWER[found["unit"].lower()]
        bytes_ = int(amount) if math.isfinite(amount) else -1
    elif isinstance(value, bool) or not isinstance(value, int):
        raise bad(name, value, remedy)
    else:
        bytes_ = value
    if bytes_ < least:
        raise bad(name, value, remedy, why)
    return bytes_


def written(bytes_: int) -> str:
    """A size as settings write it: ``512M``, ``1.5G``."""
    for unit, whole in (("G", GIB), ("M", MIB)):
        if bytes_ >= whole:
            return f"{bytes_ / whole:.4g}{unit}"
    return str(bytes_)


def directory(name: str, value: object) -> Path | None:
    """The absolute path of a folder, which need not exist; None stays None.

    Raises:
        ConfigError: It is no path, or the path of a file.
    """
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value):
        raise bad(name, value, "Use the path of a directory.")
    path = Path(value).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise bad(name, str(value), "It is a file; use the path of a directory.")
    return path


def members(name: str, value: object, remedy: str) -> tuple[object, ...]:
    """The members of a list; one text or path is a list of one.

    Raises:
        ConfigError: It is no list.
    """
    if isinstance(value, str | Path):
        return (value,)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise bad(name, value, remedy)
    return tuple(value)


def set_field(config: object, name: str, value: object) -> None:
    """Normalise a field of a frozen dataclass while it is being built."""
    object.__setattr__(config, name, value)


def weights(name: str, value: object) -> dict[str, float]:
    """Names with numbers, 0 or more.

    Raises:
        ConfigError: It is none.
    """
    remedy = "Use a table of names with a number each, 0 or more."
    if not isinstance(value, Mapping):
        raise bad(name, value, remedy)
    for key, number in value.items():
        whole = isinstance(number, int | float) and not isinstance(number, bool)
        if not isinstance(key, str) or not whole or not math.isfinite(number) or number < 0:
            raise bad(name, {key: number}, remedy)
    return {key: float(number) for key, number in value.items()}


def pair_of_amounts(value: object) -> tuple[float, ...]:
    """Two amounts of money; empty where they are none."""
    if not isinstance(value, list | tuple) or len(value) != len(("read", "written")):
        return ()
    fits = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return tuple(map(float, value)) if fits and all(0 <= v < math.inf for v in value) else ()
