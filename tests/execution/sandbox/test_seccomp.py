"""The filter's answers, on both architectures, against a table that was written from the papers."""

from __future__ import annotations

import fcntl
import operator
import os
import re
import socket
import termios
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovagent_jupyter.execution.sandbox import seccomp, syscall_classes, syscall_numbers
from tests.execution.sandbox.bpf_interpreter import Call, check, run

OWN = 4321
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PROFILES = {
    "level 3": seccomp.profile_for(namespaces=True, landlock_abi=7, own_pid=OWN),
    "level 2": seccomp.profile_for(namespaces=False, landlock_abi=7, own_pid=OWN),
    "level 2, Landlock 2": seccomp.profile_for(namespaces=False, landlock_abi=2, own_pid=OWN),
}
FILTERS = {
    (machine, name): seccomp.build_filter(machine, profile)
    for machine in ARCHITECTURES
    for name, profile in PROFILES.items()
}
NUMBERS = {"x86_64": syscall_numbers.X86_64, "aarch64": syscall_numbers.AARCH64}
NAMED = {
    "OWN": OWN,
    "-OWN": -OWN,
    "HIGH": 0xDEAD << 32,
    "TIOCLINUX": 0x541C,
    "O_ACCMODE": 3,
    "PR_SET_NAME": 15,
    "PR_SET_NO_NEW_PRIVS": 38,
    "AF_ALG": 38,
}
WORDS = st.integers(0, 0xFFFFFFFF)
LONG = st.integers(0, (1 << 64) - 1)


class Row(NamedTuple):
    """One line of the table, for one profile."""

    line: str
    name: str
    arguments: tuple[int, ...]
    profile: str
    verdict: str


def value_of(text: str) -> int:
    """A number, or names of constants that are or-ed."""
    return reduce(operator.or_, map(_one, text.split("|")))


def _one(word: str) -> int:
    if word in NAMED:
        return NAMED[word]
    if re.fullmatch(r"-?\d\w*", word):
        return int(word, 0)
    home = next(module for module in (os, fcntl, termios, socket) if hasattr(module, word))
    return int(getattr(home, word))


