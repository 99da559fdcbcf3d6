"""HTML and Markdown of a child as markup that can only show: no script, no request, no overlay.

Two locks. ``_Rewriter`` reads the markup once, from left to right, and writes it anew: known tags
in proper nesting, known attributes, checked values. That bounds what a parser can make of it;
139 kB of badly nested tags became 660 MB in a conforming one. Then nh3 parses the result and
keeps its own lists.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator

from ovagent_jupyter.execution.styles import declarations, own_class, rules

MOST_TAGS = 200_000
DEEPEST = 64
LONGEST_MARKDOWN = 100_000
"""Characters: some texts take a Markdown parser time by the square of their length."""

_STRUCTURE = {
    "table": frozenset({"caption", "colgroup", "thead", "tbody", "tfoot", "tr"}),
    "thead": frozenset({"tr"}),
    "tbody": frozenset({"tr"}),
    "tfoot": frozenset({"tr"}),
    "colgroup": frozenset({"col"}),
    "tr": frozenset({"td", "th"}),
}
"""What may lie directly in the parts of a table; anything else there moves about in a parser."""
_IN_TABLES = frozenset().union(*_STRUCTURE.values())
_CELLS = frozenset({"td", "th", "caption"})
_TABLE = frozenset({"table"})
_VOID = frozenset({"br", "hr", "img", "col", "wbr"})
_BLOCKS = frozenset(
    "address article aside blockquote center dd details div dl dt figcaption figure footer h1 h2 h3"
    " h4 h5 h6 header hr li main nav ol p pre section summary table ul".split()
)
_INLINE = frozenset(
    "a abbr b bdi big cite code del dfn em font i img ins kbd mark q s samp small span strike"
    " strong sub sup time tt u var br wbr".split()
)
TAGS = _BLOCKS | _INLINE | _IN_TABLES
_RAW = frozenset(
    "canvas embed iframe math noembed noframes noscript object plaintext script select style svg"
    " template textarea title xmp".split()
)
"""Elements that go with what is in them."""
_ITEMS = {"li": ("li",), "dt": ("dt", "dd"), "dd": ("dt", "dd")}
"""Elements that end the one before them."""
_AROUND_ITEMS = (_BLOCKS | _CELLS) - {"address", "div", "p"} - _ITEMS.keys()
"""What a parser does not leave while it looks for that one."""
ATTRIBUTES = {
    "*": frozenset({"class", "id", "lang", "style", "title"}),
    "a": frozenset({"href"}),
    "col": frozenset({"span", "width"}),
    "colgroup": frozenset({"span", "width"}),
    "details": frozenset({"open"}),
    "font": frozenset({"color"}),
    "img": frozenset({"alt", "height", "src", "width"}),
    "ol": frozenset({"start", "type"}),
    "table": frozenset({"align", "border", "cellpadding", "cellspacing", "width"}),
    "td": frozenset({"align", "colspan", "rowspan", "valign", "width"}),
    "th": frozenset({"align", "colspan", "rowspan", "scope", "valign", "width"}),
    "tr": frozenset({"align", "valign"}),
}
_SCHEMES = frozenset({"http", "https", "mailto", "data"})
_LINK = re.compile(r"https?://[^\s\x00-\x20]+|mailto:[^\s\x00-\x20]+", re.IGNORECASE)
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif);base64,[A-Za-z0-9+/=\s]+", re.IGNORECASE)
_SHORT = re.compile(r"[#\w.%() -]{0,40}")
_NAME = re.compile(r"[A-Za-z][\w:.-]{0,100}")
_LARGEST_NUMBER = 10_000
_NUMBERS = frozenset({"colspan", "rowspan", "span", "start", "height", "width", "border"})

_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<[!?][^>]*(?:>|\Z)"
    r"|<(?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9]{0,20})(?P<rest>(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*+)>"
    r"|(?P<stray><)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(
    r"([A-Za-z][A-Za-z-]{0,20})(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'=`]+)))?"
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_ACTIVE_MATH = re.compile(
    r"\\(?=(?:href|url|require|style|class|cssId|unicode|mmlToken|includegraphics|html[A-Za-z]*"
    r"|data|csname|begingroup|gdef|xdef|edef|def|let|newcommand|renewcommand|newenvironment"
    r"|renewenvironment|DeclareMathOperator|texttip|mathtip|toggle|tooltip|label|ref|eqref)"
    r"(?![A-Za-z]))"
)
_MATH = re.compile(
    r"\$\$.+?\$\$|(?<![\\$\w])\$(?![\s$])[^$\n]{1,2000}(?<![\s\\])\$(?!\d)", re.DOTALL
)
_HELD = "\ue0f0{}\ue0f1"
_HELD_PLACE = re.compile("\ue0f0([0-9]{1,6})\ue0f1")


def clean_html(source: str) -> str | None:
    """HTML that can be shown, or None when it has too many tags.

    Never raises. Identities get a prefix made of the text, so that they can neither hide those
    of the page nor be meant by another output's style.
    """
    import nh3

    encoded = source.encode("utf-8", "replace")
    source = encoded.decode("utf-8")
    prefix = "ov" + hashlib.sha256(encoded).hexdigest()[:12]
    rewriter = _Rewriter(prefix)
    if not rewriter.feed(_CONTROL.sub("", source)):
        return None
    clean = nh3.clean(
        rewriter.markup,
        tags=set(TAGS),
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        url_schemes=set(_SCHEMES),
        strip_comments=True,
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    clean = disarm_math(_CONTROL.sub("", clean))
    if not rewriter.styled:
        return clean
    # Containment: whatever the style says, nothing is painted outside of the output's own box.
    style = rules("\n".join(rewriter.styles), prefix, TAGS)
    block = f"<style>{style}</style>" if style else ""
    return f'{block}<div id="{prefix}" style="contain:content;overflow:auto">{clean}</div>'


def clean_markdown(source: str) -> str | None:
    """Markdown as HTML that can be shown; None when it is too long.

    Rendered here, because front ends let the HTML in a Markdown text of a trusted notebook run.
    Formulas stay as they are for the front end to set.
    """
    from markdown_it import MarkdownIt

    if len(source) > LONGEST_MARKDOWN:
        return None
    held: list[str] = []

    def hold(found: re.Match[str]) -> str:
        held.append(found[0])
        return _HELD.format(len(held) - 1)

    source = _MATH.sub(hold, re.sub("[\ue0f0\ue0f1]", "", _CONTROL.sub("", source)))
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    rendered = parser.render(source)
    return clean_html(_HELD_PLACE.sub(lambda m: html.escape(_back(held, m)), rendered))


def _back(held: list[str], found: re.Match[str]) -> str:
    place = int(found[1])
    return held[place] if place < len(held) else ""


def disarm_math(text: str) -> str:
    """Formulas without the commands that make links, load extensions or define other commands."""
    return _ACTIVE_MATH.sub("", text)


def without_controls(text: str) -> str:
    """Text without control characters, and without those that turn its direction or hide."""
    return _CONTROL.sub("", text)


class _Rewriter:
    """Writes markup anew as it reads it.

    Args:
        prefix: Put before each identity.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._open: list[str] = []
        self._out: list[str] = []
        self.styles: list[str] = []
        """The contents of ``style`` elements, as they came."""
        self.styled = False
        """Whether something has a style of its own."""

    @property
    def markup(self) -> str:
        """What was written, all of it closed."""
        return "".join(self._out) + "".join(f"</{name}>" for name in reversed(self._open))

    def feed(self, source: str) -> bool:
        """Read all of it; False when it has too many tags."""
        place = count = 0
        while found := _TOKEN.search(source, place):
            self._out.append(source[place : found.start()])
            place = found.end()
            count += 1
            if count > MOST_TAGS:
                return False
            if found["stray"]:
                self._out.append("&lt;")
            elif found["name"]:
                name = found["name"].lower()
                if found["close"]:
                    self._close(name)
                elif name in _RAW:
                    place = self._skip(name, source, place)
                elif name in TAGS:
                    self._start(name, found["rest"])
        self._out.append(source[place:])
        return True

    def _skip(self, name: str, source: str, place: int) -> int:
        end = re.compile(rf"</{name}[^>]*(?:>|\Z)", re.IGNORECASE).search(source, place)
        if name == "style":
            self.styled = True
            self.styles.append(source[place : end.start() if end else len(source)])
        return end.end() if end else len(source)

    def _start(self, name: str, rest: str) -> None:
        if name not in _IN_TABLES and self._open and self._open[-1] in _STRUCTURE:
            return
        self._make_room(name)
        parent = self._open[-1] if self._open else ""
        misplaced = (name in _IN_TABLES) != (parent in _STRUCTURE)
        if misplaced or (parent in _STRUCTURE and name not in _STRUCTURE[parent]):
            return
        if name == "a" and "a" in self._open:
            self._close("a")
        if len(self._open) >= DEEPEST:
            return
        kept = dict(self._kept(name, rest))
        if name == "img" and "src" not in kept:
            self._out.append(html.escape(f"[image: {kept.get('alt') or 'not shown'}]"))
            return
        attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in kept.items())
        self._out.append(f"<{name}{attributes}>")
        if name not in _VOID:
            self._open.append(name)

    def _make_room(self, name: str) -> None:
        """Close what a parser would close by itself, and all that is open inside of it."""
        if name in _BLOCKS and "p" in self._inside(_CELLS):
            self._close("p")
        for one in _ITEMS.get(name, ()):
            if one in self._inside(_AROUND_ITEMS | (_ITEMS.keys() - _ITEMS[name])):
                self._close(one)
        if name in _IN_TABLES and "table" in self._open:
            inside = self._inside(_TABLE)
            for part in ("tr", "thead", "tbody", "tfoot", "colgroup", "caption"):
                if part in inside and name not in _BELOW.get(part, frozenset()):
                    self._close(part)
            for cell in ("td", "th"):
                if cell in self._inside(_TABLE):
                    self._close(cell)

    def _inside(self, barriers: frozenset[str]) -> list[str]:
        """What is open inside of the innermost of some elements."""
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place] in barriers:
                return self._open[place + 1 :]
        return self._open

    def _close(self, name: str) -> None:
        # A cell's end shuts everything in it; nothing in a cell can end what is around it.
        barriers = _TABLE if name in _IN_TABLES else _CELLS | _TABLE
        if name != "table" and name not in self._inside(barriers):
            return
        while name in self._open:
            last = self._open.pop()
            self._out.append(f"</{last}>")
            if last == name:
                return

    def _kept(self, tag: str, rest: str) -> Iterator[tuple[str, str]]:
        allowed = ATTRIBUTES["*"] | ATTRIBUTES.get(tag, frozenset())
        seen = set()
        for found in _ATTRIBUTE.finditer(rest):
            name = found[1].lower()
            if name not in allowed or name in seen:
                continue
            seen.add(name)
            raw = next((group for group in found.groups()[1:] if group is not None), "")
            value = self._value(name, _CONTROL.sub("", html.unescape(raw)))
            if value is not None:
                yield name, value

    def _value(self, name: str, value: str) -> str | None:
        match name:
            case "title" | "alt":
                return value
            case "class":
                return " ".join(own_class(word) for word in value.split()[:20]) or None
            case "id":
                return f"{self._prefix}-{value}" if _NAME.fullmatch(value) else None
            case "href" if value.startswith("#") and _NAME.fullmatch(value[1:]):
                return f"#{self._prefix}-{value[1:]}"
            case "href":
                return value if _LINK.fullmatch(value) else None
            case "src":
                return value if _IMAGE.fullmatch(value) else None
            case "style":
                kept = declarations(value)
                self.styled |= bool(kept)
                return kept or None
            case _ if name in _NUMBERS and value.isdecimal():
                return value if int(value[:9]) <= _LARGEST_NUMBER else None
            case _:
                return value if _SHORT.fullmatch(value) else None


_BELOW = {
    "tr": frozenset({"td", "th"}),
    "thead": frozenset({"tr", "td", "th"}),
    "tbody": frozenset({"tr", "td", "th"}),
    "tfoot": frozenset({"tr", "td", "th"}),
    "colgroup": frozenset({"col"}),
}
"""What may begin while a part of a table is open, and leaves it open."""
