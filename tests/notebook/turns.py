"""Variables of a user, and turns that bind in them without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from anndata import AnnData

from ovagent_jupyter.agent.turn import Turn, TurnStatus
from ovagent_jupyter.execution.handover import Store
from ovagent_jupyter.notebook.namespace import Namespace

ROOMY = 1 << 40
LARGE = 300_000
"""Numbers in an array that the store keeps in a segment, not inline."""


class Kernel:
    """Variables, and turns that bind in them."""

    def __init__(self, variables: dict[str, object] | None = None, limit: int = ROOMY) -> None:
        self.variables = variables if variables is not None else {}
        self.store = Store()
        self.limit = limit
        self.names = Namespace(self.variables, lambda: self.store, lambda: self.limit)
        self._turns = 0

    def turn(
        self,
        bindings: Mapping[str, object],
        *,
        meanwhile: Callable[[], object] = lambda: None,
        changed_meanwhile: tuple[str, ...] = (),
    ) -> tuple[str, ...]:
        """One turn: hand over all data, let something happen, bind the results."""
        handed = dict(self.variables)
        before = self.store.save(handed)
        meanwhile()
        self._turns += 1
        turn = Turn(
            request=f"request {self._turns}",
            session_id="s",
            turn_id=f"t{self._turns}",
            status=TurnStatus.FINISHED,
            answer="",
            bindings=bindings,
            before=before,
            changed_meanwhile=changed_meanwhile,
        )
        return self.names.bind(turn, handed)


def cells(fill: float = 1.0) -> AnnData:
    """An AnnData with an array that is large enough to lie in a segment."""
    made = AnnData(np.full((LARGE // 100, 100), fill, dtype="float32"))
    made.obs["batch"] = pd.Categorical(["a", "b"] * (LARGE // 200))
    return made


def content(value: object) -> list[object]:
    """All of an AnnData, comparable."""
    assert isinstance(value, AnnData)
    columns = {name: value.obs[name].tolist() for name in value.obs}
    return [value.X.tobytes(), value.X.dtype, columns, sorted(value.layers), dict(value.uns)]
