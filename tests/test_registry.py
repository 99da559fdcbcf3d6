"""Tables of names: lazy rows, plugins, and two owners of one name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ovagent_jupyter.errors import RegistryError
from ovagent_jupyter.registry import Registry


@pytest.fixture
def table() -> Registry[object]:
    return Registry("colour")


def plugin(place: Path, name: str, rows: str) -> None:
    """Install a distribution that names entry points and nothing else."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ovagent_jupyter.colour]\n{rows}\n")


def test_thing_comes_back_and_names_keep_their_order(table: Registry[object]) -> None:
    table.register("red", 1)
    table.register("blue", 2)
    assert (table.get("red"), list(table), len(table)) == (1, ["red", "blue"], 2)
    assert "red" in table
    assert "green" not in table


def test_none_is_a_thing_too(table: Registry[object]) -> None:
    table.register("clear", None)
    assert table.get("clear") is None


def test_lazy_row_is_imported_when_it_is_asked_for(table: Registry[object]) -> None:
    table.register_lazy("red", "wave:Error")
    loaded = "wave" in sys.modules
    assert list(table) == ["red"]
    assert ("wave" in sys.modules) == loaded
    import wave

    assert table.get("red") is wave.Error
    assert table.get("red") is wave.Error


def test_two_owners_are_both_named(table: Registry[object]) -> None:
    table.register("red", 1, owner="package a")
    with pytest.raises(RegistryError, match="by package a and by package b"):
        table.register_lazy("red", "b:red", owner="package b")
    assert table.get("red") == 1


def test_owner_is_the_module_that_registers(table: Registry[object]) -> None:
    table.register("red", 1)
    with pytest.raises(RegistryError, match=__name__.rpartition(".")[2]):
        table.register("red", 2)


def test_unknown_name_lists_the_known(table: Registry[object]) -> None:
    with pytest.raises(RegistryError, match="Known: none"):
        table.get("red")
    table.register("blue", 1)
    with pytest.raises(RegistryError, match=r"no colour named 'red'.*\n.*Known: blue"):
        table.get("red")


def test_target_must_name_module_and_attribute(table: Registry[object]) -> None:
    with pytest.raises(RegistryError, match=r"package\.module:attribute"):
        table.register_lazy("red", "json.loads")


@pytest.mark.parametrize("target", ["no_such_module_here:x", "json:no_such_attribute"])
def test_row_that_cannot_be_loaded_names_its_owner(table: Registry[object], target: str) -> None:
    table.register_lazy("red", target, owner="package a")
    for _ in range(2):
        with pytest.raises(RegistryError, match="registered by package a"):
            table.get("red")


def test_plugin_adds_a_row_without_being_imported(
    table: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "paint", "green = paint_shop:green")
    (tmp_path / "paint_shop.py").write_text("green = 'a green thing'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(table) == ["green"]
    assert "paint_shop" not in sys.modules
    assert table.get("green") == "a green thing"


def test_plugin_that_is_broken_names_itself(
    table: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "paint", "green = no_such_module_here:green")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RegistryError, match="registered by paint"):
        table.get("green")


def test_plugin_that_takes_a_name_is_told_every_time(
    table: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "paint", "black = json:loads\nred = json:loads\nwhite = json:loads")
    monkeypatch.syspath_prepend(str(tmp_path))
    table.register("red", 1, owner="package a")
    for _ in range(2):
        with pytest.raises(RegistryError, match="by package a and by paint"):
            table.get("red")
