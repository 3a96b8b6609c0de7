"""Requests and answers as values, and how an answer is sent."""

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
    except (ValueError, RecursionError):  # a RecursionError: nested too deep
        return None


@attrs.frozen(kw_only=True)
class Request:
    """One request as it arrived. Its repr masks order ID and key.

    Attributes:
        time: the time of the simulator's clock, in Unix seconds.
        method: the HTTP method.
        path: the path without the query.
        query: the first value of each name.
        headers: all headers, names in lower case.
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
        """Parse a request; any strings and bytes are accepted."""
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
        """The body as JSON; None if it is not JSON."""
        return _parsed(self.body)

    @property
    def api_key(self) -> str | None:
        """The API key of the request, None if there is none."""
        return self.headers.get("x-api-key") or None

    def __repr__(self) -> str:
        """Return method and path, and the masked order ID and key."""
        parts = [self.method, mask_all(self.path)]
        if "orderId" in self.query:
            parts.append(f"orderId={mask(self.query['orderId'])}")
        if self.api_key is not None:
            parts.append(f"key={mask(self.api_key)}")
        return f"<{' '.join(parts)}>"


class Ending(Enum):
    """How much of an answer arrives."""

    COMPLETE = "complete"
    CUT = "cut"
    """Half of the body arrives, then the service closes the connection."""
    RESET = "reset"
    """Nothing arrives: the service resets the connection."""
    HANG = "hang"
    """Nothing ever arrives, and the connection stays open."""


@attrs.frozen
class Answer:
    """One answer of the service.

    Attributes:
        status: HTTP status.
        body: the bytes.
        headers: all headers but the length.
        ending: how much of the answer arrives.
        drip: seconds of real time before each byte of the body; None: all bytes at once.
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
        """Return an error in the documented format."""
        return cls.from_json({"status": "error", "reason": reason}, status, headers)

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON can be anything
        """The body as JSON; None if it is not JSON."""
        return _parsed(self.body)

    @property
    def half(self) -> bytes:
        """The first half of the body."""
        return self.body[: len(self.body) // 2]

    @property
    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        """All headers as bytes, with the length of the whole body."""
        headers = {**self.headers, "content-length": str(len(self.body))}
        return [(name.encode(), value.encode()) for name, value in headers.items()]


Responder = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Takes method, target, headers and body, and returns the answer."""
