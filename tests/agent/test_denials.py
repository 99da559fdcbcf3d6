"""What is said of an error that the sandbox caused: the grant that would allow it, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovagent_jupyter.agent.denials import Denial, denied
from ovagent_jupyter.agent.turn import StepRecord
from ovagent_jupyter.execution.executor import CodeError, ExecutionStatus, Isolation

H5PY = (
    "[Errno {number}] Unable to synchronously open file (unable to open file: name = '{path}', "
    "errno = {number}, error message = 'said by the system', flags = 0, o_flags = 0)"
)


def failed(
    name: str, message: str, code: str = "", status: ExecutionStatus = ExecutionStatus.ERROR
) -> StepRecord:
    return StepRecord(
        id="s",
        title="Do it",
        code=code,
        status=status,
        duration=0.1,
        error=CodeError(name, message),
    )


def said(step: StepRecord, isolation: Isolation = Isolation.CONFINED) -> Denial:
    denial = denied(step, isolation)
    assert denial is not None
    return denial


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file that the code was not granted."""
    path = tmp_path / "ref data.h5ad"
    path.write_bytes(b"data")
    return path


@pytest.mark.parametrize("isolation", [Isolation.CONFINED, Isolation.NAMESPACES])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("PermissionError", "[Errno 13] Permission denied: '{path}'"),
        ("PermissionError", "[Errno 1] Operation not permitted: '{path}'"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '{path}'"),
        ("PermissionError", H5PY.replace("{number}", "13")),
        ("FileNotFoundError", H5PY.replace("{number}", "2")),
    ],
)
def test_a_file_that_was_not_granted_is_named_with_its_grant(
    data: Path, isolation: Isolation, name: str, form: str
) -> None:
    denial = said(failed(name, form.format(path=data), f"sc.read_h5ad('{data}')"), isolation)
    assert denial.grant == f"read '{data}'"
    assert f"%ovagent policy read '{data}'" in denial.message
    assert "\n" not in denial.message


def test_a_file_that_is_written_needs_a_grant_to_write(data: Path) -> None:
    step = failed(
        "PermissionError", f"[Errno 13] Permission denied: '{data}'", f"open('{data}', 'w')"
    )
    assert said(step).grant == f"write '{data}'"


def test_a_new_file_needs_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "new.csv"
    step = failed(
        "FileNotFoundError",
        f"[Errno 2] No such file or directory: '{target}'",
        f"markers_df.to_csv('{target}')",
    )
    assert said(step, Isolation.NAMESPACES).grant == f"write {tmp_path}"


def test_what_is_really_not_there_is_no_denial(tmp_path: Path) -> None:
    message = f"[Errno 2] No such file or directory: '{tmp_path / 'absent.h5ad'}'"
    step = failed("FileNotFoundError", message, "sc.read_h5ad(path)")
    assert denied(step, Isolation.NAMESPACES) is None


@pytest.mark.parametrize("path", ["/", "/etc", "/proc", str(Path.home())])
def test_what_is_never_granted_is_not_offered(path: str) -> None:
    """The child chooses the text of its errors: it must not talk the user into this."""
    denial = said(failed("PermissionError", f"[Errno 13] Permission denied: '{path}'"))
    assert denial.grant == ""
    assert "never granted" in denial.message


PROXY = (
    "403: The sandbox did not let the code reach c.org:80. "
    "To allow it: %ovagent policy network c.org"
)
NETWORK = {
    "a URL in the code": (
        *("URLError", "<urlopen error [Errno 13] Permission denied>", "urlopen('https://a.org/x')"),
        "network a.org",
    ),
    "a bare socket": (
        *("PermissionError", "[Errno 13] Permission denied", "import socket\nsocket.socket()"),
        "network HOST",
    ),
    "a name": ("gaierror", "[Errno -3] Temporary failure in name resolution", "", "network HOST"),
    "requests": (
        *("ConnectionError", "HTTPSConnectionPool(host='b.org', port=443): Max retries", ""),
        "network b.org",
    ),
    "the proxy": ("HTTPError", PROXY, "", "network c.org"),
    "this machine": ("ConnectionError", "HTTPConnectionPool(host='localhost', port=8888)", "", ""),
}


@pytest.mark.parametrize(("name", "message", "code", "grant"), NETWORK.values(), ids=NETWORK.keys())
def test_the_network_is_named_with_the_host_where_it_is_known(
    name: str, message: str, code: str, grant: str
) -> None:
    assert said(failed(name, message, code)).grant == grant


@pytest.mark.parametrize(
    "step",
    [
        failed("ValueError", "no such gene"),
        failed("PermissionError", "[Errno 13] Permission denied: 'relative.csv'"),
        failed("PermissionError", "[Errno 13] Permission denied: '/a\x1b[31m'"),
        failed("PermissionError", "[Errno 13] Permission denied: '/a\u202eb'"),
        failed("PermissionError", f"[Errno 13] Permission denied: '/{'x' * 5000}'"),
        failed("PermissionError", "[Errno 13] Permission denied: '/etc'", "", ExecutionStatus.DEAD),
    ],
)
def test_other_failures_and_made_up_texts_are_no_denial(step: StepRecord) -> None:
    assert denied(step, Isolation.NAMESPACES) is None


def test_below_the_boundary_of_the_system_nothing_is_denied(data: Path) -> None:
    step = failed("PermissionError", f"[Errno 13] Permission denied: '{data}'")
    assert denied(step, Isolation.PROCESS) is None
    assert denied(step, Isolation.IN_PROCESS) is None
