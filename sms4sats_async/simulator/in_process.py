"""An httpx transport that calls the simulated service without a socket."""

from collections.abc import AsyncIterator

import anyio
import attrs
import httpx

from .messages import Answer, Ending, Responder

__all__ = ["InProcessTransport"]


class _Body(httpx.AsyncByteStream):
    """The body of an answer, in the parts in which it arrives."""

    def __init__(self, answer: Answer, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._answer.ending is Ending.CUT:
            yield self._answer.half
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body",
                request=self._request,
            )
        if self._answer.drip is None:
            yield self._answer.body
            return
        for byte in self._answer.body:
            await anyio.sleep(self._answer.drip)
            yield bytes([byte])


@attrs.define
class InProcessTransport(httpx.AsyncBaseTransport):
    """Passes every request to the service, whatever its host.

    It raises the errors that httpx raises over a socket. The time-outs of httpx do not apply: a
    request without an answer waits until it is cancelled.
    """

    respond: Responder

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer to a request, or raise the error of a failed connection."""
        answer = await self.respond(
            request.method,
            request.url.raw_path.decode("ascii"),
            request.headers,
            await request.aread(),
        )
        if answer.ending is Ending.HANG:
            await anyio.sleep_forever()
        if answer.ending is Ending.RESET:
            raise httpx.ReadError("connection reset by peer", request=request)
        return httpx.Response(
            answer.status, headers=answer.wire_headers, stream=_Body(answer, request)
        )
