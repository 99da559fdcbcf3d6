"""Code is written so that no text of a user's can break out of it."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from ovagent_jupyter.errors import DataError
from ovagent_jupyter.omics.rendering import LINE, Code, call, literal, mapping, variable, words
from ovagent_jupyter.omics.step import STEPS, fill_slots

TEXTS = ["plain", 'a "quoted" word', "it's", "back\\slash", "new\nline", "", "é→中", "\x00", '"""']


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_unchanged(text: str) -> None:
    assert ast.literal_eval(literal(text)) == text
    assert ast.literal_eval(literal({text: [text, (text,)]})) == {text: [text, [text]]}


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (None, "None"),
        (True, "True"),
        (3, "3"),
        (0.5, "0.5"),
        (np.int64(3), "3"),
        (np.float64(0.5), "0.5"),
        (np.str_("x"), '"x"'),
        (float("inf"), 'float("inf")'),
        (Code("min(1, 2)"), "min(1, 2)"),
    ],
)
def test_values(value: object, source: str) -> None:
    assert literal(value) == source


def test_value_without_source_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be written as code"):
        literal(object())


@pytest.mark.parametrize("name", ["a b", "x;y", "", "class", "f()", "1x"])
def test_only_names_stand_for_variables(name: str) -> None:
    with pytest.raises(DataError, match="not the name of a variable"):
        variable(name)
    with pytest.raises(DataError, match="not the name of a variable"):
        STEPS.get("log1p").render(name, {})


def test_long_calls_are_wrapped() -> None:
    assert call("f", Code("x"), a=1, b=None) == "f(x, a=1)"
    long = call("f", Code("x"), genes=["GENE"] * 20, more="y" * 30)
    assert long.splitlines()[0] == "f("
    assert len(call("f", Code("x" * 60))) <= LINE


def test_mapping_and_words() -> None:
    assert mapping("m", {"a": 1}) == 'm = {\n    "a": 1,\n}'
    assert words(None) == []
    assert words("x") == ["x"]
    assert words(("x", 1)) == ["x", "1"]


def test_slots_are_filled_with_parameters() -> None:
    slots = ("obs/{keys}", "obs/{none}", "uns/{a}_{b}", "X")
    params = {"keys": ["p", "q"], "none": None, "a": 1, "b": "z"}
    assert fill_slots(slots, params) == ("obs/p", "obs/q", "uns/1_z", "X")


def test_reads_depend_on_what_is_given() -> None:
    dotplot, dpt = STEPS.get("plot_dotplot"), STEPS.get("dpt")
    assert "uns/rank_genes_groups" in dotplot.read_slots({})
    assert "uns/rank_genes_groups" not in dotplot.read_slots({"genes": ["CD3D"]})
    assert "obs/leiden" in dpt.read_slots({"root_cluster": "0"})
    assert "obs/leiden" not in dpt.read_slots({"root_cell": "AAAC"})
    assert "obs/batch" in STEPS.get("hvg").read_slots({"batch_key": "batch"})


def test_defaults_give_way_to_what_is_given() -> None:
    leiden = STEPS.get("leiden")
    assert "resolution=1.0" in leiden.render("adata", {})
    assert "resolution=0.4" in leiden.render("adata", {"resolution": 0.4})
    assert leiden.written_slots({"key_added": "fine"}) == ("obs/fine", "uns/fine")
    assert "target_sum" not in STEPS.get("normalize").render("adata", {"target_sum": None})
