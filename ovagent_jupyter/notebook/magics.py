"""``%ovagent`` and ``%%ovagent``: they parse and delegate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Float, Integer, Unicode

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ovagent_jupyter.notebook.face import Face


@magics_class
class OVAgent(Magics):
    """The settings of ovagent in this session (``%config OVAgent``) and its magics."""

    model = Unicode("offline", help="Who answers; this version knows 'offline'.").tag(config=True)
    use_notebook = Bool(
        default_value=True, help="Run code in a child kernel; False: in this kernel."
    ).tag(config=True)
    max_prompts = Integer(
        0, help="Replace the child kernel after this many turns; 0 keeps it."
    ).tag(config=True)
    storage_dir = Unicode("", help="Where session notebooks and logs are kept.").tag(config=True)
    timeout = Float(600.0, help="Seconds that one step may run.").tag(config=True)
    sandbox_fallback_policy = Unicode(
        "warn", help="When the child kernel cannot start: 'raise', 'warn' or 'silent'."
    ).tag(config=True)
    fallback_floor = Unicode(
        "process", help="The weakest place code may run in: 'process' or 'in_process'."
    ).tag(config=True)
    verbose = Bool(default_value=False, help="Also print each event as text.").tag(config=True)
    history_enabled = Bool(default_value=True, help="Append each turn to the history file.").tag(
        config=True
    )

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell=shell)
        self._shell = shell
        self._face: Face | None = None

    @property
    def face(self) -> Face:
        """What the magics delegate to; made on first use, so that loading stays light."""
        if self._face is None:
            from ovagent_jupyter.notebook.face import Face

            self._face = Face(self._shell, self.set_traits)
        return self._face

    def set_traits(self) -> dict[str, object]:
        """The settings given as traitlets, those at their defaults left out."""
        changed = {}
        for name in self.trait_names(config=True):
            value = getattr(self, name)
            if value != self.trait_defaults(name):
                changed[name] = value
        return changed

    @no_var_expand
    @line_cell_magic
    def ovagent(self, line: str, cell: str | None = None) -> object:
        """Ask for an analysis in words (``%%ovagent``), or give a command (``%ovagent help``)."""
        if cell is None:
            return self.face.line(line)
        self.face.cell(line, cell)
        return None

    async def drive(self, line: str, cell: str) -> None:
        """The asynchronous twin of a ``%%ovagent`` cell, which ``extension`` puts in its place."""
        await self.face.drive(line, cell)

    def close(self) -> None:
        """End the child kernel, if one was started."""
        if self._face is not None:
            self._face.close()
            self._face = None
