"""The fallback policy: who may run code when the place that is wanted cannot be started."""

from __future__ import annotations

import pytest

from ovagent_jupyter.config.schema import SandboxFallbackPolicy as Policy
from ovagent_jupyter.errors import ChildStartError, ExecutionError, SandboxDeniedError
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.execution.executor import (
    CodeError,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
)
from ovagent_jupyter.execution.executors import executors, level_name, level_named
from ovagent_jupyter.execution.policy import PolicyExecutor
from ovagent_jupyter.testing.fake_executor import FakeExecutor

REQUEST = ExecutionRequest("1")


def broken() -> FakeExecutor:
    return FakeExecutor(start_error=ChildStartError("No child.", why="no ipykernel"))


def weak() -> FakeExecutor:
    return FakeExecutor(isolation=Isolation.IN_PROCESS)


def chain(
    *members: FakeExecutor, policy: Policy, floor: Isolation = Isolation.IN_PROCESS
) -> tuple[PolicyExecutor, list[AgentEvent]]:
    events: list[AgentEvent] = []
    return PolicyExecutor(members, policy=policy, floor=floor, emit=events.append), events


@pytest.mark.parametrize("policy", list(Policy))
async def test_the_first_is_taken_when_it_starts(policy: Policy) -> None:
    first, second = FakeExecutor(["hello"]), weak()
    executor, events = chain(first, second, policy=policy)
    await executor.start()
    assert (await executor.execute(REQUEST)).stdout == "hello"
    assert executor.isolation is Isolation.PROCESS
    assert not events
    assert not second.calls
    await executor.shutdown()


async def test_raise_never_steps_down() -> None:
    second = weak()
    executor, events = chain(broken(), second, policy=Policy.RAISE)
    with pytest.raises(SandboxDeniedError, match="sandbox_fallback_policy") as caught:
        await executor.start()
    assert "no ipykernel" in caught.value.why
    assert not second.calls
    assert not events


async def test_warn_steps_down_and_says_so() -> None:
    second = weak()
    executor, events = chain(broken(), second, policy=Policy.WARN_AND_FALLBACK)
    await executor.start()
    assert executor.isolation is Isolation.IN_PROCESS
    (event,) = events
    assert event.category is Category.SANDBOX_FALLBACK
    assert event.level is Level.WARNING
    assert event.data["requested"] == "process"
    assert event.data["actual"] == "in_process"
    assert "no ipykernel" in str(event.data["reason"])


async def test_silent_steps_down_and_only_records() -> None:
    executor, events = chain(broken(), weak(), policy=Policy.SILENT)
    await executor.start()
    assert [event.level for event in events] == [Level.DEBUG]


@pytest.mark.parametrize("policy", [Policy.WARN_AND_FALLBACK, Policy.SILENT])
async def test_nothing_below_the_floor(policy: Policy) -> None:
    second = weak()
    executor, events = chain(broken(), second, policy=policy, floor=Isolation.PROCESS)
    with pytest.raises(SandboxDeniedError, match="fallback_floor='in_process'"):
        await executor.start()
    assert not second.calls
    assert not events


async def test_the_end_of_the_chain() -> None:
    executor, _ = chain(broken(), policy=Policy.WARN_AND_FALLBACK)
    with pytest.raises(SandboxDeniedError):
        await executor.start()
    with pytest.raises(ExecutionError, match="No executor was started"):
        await executor.execute(REQUEST)
    with pytest.raises(ExecutionError, match="No executor was given"):
        chain(policy=Policy.RAISE)


@pytest.mark.parametrize("status", [s for s in ExecutionStatus if s is not ExecutionStatus.OK])
async def test_what_the_code_does_never_changes_the_level(status: ExecutionStatus) -> None:
    first = FakeExecutor([ExecutionResult(status, error=CodeError("E", "x"))])
    second = weak()
    executor, events = chain(first, second, policy=Policy.SILENT)
    await executor.start()
    assert (await executor.execute(REQUEST)).status is status
    await executor.start()
    assert (await executor.execute(REQUEST)).ok
    assert executor.isolation is Isolation.PROCESS
    assert not second.calls
    assert not events


async def test_a_child_that_cannot_be_started_again_earns_nothing_weaker() -> None:
    class OnceOnly(FakeExecutor):
        async def start(self) -> None:
            if "start" in self.calls:
                raise ChildStartError("Not again.")
            await super().start()

    second = weak()
    first = OnceOnly([ExecutionResult(ExecutionStatus.DEAD)])
    executor, _ = chain(first, second, policy=Policy.SILENT)
    await executor.start()
    await executor.execute(REQUEST)
    with pytest.raises(ChildStartError):
        await executor.start()
    assert not second.calls


async def test_all_calls_go_to_the_chosen_one() -> None:
    first = FakeExecutor()
    executor, _ = chain(first, policy=Policy.RAISE)
    await executor.restart()
    assert (await executor.put({"a": 1})).names == ("a",)
    assert not (await executor.changes()).objects
    assert await executor.interrupt()
    assert executor.alive
    await executor.restart()
    await executor.shutdown()
    assert first.calls == ["start", "put", "changes", "interrupt", "restart", "shutdown"]


def test_the_table_names_every_level() -> None:
    table = executors()
    assert set(table) >= {level_name(level) for level in Isolation}
    for name in table:
        assert callable(table.get(name))
    assert level_named("process") is Isolation.PROCESS
