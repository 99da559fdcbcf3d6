"""JSON schemas as services take them: which they can hold a model to, and in words where not."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ovagent_jupyter.providers.client import AnswerSchema

_ONLY_JSON = "Answer with one JSON object and nothing else. It has to match this JSON schema:\n"


def in_words(answer: AnswerSchema) -> str:
    """An instruction, for services that take no schema."""
    return _ONLY_JSON + json.dumps(dict(answer.schema), ensure_ascii=False)


def is_strict(schema: object) -> bool:
    """Whether a schema is closed and complete, as services want it that promise to keep to it."""
    if isinstance(schema, list | tuple):
        return all(map(is_strict, schema))
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        fields = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(fields):
            return False
        return all(map(is_strict, fields.values()))
    return all(map(is_strict, schema.values()))
