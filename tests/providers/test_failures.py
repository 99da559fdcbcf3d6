"""Every way to fail is one of our faults, told to a reader, and without a key."""

from __future__ import annotations

import socket
import ssl
import traceback
from datetime import UTC, datetime
from typing import Any

import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest

from ovagent_jupyter.errors import ProviderError, ProviderFault
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.failures import failure_of_answer, failure_of_exception, quoted
from ovagent_jupyter.providers.resolve import resolve_backend
from ovagent_jupyter.providers.retry_after import read_retry_after
from tests.providers.asking import KEY, backend_at

BACKEND = backend_at("https://api.acme.example/v1")


def openai_error(message: str, code: str | None = None, kind: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": kind, "param": None}}


ANSWERS: list[tuple[int | None, object, ProviderFault, bool]] = [
    # by status alone
    (400, None, "bad_request", False),
    (401, {}, "key", False),
    (402, {}, "payment", False),
    (403, {}, "permission", False),
    (404, {}, "unknown_model", False),
    (405, {}, "bad_request", False),
    (408, {}, "timeout", True),
    (409, {}, "server", True),
    (413, {}, "too_large", False),
    (415, {}, "bad_request", False),
    (422, {"detail": [{"msg": "field required"}]}, "bad_request", False),
    (429, {}, "rate_limited", True),
    (451, {}, "policy", False),
    (498, {}, "overloaded", True),
    (500, "oops", "server", True),
    (502, b"<html><title>Bad gateway</title></html>", "server", True),
    (503, {}, "overloaded", True),
    (504, {}, "server", True),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
     "overloaded", True),
    # by the words of the service
    (429, openai_error("You exceeded your current quota", "insufficient_quota"), "payment", False),
    (429, openai_error("Limit 3. Please try again in 20s.", "rate_limit_exceeded", "requests"),
     "rate_limited", True),
    (429, openai_error("Request too large for model gpt-x on tokens per min (TPM): Limit 30000, "
                       "Requested 40000.", "rate_limit_exceeded", "tokens"), "too_large", False),
    (400, openai_error("This model's maximum context length is 128000 tokens.",
                       "context_length_exceeded"), "context_full", False),
    (400, {"type": "error", "error": {"type": "invalid_request_error",
                                      "message": "prompt is too long: 210000 tokens > 200000"}},
     "context_full", False),
    (400, {"type": "error", "error": {"type": "invalid_request_error",
                                      "message": "Your credit balance is too low to access"}},
     "payment", False),
    (400, {"error": {"code": 400, "message": "the request exceeds the available context size",
                     "type": "exceed_context_size_error"}}, "context_full", False),
    (400, [{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum "
                      "number of tokens allowed (1048575).", "status": "INVALID_ARGUMENT"}}],
     "context_full", False),
    (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                      "status": "INVALID_ARGUMENT"}}], "key", False),
    (429, [{"error": {"code": 429, "message": "You exceeded your current quota, please check your "
                      "plan and billing details.", "status": "RESOURCE_EXHAUSTED",
                      "details": [{"retryDelay": "37s"}]}}], "rate_limited", True),
    (404, openai_error("The model `m` does not exist", "model_not_found"), "unknown_model", False),
    (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: m"}},
     "unknown_model", False),
    (400, openai_error("m is not a valid model ID", None), "unknown_model", False),
    (400, openai_error("blocked", "content_filter"), "policy", False),
    (400, {"error": {"message": "The response was filtered", "code": "content_filter",
                     "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "policy", False),
    (400, openai_error("Invalid prompt: flagged as potentially violating our usage policy.",
                       "invalid_prompt"), "policy", False),
    (403, {"error": {"code": 403, "message": "Your input was flagged",
                     "metadata": {"reasons": ["x"]}}}, "policy", False),
    (None, openai_error("not this", "bio_policy"), "policy", False),
    (None, {"error": {"type": "overloaded_error", "message": "Overloaded"}, "type": "error"},
     "overloaded", True),
    (None, {"type": "error", "code": "rate_limit_exceeded", "message": "slow"},
     "rate_limited", True),
    (None, {"error": {"code": 502, "message": "Upstream error"}}, "server", True),
    (None, {"error": {"code": 401, "message": "No auth"}}, "key", False),
    (None, {"error": "the model crashed"}, "server", True),
    (None, {"error": {"message": "?", "type": "api_error"}}, "server", True),
    (500, openai_error("maximum context length is 8192"), "context_full", False),
    (402, {"error": {"message": "Insufficient Balance"}}, "payment", False),
    (200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "bad_request", False),
    (400, "not json {", "bad_request", False),
    (400, b"\xff\xfe", "bad_request", False),
    (400, [], "bad_request", False),
    (400, {"error": None}, "bad_request", False),
    (400, {"error": []}, "bad_request", False),
    (400, {"message": {"deep": 1}}, "bad_request", False),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "fault", "again"), ANSWERS)
def test_answers(status: int | None, body: object, fault: str, again: bool) -> None:
    error = failure_of_answer(BACKEND, body, status=status)
    assert (error.fault, error.retryable) == (fault, again)
    assert error.what
    assert error.next_step
    assert error.provider == "acme"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
@pytest.mark.parametrize("words", ["overloaded_error", "server_error", "rate_limit_exceeded", "x"])
def test_what_is_wrong_with_the_request_is_never_tried_again(status: int, words: str) -> None:
    body = openai_error("try again in 1s", words)
    assert not failure_of_answer(BACKEND, body, status=status).retryable


def test_a_web_page_says_that_the_address_is_wrong() -> None:
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head>secret body</html>"
    error = failure_of_answer(backend_at("https://acme.example"), page, default="malformed")
    assert error.fault == "malformed"
    assert error.why == "a web page: Sign in"
    assert "https://acme.example" in error.next_step
    assert "/v1" in error.next_step


def test_a_path_that_is_not_there_is_not_blamed_on_the_model() -> None:
    error = failure_of_answer(backend_at("https://acme.example"), "404 page not found", status=404)
    assert "base URL" in error.next_step


def test_the_request_is_named() -> None:
    error = failure_of_answer(BACKEND, {}, status=500, headers={"X-Request-Id": "r1"})
    assert (error.request_id, error.status_code) == ("r1", 500)
    assert failure_of_answer(BACKEND, {"request_id": "r2"}, status=500).request_id == "r2"


def test_a_key_that_was_not_sent_is_not_to_be_checked() -> None:
    nobody = resolve_backend("m", endpoint="http://models.lab.example/v1", environ={})
    error = failure_of_answer(nobody, {"error": "Unauthorized"}, status=401)
    assert error.what.endswith("wants a key, and none was sent.")
    assert error.next_step == "Set OVAGENT_API_KEY."
    ollama = resolve_backend("ollama/qwen3", environ={})
    error = failure_of_answer(ollama, {}, status=401)
    assert error.next_step == "Set OLLAMA_API_KEY or OVAGENT_API_KEY."
    environ = {"ANTHROPIC_AUTH_TOKEN": "planted-token"}
    token = resolve_backend("claude-opus-5-5", environ=environ)
    error = failure_of_answer(token, {}, status=401)
    assert error.next_step == "Check the key in ANTHROPIC_AUTH_TOKEN; `doctor live` tests it."
    assert "none was sent" not in failure_of_answer(BACKEND, {}, status=401).what


@pytest.mark.parametrize(
    ("model", "owner"), [("mlx//data/tiny", "MLX"), ("claude-opus-5-5", "Anthropic")]
)
def test_the_endpoint_is_told_that_caught_a_model_of_another(model: str, owner: str) -> None:
    lab = "http://models.lab.example/v1"
    caught = resolve_backend(model, endpoint=lab, environ={"OVAGENT_ENDPOINT": f"{lab}/"})
    for body in ({}, openai_error("does not exist", "model_not_found")):
        error = failure_of_answer(caught, body, status=404)
        assert error.next_step.startswith("The setting endpoint (from OVAGENT_ENDPOINT)")
        assert lab in error.next_step
        assert owner in error.next_step
    elsewhere = resolve_backend(model, endpoint=lab, environ={})
    assert "from config.toml" in failure_of_answer(elsewhere, {}, status=404).next_step
    refused = failure_of_exception(elsewhere, ConnectionRefusedError("nobody"))
    assert refused.fault == "unreachable"
    own = resolve_backend("lab-model", endpoint=lab, environ={})
    body = openai_error("lab-model does not exist", "model_not_found")
    assert "`models`" in failure_of_answer(own, body, status=404).next_step


def test_a_model_that_is_not_known_is_told_with_the_nearest() -> None:
    backend = resolve_backend("claude-sonet-5-5", environ={"ANTHROPIC_API_KEY": KEY})
    body = {"error": {"type": "not_found_error", "message": "model: claude-sonet-5-5"}}
    error = failure_of_answer(backend, body, status=404)
    assert error.next_step.startswith("Did you mean 'claude-sonnet-5-5'?")


# -- when to try again ----------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(("headers", "text", "seconds"), [
    ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
    ({"Retry-After": "9"}, "try again in 1s", 9.0),
    ({"retry-after": "0.25"}, "", 0.25),
    ({"retry-after": "-3"}, "", 0.0),
    ({"retry-after": "nan"}, "", None),
    ({"retry-after": "inf"}, "try again in 2s", 2.0),
    ({"retry-after": "soon"}, "", None),
    ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, "", 30.0),
    ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, "", 0.0),
    # The service's clock counts, not ours: here it is an hour behind.
    ({"retry-after": "Sat, 21 Nov 2026 11:00:30 GMT", "date": "Sat, 21 Nov 2026 11:00:00 GMT"},
     "", 30.0),
    ({}, "Please try again in 1.2s.", 1.2),
    ({}, "Please try again in 20ms.", 0.02),
    ({}, "try again in 6m0.5s", 360.5),
    ({}, "try again in 1h2m", 3720.0),
    ({}, "Please retry after 26 seconds.", 26.0),
    ({}, "retry in 2 minutes", 120.0),
    ({}, "try again after 100 milliseconds", 0.1),
    ({}, "{'retryDelay': '37s'}", 37.0),
    ({}, "You have 3 tokens", None),
    ({}, "try again later", None),
])  # fmt: skip
def test_retry_after(headers: dict[str, str], text: str, seconds: float | None) -> None:
    assert read_retry_after(headers, text, NOW) == pytest.approx(seconds)


