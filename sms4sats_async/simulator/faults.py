"""What can go wrong between a client and the service, as values that a test can script."""

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
    """One thing that goes wrong with one request. Make it with one of the constructors.

    All constructors take `after_change`. False (the default): the request never reaches the state
    machine, nothing changes, and where an answer is seen at all it is the 500 `unable to save
    data`. True: the request is handled, the state changes, and then the answer is spoiled.
    `Fault.slow` differs a little, see there.

    Attributes:
        kind: what goes wrong, in a word or two.
        after_change: see above.
    """

    kind: Literal["answer", "cut JSON", "cut body", "hang", "drip", "reset", "slow"]
    after_change: bool
    _seconds: float = attrs.field(default=0.0, repr=False)
    _answer: Answer = attrs.field(default=_UNABLE_TO_SAVE, repr=False)

    @classmethod
    def unable_to_save_data(cls, *, after_change: bool = False) -> "Fault":
        """The documented 500 that a refused cancel is answered with."""
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
        """An answer `{"status": "error", "reason": ...}` with any HTTP status.

        Args:
            status: the HTTP status.
            reason: the reason; by default the status's own phrase.
            retry_after: value of a `Retry-After` header: seconds, or an HTTP date as text.
            after_change: whether the request is handled first.
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
        """A page of HTML, as gateways answer with."""
        page = f"<html><head><title>{status}</title></head><body>Bad gateway</body></html>"
        headers = {"content-type": "text/html; charset=utf-8"}
        return cls("answer", after_change, 0.0, Answer(status, page.encode(), headers))

    @classmethod
    def big_body(cls, size: int, *, after_change: bool = False) -> "Fault":
        """A 200 with JSON of exactly `size` bytes, or as few as it takes to say OK."""
        empty = len(Answer.from_json({"status": "OK", "padding": ""}).body)
        padding = "x" * (size - empty)
        answer = Answer.from_json({"status": "OK", "padding": padding})
        return cls("answer", after_change, 0.0, answer)

    @classmethod
    def redirect(cls, location: str, *, after_change: bool = False) -> "Fault":
        """A 307 to another address."""
        answer = Answer(307, b"", {"location": location})
        return cls("answer", after_change, 0.0, answer)

    @classmethod
    def cut_json(cls, *, after_change: bool = False) -> "Fault":
        """A 200 whose body is the first half of some JSON; for HTTP it is complete."""
        return cls("cut JSON", after_change)

    @classmethod
    def cut_body(cls, *, after_change: bool = False) -> "Fault":
        """Half of an answer whose length promised more, then the connection is closed."""
        return cls("cut body", after_change)

    @classmethod
    def hang(cls, *, after_change: bool = False) -> "Fault":
        """No answer, ever; the connection stays open."""
        return cls("hang", after_change)

    @classmethod
    def reset(cls, *, after_change: bool = False) -> "Fault":
        """No answer; the connection is reset."""
        return cls("reset", after_change)

    @classmethod
    def drip(cls, interval: float = 1.0, *, after_change: bool = False) -> "Fault":
        """An answer of which one byte comes every `interval` seconds of real time."""
        return cls("drip", after_change, interval)

    @classmethod
    def slow(cls, seconds: float, *, after_change: bool = False) -> "Fault":
        """The right answer, but late.

        Args:
            seconds: how late, by the simulator's clock.
            after_change: False: the request waits that long before it is handled, and is not
                handled at all if the client has gone by then; True: it is handled at once and the
                answer waits.
        """
        return cls("slow", after_change, seconds)

    @property
    def wait_before(self) -> float:
        """Seconds to wait before the request is handled."""
        return self._seconds if self.kind == "slow" and not self.after_change else 0.0

    @property
    def wait_after(self) -> float:
        """Seconds to wait after the request was handled."""
        return self._seconds if self.kind == "slow" and self.after_change else 0.0

    @property
    def reaches_service(self) -> bool:
        """Whether the request is handled."""
        return self.after_change or self.kind == "slow"

    def spoil(self, answer: Answer | None) -> Answer:
        """Return what the client gets.

        Args:
            answer: the right answer; None if the request was not handled.
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
