"""The words by which model services name their failures: codes, and phrases of their texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ovagent_jupyter.errors import ProviderFault

_CODES: dict[ProviderFault, str] = {
    "payment": """
        insufficient_quota billing_hard_limit_reached billing_not_active billing_error
        insufficient_balance insufficient_credits insufficient_user_quota quota_exhausted
        payment_required payment_required_error arrearage access_terminated credit_required
    """,
    "context_full": """
        context_length_exceeded model_context_window_exceeded context_window_exceeded
        prompt_too_long exceed_context_size_error context_length_error max_context_length_exceeded
    """,
    "policy": """
        content_filter content_policy_violation content_policy_error bio_policy cyber_policy
        misalignment_policy_violation policy_violation responsibleaipolicyviolation safety
        moderation_blocked data_inspection_failed datainspectionfailed invalid_prompt
        prohibited_content prompt_blocked content_blocked image_content_policy_violation
        data_residency_mismatch
    """,
    "unknown_model": """
        model_not_found model_not_available model_not_supported invalid_model invalid_model_name
        deploymentnotfound unknown_model model_not_exist model_decommissioned modelnotfound
        not_found_error
    """,
    "too_large": "request_too_large content_too_large payload_too_large string_above_max_length",
    "rate_limited": """
        rate_limit_exceeded rate_limit_error rate_limit_reached_error too_many_requests
        resource_exhausted throttling throttlingexception throttled requests tokens ratelimit
        rate_limited ratelimitreached
    """,
    "overloaded": """
        overloaded_error overloaded engine_overloaded engine_overloaded_error server_overloaded
        service_unavailable unavailable capacity_exceeded serviceunavailable slow_down
        no_available_provider
    """,
    "key": """
        invalid_api_key authentication_error unauthenticated invalid_authentication
        invalid_authentication_error incorrect_api_key token_expired expired_api_key
        api_key_invalid missing_api_key unauthorized invalid_token
    """,
    "permission": "permission_error permission_denied forbidden access_denied",
    "timeout": "timeout_error request_timeout deadline_exceeded gateway_timeout timeout",
    "server": "server_error api_error internal_error internal internal_server_error",
    "bad_request": """
        invalid_request_error invalid_argument bad_request failed_precondition validation
    """,
}

_BY_CODE: dict[str, ProviderFault] = {
    code: fault for fault, codes in _CODES.items() for code in codes.split()
}

_ORDER = {fault: number for number, fault in enumerate(_CODES)}
"""The more special first: ``context_length_exceeded`` says more than its ``bad_request``."""

_PHRASES: tuple[tuple[ProviderFault, str], ...] = (
    (
        "context_full",
        r"maximum context length|context[_ ]length (?:is )?exceeded"
        r"|exceed\w* (?:the )?(?:model'?s? )?(?:maximum |available |max )?"
        r"(?:context|allowed number of input)|prompt is too long"
        r"|input (?:is )?too long|context window|(?:input|prompt) token count.{0,40}exceeds"
        r"|reduce the length of (?:the|your) (?:messages|prompt|input)|too many (?:input )?tokens"
        r"|longer than the (?:model's )?(?:context|maximum)|maximum prompt length"
        r"|prompt contains \d+ tokens.{0,60}too large",
    ),
    (
        "payment",
        r"credit balance is too low|insufficient (?:balance|credits?|funds)|out of credits"
        r"|exceeded your (?:current|monthly) (?:spend|budget|included credits)|payment required"
        r"|billing (?:account|hard limit|details are)|requires more credits|add (?:more )?credits",
    ),
    (
        "policy",
        r"content (?:management )?policy|violat\w+ (?:our|the|usage) [\w ]*polic"
        r"|safety (?:system|filter)"
        r"|flagged (?:by|for|as)|input was flagged|usage polic(?:y|ies)"
        r"|blocked by .{0,30}(?:filter|guard)"
        r"|biological (?:risk|weapon)|prohibited (?:use|content)|inappropriate content",
    ),
    (
        "unknown_model",
        r"model\b.{0,120}\b(?:does not exist|not found|is not available|not supported"
        r"|no longer (?:available|supported)|has been (?:deprecated|decommissioned|retired))"
        r"|(?:no such|unknown|invalid|not a valid) model\b|no endpoints found for",
    ),
    (
        "too_large",
        r"request too large for (?:model )?\S+ "
        r"|request (?:entity|body|payload) (?:is )?too large",
    ),
    (
        "key",
        r"api[ _-]?key (?:is )?(?:not valid|invalid|expired|missing)"
        r"|(?:invalid|incorrect|expired) api[ _-]?key",
    ),
    (
        "overloaded",
        r"\boverloaded\b|no capacity|at capacity|model is (?:still |currently )?loading",
    ),
)  # fmt: skip

_PATTERNS = tuple((fault, re.compile(phrase, re.IGNORECASE)) for fault, phrase in _PHRASES)

_ALLOWED: dict[ProviderFault, frozenset[int]] = {
    "context_full": frozenset({400, 413, 422, 500}),
    "payment": frozenset({400, 402, 403, 429}),
    "policy": frozenset({400, 403, 422, 451, 500}),
    "unknown_model": frozenset({400, 403, 404, 422}),
    "too_large": frozenset({400, 413, 429}),
    "key": frozenset({400, 401, 403}),
    "overloaded": frozenset({429, 500, 502, 503, 529}),
}
"""Statuses with which a phrase is believed; text alone could quote the user's."""


def fault_of_code(codes: Iterable[str]) -> ProviderFault | None:
    """What the codes of an error say; the most special one counts."""
    return more_special(*(_BY_CODE.get(code) for code in codes))


def more_special(*faults: ProviderFault | None) -> ProviderFault | None:
    """Of several faults the one that says most."""
    known = [fault for fault in faults if fault is not None]
    return min(known, key=_ORDER.__getitem__, default=None)


def fault_of_text(text: str, status: int | None) -> ProviderFault | None:
    """What the words of an error say, where they can with its status."""
    for fault, pattern in _PATTERNS:
        if (status is None or status in _ALLOWED[fault]) and pattern.search(text[:2000]):
            return fault
    return None
