from tests.service.common import client  # noqa: F401
