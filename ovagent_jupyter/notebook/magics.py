"""``%ovagent`` and ``%%ovagent``: they parse and delegate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Float, Integer, List, TraitError, TraitType, Unicode

from ovagent_jupyter.config.schema import STRONGEST
from ovagent_jupyter.config.secret import Headers, Secret

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ovagent_jupyter.notebook.face import Face


_SIZES = frozenset({"sandbox_memory", "sandbox_file_size", "undo_memory"})
"""Empty text stands for no value."""


class Hidden(TraitType[Any, Any]):
    """A setting that may be a key: kept in what does not show it, so that ``%config`` shows none.

    Args:
        hold: Makes the holder of what was typed.
        kinds: What may be typed.
        help: What the setting is.
    """

    info_text = "a value that is not shown"

    def __init__(self, hold: Callable[[Any], object], kinds: tuple[type, ...], help: str) -> None:
        super().__init__(default_value=None, allow_none=True, help=help)
        self._hold, self._kinds = hold, kinds

    def validate(self, obj: object, value: object) -> object:
        """The value in its holder; the error for another does not show it."""
        if isinstance(value, Secret | Headers):
            return value
        if not isinstance(value, self._kinds):
            raise TraitError(f"{self.name} takes {self._kinds[0].__name__}.")
        return self._hold(value) if value else None


def _typed_key(text: str) -> Secret:
    return Secret(text.strip(), "%config")


@magics_class
class OVAgent(Magics):
    """The settings of ovagent in this session (``%config OVAgent``) and its magics."""

    model = Unicode(
        "offline", help="Who answers questions; 'offline' is the built-in planner, which does not."
    ).tag(config=True)
    api_key = Hidden(
        _typed_key, (str,), help="Key of the model; better set as OVAGENT_API_KEY."
    ).tag(config=True)
    endpoint = Unicode("", help="Address of an OpenAI-compatible service.").tag(config=True)
    backups = List(Unicode(), help="Models that are asked when it fails.").tag(config=True)
    reasoning_effort = Unicode("", help="How much it may think: none to max.").tag(config=True)
    max_output_tokens = Integer(None, allow_none=True, help="Bound on an answer.").tag(config=True)
    temperature = Float(None, allow_none=True, help="0 to 2.").tag(config=True)
    headers = Hidden(Headers, (dict,), help="Sent with every call of the model.").tag(config=True)
    budget_turn = Unicode(
        "", help="What one turn may spend: '5 requests, 200k tokens, $0.50'."
    ).tag(config=True)
    budget_session = Unicode("", help="What a session may spend.").tag(config=True)
    budget_day = Unicode("", help="What a day may spend.").tag(config=True)
    use_notebook = Bool(
        default_value=True, help="Run code in a child kernel; False: in this kernel."
    ).tag(config=True)
    max_prompts = Integer(
        0, help="Replace the child kernel after this many turns; 0 keeps it."
    ).tag(config=True)
    storage_dir = Unicode("", help="Where session notebooks and logs are kept.").tag(config=True)
    timeout = Float(600.0, help="Seconds that one step may run.").tag(config=True)
    sandbox_level = Unicode(
        STRONGEST, help="How far code is kept apart: namespaces, confined, process, in_process."
    ).tag(config=True)
    sandbox_fallback_policy = Unicode(
        "warn", help="When this machine cannot confine that far: 'raise', 'warn' or 'silent'."
    ).tag(config=True)
    fallback_floor = Unicode("confined", help="The weakest level that may be taken instead.").tag(
        config=True
    )
    approve = Unicode(
        "risky", help="Ask before the code of a turn runs: 'always', 'risky' or 'never'."
    ).tag(config=True)
    keep_ready = Bool(
        default_value=True, help="Keep a child kernel ready, with scanpy imported."
    ).tag(config=True)
    undo_memory = Unicode("", help="What undo and checkpoints may hold, such as '8G'.").tag(
        config=True
    )
    sandbox_read = List(Unicode(), help="Files or folders that the code may read.").tag(config=True)
    sandbox_write = List(Unicode(), help="Files or folders that it may change too.").tag(
        config=True
    )
    sandbox_network = List(Unicode(), help="Hosts that it may reach.").tag(config=True)
    sandbox_memory = Unicode("", help="Cap on its memory, such as '8G'.").tag(config=True)
    sandbox_cpu_time = Float(
        None, allow_none=True, help="Cap on its seconds of CPU over the life of a child."
    ).tag(config=True)
    sandbox_processes = Integer(256, help="Cap on its processes.").tag(config=True)
    sandbox_file_size = Unicode("", help="Cap on one file, such as '2G'.").tag(config=True)
    sandbox_disk = Unicode("20G", help="Cap on the files in its own folders.").tag(config=True)
    sandbox_force = Bool(
        default_value=False, help="Accept grants that are refused otherwise, such as your home."
    ).tag(config=True)
    verbose = Bool(default_value=False, help="Also print each event as text.").tag(config=True)
    history_enabled = Bool(default_value=True, help="Append each turn to the history file.").tag(
        config=True
    )

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell=shell)
        self._shell = shell
        self._face: Face | None = None
        # Now, because %config adds to it later: what stands here is the user's own file.
        own = self.config.get("OVAgent", {})
        self._profile = {name: getattr(self, name) for name in own if self.has_trait(name)}

    @property
    def face(self) -> Face:
        """What the magics delegate to; made on first use, so that loading stays light."""
        if self._face is None:
            from ovagent_jupyter.notebook.face import Face

            self._face = Face(self._shell, self.set_traits, self._profile)
        return self._face

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of the checkpoints there are."""
        return tuple(self._face.namespace.checkpoints) if self._face is not None else ()

    def set_traits(self) -> dict[str, object]:
        """The settings made in this session; those of the profile and the defaults left out."""
        changed = {}
        for name in self.trait_names(config=True):
            value = getattr(self, name)
            if value != self._profile.get(name, self.trait_defaults(name)):
                changed[name] = None if name in _SIZES and value == "" else value
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
