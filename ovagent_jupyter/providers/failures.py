"""Every way in which a model service fails, as one ``ProviderError`` a reader understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ovagent_jupyter.errors import ProviderError, ProviderFault
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.fault_words import fault_of_code, fault_of_text, more_special
from ovagent_jupyter.providers.remedies import address_remedy, remedy_by_settings, sends_key, usual
from ovagent_jupyter.providers.retry_after import read_retry_after
from ovagent_jupyter.storage.redaction import REDACTED, Redactor

_QUOTED = 300
"""Characters of a service's own words that are shown."""

_SHORTEST_KEY = 6
"""Characters of a value that is looked for; a shorter one is a word like any other."""

_NEVER_AGAIN = frozenset({400, 401, 402, 403, 404, 413, 422})
"""Statuses with which the same call fails again."""

_TRY_AGAIN: frozenset[ProviderFault] = frozenset(
    {"unreachable", "timeout", "rate_limited", "overloaded", "server", "interrupted"}
)

_BY_STATUS: dict[int, ProviderFault] = {
    401: "key", 402: "payment", 403: "permission", 404: "unknown_model", 407: "unreachable",
    408: "timeout", 409: "server", 413: "too_large", 425: "server", 429: "rate_limited",
    431: "too_large", 451: "policy", 498: "overloaded", 499: "interrupted", 503: "overloaded",
    529: "overloaded",
}  # fmt: skip

_WHAT: dict[ProviderFault, str] = {
    "unreachable": "{name} cannot be reached.",
    "timeout": "{name} did not answer in time.",
    "rate_limited": "{name} has had too many requests from this key.",
    "overloaded": "{name} is overloaded.",
    "server": "{name} failed.",
    "key": "{name} does not accept the key.",
    "permission": "{name} does not allow this.",
    "payment": "The account at {name} has no credit left.",
    "unknown_model": "{name} does not know the model {model!r}.",
    "bad_request": "{name} does not accept the request.",
    "context_full": "The conversation is longer than {model} can read.",
    "too_large": "The request is larger than {name} takes.",
    "policy": "{name} refused the request by one of its rules.",
    "malformed": "{name} did not give an answer that can be read.",
    "interrupted": "{name} broke the connection off.",
    "busy": "Too many calls to {name} are under way.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a service said of its failure."""

    message: str = ""
    codes: tuple[str, ...] = ()
    """Its ``code``, ``type`` and ``status``, as far as they are words."""
    status: int | None = None
    """A status that is written in the error instead of the answer's head."""
    request_id: str = ""
    text: str = ""
    """All of it."""
    page: bool = False
    """Whether it is a web page."""


def read_error(body: object) -> Told:
    """What a decoded error says: an object, a list of them, a string, or a page."""
    if isinstance(body, bytes | bytearray):
        return _read_text(bytes(body[:20_000]).decode("utf-8", "replace"))
    if isinstance(body, str):
        return _read_text(body)
    if isinstance(body, list | tuple):
        return read_error(body[0]) if body else Told()
    if isinstance(body, Mapping):
        return _read_mapping(body)
    return Told(message="" if body is None else str(body), text="" if body is None else str(body))


def _read_text(text: str) -> Told:
    start = text.lstrip("\ufeff \r\n\t")[:200]
    if start[:1] in {"{", "["}:
        from jiter import from_json

        try:
            return read_error(from_json(text.lstrip("\ufeff").encode("utf-8", "replace")))
        except ValueError:
            return Told(message=text.strip(), text=text)
    if re.match(r"(?is)<(!doctype|html|\?xml|head|body)", start):
        title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text)
        return Told(message=f"a web page: {title[1].strip()}" if title else "a web page", page=True)
    return Told(message=text.strip(), text=text)


def _read_mapping(body: Mapping[object, object]) -> Told:
    error = body.get("error")
    if isinstance(error, list):
        error = error[0] if error else None
    inner = error if isinstance(error, Mapping) else body.get("base_resp")
    inner = inner if isinstance(inner, Mapping) else body
    metadata = inner.get("metadata")
    raw = str(metadata.get("raw") or "") if isinstance(metadata, Mapping) else ""
    message = (
        error
        if isinstance(error, str)
        else _first_text(inner, "message", "msg", "detail", "status_msg")
    )
    if raw and raw not in message:
        message = f"{message}: {raw}"
    fields = [inner.get(name) for name in ("code", "type", "status", "error_code", "error_type")]
    if inner is not body:
        fields += [body.get("code"), body.get("type"), _reason(inner)]
    if isinstance(error, str):
        fields.append(error)
    status = next(
        (code for code in map(_status, [*fields, inner.get("status_code")]) if code), None
    )
    return Told(
        message=message,
        codes=tuple(each.lower() for each in fields if isinstance(each, str) and each),
        status=status,
        request_id=str(body.get("request_id") or inner.get("request_id") or ""),
        text=str(dict(body)),
    )


