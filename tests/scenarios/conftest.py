"""Every story ends with its invoices being rated again; the books are audited as after every test."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.scenarios.story import Story


@pytest.fixture
def tell(transactional_db: None) -> Iterator["Callable[..., Story]"]:
    """Begin a story; afterwards every invoice of its customer is verified."""
    from tests.scenarios.story import Story  # once Django has its settings

    told: list[Story] = []

    def begin(*how: Any, **more: Any) -> Story:
        told.append(Story(*how, **more))
        return told[-1]

    yield begin
    for story in told:
        story.verify()