def table() -> Iterator[Row]:
    """The rows of ``verdicts.txt``."""
    text = Path(__file__).with_name("verdicts.txt").read_text("utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            call, *verdicts = (part.strip() for part in line.split(" : "))
            name, *arguments = call.split()
            for profile, verdict in zip(PROFILES, verdicts * (4 - len(verdicts)), strict=False):
                yield Row(line, name, tuple(map(value_of, arguments)), profile, verdict)


ROWS = list(table())


def answer(machine: str, profile: str, number: int, *arguments: int) -> str:
    return run(FILTERS[machine, profile], Call(number, ARCHITECTURES[machine], arguments))[0]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_table(machine: str, profile: str) -> None:
    rows = [row for row in ROWS if row.profile == profile and row.name in NUMBERS[machine]]
    assert len(rows) > 150
    wrong = {
        row.line: found
        for row in rows
        if (found := answer(machine, profile, NUMBERS[machine][row.name], *row.arguments))
        != row.verdict
    }
    assert wrong == {}


def test_each_row_is_of_a_call_that_exists() -> None:
    known = {**syscall_numbers.X86_64, **syscall_numbers.AARCH64}
    assert {row.name for row in ROWS} - set(known) == set()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_kernel_would_load_it(machine: str, profile: str) -> None:
    check(FILTERS[machine, profile])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_each_known_call_has_one_answer(profile: seccomp.SeccompProfile) -> None:
    known = {*syscall_numbers.X86_64, *syscall_numbers.AARCH64}
    fixed, ruled = set(seccomp.answers(profile)), set(seccomp.rules(profile))
    assert fixed & ruled == set()
    assert fixed | ruled == known


def test_classes_do_not_overlap() -> None:
    words = [
        *syscall_classes.ALLOWED.split(),
        *syscall_classes.REFUSED.split(),
        *syscall_classes.ABSENT.split(),
        *syscall_classes.SHARED_WITH_USER,
        *syscall_classes.FEIGNED,
    ]
    assert len(words) == len(set(words))


@given(st.sampled_from(sorted(FILTERS)), WORDS, WORDS, st.lists(LONG, max_size=6))
def test_a_foreign_architecture_is_killed(
    key: tuple[str, str], number: int, architecture: int, arguments: list[int]
) -> None:
    if architecture == ARCHITECTURES[key[0]]:
        architecture ^= 1
    assert run(FILTERS[key], Call(number, architecture, tuple(arguments)))[0] == "kill"


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("architecture", [0x40000003, 0x40000028, *ARCHITECTURES.values()])
def test_the_32_bit_ways_and_the_other_machine(machine: str, architecture: int) -> None:
    """AUDIT_ARCH_I386 and AUDIT_ARCH_ARM, linux/audit.h."""
    number = NUMBERS[machine]["read"]
    found, _ = run(FILTERS[machine, "level 3"], Call(number, architecture))
    assert found == ("allow" if architecture == ARCHITECTURES[machine] else "kill")


@given(st.sampled_from(sorted(FILTERS)), WORDS, st.lists(LONG, max_size=6))
def test_unknown_numbers_do_not_exist(
    key: tuple[str, str], number: int, arguments: list[int]
) -> None:
    if number in NUMBERS[key[0]].values():
        number |= 0x40000000
    assert answer(*key, number, *arguments) == "ENOSYS"


@pytest.mark.parametrize("key", FILTERS, ids=" ".join)
def test_each_number_up_to_2000_and_of_x32(key: tuple[str, str]) -> None:
    known = set(NUMBERS[key[0]].values())
    for number in range(2000):
        if number not in known:
            assert answer(*key, number) == "ENOSYS"
        assert answer(*key, number | 0x40000000) == "ENOSYS"  # __X32_SYSCALL_BIT
    assert max(known) == syscall_numbers.HIGHEST


@given(st.sampled_from(sorted(FILTERS)), st.data(), st.lists(LONG, min_size=6, max_size=6))
def test_every_known_call_gets_an_answer(
    key: tuple[str, str], data: st.DataObject, arguments: list[int]
) -> None:
    number = data.draw(st.sampled_from(sorted(NUMBERS[key[0]].values())))
    assert answer(*key, number, *arguments) in {
        "allow", "0", "EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EAFNOSUPPORT", "EINVAL", "ENOTTY",
    }  # fmt: skip


@given(st.sampled_from(sorted(FILTERS)), st.data(), st.lists(LONG, min_size=6, max_size=6), WORDS)
def test_high_bits_change_no_answer(
    key: tuple[str, str], data: st.DataObject, arguments: list[int], high: int
) -> None:
    """All arguments that are looked at are 32 bits to the kernel."""
    number = data.draw(st.sampled_from(sorted(NUMBERS[key[0]].values())))
    others = [each & 0xFFFFFFFF | high << 32 for each in arguments]
    assert answer(*key, number, *arguments) == answer(*key, number, *others)


def is_no_weaker(stricter: str, other: str) -> bool:
    return stricter != "allow" or other == "allow"


@given(st.sampled_from(sorted(ARCHITECTURES)), st.data(), st.lists(LONG, min_size=6, max_size=6))
def test_fewer_other_layers_allow_no_more(
    machine: str, data: st.DataObject, arguments: list[int]
) -> None:
    number = data.draw(st.sampled_from(sorted(NUMBERS[machine].values())))
    third, second, old = (answer(machine, name, number, *arguments) for name in PROFILES)
    assert is_no_weaker(second, third)
    assert is_no_weaker(old, second)


@pytest.mark.parametrize("key", FILTERS, ids=" ".join)
def test_frequent_calls_take_few_steps(key: tuple[str, str]) -> None:
    """The kernel does not even run it for those that are always allowed (seccomp action cache)."""
    machine, _ = key
    for name, most in {"read": 12, "futex": 12, "openat": 24, "ioctl": 24, "fcntl": 24}.items():
        call = Call(NUMBERS[machine][name], ARCHITECTURES[machine], (3, 0x5401, 0, 0))
        assert run(FILTERS[key], call)[1] <= most


def test_only_known_machines() -> None:
    with pytest.raises(OSError, match="riscv64"):
        seccomp.build_filter("riscv64", PROFILES["level 3"])


GENERIC = Path("/usr/include/asm-generic/unistd.h")
HEADERS = {"x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), "aarch64": GENERIC}


def from_header(machine: str) -> dict[str, int]:
    text = HEADERS[machine].read_text("ascii")
    pairs = re.findall(r"^#define __NR(3264)?_(\w+) (\d+)$", text, re.MULTILINE)
    return {name: int(number) for _, name, number in pairs}


@pytest.mark.skipif(
    not all(path.exists() for path in HEADERS.values()), reason="no headers of the kernel"
)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    header = from_header(machine)
    shared = NUMBERS[machine].keys() & header.keys()
    assert len(shared) > 290
    assert {name: NUMBERS[machine][name] for name in shared} == {
        name: header[name] for name in shared
    }
