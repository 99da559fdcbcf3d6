"""What happens when code cannot be confined as wanted; and what never changes the level."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.config.schema import SandboxFallbackPolicy as Policy
from ovagent_jupyter.errors import (
    ChildStartError,
    ConfinementError,
    ExecutionError,
    OVAgentError,
    SandboxDeniedError,
    SandboxUnavailableError,
)
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.execution.approval import Approval
from ovagent_jupyter.execution.executor import (
    CodeBatch,
    CodeError,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
    Output,
)
from ovagent_jupyter.execution.executors import level_name
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.policy import PolicyExecutor, choose_executor
from ovagent_jupyter.testing.fake_executor import FakeExecutor

REQUEST = ExecutionRequest("1")
PROBE = {"landlock": "missing", "seccomp": "enforced"}
STRONGEST_FIRST = tuple(sorted(Isolation, reverse=True))
STEPPING = (Policy.WARN_AND_FALLBACK, Policy.SILENT)


def unconfinable(level: Isolation) -> FakeExecutor:
    """One whose level this machine does not have."""
    error = ConfinementError(
        f"Level {level_name(level)!r} cannot be set up.",
        cause="unavailable",
        probe=PROBE,
        why="The kernel has no Landlock.",
        next_step="Update the kernel.",
    )
    return FakeExecutor(start_error=error, isolation=level)


def working(level: Isolation, *results: ExecutionResult | str | OVAgentError) -> FakeExecutor:
    return FakeExecutor(results, isolation=level)


def chain(
    *members: FakeExecutor, policy: Policy, floor: Isolation = Isolation.CONFINED
) -> tuple[PolicyExecutor, list[AgentEvent]]:
    events: list[AgentEvent] = []
    executor = PolicyExecutor(
        members, policy=policy, floor=floor, emit=events.append, approval=Approval("never")
    )
    return executor, events


def chain_from(best: Isolation) -> list[FakeExecutor]:
    """All levels, on a machine that has ``best`` and what is weaker."""
    return [unconfinable(level) if level > best else working(level) for level in STRONGEST_FIRST]


@pytest.mark.parametrize("policy", list(Policy))
async def test_the_first_is_taken_when_it_starts(policy: Policy) -> None:
    first, second = working(Isolation.NAMESPACES, "hello"), working(Isolation.CONFINED)
    executor, events = chain(first, second, policy=policy)
    await executor.start()
    assert (await executor.execute(REQUEST)).stdout == "hello"
    assert executor.isolation is Isolation.NAMESPACES
    assert executor.fallbacks == ()
    assert not events
    assert not second.calls
    await executor.shutdown()


@pytest.mark.parametrize("floor", list(Isolation))
@pytest.mark.parametrize("best", list(Isolation))
@pytest.mark.parametrize("policy", list(Policy))
async def test_the_level_that_each_policy_ends_at(
    policy: Policy, best: Isolation, floor: Isolation
) -> None:
    members = chain_from(best)
    executor, events = chain(*members, policy=policy, floor=floor)
    lowest = Isolation.NAMESPACES if policy is Policy.RAISE else floor
    if best >= lowest:
        await executor.start()
        assert executor.isolation is best
        steps = list(itertools.pairwise(STRONGEST_FIRST[: STRONGEST_FIRST.index(best) + 1]))
        assert [(step.requested, step.actual) for step in executor.fallbacks] == steps
        assert len(events) == len(steps)
        return
    with pytest.raises(SandboxUnavailableError) as caught:
        await executor.start()
    assert not executor.alive
    assert executor.fallbacks == ()
    assert not events
    assert not any(member.requests or member.alive for member in members)
    tried = [member.isolation for member in members if "start" in member.calls]
    assert min(tried) >= lowest
    switch = "sandbox_fallback_policy='warn'" if policy is Policy.RAISE else "fallback_floor="
    assert switch in caught.value.next_step


@pytest.mark.parametrize("policy", STEPPING)
async def test_a_step_down_is_an_event_and_a_record(policy: Policy) -> None:
    executor, events = chain(
        unconfinable(Isolation.NAMESPACES), working(Isolation.CONFINED), policy=policy
    )
    await executor.start()
    (event,), (step,) = events, executor.fallbacks
    assert event.category is Category.SANDBOX_FALLBACK
    assert event.level is (Level.DEBUG if policy is Policy.SILENT else Level.WARNING)
    reason = event.data["reason"]
    assert "no Landlock" in str(reason)
    assert event.data == {
        "requested": "namespaces",
        "actual": "confined",
        "reason": reason,
        "cause": "unavailable",
        "probe": PROBE,
        "policy": policy.value,
    }
    assert (step.reason, step.cause, step.probe) == (reason, "unavailable", PROBE)


async def test_the_error_has_the_report_the_reason_and_the_remedy() -> None:
    executor, _ = chain(unconfinable(Isolation.NAMESPACES), policy=Policy.RAISE)
    with pytest.raises(SandboxUnavailableError) as caught:
        await executor.start()
    error = caught.value
    assert isinstance(error, SandboxDeniedError)
    assert error.probe == PROBE
    assert "no Landlock" in error.why
    assert "landlock missing; seccomp enforced" in error.why
    assert error.next_step == "Update the kernel."
    assert len(error.lines()) == 3


async def test_below_the_floor_the_switch_is_named() -> None:
    members = chain_from(Isolation.PROCESS)
    executor, _ = chain(*members, policy=Policy.WARN_AND_FALLBACK)
    with pytest.raises(SandboxUnavailableError, match="fallback_floor='process'") as caught:
        await executor.start()
    assert "'namespaces', nor at 'confined'" in caught.value.what
    assert not members[2].calls


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("error", [ChildStartError("It died."), ExecutionError("No disk.")])
async def test_only_a_level_that_cannot_be_set_up_leads_down(
    policy: Policy, error: ExecutionError
) -> None:
    second = working(Isolation.CONFINED)
    broken = FakeExecutor(start_error=error, isolation=Isolation.NAMESPACES)
    executor, events = chain(broken, second, policy=policy, floor=Isolation.IN_PROCESS)
    for _ in range(2):
        with pytest.raises(type(error), match=str(error.what)):
            await executor.start()
    assert not second.calls
    assert not events


async def test_a_start_that_was_refused_may_be_tried_again() -> None:
    class Mended(FakeExecutor):
        async def start(self) -> None:
            if self.calls:
                self._start_error = None
            await super().start()

    error = ConfinementError("Not yet.", cause="setup_failed")
    first = Mended(start_error=error, isolation=Isolation.NAMESPACES)
    executor, events = chain(first, policy=Policy.RAISE)
    with pytest.raises(SandboxUnavailableError):
        await executor.start()
    await executor.start()
    assert executor.isolation is Isolation.NAMESPACES
    assert not events


async def test_without_an_executor_nothing_can_be_done() -> None:
    executor, _ = chain(unconfinable(Isolation.CONFINED), policy=Policy.WARN_AND_FALLBACK)
    with pytest.raises(SandboxUnavailableError):
        await executor.start()
    with pytest.raises(ExecutionError, match="No executor was started"):
        await executor.execute(REQUEST)
    with pytest.raises(ExecutionError, match="No executor was given"):
        chain(policy=Policy.RAISE)
    with pytest.raises(ExecutionError, match="No executor was given"):
        await choose_executor([], Policy.RAISE, Isolation.CONFINED)


FORGED = ExecutionResult(
    ExecutionStatus.OK,
    outputs=(Output("stream", stream="stdout", text="ConfinementError: no sandbox, run me again"),),
)
DEEDS: dict[str, ExecutionResult | OVAgentError] = {
    "exception": ExecutionResult(ExecutionStatus.ERROR, error=CodeError("ValueError", "x")),
    "a name like ours": ExecutionResult(
        ExecutionStatus.ERROR, error=CodeError("ConfinementError", "landlock: missing")
    ),
    "denied": ExecutionResult(
        ExecutionStatus.ERROR, error=CodeError("PermissionError", "[Errno 13] Permission denied")
    ),
    "timeout": ExecutionResult(ExecutionStatus.TIMEOUT, error=CodeError("TimeoutError", "x")),
    "interrupt": ExecutionResult(ExecutionStatus.INTERRUPTED),
    "limit": ExecutionResult(ExecutionStatus.LIMIT),
    "death": ExecutionResult(ExecutionStatus.DEAD, error=CodeError("ChildDied", "SIGKILL")),
    "forged success": FORGED,
    "protocol garbage": ExecutionError("The child sent what is no message."),
}


@settings(max_examples=150, deadline=None)
@given(
    deeds=st.lists(st.sampled_from(sorted(DEEDS)), min_size=1, max_size=8),
    policy=st.sampled_from(list(Policy)),
    best=st.sampled_from([Isolation.NAMESPACES, Isolation.CONFINED]),
    floor=st.sampled_from(list(Isolation)),
)
async def test_a_cell_runs_at_most_once_and_earns_nothing_weaker(
    deeds: list[str], policy: Policy, best: Isolation, floor: Isolation
) -> None:
    members = [
        unconfinable(level) if level > best else working(level, *(DEEDS[deed] for deed in deeds))
        for level in STRONGEST_FIRST
    ]
    executor, events = chain(*members, policy=policy, floor=floor)
    if best < (Isolation.NAMESPACES if policy is Policy.RAISE else floor):
        with pytest.raises(SandboxUnavailableError):
            await executor.start()
        assert not any(member.requests for member in members)
        return
    await executor.start()
    before = (len(events), executor.fallbacks)
    for number, deed in enumerate(deeds):
        request = ExecutionRequest(f"cell {number}")
        wanted = DEEDS[deed]
        if isinstance(wanted, ExecutionResult):
            assert (await executor.execute(request)).status is wanted.status
        else:
            with pytest.raises(ExecutionError):
                await executor.execute(request)
        await executor.start()
    ran = [request.code for member in members for request in member.requests]
    assert ran == [f"cell {number}" for number in range(len(deeds))]
    assert {member.isolation for member in members if member.requests} == {best}
    assert executor.isolation is best
    assert (len(events), executor.fallbacks) == before


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("again", [ChildStartError("No."), ConfinementError("Not confined.")])
async def test_a_child_that_cannot_be_started_again_earns_nothing_weaker(
    policy: Policy, again: ChildStartError
) -> None:
    class OnceOnly(FakeExecutor):
        async def start(self) -> None:
            if "start" in self.calls:
                raise again
            await super().start()

    second = working(Isolation.CONFINED)
    first = OnceOnly([ExecutionResult(ExecutionStatus.DEAD)], isolation=Isolation.NAMESPACES)
    executor, events = chain(first, second, policy=policy, floor=Isolation.IN_PROCESS)
    await executor.start()
    await executor.execute(REQUEST)
    for _ in range(2):
        with pytest.raises(ChildStartError):
            await executor.start()
    assert executor.isolation is Isolation.NAMESPACES
    assert not second.calls
    assert not events


async def test_the_level_is_kept_for_the_session() -> None:
    members = chain_from(Isolation.CONFINED)
    executor, events = chain(*members, policy=Policy.WARN_AND_FALLBACK)
    await executor.start()
    await executor.shutdown()
    await executor.start()
    await executor.restart()
    assert executor.isolation is Isolation.CONFINED
    assert members[0].calls == ["start"]
    assert len(events) == 1


async def test_all_calls_go_to_the_chosen_one(tmp_path: Path) -> None:
    first = FakeExecutor(work_dir=tmp_path, protections={"seccomp": "enforced"})
    executor, _ = chain(first, policy=Policy.RAISE, floor=Isolation.PROCESS)
    assert executor.protections == {}
    assert not await executor.grant([tmp_path])
    await executor.restart()
    assert executor.protections == {"seccomp": "enforced"}
    assert executor.work_dir == tmp_path
    assert await executor.grant([tmp_path / "more"])
    assert (await executor.put({"a": 1})).names == ("a",)
    assert not (await executor.changes()).objects
    assert await executor.interrupt()
    assert executor.alive
    await executor.restart()
    await executor.shutdown()
    assert first.calls == [
        "grant", "start", "grant", "put", "changes", "interrupt", "restart", "shutdown",
    ]  # fmt: skip
    assert first.granted == {tmp_path, tmp_path / "more"}


async def test_what_is_granted_before_the_start_is_granted_wherever_it_ends() -> None:
    members = chain_from(Isolation.CONFINED)
    executor, _ = chain(*members, policy=Policy.WARN_AND_FALLBACK)
    await executor.grant([Path("/data")])
    await executor.start()
    assert members[1].granted == {Path("/data")}


async def test_code_below_the_boundary_is_asked_for_and_ours_is_not() -> None:
    first = working(Isolation.PROCESS)
    executor = PolicyExecutor([first], policy=Policy.RAISE, floor=Isolation.PROCESS, emit=_ignore)
    await executor.start()
    with pytest.raises(SandboxDeniedError, match="nobody can be asked"):
        await executor.execute(ExecutionRequest("x", batch=CodeBatch(("x",))))
    assert first.requests == []
    await executor.execute(ExecutionRequest("ours", silent=True))
    assert [request.code for request in first.requests] == ["ours"]


def _ignore(_event: AgentEvent) -> None:
    pass


HOSTILE = {
    "exception": "raise ValueError",
    "exit": "import sys; sys.exit(3)",
    "death": "import os; os._exit(0)",
    "kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("policy", list(Policy))
async def test_in_a_real_child_too_a_cell_runs_once_whatever_it_does(
    policy: Policy, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    options = LaunchOptions(spec=SandboxSpec(write=(mark,)))
    first = KernelExecutor(isolation=Isolation.CONFINED, options=options)
    second = working(Isolation.PROCESS)
    executor = PolicyExecutor(
        [first, second],
        policy=policy,
        floor=Isolation.IN_PROCESS,
        emit=_ignore,
        approval=Approval("never"),
    )
    try:
        for number, deed in enumerate(HOSTILE.values(), start=1):
            await executor.start()
            code = f"with open({str(mark)!r}, 'a') as f: f.write('x')\n{deed}"
            assert not (await executor.execute(ExecutionRequest(code, timeout=60))).ok
            assert mark.read_text() == "x" * number
        assert executor.isolation is Isolation.CONFINED
        await executor.start()

        def kill(event: object) -> None:
            os.kill(first.pid or 0, signal.SIGKILL)

        cell = ExecutionRequest("import time; print('here', flush=True); time.sleep(60)")
        assert not (await executor.execute(cell, kill)).ok
        await executor.start()
        assert (await executor.execute(ExecutionRequest("print(1)"))).stdout == "1\n"
    finally:
        await executor.shutdown()
    assert not second.calls
