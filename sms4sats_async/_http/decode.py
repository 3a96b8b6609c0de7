"""From bytes to a model or one of our errors.

Total: whatever the status, the headers and the bytes, nothing but a `Sms4SatsError` is raised.
"""

from __future__ import annotations

import json
import math
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from sms4sats_async._orders.states import Facts, row_for
from sms4sats_async._redact import mask, mask_invoice, quote
from sms4sats_async._validate import instance
from sms4sats_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
    UnableToSaveDataError,
)
from sms4sats_async.models import (
    CodeStatus,
    ComputedPrice,
    Country,
    FundingEntry,
    FundingHistory,
    OrderStatus,
    Price,
    RentalCountry,
    RequestOutcome,
    Service,
    SmsStatus,
)

from .messages import MAXIMUM_BODY, Request, Response, Safety

if TYPE_CHECKING:
    from collections.abc import Mapping

_GOOD: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_CLIENT_ERROR: Final = range(400, 500)
_UNABLE_TO_SAVE_DATA: Final = "unable to save data"
_KEY_IS_MISSING: Final = "x-api-key header is missing"
_LONGEST_NUMBER: Final = 18  # digits; of a few thousand Python makes no integer
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_GZIP_OR_ZLIB: Final = 47  # zlib's window bits for "find out by the header which of the two"


# --- the answer as a whole ------------------------------------------------------------------------


def read_json(response: Response, request: Request, *, now: float) -> object:
    """Return the JSON value of a good answer.

    Args:
        response: The answer.
        request: What was asked; decides what a 5xx means for an order being made.
        now: Unix seconds, to read a `Retry-After` that is a date.

    Raises:
        APIError: The service said no: by its HTTP status, or by `status: "error"` in a 200 (seen).
        InvalidResponseError: Nobody can read it.
    """
    if response.status in _GOOD:
        value = _parse(response)
        if isinstance(value, dict):
            answer = cast("dict[str, object]", value)
            if _word(answer.get("status")) == "error":
                raise _refusal(response, answer, request, now)
            return answer
        return value
    try:
        value = _parse(response)
    except InvalidResponseError:
        value = None  # a gateway's HTML under an error status: the status says what there is to say
    answer = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    raise _refusal(response, answer, request, now)


def _parse(response: Response) -> object:
    try:
        return _loads(response.body)
    except ValueError as error:
        coding = response.headers.get("content-encoding", "").strip().lower()
        if coding not in {"", "identity"}:
            return _parse_packed(response, coding)
        problem = (
            f"the answer (HTTP {response.status}, {len(response.body)} bytes) is not JSON"
            if response.body
            else f"the answer (HTTP {response.status}) is empty"
        )
        raise _unreadable(problem, response) from error


def _parse_packed(response: Response, coding: str) -> object:
    """Read an answer in a compression that nobody asked for, and never above the limit."""
    if coding not in {"gzip", "x-gzip", "deflate"}:
        problem = f"the answer is in the content coding {quote(coding)!r}, which was not asked for"
        raise _unreadable(problem, response)
    unpacker = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    try:
        body = unpacker.decompress(response.body, MAXIMUM_BODY + 1)
        if len(body) > MAXIMUM_BODY:
            problem = f"the answer unpacks to more than {MAXIMUM_BODY} bytes"
            raise _unreadable(problem, response)
        return _loads(body)
    except (zlib.error, ValueError) as error:
        problem = f"the answer (HTTP {response.status}) calls itself {coding} and is not JSON in it"
        raise _unreadable(problem, response) from error


def _loads(body: bytes) -> object:
    """Read JSON; ValueError is all that it raises.

    That includes bytes that are no text and integers of more digits than Python converts; a few
    thousand opening brackets would be a RecursionError.
    """
    try:
        return json.loads(body)
    except RecursionError as error:
        problem = "nested too deeply"
        raise ValueError(problem) from error


def _unreadable(problem: str, response: Response) -> InvalidResponseError:
    return InvalidResponseError(
        problem, status_code=response.status, request_outcome=RequestOutcome.UNKNOWN
    )


def _wrong_shape(problem: str) -> InvalidResponseError:
    return InvalidResponseError(problem, request_outcome=RequestOutcome.UNKNOWN)


