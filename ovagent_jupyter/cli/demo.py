"""``ovagent demo``: the quickstart notebook run from end to end, with all it makes kept."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ovagent_jupyter.agent.turn import TURN_MIME
from ovagent_jupyter.errors import DataError, TurnFailed

NOTEBOOK = "quickstart.ipynb"
CELL_TIMEOUT = 900
"""Seconds a cell may take: the first neighbours compile for up to a minute on a slow machine."""


def run_demo(out: Path) -> int:
    """Run the quickstart notebook headless and write everything to a folder.

    Raises:
        DataError: The notebook or the packages to run it are not there.
        TurnFailed: A cell failed; the notebook up to there is kept.
    """
    source = find_notebook()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    _say(f"Running {source.name} with no key and no network …")
    _say("(The first time, numerical code is compiled; later runs take seconds.)")
    notebook = _execute(source, out)
    made = [_write_notebook(notebook, out), _write_html(notebook, out)]
    made += _write_figures(notebook, out)
    made += sorted(out.glob("*.h5ad"))
    _report(notebook, made, time.monotonic() - began)
    return 0


def find_notebook() -> Path:
    """The quickstart notebook: of the checkout, or where the package installed it.

    Raises:
        DataError: It is in neither place.
    """
    from jupyter_core.paths import jupyter_path

    places = [Path(__file__).parents[2] / "notebooks"]
    places += [Path(p) for p in jupyter_path("ovagent_jupyter", "notebooks")]
    for place in places:
        if (place / NOTEBOOK).is_file():
            return place / NOTEBOOK
    raise DataError(
        f"{NOTEBOOK} was not found.",
        why=f"Looked in {', '.join(map(str, places))}.",
        next_step="Install the package anew: pip install --force-reinstall ovagent-jupyter",
    )


def _execute(source: Path, out: Path) -> Any:
    try:
        import nbclient
        import nbconvert  # noqa: F401 - found missing before the work, not after it
        import nbformat
    except ImportError as error:
        raise DataError(
            "The demo needs a package that is not installed.",
            why=str(error),
            next_step="pip install 'ovagent-jupyter[demo]'",
        ) from error
    notebook = nbformat.read(source, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        # The kernel of the notebook warns of its own transport on this terminal.
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(out)}},
        on_cell_start=_announce,
    )
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        kept = _write_notebook(notebook, out)
        raise TurnFailed(
            "The demo stopped at a cell that failed.",
            why=f"{error.ename}: {' '.join(str(error.evalue).split())[:300]}",
            next_step=f"Look at {kept}.",
        ) from error
    return notebook


def _announce(cell: Mapping[str, Any], cell_index: int) -> None:
    if cell["cell_type"] == "code":
        lines = [line for line in str(cell["source"]).splitlines() if line.strip()]
        shown = lines[1] if len(lines) > 1 and lines[0].startswith("%%") else "".join(lines[:1])
        _say(f"  cell {cell_index + 1}: {shown}")


def _write_notebook(notebook: Any, out: Path) -> Path:
    import nbformat

    path = out / NOTEBOOK
    nbformat.write(notebook, path)
    return path


def _write_html(notebook: Any, out: Path) -> Path:
    from nbconvert import HTMLExporter

    # The page must open without a network: no require.js, no MathJax from elsewhere.
    exporter = HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="")
    body, _resources = exporter.from_notebook_node(notebook)
    path = out / "quickstart.html"
    path.write_text(body, encoding="utf-8")
    return path


def _write_figures(notebook: Any, out: Path) -> list[Path]:
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    made = []
    for number, image in enumerate(_images(notebook), start=1):
        path = folder / f"figure-{number:02}.png"
        path.write_bytes(base64.b64decode(image))
        made.append(path)
    return made


def _outputs(notebook: Any) -> Iterable[Mapping[str, Any]]:
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def _images(notebook: Any) -> Iterable[str]:
    for output in _outputs(notebook):
        if "image/png" in output.get("data", {}):
            yield output["data"]["image/png"]


def _report(notebook: Any, made: Iterable[Path], duration: float) -> None:
    _say("\nSteps as they ran:")
    for output in _outputs(notebook):
        for step in output.get("data", {}).get(TURN_MIME, {}).get("steps", []):
            _say(f"  {step['duration']:>6.1f} s  {step['title']}")
    _say("\nMade:")
    for path in made:
        _say(f"  {path} ({path.stat().st_size / 1024:,.0f} kB)")
    _say(f"\nDone in {duration:.0f} s. The same notebook in JupyterLab: make lab")


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)
