"""Who answers: a model, where it is, its key, and what may be spent on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ovagent_jupyter.config.secret import Headers, Secret
from ovagent_jupyter.config.values import amount, bad, count, members, set_field
from ovagent_jupyter.errors import ConfigError

OFFLINE = "offline"
"""The model that is no model: the built-in planner answers."""

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How much a model may think; not every model takes every one."""

_PART = re.compile(
    r"""
      (?P<count>\d[\d_]*(?:\.\d+)?) \s* (?P<unit>[km]?) \s* (?P<what>request|token)s?
    | \$ \s* (?P<dollars>\d+(?:\.\d+)?|\.\d+)
    | (?P<amount>\d+(?:\.\d+)?) \s* (?:usd|dollars?)
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
_AS_IN = "Write it as in '5 requests, 200k tokens, $0.50'; any of the three may be left out."
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent; None is no limit."""

    requests: int | None = None
    """Calls of a model."""
    tokens: int | None = None
    """Tokens, read and written."""
    money: float | None = None
    """US dollars; 0 allows what costs nothing."""

    def __post_init__(self) -> None:
        for name in ("requests", "tokens"):
            if getattr(self, name) is not None:
                set_field(self, name, count(name, getattr(self, name), 1))
        if self.money is not None:
            set_field(self, "money", amount("money", self.money))

    @classmethod
    def parse(cls, name: str, text: str) -> Budget:
        """A budget as a user writes it: ``"5 requests, 200k tokens, $0.50"``; empty is no limit.

        Args:
            name: The setting, for errors.
            text: What was written.

        Raises:
            ConfigError: It cannot be read.
        """
        limits: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            found = _PART.fullmatch(part)
            if found is None:
                raise bad(name, text, _AS_IN)
            kind = f"{found['what'].lower()}s" if found["what"] else "money"
            if kind in limits:
                raise bad(name, text, _AS_IN, f"It limits {kind} twice.")
            limits[kind] = _number(found)
        whole = {kind: int(limits[kind]) for kind in ("requests", "tokens") if kind in limits}
        if not all(whole.values()):
            raise bad(name, text, _AS_IN, "A limit of 0 would allow nothing.")
        return cls(**whole, money=limits.get("money"))

    def exceeds(self, other: Budget) -> bool:
        """Whether it allows something that the other does not."""
        return any(
            theirs is not None and (own is None or own > theirs)
            for own, theirs in (
                (self.requests, other.requests),
                (self.tokens, other.tokens),
                (self.money, other.money),
            )
        )

    def __bool__(self) -> bool:
        return (self.requests, self.tokens, self.money) != (None, None, None)

    def __str__(self) -> str:
        parts = [
            f"{limit:,} {word}{'s' if limit != 1 else ''}".replace(",", "_")
            for limit, word in ((self.requests, "request"), (self.tokens, "token"))
            if limit is not None
        ]
        if self.money is not None:
            cents = round(self.money, 2) == self.money
            parts.append(f"${self.money:.2f}" if cents else f"${self.money:f}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class LLMConfig:
    """Who answers."""

    model: str = OFFLINE
    """A model by name: ``claude-…``, ``groq/…``; ``"offline"`` is the built-in planner."""
    api_key: Secret | None = None
    """Its key, and that of backups of the same provider; else their variables are read."""
    endpoint: str = ""
    """Address of an OpenAI-compatible service that has the model, such as ``https://host/v1``."""
    backups: tuple[str, ...] = ()
    """Models that are asked, in order, when it fails."""
    reasoning_effort: str = ""
    """How much it may think: ``none`` to ``max``; empty is its own."""
    max_output_tokens: int | None = None
    """Bound on an answer; None is the model's own."""
    temperature: float | None = None
    """None is the service's own; left out where a model takes none."""
    headers: Mapping[str, str] = field(default_factory=Headers)
    """Sent with every call of the model, and no other's; only their names are shown."""
    key_for: tuple[str, str] | None = None
    """Model and endpoint that key and headers are for, where a notebook names another; no setting.
    """
    budget_turn: Budget = field(default_factory=Budget)
    """What one turn may spend, such as ``"5 requests, 200k tokens, $0.50"``."""
    budget_session: Budget = field(default_factory=Budget)
    """What a session may spend."""
    budget_day: Budget = field(default_factory=Budget)
    """What a day may spend, all sessions together."""

    def __post_init__(self) -> None:
        set_field(self, "model", model_name("model", self.model))
        set_field(self, "api_key", _key(self.api_key))
        set_field(self, "endpoint", address("endpoint", self.endpoint))
        set_field(self, "backups", _backups(self.backups))
        if self.reasoning_effort not in ("", *EFFORTS):
            choices = ", ".join(map(repr, EFFORTS))
            raise bad("reasoning_effort", self.reasoning_effort, f"Use one of {choices}.")
        if self.max_output_tokens is not None:
            value = count("max_output_tokens", self.max_output_tokens, 1)
            set_field(self, "max_output_tokens", value)
        if self.temperature is not None:
            set_field(self, "temperature", amount("temperature", self.temperature, most=2.0))
        set_field(self, "headers", _headers(self.headers))
        for name in ("budget_turn", "budget_session", "budget_day"):
            set_field(self, name, _budget(name, getattr(self, name)))


def model_name(name: str, value: object) -> str:
    """The name of a model: text on one line; a URL has to be one, without a password.

    Spaces may stand in the path of a folder, as in ``mlx//data/my models/small``. Whether the
    model exists is seen when it is asked.

    Raises:
        ConfigError: It is none.
    """
    remedy = "Use the name of a model, such as 'claude-…', 'groq/…' or 'offline'."
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
        raise bad(name, value, remedy)
    if " " in value and ("/" not in value or "://" in value):
        raise bad(name, value, remedy, "Only the path of a folder has spaces in it.")
    if "://" in value:
        address(name, value.partition("#")[0])
    return value


def address(name: str, value: object, *, why: str = "") -> str:
    """The address of a service, without a slash at its end; empty stays empty.

    Args:
        name: What is being read, for errors.
        value: What was given.
        why: Where it comes from, for errors.

    Raises:
        ConfigError: It is no address, or has a password in it.
    """
    remedy = "Write it with its scheme, as in 'https://host/v1' or 'http://localhost:8000/v1'."
    if not isinstance(value, str):
        raise bad(name, value, remedy, why)
    text = value.strip()
    if not text:
        return ""
    if "@" in text.partition("://")[2].partition("/")[0]:
        # Neither shown nor kept: what stands before the @ is a password.
        remedy = "Leave out what stands before the @; give a key as api_key."
        raise ConfigError(f"{name} cannot be used.", why="It has a password.", next_step=remedy)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable or any(map(str.isspace, text)):
        raise bad(name, value, remedy, why)
    text = text.rstrip("/")
    for end in ("/chat/completions", "/responses", "/messages"):
        if text.endswith(end):
            raise bad(name, value, f"Leave out {end!r}: it is added to each call.", why)
    return text


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    from ipaddress import ip_address  # loading the extension needs it not

    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere: 127.example.org
        return False


def _key(value: object) -> Secret | None:
    """The key; an error never shows it."""
    if value is None or isinstance(value, Secret):
        return value or None
    if isinstance(value, str) and not any(map(str.isspace, value.strip())):
        return Secret(value.strip(), "api_key") if value.strip() else None
    raise ConfigError(
        "api_key cannot be used.",
        why="A key is text without spaces.",
        next_step="Copy it again from the page of its provider.",
    )


def _backups(value: object) -> tuple[str, ...]:
    names = members("backups", value, "Use a list of names of models.")
    found = tuple(model_name("backups", name) for name in names)
    if OFFLINE in found:
        raise bad("backups", value, "Leave out 'offline': the planner goes first anyway.")
    return found


def _headers(value: object) -> Headers:
    if value is None or isinstance(value, Headers):
        return value or Headers()
    if not isinstance(value, Mapping):
        remedy = "Use a table of names and texts."
        raise ConfigError("headers cannot be used.", next_step=remedy)
    for name, text in value.items():
        named = isinstance(name, str) and _HEADER.fullmatch(name)
        if not named or not isinstance(text, str) or not text.isprintable():
            raise ConfigError(
                f"The header {name!r} cannot be used." if named else "headers cannot be used.",
                next_step="Use a name of letters, digits and '-', and a text of one line.",
            )
    return Headers(value)


def _budget(name: str, value: object) -> Budget:
    if isinstance(value, Budget):
        return value
    if not isinstance(value, str):
        raise bad(name, value, _AS_IN)
    return Budget.parse(name, value)


def _number(found: re.Match[str]) -> float:
    if found["what"]:
        return float(found["count"].replace("_", "")) * _TIMES[found["unit"].lower()]
    return float(found["dollars"] or found["amount"])
