"""aiohttp, for services and bots that have a session already."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sms4sats_async._http.messages import Response
from sms4sats_async._redact import quote
from sms4sats_async._validate import is_loopback
from sms4sats_async.errors import ClientStateError
from sms4sats_async.models import RequestOutcome

from .base import CONNECT_SHARE, Headers, Rule, key_in_the_clear, read_body, translate

if TYPE_CHECKING:
    from sms4sats_async._http.messages import Request

_NOT_SENT: Final = RequestOutcome.NOT_SENT
_TIMEOUTS: Final = (aiohttp.ServerTimeoutError,)


class _LostConnectionError(Exception):
    """A lost connection under a name for which aiohttp does not repeat the request."""


_RULES: Final[tuple[Rule, ...]] = (
    (aiohttp.ConnectionTimeoutError, _NOT_SENT, "no connection in time"),
    (aiohttp.ClientConnectorError, _NOT_SENT, "no connection"),
    # A proxy that refuses its tunnel has not passed anything on.
    (aiohttp.ClientHttpProxyError, _NOT_SENT, "the proxy refused"),
    (aiohttp.InvalidURL, _NOT_SENT, "the HTTP client cannot read this URL"),
    (UnicodeError, _NOT_SENT, "the host of the URL is invalid"),
)


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send once, and nothing of what the session keeps for its owner's services.

    aiohttp repeats a GET whose kept connection was lost, and an uncounted repeat would be an
    uncounted cancel. It repeats on two of its errors, so they leave under another name;
    a failed connect it does not repeat.

    Raises:
        ClientStateError: If a proxy would get the key without TLS.
    """
    for private in ("Authorization", "Cookie"):
        request.headers.popall(private, None)
    # Without TLS the key goes to this machine only, whatever proxy the session has.
    guards_key = request.url.scheme == "http" and "x-api-key" in request.headers
    if guards_key and request.proxy is not None and not is_loopback(request.proxy.host or ""):
        raise key_in_the_clear()
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostConnectionError from error


class AiohttpTransport:
    """A `ClientSession` that the caller owns; it is used as it is and never closed."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str | None) -> None:
        self._session = session
        self._root = base_url
        self._headers = Headers(CIMultiDict, api_key)

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send with the caller's session: his connector and default headers hold.

        His cookies and his `Authorization` do not; see `_once`.
        """
        try:
            # aiohttp would take Trio for a broken asyncio, and tell so in many ways.
            asyncio.get_running_loop()
            async with self._session.request(
                request.method,
                # Encoded already, and sent as it is: yarl would put `%2F` back to `/`.
                URL(self._root + request.target, encoded=True),
                headers=self._headers.of(request),
                data=request.body,
                allow_redirects=False,
                raise_for_status=False,
                # Unpacked later, to 1 MiB at most; aiohttp knows no limit.
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=timeout * CONNECT_SHARE),
                middlewares=(_once,),
            ) as answer:
                body = await read_body(answer.content.iter_any(), status=answer.status)
        except _LostConnectionError as error:
            cause = error.__cause__
            assert isinstance(cause, Exception)  # noqa: S101 - for the type checkers
            raise translate(cause, _RULES, _TIMEOUTS) from cause
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            if isinstance(error, aiohttp.ClientResponseError):
                self._take_out_the_request(error)
            raise translate(error, _RULES, _TIMEOUTS) from error
        except ClientStateError:
            raise
        except RuntimeError as error:
            problem = (
                f"the aiohttp session cannot be used: {quote(str(error))} (is it closed, another "
                "event loop's, or used under Trio?)"
            )
            raise ClientStateError(problem) from error
        return Response(answer.status, answer.headers, body)

    def _take_out_the_request(self, error: aiohttp.ClientResponseError) -> None:
        """Leave the root alone in an error that shows the whole URL, and holds the key."""
        method = error.request_info.method
        root = aiohttp.RequestInfo(URL(self._root), method, CIMultiDictProxy(CIMultiDict[str]()))
        error.request_info = root
        error.args = (root, ())
        error.message = quote(error.message)

    async def close(self) -> None:
        """Leave the session to its owner."""
