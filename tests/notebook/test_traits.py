"""Settings made as traitlets: the user's own profile may loosen, a notebook may not."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from ovagent_jupyter.config.schema import FIELDS, AgentConfig
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.notebook.magics import OVAgent
from ovagent_jupyter.runtime.usable import undo_of

PROFILE = {"sandbox_processes": 300, "sandbox_read": ["/usr"], "sandbox_memory": "1G"}

NO_HISTORY = {"HistoryManager": {"enabled": False}}


@pytest.fixture
def magics(home: object) -> Iterator[OVAgent]:
    """The magics in an IPython whose profile sets something."""
    made = OVAgent(InteractiveShell(config=Config({"OVAgent": PROFILE} | NO_HISTORY)))
    yield made
    made.close()


def test_every_setting_is_a_traitlet_with_the_same_default(home: object) -> None:
    made = OVAgent(InteractiveShell(config=Config(NO_HISTORY)))
    assert {row.name for row in FIELDS} == set(made.trait_names(config=True))
    assert made.set_traits() == {}
    settings = made.face.runtime.settings({name: getattr(made, name) for name in REAL_DEFAULTS})
    assert settings.config == AgentConfig()
    made.close()


REAL_DEFAULTS = tuple(
    row.name
    for row in FIELDS
    if row.name not in {"storage_dir", "sandbox_memory", "sandbox_file_size", "undo_memory"}
)
"""Of the others, empty text stands for the default."""


def test_the_profile_may_loosen(magics: OVAgent) -> None:
    assert magics.set_traits() == {}
    settings = magics.face.runtime.settings(magics.set_traits())
    assert settings.config.sandbox.processes == 300
    assert str(settings.provenance["sandbox_processes"]) == "profile"


@pytest.mark.parametrize(
    ("name", "value"),
    [("sandbox_processes", 301), ("sandbox_read", ["/var"]), ("sandbox_memory", "")],
)
def test_a_notebook_may_not_go_beyond_the_profile(
    magics: OVAgent, name: str, value: object
) -> None:
    setattr(magics, name, value)
    with pytest.raises(ConfigError, match=name):
        magics.face.runtime.settings(magics.set_traits())


@pytest.mark.parametrize(("name", "value"), [("sandbox_processes", 256), ("sandbox_read", [])])
def test_a_notebook_may_tighten_the_profile(magics: OVAgent, name: str, value: object) -> None:
    setattr(magics, name, value)
    settings = magics.face.runtime.settings(magics.set_traits())
    assert str(settings.provenance[name]) == "traitlets"


def test_how_a_traitlet_is_undone_is_its_default(magics: OVAgent) -> None:
    for row in FIELDS:
        target, _, value = undo_of(row.name).partition(" = ")
        assert target == f"%config OVAgent.{row.name}"
        assert ast.literal_eval(value) == magics.trait_defaults(row.name)


def test_a_traitlet_that_cannot_be_used_stops_requests_only(magics: OVAgent) -> None:
    magics.endpoint = "https://models.example.org/v1"
    undo = "%config OVAgent.endpoint = ''"
    for command in ("status", "usage", "doctor"):
        shown = repr(magics.face.line(command))
        assert ("✗" in shown and undo in shown) is (command != "usage")
    assert "1 problem" in repr(magics.face.line("doctor"))
    for refused in ("policy", "cluster the cells"):
        with pytest.raises(ConfigError, match="not accepted from a notebook") as caught:
            magics.face.line(refused)
        assert undo in caught.value.next_step
    magics.endpoint = ""
    assert "✗" not in repr(magics.face.line("status"))


def test_an_empty_request_is_refused_before_anything_starts(magics: OVAgent) -> None:
    with pytest.raises(ConfigError, match="There is no question"):
        magics.face.cell("ask -m claude-opus-5-5", " \n")
    with pytest.raises(ConfigError, match="There is no request"):
        magics.face.cell("", "\n")
    assert magics.face.runtime.current is None
