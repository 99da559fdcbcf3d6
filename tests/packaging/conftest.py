"""The built wheel and the environments it is tried in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.environments import Environment, build_wheel, environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def bare(wheel: Path) -> Environment:
    """The package with what it needs, and nothing else."""
    return environment("bare", wheel)


@pytest.fixture(scope="session")
def clean(wheel: Path) -> Environment:
    """The package as a user of JupyterLab installs it."""
    return environment("clean", wheel, "demo,lab")


@pytest.fixture(scope="session")
def with_ipykernel(wheel: Path) -> Callable[[str], Environment]:
    """The package beside one version of ipykernel."""
    return lambda version: environment(
        f"ipykernel-{version}", wheel, "omics", (f"ipykernel=={version}",)
    )
