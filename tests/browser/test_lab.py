"""The quickstart's first steps as a user sees them in JupyterLab."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCREENSHOTS = Path(__file__).parents[2] / "demo-output"
CELLS = [
    "%load_ext ovagent_jupyter",
    "%%ovagent\nload the demo pbmc data",
    "%%ovagent\ncluster the cells and show the UMAP",
    "%ovagent undo",
]
KERNEL_IDLE = """async () => {
    const app = window.jupyterapp;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.context.sessionContext.ready;
    return panel.context.sessionContext.session.kernel.status;
}"""
RUN_ALL = """async () => {
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
}"""
CELL_STATES = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets;
    return cells.map(cell => [
        cell.model.executionCount, cell.model.outputs.toJSON().map(o => o.output_type)]);
}"""


@pytest.fixture
def page(browser: Browser, lab: Lab) -> Page:
    """A page on a notebook with our cells, at the size of a laptop's screen."""
    notebook = new_notebook(
        cells=[new_code_cell(source) for source in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, lab.work / "first.ipynb")
    context = browser.new_context(viewport={"width": 1280, "height": 1500})
    page = context.new_page()
    page.goto(f"{lab.url}lab/tree/first.ipynb?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.isReady")
    page.evaluate(KERNEL_IDLE)
    return page


def test_a_request_in_jupyterlab(page: Page, lab: Lab) -> None:
    outside: list[str] = []
    problems: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(_allowed(lab)) else outside.append(r.url))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))

    page.evaluate(RUN_ALL)
    page.wait_for_function(
        f"() => ({CELL_STATES})().every(([count]) => count !== null)", timeout=300_000
    )

    states = page.evaluate(CELL_STATES)
    assert not any("error" in kinds for _, kinds in states), states
    main = page.get_by_role("main")
    expect(main.get_by_text("finished").first).to_be_visible()
    expect(main.get_by_role("table").first).to_be_visible()
    expect(main.get_by_role("img").first).to_be_attached()
    expect(main.get_by_text("Undone: cluster the cells and show the UMAP")).to_be_attached()
    _picture(page)
    assert outside == []
    assert problems == []


def _picture(page: Page) -> None:
    """The second request's card, from its top, as a user scrolls to it."""
    SCREENSHOTS.mkdir(exist_ok=True)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(2)
    cell.scroll_into_view_if_needed()
    page.evaluate("() => window.jupyterapp.shell.currentWidget.content.scrollToItem(2, 'start')")
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / "jupyterlab.png")


def _allowed(lab: Lab) -> tuple[str, ...]:
    return (lab.url, "data:", "blob:", lab.url.replace("http", "ws", 1))
