"""What a seccomp filter answers, worked out here: a machine for classic BPF.

Written from linux/filter.h, linux/bpf_common.h and seccomp(2), not from the assembler. It knows
what the kernel lets a seccomp filter do (``seccomp_check_filter``), and stops at anything else.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

ANSWERS = {0x80000000: "kill", 0x7FFF0000: "allow"}


class BadProgramError(AssertionError):
    """The kernel would not load this program, or it ends without an answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """One system call, as ``struct seccomp_data`` shows it."""

    number: int
    architecture: int
    arguments: tuple[int, ...] = ()

    def packed(self) -> bytes:
        """The struct: number, architecture, instruction pointer, six arguments."""
        given = [each & (1 << 64) - 1 for each in self.arguments]
        given += [0] * (6 - len(given))
        return struct.pack("<IIQ6Q", self.number & 0xFFFFFFFF, self.architecture, 0, *given)


def run(program: bytes, call: Call) -> tuple[str, int]:
    """The filter's answer by its name (an errno's, or 0 for success), and the steps it took."""
    data = call.packed()
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = steps = 0
    while True:
        if at >= len(code):
            raise BadProgramError(f"falls off its end, at {at}")
        operation, yes, no, value = code[at]
        at += 1
        steps += 1
        match operation:
            case 0x20:  # ld [k]
                if value % 4 or value > len(data) - 4:
                    raise BadProgramError(f"loads from {value}")
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:  # and #k
                accumulator &= value
            case 0x05:  # ja k
                at += value
            case 0x15:  # jeq #k
                at += yes if accumulator == value else no
            case 0x25:  # jgt #k
                at += yes if accumulator > value else no
            case 0x35:  # jge #k
                at += yes if accumulator >= value else no
            case 0x45:  # jset #k
                at += yes if accumulator & value else no
            case 0x06:  # ret #k
                return name_of(value), steps
            case _:
                raise BadProgramError(f"unknown instruction {operation:#x}")


def name_of(answer: int) -> str:
    """An answer in words."""
    if answer & 0xFFFF0000 == 0x00050000:
        number = answer & 0xFFFF
        return errno.errorcode[number] if number else "0"
    return ANSWERS[answer]


def check(program: bytes) -> None:
    """Every jump lands inside, and the end is an answer, whatever path is taken."""
    code = list(struct.iter_unpack("<HBBI", program))
    if not 0 < len(code) <= 4096:
        raise BadProgramError(f"{len(code)} instructions")
    for at, (operation, yes, no, value) in enumerate(code):
        if operation == 0x06:
            continue
        steps = {value} if operation == 0x05 else {yes, no}
        if max(steps) + at + 1 >= len(code):
            raise BadProgramError(f"instruction {at} leads out of the program")
