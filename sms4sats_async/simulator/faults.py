"""Failures of the service and of the network, as values that a test can script."""

from collections.abc import Mapping
from http.client import responses
from typing import Literal

import attrs

from .messages import Answer, Ending

__all__ = ["Fault"]

_ENDINGS: Mapping[str, Ending] = {
    "cut body": Ending.CUT,
    "hang": Ending.HANG,
    "reset": Ending.RESET,
}
_UNABLE_TO_SAVE = Answer.refusal(500, "unable to save data")


@attrs.frozen
class Fault:
    """The failure of one request. Use one of the constructors.

    Every constructor takes `after_change`. With False, the default, the service does not handle the
    request and nothing changes. With True, the service handles the request, and only its answer is
    wrong or lost. `Fault.slow` has its own meaning of `after_change`.

    Attributes:
        kind: the failure in one or two words.
        after_change: whether the service handles the request.
    """

    kind: Literal["answer", "cut JSON", "cut body", "hang", "drip", "reset", "slow"]
    after_change: bool
    _seconds: float = attrs.field(default=0.0, repr=False)
    _answer: Answer = attrs.field(default=_UNABLE_TO_SAVE, repr=False)

    @classmethod
    def unable_to_save_data(cls, *, after_change: bool = False) -> "Fault":
        """Answer with the 500 `unable to save data`, the documented answer to a refused cancel."""
        return cls("answer", after_change)

    @classmethod
    def http(
        cls,
        status: int,
        reason: str | None = None,
        retry_after: float | str | None = None,
        *,
        after_change: bool = False,
    ) -> "Fault":
        """Answer `{"status": "error", "reason": ...}` with any HTTP status.

        Args:
            status: the HTTP status.
            reason: the reason; by default the standard phrase of the status.
            retry_after: the `Retry-After` header: seconds, or an HTTP date as text.
            after_change: whether the service handles the request.
        """
        if reason is None:
            reason = responses.get(status, "unknown")
        headers: dict[str, str] = {}
        if retry_after is not None:
            text = retry_after if isinstance(retry_after, str) else f"{retry_after:.15g}"
            headers["retry-after"] = text
        return cls("answer", after_change, 0.0, Answer.refusal(status, reason, headers))

    @classmethod
    def html(cls, status: int = 502, *, after_change: bool = False) -> "Fault":
        """Answer with an HTML page, as a gateway does."""
        page = f"<html><head><title>{status}</title></head><body>Bad gateway</body></html>"
        headers = {"content-type": "text/html; charset=utf-8"}
        return cls("answer", after_change, 0.0, Answer(status, page.encode(), headers))

    @classmethod
    def big_body(cls, size: int, *, after_change: bool = False) -> "Fault":
        """Answer with a 200 whose JSON has `size` bytes, or 31 if `size` is smaller."""
        empty = len(Answer.from_json({"status": "OK", "padding": ""}).body)
        padding = "x" * (size - empty)
        answer = Answer.from_json({"status": "OK", "padding": padding})
        return cls("answer", after_change, 0.0, answer)

    @classmethod
    def redirect(cls, location: str, *, after_change: bool = False) -> "Fault":
        """Answer with a 307 to another address."""
        answer = Answer(307, b"", {"location": location})
        return cls("answer", after_change, 0.0, answer)

    @classmethod
    def cut_json(cls, *, after_change: bool = False) -> "Fault":
        """Answer with a 200 whose body is half of a JSON document, but complete for HTTP."""
        return cls("cut JSON", after_change)

    @classmethod
    def cut_body(cls, *, after_change: bool = False) -> "Fault":
        """Send half of the body, then close the connection."""
        return cls("cut body", after_change)

    @classmethod
    def hang(cls, *, after_change: bool = False) -> "Fault":
        """Never answer; the connection stays open."""
        return cls("hang", after_change)

    @classmethod
    def reset(cls, *, after_change: bool = False) -> "Fault":
        """Reset the connection without an answer."""
        return cls("reset", after_change)

    @classmethod
    def drip(cls, interval: float = 1.0, *, after_change: bool = False) -> "Fault":
        """Send one byte of the body every `interval` seconds of real time."""
        return cls("drip", after_change, interval)

    @classmethod
    def slow(cls, seconds: float, *, after_change: bool = False) -> "Fault":
        """Send the right answer late.

        Args:
            seconds: the delay, by the simulator's clock.
            after_change: False: the service handles the request after the delay, and not at all if
                the client has disconnected by then. True: the service handles the request at once
                and sends the answer after the delay.
        """
        return cls("slow", after_change, seconds)

    @property
    def wait_before(self) -> float:
        """Seconds to wait before the service handles the request."""
        return self._seconds if self.kind == "slow" and not self.after_change else 0.0

    @property
    def wait_after(self) -> float:
        """Seconds to wait after the service has handled the request."""
        return self._seconds if self.kind == "slow" and self.after_change else 0.0

    @property
    def reaches_service(self) -> bool:
        """Whether the service handles the request."""
        return self.after_change or self.kind == "slow"

    def change(self, answer: Answer | None) -> Answer:
        """Return the answer that the client receives.

        Args:
            answer: the right answer; None if the service did not handle the request.
        """
        if answer is None:
            answer = _UNABLE_TO_SAVE
        if self.kind == "answer":
            return self._answer
        if self.kind == "cut JSON":
            return Answer(200, answer.half, answer.headers)
        if self.kind == "drip":
            return attrs.evolve(answer, drip=self._seconds)
        return attrs.evolve(answer, ending=_ENDINGS.get(self.kind, Ending.COMPLETE))
