"""Dates, times and time zones."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from importlib import import_module
from typing import Any, cast

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    LARGEST,
    Node,
    field,
    flag,
    malformed,
    number,
    text,
    unsendable,
)

_ZONE = re.compile(r"[A-Za-z0-9_+\-]{1,32}(/[A-Za-z0-9_+\-]{1,32}){0,3}")

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a date, a time or a zone, or None when it is none of them."""
    kind = type(value)
    if kind is datetime:
        return _encode_datetime(encoder, cast(datetime, value))
    if kind is date:
        return {"t": "date", "v": cast(date, value).isoformat()}
    if kind is time:
        clock = cast(time, value)
        naive = clock.replace(tzinfo=None).isoformat()
        return {"t": "time", "v": naive, "z": _encode_zone(clock.tzinfo), "f": clock.fold == 1}
    if kind is timedelta:
        span = cast(timedelta, value)
        return {"t": "timedelta", "d": span.days, "s": span.seconds, "u": span.microseconds}
    if isinstance(value, tzinfo):
        return encode_zone(value)
    return None


def _encode_datetime(_: Encoder, value: datetime) -> Node:
    zone = _encode_zone(value.tzinfo)
    fixed = value
    if zone is not None and zone["k"] == "pytz":
        # pytz keeps the offset in the zone object, so the moment travels in UTC.
        fixed = value.astimezone(UTC)
    naive = fixed.replace(tzinfo=None, fold=0).isoformat()
    return {"t": "datetime", "v": naive, "z": zone, "f": value.fold == 1}


def _encode_zone(zone: tzinfo | None) -> Node:
    return None if zone is None else encode_zone(zone)


def encode_zone(zone: tzinfo) -> Node:
    """The node of a time zone."""
    if type(zone) is timezone:
        span = zone.utcoffset(None)
        seconds = span // timedelta(seconds=1)
        if zone == timezone(timedelta(seconds=seconds)) and str(zone).startswith("UTC"):
            return {"t": "zone", "k": "fixed", "v": seconds}
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return {"t": "zone", "k": "zoneinfo", "v": zone.key}
    name = getattr(zone, "zone", None)
    if type(zone).__module__.partition(".")[0] == "pytz" and isinstance(name, str):
        return {"t": "zone", "k": "pytz", "v": name}
    raise unsendable(f"the time zone {zone!r} has no typed form")


def decode_zone(node: Node) -> tzinfo:
    """The time zone of a node."""
    kind = text(node, "k")
    if kind == "fixed":
        seconds = number(node, "v", -86399, 86399)
        return timezone(timedelta(seconds=seconds)) if seconds else UTC
    name = text(node, "v")
    if not _ZONE.fullmatch(name):
        raise malformed("a time zone has an impossible name")
    if kind == "zoneinfo":
        return zoneinfo.ZoneInfo(name)
    if kind == "pytz":
        return cast(tzinfo, import_module("pytz").timezone(name))
    raise malformed("a time zone is of an unknown kind")


def can_show(first: int, last: int, unit: str, zone: tzinfo) -> bool:
    """Whether pandas can show moments in a zone: it reads beyond its table of a zone of pytz's.

    Args:
        first: The earliest moment, in units since 1970.
        last: The latest.
        unit: ``s``, ``ms``, ``us`` or ``ns``.
        zone: The zone.
    """
    return type(zone).__module__.partition(".")[0] != "pytz" or in_table(first, last, unit)


def in_table(first: int, last: int, unit: str) -> bool:
    """Whether moments lie in the years 1678 to 2262, of which pandas knows the zones of pytz."""
    furthest = LARGEST // (1_000_000_000 // _PER_SECOND[unit])
    return -furthest <= first and last <= furthest


def _read_datetime(_: Decoder, node: Node) -> datetime:
    naive = datetime.fromisoformat(text(node, "v"))
    zone = field(node, "z")
    if naive.tzinfo is not None:
        raise malformed("a date brings two time zones")
    if zone is None:
        return naive.replace(fold=int(flag(node, "f")))
    if text(zone, "k") == "pytz":
        return naive.replace(tzinfo=UTC).astimezone(decode_zone(zone))
    return naive.replace(tzinfo=decode_zone(zone), fold=int(flag(node, "f")))


def _read_date(_: Decoder, node: Node) -> date:
    return date.fromisoformat(text(node, "v"))


def _read_time(_: Decoder, node: Node) -> time:
    zone = field(node, "z")
    naive = time.fromisoformat(text(node, "v"))
    return naive.replace(tzinfo=zone and decode_zone(zone), fold=int(flag(node, "f")))


def _read_timedelta(_: Decoder, node: Node) -> timedelta:
    days = number(node, "d", -999_999_999, 999_999_999)
    return timedelta(days, number(node, "s", 0, 86400), number(node, "u", 0, LARGEST))


def _read_zone(_: Decoder, node: Node) -> tzinfo:
    return decode_zone(node)


DECODERS: dict[str, Callable[[Decoder, Node], Any]] = {
    "datetime": _read_datetime,
    "date": _read_date,
    "time": _read_time,
    "timedelta": _read_timedelta,
    "zone": _read_zone,
}
