"""Requests and answers as plain values, and how an answer is to be delivered."""

import json
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl

import attrs

from .masking import mask, mask_all

__all__ = ["Answer", "Ending", "Request", "Responder"]


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - JSON can be anything
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # not text, not JSON, a number or a nesting too long
        return None


@attrs.frozen(kw_only=True)
class Request:
    """One request as it arrived. Its repr shows no order id and no key whole.

    Attributes:
        time: the service's time, in Unix seconds.
        method: as sent.
        path: without the query.
        query: the first value of each name.
        headers: all of them, names in lower case.
        body: the bytes.
    """

    time: float
    method: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict[str, str], hash=False)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], hash=False)
    body: bytes = b""

    @classmethod
    def from_wire(
        cls, time: float, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> "Request":
        """Take a request apart; any strings and bytes will do."""
        path, _, query = target.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=None)
        return cls(
            time=time,
            method=method,
            path=path,
            query=dict(reversed(pairs)),
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
        )

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON can be anything
        """The body as JSON; None if it is not."""
        return _parsed(self.body)

    @property
    def api_key(self) -> str | None:
        """The key that was sent with it, None if none was."""
        return self.headers.get("x-api-key") or None

    def __repr__(self) -> str:
        """Return method, path, order id and key, the latter two masked."""
        parts = [self.method, mask_all(self.path)]
        if "orderId" in self.query:
            parts.append(f"orderId={mask(self.query['orderId'])}")
        if self.api_key is not None:
            parts.append(f"key={mask(self.api_key)}")
        return f"<{' '.join(parts)}>"


class Ending(Enum):
    """What becomes of an answer on its way."""

    COMPLETE = "complete"
    CUT = "cut"
    """Half of the body arrives, then the connection is closed."""
    RESET = "reset"
    """Nothing arrives: the connection is reset."""
    HANG = "hang"
    """Nothing arrives, ever."""


@attrs.frozen
class Answer:
    """What the service answers.

    Attributes:
        status: HTTP status.
        body: the bytes.
        headers: all but the length.
        ending: what becomes of it on its way.
        drip: seconds of real time before each byte of the body; None: all at once.
    """

    status: int
    body: bytes = attrs.field(default=b"", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], hash=False)
    ending: Ending = Ending.COMPLETE
    drip: float | None = None

    @classmethod
    def from_json(
        cls, content: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> "Answer":
        """Return an answer with a JSON body."""
        return cls(
            status,
            json.dumps(content).encode(),
            {"content-type": "application/json; charset=utf-8", **(headers or {})},
        )

    @classmethod
    def refusal(
        cls, status: int, reason: str, headers: Mapping[str, str] | None = None
    ) -> "Answer":
        """Return the answer that says no, in its documented shape."""
        return cls.from_json({"status": "error", "reason": reason}, status, headers)

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON can be anything
        """The body as JSON; None if it is not."""
        return _parsed(self.body)

    @property
    def half(self) -> bytes:
        """The first half of the body, which is what arrives of a cut one."""
        return self.body[: len(self.body) // 2]

    @property
    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        """All headers as bytes, with the length that the whole body has."""
        headers = {**self.headers, "content-length": str(len(self.body))}
        return [(name.encode(), value.encode()) for name, value in headers.items()]


Responder = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Method, target, headers and body in, answer out."""
