"""Keeping keys out of our files: known values, known shapes, and fields with telling names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

REDACTED = "[redacted]"

_MIN_LENGTH = 8
"""Shorter values are flags and numbers; replacing them would garble ordinary text."""

_SHORTEST = 7
"""Characters of the shortest text in which something is replaced: a password in an address."""

_KEY_NAME = re.compile(
    r"API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|TOKEN(?!IZ|S)|SECRET|PASSW(OR)?D|PASSPHRASE|_KEY$",
    re.IGNORECASE,
)
"""Names of variables and fields whose values are keys."""

_SHAPES = re.compile(
    r"""
      (?<![A-Za-z0-9]) (?:
          sk-[A-Za-z0-9_-]{16,}                # OpenAI, Anthropic, OpenRouter, DeepSeek
        | AIza[A-Za-z0-9_-]{30,}               # Google
        | (?: gh[opsur]_ | glpat- | hf_ | gsk_ | xai- | pplx- | nvapi- | r8_ | tgp_ | fw_ )
          [A-Za-z0-9_-]{20,}
        | github_pat_[A-Za-z0-9_]{20,}
        | xox[abeprs]-[A-Za-z0-9-]{10,}        # Slack
        | AKIA[A-Z0-9]{16}                     # AWS
        | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}    # JSON web token
      )
    | (?<=://) [^\s/:@]* : [^\s/@]+ (?=@)      # user:password in an address
    """,
    re.VERBOSE,
)

_ASSIGNED = re.compile(
    r"""
    ( (?:api_?key|access_?key|secret(?:_?key)?|token|passw(?:or)?d|passphrase)
      ["']? \s* [=:] \s* ["'] )
    [^"'\s]{8,}
    |
    ( \bBearer \s+ ) [A-Za-z0-9._~+/=-]{16,}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A key written out in code, ``api_key="…"``, or in a header."""


class Redactor:
    """Replaces keys in text and in JSON-able values by ``[redacted]``.

    Args:
        env: Environment whose keys are known by value: variables named like a key, with a
            value of at least 8 characters.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._values: frozenset[str] = frozenset()
        self._known: re.Pattern[str] | None = None
        self.learn(value for name, value in env.items() if _KEY_NAME.search(name))

    def learn(self, keys: Iterable[str]) -> None:
        """Know these too, from now on; what is shorter than a key is passed over."""
        values = self._values | {key for key in keys if len(key) >= _MIN_LENGTH}
        if values != self._values:
            self._values = values
            longest_first = sorted(values, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """The text without keys."""
        if len(text) < _SHORTEST:
            return text
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _ASSIGNED.sub(_keep_name, _SHAPES.sub(REDACTED, text))

    def value(self, value: object) -> object:
        """A copy of a JSON-able value without keys, also in the names of its fields."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._field(name, item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def _field(self, name: object, value: object) -> object:
        if isinstance(value, str) and value and _names_a_key(str(name)):
            return REDACTED
        return self.value(value)


@lru_cache(maxsize=256)
def _names_a_key(name: str) -> bool:
    """Whether a field of that name holds a key; records have few names, again and again."""
    return _KEY_NAME.search(name) is not None


def _keep_name(match: re.Match[str]) -> str:
    return f"{match[1] or match[2]}{REDACTED}"
