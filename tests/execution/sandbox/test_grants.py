"""Which files a child is given: its packages and what is named, not what lies beside them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ConfinementError
from ovagent_jupyter.execution.sandbox.grants import Grants, grants_for


def made(
    home: Path, *, read: tuple[Path, ...] = (), write: tuple[Path, ...] = (), python_path: str = ""
) -> Grants:
    return grants_for(
        python=sys.executable,
        environment={"HOME": "/private", "PYTHONPATH": python_path},
        read=read,
        write=write,
        home=home,
    )


def kind_of(grants: Grants, path: Path) -> str:
    """What a path gets: of the innermost grant that holds it."""
    pairs = dict(grants.pairs)
    for place in (path, *path.parents):
        if str(place) in pairs:
            return pairs[str(place)]
    return ""


def test_the_interpreter_and_its_packages_can_be_read(tmp_path: Path) -> None:
    grants = made(tmp_path)
    for place in (os.__file__, pytest.__file__, sys.executable, "/usr/bin/env"):
        assert kind_of(grants, Path(place).resolve()) == "read", place


def test_nothing_of_the_home_comes_with_them(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    grants = made(tmp_path)
    for place in (tmp_path, tmp_path / ".ssh" / "id", Path("/etc/shadow"), Path("/var/lib/x")):
        assert kind_of(grants, place) == "", place
    assert not [path for path, _ in grants.pairs if path in {"/", "/etc", "/proc", "/sys", "/dev"}]


def test_a_path_entry_gives_what_can_be_imported_and_no_more(tmp_path: Path) -> None:
    entry = tmp_path / "project"
    (entry / "package").mkdir(parents=True)
    (entry / "package" / "__init__.py").touch()
    (entry / "module.py").touch()
    (entry / ".env").write_text("KEY=secret")
    (entry / "data").mkdir()
    (entry / "data" / "patients.csv").touch()
    grants = made(tmp_path, python_path=str(entry))
    assert kind_of(grants, entry / "package" / "part.py") == "read"
    assert kind_of(grants, entry / "module.py") == "read"
    assert kind_of(grants, entry / ".env") == "list"
    assert kind_of(grants, entry / "data" / "patients.csv") == "list"


def test_an_editable_install_is_found(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "src" / "tool").mkdir(parents=True)
    (source / "src" / "tool" / "__init__.py").touch()
    (source / "notes.txt").touch()
    site = tmp_path / "site"
    record = site / "tool-1.dist-info"
    record.mkdir(parents=True)
    told = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (record / "direct_url.json").write_text(json.dumps(told))
    grants = made(tmp_path, python_path=str(site))
    assert kind_of(grants, source / "src" / "tool" / "__init__.py") == "read"
    assert kind_of(grants, source / "notes.txt") == "list"


def test_a_path_through_a_link_is_granted_where_it_leads(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "short").symlink_to("real")
    (real / "data.h5ad").touch()
    grants = made(tmp_path / "home", read=(tmp_path / "short" / "data.h5ad",))
    assert dict(grants.pairs)[str(real / "data.h5ad")] == "read"
    assert dict(grants.links)[str(tmp_path / "short")] == "real"


def test_links_that_turn_in_circles_give_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    grants = made(tmp_path / "home", read=(tmp_path / "a",))
    assert kind_of(grants, tmp_path / "a") == ""


def test_writing_covers_reading_and_more_is_kept(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    writable = made(Path("/nowhere"), read=(inner,), write=(tmp_path,))
    assert str(inner) not in dict(writable.pairs)
    readable = made(Path("/nowhere"), read=(tmp_path,), write=(inner,))
    assert kind_of(readable, inner) == "write"
    assert kind_of(readable, tmp_path / "other") == "read"


def test_the_root_of_its_own_names_only_this_user(tmp_path: Path) -> None:
    texts = dict(made(tmp_path).texts)
    assert len(texts["/etc/passwd"].splitlines()) == 1
    assert f":{os.geteuid()}:" in texts["/etc/passwd"]
    assert texts["/etc/passwd"].rstrip().endswith("/private:/bin/sh")


def test_an_interpreter_that_does_not_answer_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ConfinementError, match="does not say") as caught:
        grants_for(python=str(broken), environment={"HOME": "/x"}, read=(), write=(), home=tmp_path)
    assert "no such module" in caught.value.why
    assert caught.value.cause == "setup_failed"
