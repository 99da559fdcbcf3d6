"""Lines that many processes append: torn ones, full disks, and reading from the end."""

from __future__ import annotations

import fcntl
import io
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.storage.history import HistoryEntry, SessionHistory
from ovagent_jupyter.storage.jsonl import (
    BLOCK,
    Corrupt,
    Line,
    append_record,
    read_lines_back,
    read_records,
    read_records_back,
)

ENTRIES = 500


def entries(path: Path) -> list[dict[str, object] | None]:
    """What the file's lines hold; None for a corrupt one."""
    return [line.record if isinstance(line, Line) else None for line in read_records(path)]


@pytest.mark.parametrize("torn", [b'{"n":', b"{", b'{"n":1}', b"\xff\xfe", b"x" * 3 * BLOCK])
def test_torn_last_line_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    append_record(path, {"n": 0})
    with path.open("ab") as file:
        file.write(torn)
    append_record(path, {"n": 2})
    whole = [record for record in entries(path) if record]
    assert whole[0] == {"n": 0}
    assert whole[-1] == {"n": 2}
    assert len(entries(path)) == 3


def test_torn_history_line_is_skipped_and_counted(tmp_path: Path) -> None:
    history = SessionHistory(tmp_path / "history.jsonl")
    history.append(HistoryEntry(session_id="s", request="first"))
    size = history.path.stat().st_size
    history.append(HistoryEntry(session_id="s", request="torn"))
    os.truncate(history.path, size + 40)
    assert [found.request for found in history.get_recent(5)] == ["first"]
    assert history.skipped == 1
    history.append(HistoryEntry(session_id="s", request="second"))
    for found in (history.get_recent(5), history.get_session("s")):
        assert [entry.request for entry in found] == ["first", "second"]
        assert history.skipped == 1


@pytest.mark.parametrize("junk", [b"\n\n", b"[1,2]\n", b"3\n", b"\x00\x00\n", b'"text"\n'])
def test_what_is_no_object_is_corrupt_or_blank(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    append_record(path, {"n": 0})
    with path.open("ab") as file:
        file.write(junk)
    append_record(path, {"n": 1})
    forth, back = list(read_records(path)), list(read_records_back(path))
    assert forth == back[::-1]
    assert [line for line in forth if isinstance(line, Line)] == [Line({"n": 0}), Line({"n": 1})]
    assert sum(isinstance(line, Corrupt) for line in forth) == bool(junk.strip())


@pytest.mark.parametrize("length", [1, 100, BLOCK - 20, BLOCK, BLOCK + 1, 5 * BLOCK])
@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_reading_back_is_reading_forth_reversed(length: int, ending: bytes) -> None:
    lines = [str(number).encode() * length for number in range(4)]
    content = b"\n".join(lines) + ending
    assert list(read_lines_back(io.BytesIO(content))) == lines[::-1]


class CountingFile(io.BytesIO):
    """A file in memory that counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read and count."""
        piece = super().read(size)
        self.taken += len(piece)
        return piece


def test_reading_the_end_of_a_large_file_takes_one_block() -> None:
    line = json.dumps(HistoryEntry(session_id="s", request="r").as_record()).encode() + b"\n"
    file = CountingFile(line * 200_000)
    found = read_lines_back(file)
    assert [next(found) for _ in range(20)] == [line.rstrip()] * 20
    assert file.taken <= BLOCK
    assert len(file.getvalue()) > 500 * BLOCK


def test_recent_of_a_large_history(tmp_path: Path) -> None:
    history = SessionHistory(tmp_path / "history.jsonl")
    entry = HistoryEntry(session_id="s", request="old")
    line = json.dumps(entry.as_record(), separators=(",", ":")) + "\n"
    history.path.write_text(line * 200_000)
    history.append(HistoryEntry(session_id="t", request="new"))
    assert [found.request for found in history.get_recent(3)] == ["old", "old", "new"]
    assert [found.request for found in history.get_session("t")] == ["new"]


def write_many(path: Path, writer: int) -> None:
    """What each of several processes does at once."""
    history = SessionHistory(path)
    for number in range(ENTRIES):
        history.append(HistoryEntry(session_id=f"w{writer}", request=f"{number} " + "x" * 3_000))


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    history = SessionHistory(path)
    for number in range(2):
        found = [entry.request.split()[0] for entry in history.get_session(f"w{number}")]
        assert found == [str(n) for n in range(ENTRIES)]
        assert history.skipped == 0
    assert len(path.read_bytes().splitlines()) == 2 * ENTRIES


def test_writer_that_hangs_is_not_waited_for_without_end(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_record(path, {"n": 0})
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="held its lock"):
            append_record(path, {"n": 1}, patience=0.05)
    append_record(path, {"n": 2})
    assert entries(path) == [{"n": 0}, {"n": 2}]


def append_all(path: Path, records: list[dict[str, object]]) -> None:
    """Append one after the other."""
    for record in records:
        append_record(path, record)


def test_full_disk_leaves_no_torn_line(small_disk: Path) -> None:
    path = small_disk / "lines.jsonl"
    records = [{"n": number, "x": "x" * 50_000} for number in range(100)]
    with pytest.raises(StorageError, match="No space left") as caught:
        append_all(path, records)
    written = len(entries(path))
    assert 0 < written < 100
    assert len(caught.value.lines()) <= 6
    assert path.read_bytes().endswith(b"\n")
    assert [record["n"] for record in entries(path) if record] == list(range(written))
    os.truncate(path, path.stat().st_size // 2)
    append_record(path, {"n": "after room was made"})
    assert entries(path)[-1] == {"n": "after room was made"}


LIMITED = """
import resource, sys
from pathlib import Path
from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.storage.jsonl import append_record
path = Path(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
append_record(path, {"n": 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
try:
    append_record(path, {"n": 1, "x": "x" * 10_000})
except StorageError as error:
    sys.stdout.write(str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
append_record(path, {"n": 2})
"""


def test_file_that_may_not_grow_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert entries(path) == [{"n": 0}, {"n": 2}]
