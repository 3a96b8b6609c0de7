"""Wallets with an HTTP interface: one connection for each request."""

from __future__ import annotations

import json
import ssl
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, Self, cast

import anyio
import attrs
import httpx

from sms4sats_async import _validate as validate
from sms4sats_async._http.messages import MAXIMUM_BODY
from sms4sats_async._http.transports.environment import read_environment
from sms4sats_async._http.transports.httpx import (
    Connecting,
    Errors,
    hide_order_ids_in_logs,
    order_ids_hidden,
)
from sms4sats_async._redact import show
from sms4sats_async.errors import (
    AuthenticationError,
    InvalidArgumentError,
    InvalidResponseError,
    RequestTimeoutError,
)
from sms4sats_async.models import RequestOutcome

from . import base

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from sms4sats_async._clock import Clock
    from sms4sats_async.invoice import Network

_CONNECT: Final = 10.0
"""Seconds for a connection. After them it is certain that nothing was sent."""
_OK: Final = frozenset({200, 201})
_REFUSED: Final = frozenset({401, 403})
_ERRORS: Final = Errors(httpx)


@attrs.frozen
class Answer:
    """The HTTP status of an answer, and its JSON value; None if it is not JSON."""

    status: int
    body: object


class HttpWallet(base.BaseWallet):
    """Sends the requests of an adapter, without httpx's pool: it loses connections on a cancel."""

    check_method: ClassVar[str] = "GET"
    """The HTTP method of the harmless request that needs the credentials."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        max_fee_sat: int | None,
        network: Network,
        clock: Clock | None,
        secrets: tuple[str, ...],
        tls_cert: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(max_fee_sat=max_fee_sat, network=network, clock=clock, secrets=secrets)
        self._root = validate.base_url(url, key_is_set=True, name="url")
        self._headers = {"accept": "application/json", "user-agent": "sms4sats-async", **headers}
        try:
            root = httpx.URL(self._root)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidArgumentError("url cannot be used: its host is invalid") from error
        environment = read_environment(root)
        # A proxy cannot reach this machine, where most of these wallets run.
        self._proxy = None if validate.is_loopback(root.host) else environment.proxy
        self._tls = environment.tls if tls_cert is None else _trust(tls_cert)
        hide_order_ids_in_logs("httpcore")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._root}>"

    async def check(self) -> None:
        """Check that the wallet answers and accepts the credentials; this changes nothing.

        Raises:
            AuthenticationError: If the wallet refuses the credentials.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is not the wallet's.
        """
        self._check_open()
        answer = await self._request(self.check_method, self.check_path)
        if answer.status not in _OK or not isinstance(answer.body, dict):
            raise InvalidResponseError(
                f"the server does not answer as {type(self).__name__} needs (HTTP {answer.status})",
                status_code=answer.status,
            )
        self._check_rights(answer)

    def _check_rights(self, answer: Answer) -> None:
        """Raise if the answer to `check` shows that the credentials cannot pay."""

    @property
    @abstractmethod
    def check_path(self) -> str:
        """The path of a harmless request that needs the credentials."""

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        form: Mapping[str, str] | None = None,
        first_line: bool = False,
    ) -> Answer:
        """Send one request and return the answer.

        Args:
            method: The HTTP method.
            path: The path and the query.
            body: What is sent as JSON.
            form: What is sent as a form.
            first_line: Whether the answer is a stream that stays open: its first line is read.

        Raises:
            AuthenticationError: HTTP 401 or 403.
            TransportError: If no answer arrived.
            InvalidResponseError: If the answer is too large.
        """
        request = httpx.Request(
            method, self._root + path, headers=self._headers, json=body, data=form
        )
        request.stream = _Body(request.content)
        status, content = await self._exchange(request, first_line=first_line)
        try:
            value: object = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        answer = Answer(status, value)
        if status in _REFUSED or self._is_refused(answer):
            raise AuthenticationError(
                f"the wallet refuses the credentials (HTTP {status})",
                status_code=status,
                request_outcome=RequestOutcome.REFUSED,
            )
        return answer

    def _is_refused(self, answer: Answer) -> bool:  # noqa: ARG002 - for adapters
        """Return whether an answer of another status refuses the credentials."""
        return False

    async def _exchange(self, request: httpx.Request, *, first_line: bool) -> tuple[int, bytes]:
        connecting = Connecting(tls=request.url.scheme == "https")
        request.extensions = {
            "timeout": {"connect": _CONNECT, "write": _CONNECT},
            "trace": connecting.note,
        }
        try:
            with order_ids_hidden(), anyio.fail_after(base.ANSWER_TIMEOUT):
                async with httpx.AsyncHTTPTransport(
                    verify=self._tls, trust_env=False, proxy=self._proxy
                ) as transport:
                    answer = await transport.handle_async_request(request)
                    stream = cast("httpx.AsyncByteStream", answer.stream)
                    content = await _read(stream, first_line=first_line)
        except BaseException as error:
            await connecting.close()
            if isinstance(error, TimeoutError):
                raise RequestTimeoutError(
                    f"no answer from the wallet within {base.ANSWER_TIMEOUT:.0f} s",
                    request_outcome=RequestOutcome.UNKNOWN,
                ) from error
            if isinstance(error, _ERRORS.caught):
                raise _ERRORS.translate(error) from error
            raise
        return answer.status_code, content


class _Body(httpx.AsyncByteStream):
    """The body of a request. A cancelled write leaves one of httpx open, and Trio warns of that."""

    def __init__(self, content: bytes) -> None:
        self._parts = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


async def _read(stream: httpx.AsyncByteStream, *, first_line: bool) -> bytes:
    """Return the answer, or its first line."""
    body = bytearray()
    # Only a cancelled read ends httpx's generators from within; Trio warns of any other end.
    with anyio.CancelScope() as scope:
        async for chunk in stream:
            body += chunk
            if len(body) > MAXIMUM_BODY or (first_line and b"\n" in body.lstrip()):
                scope.cancel()
    if len(body) > MAXIMUM_BODY:
        raise InvalidResponseError(
            f"the wallet's answer is larger than {MAXIMUM_BODY} bytes",
            request_outcome=RequestOutcome.UNKNOWN,
        )
    return bytes(body).lstrip().partition(b"\n")[0] if first_line else bytes(body)


def header_secret(name: str, value: object) -> str:
    """Return a credential that a header can have; h11's error would quote any other."""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise InvalidArgumentError(f"{name} must be printable ASCII and not empty")
    if value != value.strip():
        raise InvalidArgumentError(f"{name} must be printable ASCII without blanks around it")
    return value


def _trust(tls_cert: str | os.PathLike[str]) -> ssl.SSLContext:
    path = validate.path("tls_cert", tls_cert)
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one too
        raise InvalidArgumentError(
            f"tls_cert must be a file with PEM certificates, not {show(str(path))}"
        ) from error
