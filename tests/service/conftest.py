from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from tests.service.common import client_of, make_service


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """Of one service of a tiny model, for all tests that leave it as it is."""
    with client_of(make_service()) as client:
        yield client
