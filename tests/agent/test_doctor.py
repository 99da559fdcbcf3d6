"""What the doctor says of the sandbox: the level in force, what this machine has, what helps."""

from __future__ import annotations

import pytest

from ovagent_jupyter.agent.doctor import Check, examine, kernel_check, machine_checks
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import SandboxUnavailableError
from ovagent_jupyter.execution.executor import (
    CodeError,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
)
from ovagent_jupyter.execution.forking import possible
from ovagent_jupyter.execution.sandbox.probe import MachineReport, Trial
from ovagent_jupyter.testing.fake_executor import FakeExecutor

HELD = {"files": "enforced", "network": "enforced"}


async def found(executor: FakeExecutor) -> dict[str, Check]:
    """The checks by name, of this machine and of an executor."""
    checks = await examine(AgentConfig(), executor)
    assert executor.calls[-1] == "shutdown"
    return {check.name: check for check in checks}


def report(
    namespaces: str = "", confined: str = "", abi: int = 7, hints: tuple[str, ...] = ()
) -> MachineReport:
    """A report of a machine on which levels fail for these reasons."""
    trials = (
        Trial(Isolation.NAMESPACES, {} if namespaces else HELD, namespaces),
        Trial(Isolation.CONFINED, {} if confined else HELD, confined),
    )
    return MachineReport("linux", abi, trials, hints)


def by_name(made: MachineReport) -> dict[str, Check]:
    return {check.name: check for check in machine_checks(made)}


async def test_the_level_in_force_is_shown_with_each_protection(home: object) -> None:
    checks = await found(FakeExecutor(isolation=Isolation.CONFINED, protections=HELD))
    assert checks["sandbox"].mark == "✓"
    assert "'confined'" in checks["sandbox"].finding
    assert "enforced: files, network" in checks["sandbox"].finding
    assert checks["child kernel"].mark == "✓"
    assert {"can: namespaces", "can: confined", "Landlock", "control groups"} <= checks.keys()


async def test_whether_a_child_is_kept_ready_is_tried(home: object) -> None:
    checks = await found(FakeExecutor(isolation=Isolation.PROCESS))
    check = checks["child kept ready"]
    assert check.mark == ("✓" if possible() else "!"), check.finding
    checks = await found(FakeExecutor(isolation=Isolation.IN_PROCESS))
    assert "child kept ready" not in checks


@pytest.mark.parametrize("level", [Isolation.PROCESS, Isolation.IN_PROCESS])
async def test_below_the_boundary_of_the_system_is_a_warning(
    home: object, level: Isolation
) -> None:
    check = (await found(FakeExecutor(isolation=level)))["sandbox"]
    assert check.mark == "!"
    assert "does not hold" in check.finding
    assert check.remedy


async def test_a_level_that_is_not_to_be_had_is_a_problem_with_its_remedy(home: object) -> None:
    error = SandboxUnavailableError("No level.", why="No Landlock.", next_step="A newer kernel.")
    checks = await found(FakeExecutor(start_error=error))
    assert checks["child kernel"].mark == "✗"
    assert "No Landlock" in checks["child kernel"].finding
    assert checks["child kernel"].remedy == "A newer kernel."
    assert "sandbox" not in checks


async def test_a_child_that_runs_nothing_is_a_problem(home: object) -> None:
    broken = ExecutionResult(ExecutionStatus.ERROR, error=CodeError("ImportError", "no numpy"))
    check = (await found(FakeExecutor([broken])))["child kernel"]
    assert check.mark == "✗"
    assert "no numpy" in check.finding


@pytest.mark.parametrize(
    ("hint", "remedy"),
    [
        ("AppArmor … (kernel.apparmor_restrict_unprivileged_userns=1).", "AppArmor profile"),
        ("(kernel.unprivileged_userns_clone=0)", "sysctl kernel.unprivileged_userns_clone=1"),
        ("(user.max_user_namespaces=0)", "sysctl user.max_user_namespaces"),
        ("This is a container; its filter …", "seccomp profile"),
    ],
)
def test_what_forbids_namespaces_is_told_with_what_helps(hint: str, remedy: str) -> None:
    check = by_name(report("EPERM", hints=(hint,)))["can: namespaces"]
    assert check.mark == "!"
    assert hint in check.finding
    assert remedy in check.remedy


def test_a_machine_that_confines_nothing_has_a_problem() -> None:
    checks = by_name(report("EPERM", "landlock: ENOSYS", abi=0))
    assert checks["can: confined"].mark == "✗"
    assert "lsm=" in checks["Landlock"].remedy
    assert by_name(report())["can: confined"].mark == "✓"


def test_a_mac_is_not_asked_for_what_only_linux_has() -> None:
    made = report("Only Linux has them.")
    checks = by_name(MachineReport("darwin", 0, made.trials, ()))
    assert checks.keys() == {"can: confined"}
    assert "Seatbelt" in checks["can: confined"].finding


def test_an_ipykernel_that_may_overlook_a_cell_is_named() -> None:
    marks = {v: kernel_check(v).mark for v in ("6.31.0", "7.0.1", "7.3.0", "7.4.0", "7.10.0")}
    assert marks == {"6.31.0": "✓", "7.0.1": "!", "7.3.0": "!", "7.4.0": "✓", "7.10.0": "✓"}
    assert "7.4" in kernel_check("7.1.0").remedy
