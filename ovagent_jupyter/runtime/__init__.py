"""The one place where the parts are put together; constructor calls, no decisions."""

from ovagent_jupyter.runtime.api import Agent, plan
from ovagent_jupyter.runtime.build import (
    build_executor,
    build_session,
    examine_machine,
    new_session_id,
    own_folders,
    settings_in_force,
)
from ovagent_jupyter.runtime.factory import LocalAgent, OnlineAgent, create_agent
from ovagent_jupyter.runtime.sessions import Runtime

__all__ = [
    "Agent",
    "LocalAgent",
    "OnlineAgent",
    "Runtime",
    "build_executor",
    "build_session",
    "create_agent",
    "examine_machine",
    "new_session_id",
    "own_folders",
    "plan",
    "settings_in_force",
]