def _refusal(
    response: Response, answer: Mapping[str, object], request: Request, now: float
) -> APIError:
    """Return the error that a refusing answer is."""
    status = response.status
    reason = _text(answer.get("reason"))
    kind = _kind_of_refusal(status, reason)
    problem = (
        f"the service answered HTTP {status}"
        if reason is None
        else f"the service answered HTTP {status}: {quote(reason)}"
    )
    if status in _REDIRECT:
        problem += " (a redirect; redirects are not followed, check the base_url)"
    return kind(
        problem,
        status_code=status,
        reason=reason,
        retry_after=_retry_after(response.headers.get("retry-after"), now),
        request_outcome=_outcome_of_refusal(status, answer, request),
    )


def _kind_of_refusal(status: int, reason: str | None) -> type[APIError]:
    word = _word(reason)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return AuthenticationError
    if status == HTTPStatus.BAD_REQUEST:
        return AuthenticationError if word.startswith(_KEY_IS_MISSING) else BadRequestError
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitError
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and word == _UNABLE_TO_SAVE_DATA:
            return UnableToSaveDataError
        return ServerError
    return APIError


def _outcome_of_refusal(
    status: int, answer: Mapping[str, object], request: Request
) -> RequestOutcome:
    """Return REFUSED only where that is sure.

    A gateway's 5xx or a redirect may come after the service did its work. Where a second request
    could buy twice, that goes for the service's own 5xx too, and for a 429, whose meaning is
    unknown (no rate limit is documented).
    """
    if status in _GOOD:
        return RequestOutcome.REFUSED
    if request.safety is Safety.ONLY_IF_NOT_SENT:
        sure = status in _CLIENT_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS
    else:
        sure = status in _CLIENT_ERROR or _word(answer.get("status")) == "error"
    return RequestOutcome.REFUSED if sure else RequestOutcome.UNKNOWN


def _retry_after(value: str | None, now: float) -> float | None:
    """Return `Retry-After` (RFC 9110, 10.2.3: seconds, or a date) in seconds from now."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # "GMT" is what the RFC demands; a date that names no zone is taken for it.
        moment = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    # Beyond ValueError: email.utils lets TypeError, IndexError and OverflowError through for
    # some malformed dates.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, moment - now)


# --- fields ---------------------------------------------------------------------------------------


def _word(value: object) -> str:
    return value.strip().rstrip(".").lower() if isinstance(value, str) else ""


def _text(value: object) -> str | None:
    """Return a text that says something, or None."""
    return value if isinstance(value, str) and value.strip() else None


def _digits(value: object) -> str | None:
    """Return a code or number as text.

    They are JSON numbers in the documentation and strings in clients written against the live
    service. A string keeps its leading zeros.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        # JSON has no NaN and no Infinity, but Python's parser reads them.
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # an integer of more digits than Python turns into text
            return None
    text = _text(value)
    return None if text is None else text.strip()


def _phone_number(value: object) -> str | None:
    """Return a number as `+` and digits; it may or may not begin with `+` (seen)."""
    number = _digits(value)
    return f"+{number}" if number is not None and number.isdecimal() else number


def _moment(value: object) -> datetime | None:
    """Return the time that Unix milliseconds mean (documented), or None.

    Below 0 is none: -1 often stands for it, and not every system can tell a time before 1970.
    """
    milliseconds = value if isinstance(value, float) else _whole(value)
    if milliseconds is None or milliseconds < 0:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _sms_status(value: object) -> SmsStatus | None:
    if value is None:
        return None
    try:
        return SmsStatus(_word(value))
    except ValueError:
        return SmsStatus.UNKNOWN


def _country(value: object) -> int | str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _text(value)


def _whole(value: object) -> int | None:
    """Return a whole number that came as a number or as text, or None."""
    text = _digits(value)
    if text is None or len(text) > _LONGEST_NUMBER or not text.isascii():
        return None
    return int(text) if text.removeprefix("-").isdigit() else None


def _needed(value: object, name: str) -> int:
    """Return a whole number, not negative, that an answer must have.

    Numbers and numeric strings come mixed (documented).
    """
    number = _whole(value)
    if number is None or number < 0:
        problem = f"the answer's {name} is not a whole number"
        raise _wrong_shape(problem)
    return number


