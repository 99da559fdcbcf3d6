"""What a command answers: it shows itself in a notebook and in a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from ovagent_jupyter.notebook.markdown import escape


@dataclass(frozen=True, slots=True, repr=False)
class Shown:
    """A small table with a title, as Markdown in a notebook and as text in a terminal."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    def __repr__(self) -> str:
        widths = [
            max((len(row[i]) for row in self.rows), default=0) for i in range(len(self.columns))
        ]
        lines = [self.title] if self.title else []
        for row in self.rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join([*lines, self.note] if self.note else lines)

    def _repr_markdown_(self) -> str:
        parts = [f"**{escape(self.title)}**"] if self.title else []
        if self.rows:
            head = "| " + " | ".join(self.columns) + " |"
            rule = "|" + ":---|" * len(self.columns)
            body = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in self.rows]
            parts.append("\n".join([head, rule, *body]))
        if self.note:
            parts.append(escape(self.note))
        return "\n\n".join(parts)


@dataclass(frozen=True, slots=True, repr=False)
class Traceback:
    """A traceback as the child coloured it."""

    text: str

    def __repr__(self) -> str:
        return self.text
