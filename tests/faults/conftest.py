"""What the fault tests share: an installation of which each test starts the processes that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.report import Report

if TYPE_CHECKING:  # Django is not set up yet when this file is read
    from tests.faults.installation import Installation


def pytest_configure(config: pytest.Config) -> None:
    """Print a table of the long forms' findings at the end."""
    if config.option.markexpr == "long":
        config.pluginmanager.register(Report())


@pytest.fixture
def installation(transactional_db: None, tmp_path: Path) -> Iterator[Installation]:
    from tests.faults.installation import Installation

    with Installation(tmp_path) as running:
        yield running


@pytest.fixture
def web(installation: Installation) -> Installation:
    """Start the web processes."""
    installation.start("web")
    return installation