def _needed_text(value: object, name: str) -> str:
    text = _text(value)
    if text is None:
        problem = f"the answer's {name} is not a text"
        raise _wrong_shape(problem)
    return text


def _flag(value: object) -> bool | None:
    """Return a yes or no that came as a boolean, a number or a word, or None."""
    return value if isinstance(value, bool) else _FLAGS.get((_digits(value) or "").lower())


def _list(value: object) -> list[dict[str, Any]]:
    """Return a list of objects."""
    if not isinstance(value, list):
        problem = f"the answer is a JSON {type(value).__name__} where a list belongs"
        raise _wrong_shape(problem)
    return [_object(entry) for entry in cast("list[object]", value)]


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem = f"the answer is a JSON {type(value).__name__} where an object belongs"
        raise _wrong_shape(problem)
    return cast("dict[str, Any]", value)


# --- the endpoints --------------------------------------------------------------------------------


@attrs.frozen
class Created:
    """What the service answers to every call that makes an order.

    `invoice` (the service's `payreq`) is empty if the answer has none. The id alone is worth
    keeping, because it may identify money.
    """

    order_id: str = attrs.field(repr=mask)
    invoice: str = attrs.field(repr=mask_invoice)
    raw: Mapping[str, Any] = attrs.field(repr=False)


def decode_ping(_value: object, _order_id: str | None) -> None:
    """Accept whatever a good answer holds: what `GET /` says is not documented."""


def decode_created(value: object, _order_id: str | None) -> Created:
    """Read `{"status":"OK","orderId":"...","payreq":"lnbc..."}` (documented)."""
    answer = _object(value)
    order_id = _digits(answer.get("orderId"))
    if order_id is None:
        problem = "the answer has no orderId"
        raise _wrong_shape(problem)
    return Created(order_id, (_text(answer.get("payreq")) or "").strip(), answer)


@attrs.frozen
class Cancelled:
    """A cancel that ended well.

    Attributes:
        raw: The answer to the cancel; empty if a status proves the end.
        status: The status that proves the end, or None if the service answered OK.
    """

    raw: Mapping[str, Any] = attrs.field(repr=False)
    status: OrderStatus | None = None


def decode_cancelled(value: object, _order_id: str | None) -> Cancelled:
    """Read `{"status":"OK"}` (documented); anything else is no evidence of a cancel."""
    answer = _object(value)
    if _word(answer.get("status")) != "ok":
        problem = "the answer does not say status OK"
        raise _wrong_shape(problem)
    return Cancelled(answer)


def decode_status(value: object, order_id: str | None) -> OrderStatus:
    """Read an `/orderstatus` answer of any kind of order (documented and seen shapes)."""
    answer = _object(value)
    paid = answer.get("paid")
    facts = Facts(
        paid=paid if isinstance(paid, bool) else None,
        code=_digits(answer.get("code")),
        number=_phone_number(answer.get("number")),
        sms_status=_sms_status(answer.get("smsStatus")),
        error=_text(answer.get("error")),
    )
    row = row_for(facts)
    status = OrderStatus(
        order_id=order_id or "",
        state=row.state,
        money=row.money,
        paid=facts.paid,
        number=facts.number,
        sms_status=facts.sms_status,
        country=_country(answer.get("country")),
        service=_text(answer.get("service")),
        timestamp=_moment(answer.get("timestamp")),
        error=facts.error,
        raw=answer,
    )
    return status if facts.code is None else _with_code(status, facts.code)


def _with_code(status: OrderStatus, code: str) -> CodeStatus:
    fields: dict[str, Any] = {
        field.name: getattr(status, field.name) for field in attrs.fields(OrderStatus)
    }
    fields["code"] = code
    return CodeStatus(**fields)


def decode_countries(value: object, _order_id: str | None) -> list[Country]:
    """Read a list of `{id, eng, visible?, rent?}` (seen)."""
    return [
        Country(
            id=_needed(entry.get("id"), "id"),
            name=_needed_text(entry.get("eng"), "eng"),
            visible=_flag(entry.get("visible")),
            rentable=_flag(entry.get("rent")),
            raw=entry,
        )
        for entry in _list(value)
    ]


