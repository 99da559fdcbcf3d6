"""The reader of the child's messages withstands 200,000 malformed ones and never raises."""

from __future__ import annotations

import pytest

from tests.execution.wire_forgeries import KINDS
from tests.soak.fuzzing import tried

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
COUNT = 200_000


def test_two_hundred_thousand_false_messages() -> None:
    ended = tried("tests.execution.wire_forgeries", COUNT)
    done = ended.pop("(cells that were done)")
    assert ended.total() >= COUNT
    assert done > COUNT / 1000
    assert ended.keys() == KINDS | {"another kind"}
