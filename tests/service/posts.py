"""Posts as requests hold them, and what an answer says of one that is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

from tests.conftest import picture

TEXT = "RT @user1 Ada Lovelace again !"
JSON = {"Content-Type": "application/json"}


def png(seed: int = 0, size: int = 40) -> bytes:
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def body(text: str, image: bytes | None = None) -> dict[str, Any]:
    """A post as a request has it."""
    return {"text": text} | ({"image": encoded(image)} if image else {})


def refusal(answer: Any) -> tuple[int, str]:
    """Status and code of an answer that is an error."""
    return answer.status_code, answer.json()["error"]["code"]