def _first_text(error: Mapping[object, object], *names: str) -> str:
    for name in names:
        value = error.get(name)
        if value:
            return value if isinstance(value, str) else str(value)
    return ""


def _reason(error: Mapping[object, object]) -> object:
    """Azure's inner code, or Google's reason."""
    inner = error.get("innererror")
    if isinstance(inner, Mapping):
        return inner.get("code")
    details = error.get("details")
    first = details[0] if isinstance(details, list) and details else None
    return first.get("reason") if isinstance(first, Mapping) else None


def _status(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and 400 <= value < 600:  # noqa: PLR2004 - statuses of failures
        return value
    return None


# -- from what was told to an error ------------------------------------------------------------


def failure_of_answer(
    backend: Backend,
    body: object,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    default: ProviderFault = "server",
) -> ProviderError:
    """The failure that a service reports: an error status, or an error where an answer should be.

    Args:
        backend: Who was asked.
        body: Its words: bytes, text, or decoded.
        status: Of the answer; None where it says success, or the error comes within a stream.
        headers: Of the answer.
        default: What it is where neither status nor words tell.
    """
    told = read_error(body)
    head = {name.lower(): value for name, value in (headers or {}).items()}
    status = status if status is not None else told.status
    fault = _fault(status, told, default)
    wait = read_retry_after(head, told.text)
    failure = make_failure(
        backend, fault, why=told.message, status=status, retry_after=wait, page=told.page
    )
    failure.request_id = told.request_id or next(
        (head[name] for name in ("x-request-id", "request-id", "cf-ray") if head.get(name)), ""
    )
    return failure


def _fault(status: int | None, told: Told, default: ProviderFault) -> ProviderFault:
    told_fault = more_special(fault_of_code(told.codes), fault_of_text(told.message, status))
    if told_fault is not None and told_fault != "bad_request":
        return told_fault
    if status is None:
        return told_fault or ("malformed" if told.page else default)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return "server" if status >= 500 else "bad_request"  # noqa: PLR2004 - the service's own fault


def make_failure(
    backend: Backend,
    fault: ProviderFault,
    *,
    why: str = "",
    status: int | None = None,
    retry_after: float | None = None,
    page: bool = False,
    next_step: str = "",
) -> ProviderError:
    """An error in words a reader understands, without a key in them."""
    names = {
        "name": backend.provider.display_name or backend.provider.id,
        "model": backend.model.id,
    }
    again = fault in _TRY_AGAIN and status not in _NEVER_AGAIN
    url = quoted(backend, backend.url)
    what = _WHAT.get(fault, "{name} failed.")
    if fault == "key" and not sends_key(backend):
        what = "{name} wants a key, and none was sent."
    next_step = next_step or remedy_by_settings(backend, fault, url)
    looks_wrong = page or (status in {404, 405} and backend.model.id not in why)
    if looks_wrong and fault in {"malformed", "unknown_model", "bad_request", "permission"}:
        next_step = next_step or address_remedy(url, page=page)
    return ProviderError(
        what.format(**names),
        provider=backend.provider.id,
        status_code=status,
        retryable=again,
        fault=fault,
        retry_after=retry_after,
        why=quoted(backend, why),
        next_step=next_step or usual(backend, fault),
    )


def quoted(backend: Backend, text: str) -> str:
    """A service's own words: without keys, on one line, and not too long."""
    values = {backend.key.reveal(), *backend.headers.values()}
    for value in sorted(values, key=len, reverse=True):
        for form in {value, value.strip(), value.removeprefix("Bearer ")}:
            if len(form) >= _SHORTEST_KEY:
                text = text.replace(form, REDACTED)
    text = " ".join(_REDACTOR.text(text[: _QUOTED * 20]).split())
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"


_REDACTOR = Redactor({})


# -- from an exception -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an exception of the way to a service means."""

    fault: ProviderFault
    why: str = ""
    next_step: str = ""
    again: bool | None = None


_BY_NAME: dict[str, _Kind] = {
    "ConnectTimeout": _Kind("unreachable", "No connection within {connect:g} s."),
    "PoolTimeout": _Kind("busy", "No connection was free.", again=True),
    "ReadTimeout": _Kind("timeout"),
    "WriteTimeout": _Kind("timeout"),
    "SSLError": _Kind("unreachable", again=False),
    "ProxyError": _Kind("unreachable", next_step="Check HTTPS_PROXY and NO_PROXY."),
    "UnsupportedProtocol": _Kind("bad_request", next_step="Write the base URL with https://."),
    "InvalidURL": _Kind("bad_request", next_step="Check the base URL."),
    "TooManyRedirects": _Kind("bad_request", next_step="Check the base URL."),
    "LocalProtocolError": _Kind("bad_request", next_step="Check the key and the headers."),
    "DecodingError": _Kind("malformed", again=True),
    "ConnectError": _Kind("unreachable"),
    "RemoteProtocolError": _Kind("interrupted"),
    "ReadError": _Kind("interrupted"),
    "WriteError": _Kind("interrupted"),
    "CloseError": _Kind("interrupted"),
    "BrokenResourceError": _Kind("interrupted"),
    "ClosedResourceError": _Kind("interrupted"),
    "EndOfStream": _Kind("interrupted"),
    "EOFError": _Kind("interrupted"),
    "JSONDecodeError": _Kind("malformed", again=True),
    "APIResponseValidationError": _Kind("malformed", again=True),
    "ConnectionRefusedError": _Kind("unreachable"),
    "ConnectionError": _Kind("interrupted"),
    "gaierror": _Kind("unreachable"),
    "UnicodeError": _Kind("malformed", again=True),
}
"""By the name of the class: the SDKs and both HTTP libraries call them the same."""

_BY_PARENT: dict[str, _Kind] = {
    "APITimeoutError": _Kind("timeout"),
    "TimeoutError": _Kind("timeout"),
    "APIConnectionError": _Kind("unreachable"),
    "TransportError": _Kind("unreachable"),
    "OSError": _Kind("unreachable"),
    "ValueError": _Kind("malformed", again=True),
}
"""Of classes that say little; what they come from may say more."""

_REMEDIES = (
    (re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify", re.IGNORECASE),
     "Its certificate is not trusted here: set SSL_CERT_FILE to your network's CA.", False),
    (re.compile(r"not known|getaddrinfo|No address associated|nodename nor|resolution",
                re.IGNORECASE),
     "Its host name is not known: check the base URL and the network.", True),
    (re.compile(r"refused|ECONNREFUSED|connection attempts failed", re.IGNORECASE),
     "Nothing listens there: start the server, or check the base URL.", True),
)  # fmt: skip


def failure_of_exception(backend: Backend, error: BaseException) -> ProviderError:
    """The failure behind an exception of an SDK, its HTTP library or the system."""
    if isinstance(error, ProviderError):
        error.provider = error.provider or backend.provider.id
        return error
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None)
    if response is not None and isinstance(status, int):
        body = getattr(error, "body", None)
        headers = dict(getattr(response, "headers", {}))
        return failure_of_answer(backend, body, status=status, headers=headers)
    chain = _causes(error)
    if isinstance(getattr(error, "body", None), Mapping | list):
        return failure_of_answer(backend, error.body)  # type: ignore[attr-defined]
    kind = _kind(chain, _BY_NAME) or _kind(chain, _BY_PARENT) or _Kind("other")
    said = next((str(each) for each in reversed(chain) if str(each)), type(error).__name__)
    remedy, again = kind.next_step, kind.again
    if kind.fault == "unreachable":
        remedy, again = _remedy(" ".join(map(str, chain)), kind)
    failure = make_failure(
        backend,
        kind.fault,
        why=kind.why.format(connect=backend.timeouts.connect) or said,
        next_step=remedy,
    )
    failure.retryable = failure.retryable if again is None else again
    return failure


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what it came from, the first cause last."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return chain


def _kind(chain: list[BaseException], table: Mapping[str, _Kind]) -> _Kind | None:
    names = (base.__name__ for error in chain for base in type(error).__mro__)
    return next((table[name] for name in names if name in table), None)


def _remedy(text: str, kind: _Kind) -> tuple[str, bool | None]:
    for pattern, remedy, again in _REMEDIES:
        if pattern.search(text):
            return kind.next_step or remedy, again
    return kind.next_step, kind.again
