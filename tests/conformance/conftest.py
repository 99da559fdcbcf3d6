"""What the tests of every row of a registry share."""

from __future__ import annotations

from tests.conformance.aimock import aimock as aimock