def test_the_wait_is_found_in_an_answer() -> None:
    google = [{"error": {"code": 429, "message": "quota", "details": [{"retryDelay": "37s"}]}}]
    assert failure_of_answer(BACKEND, google, status=429).retry_after == 37.0
    head = {"retry-after": "5"}
    assert failure_of_answer(BACKEND, {}, status=503, headers=head).retry_after == 5.0


# -- exceptions -----------------------------------------------------------------------------------

REQUEST = httpx2.Request("POST", "https://api.acme.example/v1", headers={"authorization": KEY})


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def status_error(kind: Any, status: int, body: object, **headers: str) -> BaseException:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    error: BaseException = kind(f"Error code: {status} - {body}", response=response, body=body)
    return error


OPENAI_TIMEOUT = openai.APITimeoutError(request=REQUEST)
EXCEPTIONS: list[tuple[BaseException, ProviderFault, bool]] = [
    (caused(openai.APITimeoutError(request=REQUEST),
            caused(httpx2.ConnectTimeout(""), TimeoutError())), "unreachable", True),
    (caused(openai.APITimeoutError(request=REQUEST), httpx2.ReadTimeout("")), "timeout", True),
    (OPENAI_TIMEOUT, "timeout", True),
    (caused(openai.APIConnectionError(request=REQUEST),
            httpx2.ConnectError("[Errno -2] Name or service not known")), "unreachable", True),
    (caused(openai.APIConnectionError(request=REQUEST),
            caused(httpx2.ConnectError("all connection attempts failed"),
                   ConnectionRefusedError(111, "Connection refused"))), "unreachable", True),
    (caused(openai.APIConnectionError(request=REQUEST),
            caused(httpx2.ConnectError("x"), ssl.SSLCertVerificationError(
                1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"))),
     "unreachable", False),
    (caused(openai.APIConnectionError(request=REQUEST),
            httpx2.RemoteProtocolError("Server disconnected")), "interrupted", True),
    (caused(openai.APIConnectionError(request=REQUEST), httpx2.ProxyError("407")),
     "unreachable", True),
    (httpx2.RemoteProtocolError("peer closed connection"), "interrupted", True),
    (httpx.ReadError(""), "interrupted", True),
    (httpx.ConnectTimeout(""), "unreachable", True),
    (httpx2.PoolTimeout(""), "busy", True),
    (httpx2.DecodingError("bad gzip"), "malformed", True),
    (httpx2.UnsupportedProtocol("no scheme"), "bad_request", False),
    (httpx2.InvalidURL("bad"), "bad_request", False),
    (TimeoutError("Nothing came for 5 s."), "timeout", True),
    (ConnectionResetError(104, "reset"), "interrupted", True),
    (anyio.BrokenResourceError(), "interrupted", True),
    (EOFError(), "interrupted", True),
    (ConnectionRefusedError(111, "refused"), "unreachable", True),
    (socket.gaierror(-2, "Name or service not known"), "unreachable", True),
    (status_error(openai.RateLimitError, 429, openai_error("slow")["error"]), "rate_limited", True),
    (status_error(openai.AuthenticationError, 401, None), "key", False),
    (status_error(openai.BadRequestError, 400, {"code": "context_length_exceeded"}),
     "context_full", False),
    (status_error(openai.InternalServerError, 500, "<html></html>"), "server", True),
    (status_error(anthropic.RateLimitError, 429,
                  {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}),
     "rate_limited", True),
    (status_error(anthropic.InternalServerError, 529,
                  {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}),
     "overloaded", True),
    (caused(anthropic.APIConnectionError(request=REQUEST), httpx2.ConnectError("refused")),
     "unreachable", True),
    (openai.APIError("failed", REQUEST, body={"code": "server_error", "message": "failed"}),
     "server", True),
    (openai.OpenAIError("something new"), "other", False),
    (RuntimeError("a bug"), "other", False),
]  # fmt: skip


@pytest.mark.parametrize(("error", "fault", "again"), EXCEPTIONS)
def test_exceptions(error: BaseException, fault: str, again: bool) -> None:
    failure = failure_of_exception(BACKEND, error)
    assert (failure.fault, failure.retryable) == (fault, again)
    assert failure.what
    assert KEY not in str(failure)


@pytest.mark.parametrize("sdk", [openai, anthropic])
def test_every_exception_of_an_sdk_is_one_of_ours(sdk: Any) -> None:
    kinds = [each for each in list(vars(sdk).values()) if isinstance(each, type)]
    # OAuthError is made by the SDK's own sign-in alone, which is not used.
    kinds = [k for k in kinds if issubclass(k, sdk.APIStatusError) and k.__name__ != "OAuthError"]
    assert len(kinds) > 6
    for kind in kinds:
        status = getattr(kind, "status_code", 418)
        status = status if isinstance(status, int) else 418
        failure = failure_of_exception(BACKEND, status_error(kind, status, {"error": "x"}))
        assert failure.status_code == status
        assert failure.fault != "other"


def test_remedies() -> None:
    def of(error: BaseException) -> str:
        return failure_of_exception(BACKEND, error).next_step

    assert "SSL_CERT_FILE" in of(httpx2.ConnectError("CERTIFICATE_VERIFY_FAILED"))
    assert "host name" in of(httpx2.ConnectError("[Errno -2] Name or service not known"))
    assert "start the server" in of(httpx2.ConnectError("Connection refused"))
    assert "HTTPS_PROXY" in of(httpx2.ProxyError("407"))
    assert "ACME_API_KEY" in of(status_error(openai.AuthenticationError, 401, None))


def test_our_own_failures_pass() -> None:
    error = ProviderError("no")
    assert failure_of_exception(BACKEND, error) is error
    assert error.provider == "acme"


# -- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, "abcdef", "plain words 1", "ak-x+/=y"])
def test_no_key_in_what_is_quoted(key: str) -> None:
    backend = backend_at("https://x/v1", key=Secret(key), headers={"X-Team": "Bearer team-secret"})
    text = (
        f"Incorrect API key provided: {key}. Header: Bearer {key}, team-secret. " + "x" * 290 + key
    )
    shown = quoted(backend, text)
    assert key not in shown
    assert "team-secret" not in shown
    assert len(shown) <= 300
    error = failure_of_answer(backend, openai_error(text), status=401)
    assert key not in "".join([str(error), repr(error), *traceback.format_exception(error)])


def test_a_key_that_the_cut_goes_through_is_not_shown_in_part() -> None:
    assert KEY[:10] not in quoted(BACKEND, "x" * 290 + KEY)
