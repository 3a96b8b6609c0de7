"""What the client asks of an HTTP library, and what every adapter shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import anyio

from sms4sats_async._http.messages import MAXIMUM_BODY
from sms4sats_async._redact import quote
from sms4sats_async.errors import (
    ClientStateError,
    InvalidResponseError,
    RequestTimeoutError,
    TransportError,
)
from sms4sats_async.models import RequestOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

    from sms4sats_async._http.messages import Request, Response

T = TypeVar("T")

USER_AGENT: Final = "sms4sats-async"

CONNECT_SHARE: Final = 0.9
"""The share of an attempt's time that connecting may take.

A failed connect then ends in the HTTP library's own error, which proves that nothing was sent. The
bound on the whole attempt would end it without proof.
"""


class Transport(Protocol):
    """Two verbs over one HTTP library."""

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send once, follow no redirect, and return the whole answer.

        Args:
            request: What to send.
            timeout: Seconds that the caller gives the attempt; the caller enforces them, the
                adapter uses them for what the library can prove by its own time-outs.

        Raises:
            TransportError: No answer; `request_outcome` tells whether anything left.
            InvalidResponseError: An answer above `MAXIMUM_BODY`.
            ClientStateError: The HTTP client is closed or belongs to another event loop.
        """
        ...

    async def close(self) -> None:
        """Close what the adapter opened itself, nothing else."""
        ...


class Headers(Generic[T]):
    """Every header of ours, in the form that one library takes; built once, not for each request.

    No compression is asked for: an answer is a few hundred bytes, and what is not unpacked cannot
    be a bomb.
    """

    def __init__(self, build: Callable[[list[tuple[str, str]]], T], api_key: str | None) -> None:
        plain = [
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", USER_AGENT),
        ]
        with_body = [*plain, ("content-type", "application/json")]
        key = [] if api_key is None else [("x-api-key", api_key)]
        self._built = {
            (False, False): build(plain),
            (True, False): build(with_body),
            (False, True): build(plain + key),
            (True, True): build(with_body + key),
        }

    def of(self, request: Request) -> T:
        """Return the headers of one request; the key goes along only where it is needed."""
        return self._built[request.body is not None, request.with_key]


async def read_body(chunks: AsyncIterable[bytes], *, status: int) -> bytes:
    """Return the body, which is read no further than `MAXIMUM_BODY`."""
    body = bytearray()
    reader = aiter(chunks)
    async for chunk in reader:
        body += chunk
        if len(body) > MAXIMUM_BODY:
            await _abandon(reader)
            problem = f"the answer (HTTP {status}) is larger than {MAXIMUM_BODY} bytes"
            raise InvalidResponseError(
                problem, status_code=status, request_outcome=RequestOutcome.UNKNOWN
            )
    return bytes(body)


async def _abandon(reader: AsyncIterator[bytes]) -> None:
    """End a body that is not wanted.

    httpx reads through generators within generators. Closing the outermost would leave the others
    to the garbage collector, which Trio warns of; a cancelled read ends them all, from within.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        async for _ in reader:
            pass


Rule = tuple[type[BaseException], RequestOutcome, str]


def translate(
    error: Exception, rules: Iterable[Rule], timeouts: tuple[type, ...]
) -> TransportError:
    """Return our error for a library's: the first rule whose class fits."""
    outcome, problem = next(
        ((outcome, problem) for kind, outcome, problem in rules if isinstance(error, kind)),
        (RequestOutcome.UNKNOWN, "the connection failed before the whole answer was here"),
    )
    refused = _refused_certificate(error)
    if refused is not None:
        problem = f"the server's certificate is refused: {quote(refused)}"
    kind = RequestTimeoutError if isinstance(error, timeouts) else TransportError
    return kind(f"{problem} ({type(error).__name__})", request_outcome=outcome)


def _refused_certificate(error: BaseException | None) -> str | None:
    """Return why a certificate was refused, or None if none was; HTTP libraries hide it."""
    while error is not None:
        reason = getattr(error, "verify_message", None)  # of ssl.SSLCertVerificationError
        if isinstance(reason, str):
            return reason
        # httpcore raises its errors `from None`. Any other context can be the caller's own error.
        hidden = error.__context__ if error.__suppress_context__ else None
        error = error.__cause__ or hidden
    return None


def key_in_the_clear() -> ClientStateError:
    """Return the error for a key that an HTTP client would send to a proxy without TLS."""
    return ClientStateError(
        "the HTTP client would send the API key to a proxy without TLS, because its settings or "
        "the environment name one; exempt this machine there (NO_PROXY), or set trust_env=False"
    )
