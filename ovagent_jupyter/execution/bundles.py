"""One display of the child: the types that may pass, each checked, cleaned or turned into another.

Nothing here raises on what a message contains. What comes out holds no script, asks for nothing
from the network and cannot reach out of its own box; see ``markup``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Mapping

TEXT_TYPES = frozenset({"text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml"})
IMAGE_TYPES = frozenset({"image/png", "image/jpeg"})
JSON_TYPE = "application/json"
ALLOWED_TYPES = TEXT_TYPES | IMAGE_TYPES | {JSON_TYPE}
"""All other MIME types are dropped: widgets, scripts and what is not invented yet."""

ALLOWED_METADATA = frozenset({"width", "height", "unconfined", "needs_background"})
LONGEST_HTML = 4_000_000
LONGEST_SVG = 8_000_000
LONGEST_LATEX = 50_000
DEEPEST_JSON = 64
MOST_PIXELS = 100_000_000
"""A few kilobytes of PNG can claim an image that fills the memory of a browser."""
LARGEST_SIDE = 10_000

_ESCAPES = re.compile(
    r"\x1b\[[0-9;]*m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]P_^X][^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\)"
    r"|\x1b[ -/]*[0-~]|\x1b"
)
"""Colours, then every other sequence of ECMA-48, strings such as links and titles with them."""
_COLOURS = re.compile(r"\x1b\[((?:[0-9]{1,3}(?:;[0-9]{1,3}){0,15})?)m")
_HIDDEN = frozenset({"5", "6", "8"})
"""Blinking and concealed text."""
_EXTENDED = frozenset({"38", "48", "58"})
_INVISIBLE = re.compile(
    "[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f"
    "\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Controls other than tab, line feed, carriage return and backspace, which progress bars use;
marks that turn the direction of text, so that it reads as what it is not; and invisible letters,
which a model reads and a user does not."""
_WORD = re.compile(r"[A-Za-z0-9.%-]{1,20}")
"""A static export may write metadata into a tag as they are."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_SPACE = re.compile(r"\s+")
_ENTITY = re.compile(r"<!(?:ENTITY|DOCTYPE[^>]*\[)", re.IGNORECASE)
_SVG = re.compile(r"<svg\b([^>]*)>", re.IGNORECASE)
_NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


def clean_text(text: str) -> str:
    """Text without terminal escapes other than colours, hidden controls and lone surrogates."""
    if "\x1b" in text:
        text = _ESCAPES.sub(_keep_colour, text)
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _keep_colour(found: re.Match[str]) -> str:
    colour = _COLOURS.fullmatch(found[0])
    if colour is None:
        return ""
    parameters = iter(colour[1].split(";"))
    for parameter in parameters:
        if parameter.lstrip("0") in _HIDDEN:
            return ""
        if parameter in _EXTENDED:
            # 38;5;N and 38;2;R;G;B: numbers of a colour, not commands.
            for _ in range(1 if next(parameters, "") == "5" else 3):
                next(parameters, "")
    return found[0]


def raw_bundle(data: object) -> dict[str, object]:
    """The allowed types of a display as they came; texts in lines are joined."""
    if not isinstance(data, dict):
        return {}
    bundle: dict[str, object] = {}
    for mime in sorted(ALLOWED_TYPES & data.keys()):
        value = data[mime]
        if mime != JSON_TYPE:
            if isinstance(value, list) and all(isinstance(line, str) for line in value):
                value = "".join(value)
            if not isinstance(value, str):
                continue
        bundle[mime] = value
    return bundle


def raw_size(bundle: Mapping[str, object], most: int) -> int:
    """About how many characters a bundle has; more than ``most`` for what is nested too deeply."""
    size = 0
    for mime, value in bundle.items():
        size += _json_size(value, most) if mime == JSON_TYPE else len(str(value))
    return size


def _json_size(value: object, most: int) -> int:
    size, level = 0, [value]
    for _ in range(DEEPEST_JSON):
        below: list[object] = []
        for node in level:
            if isinstance(node, dict):
                size += sum(map(len, node)) + 4 * len(node)
                below += node.values()
            elif isinstance(node, list):
                size += 2 * len(node) + 2
                below += node
            else:
                size += len(node) + 2 if isinstance(node, str) else 8
        if not below or size > most:
            return size
        level = below
    return most + 1


def clean_bundle(data: object, metadata: object = None) -> dict[str, str]:
    """The allowed types of a display, each as one text that is safe to show.

    An SVG becomes an image in HTML, where a script in it does not run; Markdown becomes HTML.
    """
    raw = raw_bundle(data)
    bundle: dict[str, str] = {}
    for mime, value in raw.items():
        text = _json_text(value) if mime == JSON_TYPE else _CLEANERS[mime](str(value))
        if text is not None:
            bundle[mime] = text
    drawing, prose = bundle.pop("image/svg+xml", None), bundle.pop("text/markdown", None)
    if "text/html" not in bundle:
        if drawing is not None and not IMAGE_TYPES & bundle.keys():
            bundle["text/html"] = _as_image(drawing, metadata)
        elif prose is not None:
            bundle["text/html"] = prose
    return bundle or _as_plain(raw)


def _as_plain(raw: Mapping[str, object]) -> dict[str, str]:
    """What is shown of a display of which nothing passed."""
    return {"text/plain": f"[{', '.join(raw)}: not shown]"} if raw else {}


def _json_text(value: object) -> str | None:
    if _json_size(value, LONGEST_HTML) > LONGEST_HTML:
        return None
    return clean_text(json.dumps(value, ensure_ascii=False))


def _html(text: str) -> str | None:
    from ovagent_jupyter.execution.markup import clean_html

    return clean_html(clean_text(text)) if len(text) <= LONGEST_HTML else None


def _markdown(text: str) -> str | None:
    from ovagent_jupyter.execution.markup import clean_markdown

    return clean_markdown(clean_text(text))


def _latex(text: str) -> str | None:
    from ovagent_jupyter.execution.markup import disarm_math

    return disarm_math(clean_text(text)) if len(text) <= LONGEST_LATEX else None


def _svg(text: str) -> str | None:
    text = clean_text(text)
    start = _SVG.search(text)
    # Entities can grow without bound; no drawing program writes them into a notebook.
    if start is None or len(text) > LONGEST_SVG or _ENTITY.search(text):
        return None
    if "xmlns=" in start[1]:
        return text
    return f"{text[: start.start(1)]} {_NAMESPACE}{text[start.start(1) :]}"


def _as_image(drawing: str, metadata: object) -> str:
    size = ""
    entry = clean_metadata(metadata).get("image/svg+xml")
    for name, value in entry.items() if isinstance(entry, dict) else ():
        if name in {"width", "height"} and type(value) in (int, float):
            size += f' {name}="{min(max(int(value), 0), LARGEST_SIDE)}"'
    encoded = base64.b64encode(drawing.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{encoded}"{size} style="max-width:100%">'


def _png(text: str) -> str | None:
    head, text = _decoded(text)
    if len(head) < _PNG.size:
        return None
    magic, kind, width, height = _PNG.unpack_from(head)
    if magic != b"\x89PNG\r\n\x1a\n" or kind != b"IHDR":
        return None
    return text if 0 < width * height <= MOST_PIXELS else None


_PNG = struct.Struct(">8s4x4sII")
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">xHH")


def _jpeg(text: str) -> str | None:
    head, text = _decoded(text)
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    place = 2
    while place + _SEGMENT.size + _FRAME.size <= len(head):
        mark, kind, length = _SEGMENT.unpack_from(head, place)
        if mark != _MARK or length < 2:  # noqa: PLR2004 - the length counts itself
            return None
        if kind in _FRAMES:
            height, width = _FRAME.unpack_from(head, place + _SEGMENT.size)
            return text if width * height <= MOST_PIXELS else None
        place += length + 2
    return None


_MARK = 0xFF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEAD = 400_000
"""Characters of base64 in which an image says how large it is."""


def _decoded(text: str) -> tuple[bytes, str]:
    """The first bytes of an image, and its base64 without spaces; nothing when it is none."""
    text = _SPACE.sub("", text)
    if len(text) % 4 or not _BASE64.fullmatch(text):
        return b"", text
    try:
        return base64.b64decode(text[:_HEAD], validate=True), text
    except binascii.Error:
        return b"", text


_CLEANERS = {
    "text/plain": clean_text,
    "text/html": _html,
    "text/markdown": _markdown,
    "text/latex": _latex,
    "image/svg+xml": _svg,
    "image/png": _png,
    "image/jpeg": _jpeg,
}


def clean_metadata(metadata: object) -> dict[str, object]:
    """Sizes and the like of a display; whatever else it says is dropped."""
    if not isinstance(metadata, dict):
        return {}
    kept: dict[str, object] = {}
    for mime in sorted(ALLOWED_TYPES & metadata.keys()):
        entry = metadata[mime]
        if isinstance(entry, dict):
            kept[mime] = {
                name: entry[name]
                for name in sorted(ALLOWED_METADATA & entry.keys())
                if _plain(entry[name])
            }
    return kept


def _plain(value: object) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, bool):
        return True
    return isinstance(value, int | float) and 0 <= value <= LARGEST_SIDE