def decode_services(value: object, _order_id: str | None) -> list[Service]:
    """Read a list of `{key, text, value, count, image: {src}}` (seen); `value` is the code."""
    return [
        Service(
            code=_needed_text(entry.get("value"), "value"),
            name=_text(entry.get("text")) or _needed_text(entry.get("value"), "value"),
            count=_whole(entry.get("count")),
            image=_image(entry.get("image")),
            raw=entry,
        )
        for entry in _list(value)
    ]


def _image(value: object) -> str | None:
    return _text(cast("dict[str, object]", value).get("src")) if isinstance(value, dict) else None


def decode_rental_countries(value: object, _order_id: str | None) -> list[RentalCountry]:
    """Read a list of `{"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368}`."""
    return [
        RentalCountry(
            country_id=_needed(entry.get("cc"), "cc"),
            country=_needed_text(entry.get("country"), "country"),
            duration_weeks=_needed(entry.get("duration"), "duration"),
            price=_needed(entry.get("price"), "price"),
            raw=entry,
        )
        for entry in _list(value)
    ]


def decode_price(value: object, _order_id: str | None) -> Price:
    """Read `{"receive", "send", "rent", "s4s", "query"?, "computed"?}` (documented)."""
    answer = _object(value)
    computed = answer.get("computed")
    return Price(
        receive=_needed(answer.get("receive"), "receive"),
        send=_needed(answer.get("send"), "send"),
        rent=_needed(answer.get("rent"), "rent"),
        platform_fee=_needed(answer.get("s4s"), "s4s"),
        computed=None if computed is None else _computed_price(_object(computed)),
        raw=answer,
    )


def _computed_price(computed: Mapping[str, object]) -> ComputedPrice:
    return ComputedPrice(
        price=_needed(computed.get("price"), "computed price"),
        country=_country(computed.get("country")),
        description=_text(computed.get("description")),
    )


def decode_balance(value: object, _order_id: str | None) -> int:
    """Read `{"status":"OK","balance":10000}` (documented), satoshis."""
    return _needed(_object(value).get("balance"), "balance")


def decode_history(value: object, _order_id: str | None) -> FundingHistory:
    """Read `{"status":"OK","totalAmount":349500,"orders":[...]}` (documented)."""
    answer = _object(value)
    return FundingHistory(
        total_amount=_needed(answer.get("totalAmount"), "totalAmount"),
        entries=tuple(_funding_entry(entry) for entry in _list(answer.get("orders"))),
        raw=answer,
    )


def _funding_entry(entry: Mapping[str, Any]) -> FundingEntry:
    return FundingEntry(
        amount=_needed(entry.get("amount"), "amount"),
        created_at=_moment(entry.get("createdAt")),
        description=_text(entry.get("description")) or _text(entry.get("desc")),
        invoice=_text(entry.get("holdinvoice")),
        preimage=_text(entry.get("preimage")),
        preimage_hash=_text(entry.get("preimageHash")),
        price=_whole(entry.get("price")),
        user_id=_text(entry.get("userId")),
        raw=entry,
    )


def parse_webhook(body: bytes) -> OrderStatus:
    """Read what the service POSTs to the `webhook_url` of a message to send.

    It is the `/orderstatus` payload (documented). Whether it names the order is unknown, and so is
    whether it is signed: put a secret of yours into the URL, tell the order by it too, and take the
    message as a hint to ask `get_order_status`.

    Args:
        body: The request's body, as it came.

    Returns:
        The status; `order_id` is empty where the payload does not name the order.

    Raises:
        InvalidArgumentError: Not bytes.
        InvalidResponseError: Not the payload: not JSON, not an object, or over 1 MiB.
    """
    body = instance("body", body, bytes)
    if len(body) > MAXIMUM_BODY:
        problem = f"the webhook's body is larger than {MAXIMUM_BODY} bytes"
        raise _wrong_shape(problem)
    try:
        payload = _object(_loads(body))
    except ValueError as error:
        problem = f"the webhook's body ({len(body)} bytes) is not JSON"
        raise _wrong_shape(problem) from error
    return decode_status(payload, _digits(payload.get("orderId")))
