"""What a display may hold: images that are images, drawings that cannot run, text that is seen."""

from __future__ import annotations

import base64
import io
import re
import struct

import matplotlib.pyplot as plt
import nbconvert
import nbformat
import pytest

from ovagent_jupyter.execution.bundles import (
    DEEPEST_JSON,
    LONGEST_HTML,
    clean_bundle,
    clean_metadata,
    clean_text,
)


def figure(kind: str) -> bytes:
    plt.plot([1, 2])
    file = io.BytesIO()
    plt.savefig(file, format=kind)
    plt.close()
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int) -> str:
    return b64(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\6\0\0\0"
    )


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_figures_pass(kind: str) -> None:
    data = figure(kind)
    text = base64.encodebytes(data).decode()
    assert base64.b64decode(clean_bundle({f"image/{kind}": text})[f"image/{kind}"]) == data


@pytest.mark.parametrize(
    ("mime", "text"),
    [
        ("image/png", b64(b"<svg onload=alert(1)>" * 9)),
        ("image/png", png(0, 5)),
        ("image/png", png(60_000, 60_000)),
        ("image/png", png(2**31, 2**31)),
        ("image/png", b64(b"\x89PNG\r\n\x1a\n")),
        ("image/png", png(1, 1)[:-1]),
        ("image/png", "data:" + png(1, 1)),
        ("image/jpeg", png(1, 1)),
        ("image/jpeg", b64(b"\xff\xd8\xff\xe0\0\0" * 9)),
        ("image/jpeg", b64(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff" + b"\0" * 9)),
        ("image/jpeg", b64(b"\xff\xd8\xff")),
        ("image/jpeg", ""),
    ],
)
def test_what_is_no_image_or_a_huge_one(mime: str, text: str) -> None:
    assert clean_bundle({mime: text, "text/plain": "<Figure>"}) == {"text/plain": "<Figure>"}


def drawing(bundle: dict[str, str]) -> str:
    found = re.fullmatch(
        r'<img src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"[^<>]*>', bundle["text/html"]
    )
    assert found is not None
    return base64.b64decode(found[1]).decode()


def test_a_drawing_becomes_an_image() -> None:
    source = figure("svg").decode()
    metadata = {"image/svg+xml": {"width": 99999, "height": 7, "class": "x", "x": '"><script>'}}
    bundle = clean_bundle({"image/svg+xml": source, "text/plain": "<Figure>"}, metadata)
    assert set(bundle) == {"text/html", "text/plain"}
    assert drawing(bundle) == source
    assert ' height="7"' in bundle["text/html"]
    assert "99999" not in bundle["text/html"]
    assert "script" not in bundle["text/html"]


def test_a_drawing_without_its_namespace_gets_it() -> None:
    bundle = clean_bundle({"image/svg+xml": "<svg width='5'><circle r='1'/></svg>"})
    assert drawing(bundle).startswith('<svg xmlns="http://www.w3.org/2000/svg" width=')


@pytest.mark.parametrize(
    "source",
    [
        "no drawing",
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
        "<svg>" + "x" * 9_000_000 + "</svg>",
    ],
    ids=["none", "entities", "large"],
)
def test_drawings_that_are_not_shown(source: str) -> None:
    bundle = clean_bundle({"image/svg+xml": source})
    assert bundle == {"text/plain": "[image/svg+xml: not shown]"}


def test_a_picture_or_html_is_shown_before_a_drawing() -> None:
    both = clean_bundle({"image/svg+xml": "<svg></svg>", "image/png": png(1, 1)})
    assert set(both) == {"image/png"}
    html = clean_bundle({"image/svg+xml": "<svg></svg>", "text/html": "<b>x</b>"})
    assert html == {"text/html": "<b>x</b>"}
    prose = clean_bundle({"text/markdown": "**x**", "text/html": "<i>y</i>"})
    assert prose == {"text/html": "<i>y</i>"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_static_exports_show_a_drawing() -> None:
    bundle = clean_bundle({"image/svg+xml": figure("svg").decode()})
    output = nbformat.v4.new_output("display_data", bundle)
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    page, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(notebook)
    assert bundle["text/html"].split('"')[1] in page


def test_json_is_bounded_in_depth_and_size() -> None:
    nested: object = 1
    for _ in range(DEEPEST_JSON - 2):
        nested = [nested]
    assert "application/json" in clean_bundle({"application/json": nested})
    for _ in range(5000):
        nested = {"a": nested}
    assert clean_bundle({"application/json": nested}) == {
        "text/plain": "[application/json: not shown]"
    }
    assert "application/json" not in clean_bundle({"application/json": "x" * LONGEST_HTML})
    assert clean_bundle({"application/json": {"a": "\x1b[2J\u202e"}})["application/json"] == (
        '{"a": "\\u001b[2J"}'
    )


def test_html_that_is_too_long_leaves_the_text() -> None:
    data = {"text/html": "x" * (LONGEST_HTML + 1), "text/plain": "short"}
    assert clean_bundle(data) == {"text/plain": "short"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x1b[38;5;8mgrey\x1b[48;2;5;6;8mx\x1b[m", "\x1b[38;5;8mgrey\x1b[48;2;5;6;8mx\x1b[m"),
        ("\x1b[8mhidden\x1b[0;5mblink\x1b[31;8mboth", "hiddenblinkboth"),
        ("\x1b]8;;https://evil\x1b\\text\x1b]8;;\x1b\\", "text"),
        ("\x1b]8;;https://evil\x07text\x1b]8;;\x07", "text"),
        ("\x1b]52;c;cm0gLXJm\x07clipboard", "clipboard"),
        ("\x1bPq#0;2;0;0;0\x1b\\sixel\x1b_Gi=1;AAAA\x1b\\kitty\x1b^x\x1b\\", "sixelkitty"),
        ("\x1b[2J\x1b[H\x1b[5A\x1b[?1049h\x1bc\x1b[6nx", "x"),
        ("\x1b\x1b[2J[8mx", "[8mx"),
        ("\x1b[3\x1b[2J1mx", "31mx"),
        ("\x1b" * 9 + "[31mx", "\x1b[31mx"),
        ("50 %\r100 %\b\b\ttab\n", "50 %\r100 %\b\b\ttab\n"),
        ("bell\x07 shift\x0e null\0 delete\x7f enquiry\x05", "bell shift null delete enquiry"),
        ("\x9b31m\x90x\u202egnp.exe\u2066a\u2069", "31mxgnp.exea"),
        ("tags\U000e0041\U000e0042 👩\u200d🔬 \u200fא", "tags 👩\u200d🔬 \u200fא"),
        ("a\ud800b", "a?b"),
    ],
)
def test_text_shows_what_it_says(text: str, seen: str) -> None:
    assert clean_text(text) == seen


def test_metadata_is_small_and_plain() -> None:
    entry = {"width": '1" onload="x', "height": float("nan"), "needs_background": "light"}
    assert clean_metadata({"image/png": entry}) == {"image/png": {"needs_background": "light"}}
    assert clean_metadata({"image/png": {"width": 1e9, "height": -1, "unconfined": True}}) == {
        "image/png": {"unconfined": True}
    }
