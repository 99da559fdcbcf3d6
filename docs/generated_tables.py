"""Sphinx extension: reference tables written from the code they describe.

``{ovagent-table} settings`` in a page is replaced by the table of that name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from ovagent_jupyter.config.schema import AgentConfig, Field


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [_row(head), _row(tuple("---" for _ in head))]
    return [*lines, *(_row(tuple(_cell(text) for text in row)) for row in rows)]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def settings() -> list[str]:
    """Every setting with its default, its variable and what it does."""
    from ovagent_jupyter.config.schema import FIELDS, AgentConfig

    default = AgentConfig()
    described = _field_texts()
    rows = (
        (
            f"`{row.name}`",
            f"`{_shown(row, default)}`",
            f"`{row.variable}`",
            described[row.name],
        )
        for row in FIELDS
    )
    return _markdown(("setting", "default", "environment", "what it does"), rows)


def _shown(row: Field, config: AgentConfig) -> str:
    from ovagent_jupyter.config.llm import Budget
    from ovagent_jupyter.config.values import written

    value = row.value_in(config)
    if row.hidden:
        return "None"
    if row.kind == "size" and isinstance(value, int):
        value = written(value)
    if isinstance(value, Budget):
        value = str(value)
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _field_texts() -> dict[str, str]:
    """The docstring under each field of the configuration classes."""
    import ast
    import inspect

    from ovagent_jupyter.config import llm, sandbox, schema

    texts: dict[str, str] = {}
    for module, prefix in ((llm, ""), (schema, ""), (sandbox, "sandbox_")):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ClassDef):
                for field, text in zip(node.body, node.body[1:], strict=False):
                    if (
                        isinstance(field, ast.AnnAssign)
                        and isinstance(text, ast.Expr)
                        and isinstance(text.value, ast.Constant)
                    ):
                        name = f"{prefix}{ast.unparse(field.target)}"
                        texts.setdefault(name, str(text.value.value))
    return texts


def steps() -> list[str]:
    """Every step the offline planner knows."""
    import ovagent_jupyter.omics  # noqa: F401 - registers the rows
    from ovagent_jupyter.omics.step import STEPS

    groups: dict[str, list[tuple[str, ...]]] = {}
    for name in STEPS:
        step = STEPS.get(name)
        params = ", ".join(f"`{p.name}`" for p in step.params) or "—"
        said = ", ".join(step.aliases[:2]) or "—"
        groups.setdefault(step.group, []).append((f"`{step.id}`", step.title, params, said))
    lines = []
    for group, rows in groups.items():
        table = _markdown(("step", "what it does", "settings", "you may say"), rows)
        lines += [f"**{group}**", "", *table, ""]
    return lines


def events() -> list[str]:
    """Every kind of event."""
    from ovagent_jupyter.events import TERMINAL, Category

    rows = ((f"`{c.value}`", "ends the turn" if c in TERMINAL else "") for c in Category)
    return _markdown(("kind", "note"), rows)


def errors() -> list[str]:
    """Every error with its code."""
    from ovagent_jupyter import errors as tree

    kinds = [
        thing
        for thing in vars(tree).values()
        if isinstance(thing, type) and issubclass(thing, tree.OVAgentError)
    ]
    rows = (
        (
            f"`{kind.__name__}`",
            f"`{kind.code}`",
            (kind.__doc__ or "").split("\n\n")[0],
        )
        for kind in kinds
    )
    return _markdown(("error", "code", "when"), rows)


def commands() -> list[str]:
    """Every ``%ovagent`` command."""
    from ovagent_jupyter.notebook.arguments import COMMANDS

    rows = ((f"`%ovagent {name}`", text) for name, text in COMMANDS.items())
    return _markdown(("command", "what it does"), rows)


def policy() -> list[str]:
    """What ``%ovagent policy`` takes, and the setting each name stands for."""
    from ovagent_jupyter.config.options import HELP, SETTING_OF

    rows = ((f"`{name}`", HELP[name], f"`{setting}`") for name, setting in SETTING_OF.items())
    return _markdown(("policy", "what it is", "setting"), rows)


def providers() -> list[str]:
    """Every provider: where it is, where its key is looked for, how it is spoken to."""
    from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY
    from ovagent_jupyter.providers.credentials import variables_of

    rows = (
        (
            f"`{info.id}/…`",
            info.display_name,
            f"`{info.base_url}`" if info.base_url else "—",
            ", ".join(f"`{name}`" for name in variables_of(info)) or "—",
            ", ".join(f"`{name}`" for name in info.base_url_env) or "—",
            info.wire_api.value.replace("_", " "),
            ", ".join(f"`{prefix}…`" for prefix in info.prefixes) or "—",
        )
        for info in PROVIDER_REGISTRY.values()
    )
    head = ("in front", "provider", "base URL", "key", "other base URL", "wire", "goes by itself")
    return _markdown(head, rows)


def models() -> list[str]:
    """Every model that is known by name."""
    from ovagent_jupyter.providers.checks import HEAD, models_table

    rows = (row for row in models_table({}) if row.info is not None)
    return _markdown(HEAD[:-1], ((f"`{row.model}`", *row.cells()[1:-1]) for row in rows))


def model_options() -> list[str]:
    """What a line can say of a model, and the setting that each option stands for."""
    from ovagent_jupyter.config.options import MODEL_OPTIONS

    rows = (
        (f"`--{name}`", text, f"`{setting}`") for name, (setting, _, text) in MODEL_OPTIONS.items()
    )
    return _markdown(("option", "what it is", "setting"), rows)


def gateway() -> list[str]:
    """Every setting of the gateway, with its default."""
    import ast
    import inspect
    from dataclasses import fields

    from ovagent_jupyter.config import gateway as module

    texts: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            found = texts.setdefault(node.name, {})
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[ast.unparse(field.target)] = ast.literal_eval(text.value)
    default = module.GatewayConfig()
    rows = [
        (
            f"`{group}.{row.name}`",
            f"`{getattr(getattr(default, group), row.name)}`",
            texts[kind.__name__][row.name],
        )
        for group, kind in module.GROUPS.items()
        for row in fields(kind)
    ]
    return _markdown(("setting", "default", "what it does"), rows)


def cell_help() -> list[str]:
    """The help of ``%%ovagent``."""
    from ovagent_jupyter.notebook.arguments import parser

    return ["```text", parser().format_help().strip(), "```"]


def shell_help() -> list[str]:
    """The help of the command line and of each of its commands."""
    import argparse

    from ovagent_jupyter.cli import parser

    top = parser()
    (commands,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    lines = ["```text", top.format_help().strip(), "```", ""]
    for name, command in commands.choices.items():
        lines += [f"**ovagent {name}**", "", "```text", command.format_help().strip(), "```", ""]
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "settings": settings,
    "steps": steps,
    "events": events,
    "errors": errors,
    "commands": commands,
    "policy": policy,
    "providers": providers,
    "models": models,
    "model-options": model_options,
    "gateway": gateway,
    "cell-help": cell_help,
    "shell-help": shell_help,
}


class Table(SphinxDirective):
    """Puts one of the tables into the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the table."""
        container = nodes.container()
        lines = TABLES[self.arguments[0]]()
        self.state.nested_parse(_string_list(lines), self.content_offset, container)
        return container.children


def _string_list(lines: list[str]) -> object:
    from docutils.statemachine import StringList

    return StringList(lines, source="generated_tables")


class AttributeTexts:
    """Keeps the text under an attribute as it is.

    Napoleon takes what stands before a colon for a type, and a sentence may have one.
    """

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def before(self, *event: object) -> None:
        """Remember the lines."""
        _, what, name, _, _, lines = event
        if what == "attribute":
            self._texts[str(name)] = list(cast("list[str]", lines))

    def after(self, *event: object) -> None:
        """Put them back."""
        _, _, name, _, _, lines = event
        if str(name) in self._texts:
            cast("list[str]", lines)[:] = self._texts.pop(str(name))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive, and hooks before and after napoleon's."""
    os.environ["COLUMNS"] = "92"  # argparse wraps help to the terminal it finds
    app.add_directive("ovagent-table", Table)
    texts = AttributeTexts()
    app.connect("autodoc-process-docstring", texts.before, priority=400)
    app.connect("autodoc-process-docstring", texts.after, priority=600)
    return {"parallel_read_safe": True}
