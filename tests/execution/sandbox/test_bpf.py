"""The assembler: what it makes is run by the interpreter beside this file."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovagent_jupyter.execution.sandbox.bpf import BPF_MAXINSNS, NUMBER, Program, argument, fail
from tests.execution.sandbox.bpf_interpreter import BadProgramError, Call, check, run

WORDS = st.integers(0, 0xFFFFFFFF)
ERRNO = st.sampled_from(sorted(errno.errorcode))
HERE = 0xC000003E


def answer(program: Program, number: int, *arguments: int) -> str:
    code = program.assemble()
    check(code)
    return run(code, Call(number, HERE, arguments))[0]


@given(st.dictionaries(WORDS, ERRNO, max_size=60), ERRNO, WORDS)
def test_a_choice_finds_what_a_dictionary_finds(
    cases: dict[int, int], otherwise: int, other: int
) -> None:
    program = Program()
    program.load(NUMBER)
    program.choose({value: fail(number) for value, number in cases.items()}, fail(otherwise))
    for number in {other, *cases, *(each + 1 for each in cases), *(each - 1 for each in cases)}:
        if 0 <= number <= 0xFFFFFFFF:
            expected = errno.errorcode[cases.get(number, otherwise)]
            assert answer(program, number) == expected


def test_a_choice_costs_as_much_as_a_binary_search() -> None:
    program = Program()
    program.load(NUMBER)
    program.choose({2 * each: fail(2 + each % 30) for each in range(300)}, fail(1))
    code = program.assemble()
    assert max(run(code, Call(number, HERE))[1] for number in range(601)) <= 14


@given(st.integers(0, 600), st.integers(0, 600), st.booleans())
def test_jumps_of_any_length(first: int, second: int, equal: bool) -> None:
    program = Program()
    program.load(NUMBER)
    program.equal(7, yes="yes", no="no")
    for _ in range(first):
        program.give(fail(1))
    program.place("yes")
    program.give(fail(2))
    for _ in range(second):
        program.give(fail(3))
    program.place("no")
    program.give(fail(13))
    assert answer(program, 7 if equal else 8) == ("ENOENT" if equal else "EACCES")


def test_a_far_jump_makes_another_one_far() -> None:
    """Each of these jumps is just near enough, until one within it grows."""
    program = Program()
    program.load(NUMBER)
    for place in range(10):
        program.equal(place, yes=f"label {place} of ten")
    for _ in range(250):
        program.give(fail(1))
    for place in range(10):
        program.place(f"label {place} of ten")
        program.give(fail(2 + place))
    assert [answer(program, each) for each in (0, 5, 9, 10)] == [
        "ENOENT",
        "E2BIG",
        "EAGAIN",
        "EPERM",
    ]


@given(WORDS, WORDS, WORDS)
def test_tests_of_an_argument(value: int, mask: int, high: int) -> None:
    program = Program()
    program.load(argument(3))
    program.keep(mask)
    program.any_of(0x80000001, yes="some")
    program.at_least(0x1000, yes="much")
    program.give(fail(1))
    program.place("some")
    program.give(fail(2))
    program.place("much")
    program.give(fail(3))
    kept = value & mask
    expected = "ENOENT" if kept & 0x80000001 else "ESRCH" if kept >= 0x1000 else "EPERM"
    assert answer(program, 0, 1, 2, high, high << 32 | value, high) == expected


def test_a_label_that_lies_behind_is_refused() -> None:
    program = Program()
    program.place("behind")
    program.load(NUMBER)
    program.go("behind")
    with pytest.raises(ValueError, match="before a jump"):
        program.assemble()


def test_a_label_that_is_missing_or_placed_twice_is_refused() -> None:
    program = Program()
    program.equal(1, yes="nowhere")
    program.place("twice")
    with pytest.raises(ValueError, match="twice"):
        program.place("twice")
    with pytest.raises(ValueError, match="not placed"):
        program.assemble()


def test_a_program_that_is_too_long_is_refused() -> None:
    program = Program()
    for _ in range(BPF_MAXINSNS + 1):
        program.give(0)
    with pytest.raises(ValueError, match="4096"):
        program.assemble()


def test_the_interpreter_finds_bad_programs() -> None:
    program = Program()
    program.load(NUMBER)
    with pytest.raises(BadProgramError, match="falls off"):
        run(program.assemble(), Call(0, HERE))
    with pytest.raises(BadProgramError, match="leads out"):
        check(program.assemble())
    program = Program()
    program.load(62)
    with pytest.raises(BadProgramError, match="loads from"):
        run(program.assemble(), Call(0, HERE))
    with pytest.raises(BadProgramError, match="unknown"):
        run(bytes([0xFF] * 8), Call(0, HERE))
