"""An assembler for the classic BPF programs that seccomp runs before each system call.

Source: linux/filter.h, linux/bpf_common.h, linux/seccomp.h and linux/audit.h of the kernel's uapi
headers, and seccomp(2).
"""

from __future__ import annotations

import struct

# linux/bpf_common.h: instruction classes and their modes
BPF_LD_W_ABS = 0x20
"""BPF_LD | BPF_W | BPF_ABS: the accumulator gets 4 bytes of ``struct seccomp_data``."""
BPF_ALU_AND_K = 0x54
"""BPF_ALU | BPF_AND | BPF_K."""
BPF_JMP_JA = 0x05
BPF_JMP_JEQ_K = 0x15
BPF_JMP_JGE_K = 0x35
BPF_JMP_JSET_K = 0x45
BPF_RET_K = 0x06

BPF_MAXINSNS = 4096
"""linux/bpf_common.h: instructions in one program."""
FARTHEST = 255
"""A conditional jump has 8 bits for how many instructions to skip."""
WORD = 0xFFFFFFFF
_CONDITIONAL = frozenset({BPF_JMP_JEQ_K, BPF_JMP_JGE_K, BPF_JMP_JSET_K})
_SIZE = 8
"""Bytes of an instruction."""

# struct seccomp_data, linux/seccomp.h
NUMBER = 0
ARCHITECTURE = 4

# Answers, linux/seccomp.h
RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_ALLOW = 0x7FFF0000

# linux/audit.h: the machine of linux/elf-em.h, with two bits for 64 bits and little endian
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def argument(place: int) -> int:
    """Where the low 32 bits of an argument lie in ``struct seccomp_data``, first is 0.

    The high bits are not looked at by the kernel either, for arguments that are ``int``. Both
    architectures are little endian; another byte order is another ``AUDIT_ARCH``.
    """
    return 16 + 8 * place


def fail(number: int) -> int:
    """The answer that makes a call return without effect: an errno, or 0 for success."""
    return RET_ERRNO | number


class Program:
    """A program under construction; jumps go to labels, which come later than the jump."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}
        self._fresh = 0

    def label(self) -> str:
        """A new label, not yet placed."""
        self._fresh += 1
        return f"label {self._fresh}"

    def place(self, label: str) -> None:
        """Let a label mean the next instruction."""
        if label in self._labels:
            raise ValueError(f"The label {label!r} is placed twice.")
        self._labels[label] = len(self._code)

    def load(self, offset: int) -> None:
        """Put a word of the call's data into the accumulator."""
        self._code.append((BPF_LD_W_ABS, offset, "", ""))

    def keep(self, mask: int) -> None:
        """Clear the accumulator's bits that are not in a mask."""
        self._code.append((BPF_ALU_AND_K, mask, "", ""))

    def give(self, answer: int) -> None:
        """End with an answer."""
        self._code.append((BPF_RET_K, answer, "", ""))

    def go(self, label: str) -> None:
        """Jump."""
        self._code.append((BPF_JMP_JA, 0, label, ""))

    def equal(self, value: int, yes: str = "", no: str = "") -> None:
        """Jump by whether the accumulator is a value; no label is the next instruction."""
        self._code.append((BPF_JMP_JEQ_K, value, yes, no))

    def at_least(self, value: int, yes: str = "", no: str = "") -> None:
        """Jump by whether the accumulator, taken as unsigned, reaches a value."""
        self._code.append((BPF_JMP_JGE_K, value, yes, no))

    def any_of(self, bits: int, yes: str = "", no: str = "") -> None:
        """Jump by whether the accumulator has one of some bits."""
        self._code.append((BPF_JMP_JSET_K, bits, yes, no))

    def choose(self, cases: dict[int, int | str], otherwise: int | str) -> None:
        """Go on by the accumulator: each value has an answer, or a label to jump to.

        A binary search: n intervals cost about log2(n) instructions.
        """
        starts: list[int] = []
        targets: list[int | str] = []

        def begin(start: int, target: int | str) -> None:
            if starts and starts[-1] == start:
                starts.pop()
                targets.pop()
            if not targets or targets[-1] != target:
                starts.append(start)
                targets.append(target)

        begin(0, otherwise)
        for value in sorted(cases):
            begin(value, cases[value])
            if value < WORD:
                begin(value + 1, otherwise)
        self._search(starts, targets)

    def _search(self, starts: list[int], targets: list[int | str]) -> None:
        if len(targets) == 1:
            target = targets[0]
            if isinstance(target, str):
                self.go(target)
            else:
                self.give(target)
            return
        middle = len(targets) // 2
        upper = self.label()
        self.at_least(starts[middle], yes=upper)
        self._search(starts[:middle], targets[:middle])
        self.place(upper)
        self._search(starts[middle:], targets[middle:])

    def assemble(self) -> bytes:
        """The program as the kernel takes it: an array of ``struct sock_filter``.

        Raises:
            ValueError: A label is missing or lies behind, or the program is too long.
        """
        far: set[int] = set()
        while True:
            places = self._places(far)
            too_far = {
                at
                for at, (code, _, yes, no) in enumerate(self._code)
                if code in _CONDITIONAL
                and at not in far
                and max(self._distance(places, at, each) for each in (yes, no)) > FARTHEST
            }
            if not too_far:
                break
            far |= too_far
        packed = b"".join(
            self._instruction(places, at, far=at in far) for at in range(len(self._code))
        )
        if len(packed) > BPF_MAXINSNS * _SIZE:
            raise ValueError(
                f"{len(packed) // _SIZE} instructions; the kernel takes {BPF_MAXINSNS}."
            )
        return packed

    def _places(self, far: set[int]) -> list[int]:
        """Where each instruction starts; a far jump takes three."""
        places = [0]
        for at in range(len(self._code)):
            places.append(places[-1] + (3 if at in far else 1))
        return places

    def _distance(self, places: list[int], at: int, label: str) -> int:
        """Instructions that a jump skips."""
        if not label:
            return 0
        if label not in self._labels:
            raise ValueError(f"The label {label!r} is not placed.")
        distance = places[self._labels[label]] - places[at + 1]
        if distance < 0:
            raise ValueError(f"The label {label!r} lies before a jump to it.")
        return distance

    def _instruction(self, places: list[int], at: int, *, far: bool) -> bytes:
        code, value, yes, no = self._code[at]
        if code == BPF_JMP_JA:
            return _pack(code, self._distance(places, at, yes))
        taken, passed = (self._distance(places, at, each) for each in (yes, no))
        if far:
            # The condition only selects one of two plain jumps, which reach everywhere.
            return (
                _pack(code, value, 0, 1) + _pack(BPF_JMP_JA, taken + 1) + _pack(BPF_JMP_JA, passed)
            )
        return _pack(code, value, taken, passed)


def _pack(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One ``struct sock_filter``, linux/filter.h."""
    return struct.pack("=HBBI", code, yes, no, value)
