"""From bytes to a model or one of our errors.

Total: whatever the status, the headers and the bytes, nothing but a `Sms4SatsError` is raised.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs

from sms4sats_async._logging import LOGGER
from sms4sats_async._orders.states import Facts, row_for
from sms4sats_async._redact import mask, mask_invoice, quote
from sms4sats_async._validate import instance
from sms4sats_async._validate import order_id as as_order_id
from sms4sats_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InvalidArgumentError,
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
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_GOOD: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_CLIENT_ERROR: Final = range(400, 500)
_UNABLE_TO_SAVE_DATA: Final = "unable to save data"
_KEY_IS_MISSING: Final = "x-api-key header is missing"
# A price may come as "1500.00". Python makes no integer of a few thousand digits.
_WHOLE: Final = re.compile(r"(-?[0-9]{1,18})(?:\.0+)?", re.ASCII)
_PHONE_DIGIT: Final = re.compile("[1-9]")
# What programs write for nothing where they make text of it.
_NOTHING: Final = frozenset({"", "null", "none", "undefined", "false"})
_SCHEME: Final = re.compile(r"\Alightning:", re.IGNORECASE)
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
        APIError: The service refused the request, by its HTTP status or by `status: "error"` in a
            200 (seen).
        InvalidResponseError: The answer is unreadable.
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
    """Read an answer in a compression that was not requested, and never above the limit."""
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
    if not isinstance(value, str) or value.strip().lower() in _NOTHING:
        return None
    return value


def _as_text(value: object) -> str | None:
    """Return a number or a text as text.

    Both come as JSON numbers in the documentation and as strings in clients written against the
    live service. A string keeps its leading zeros.
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


def _digits(value: object) -> str | None:
    """Return a code or an ID as text, or None if the value cannot be one.

    A string may hold any characters. A JSON number of 0 or less means none.
    """
    if isinstance(value, int | float) and value <= 0:
        return None
    return _as_text(value)


def _phone_number(value: object) -> str | None:
    """Return a number as `+` and digits, or None if the value cannot be one.

    It may or may not begin with `+` (seen), or with `00`, the international prefix. A number with
    other characters in it is returned as it came.
    """
    number = _digits(value)
    if number is None or _PHONE_DIGIT.search(number) is None:
        return None
    digits = number.removeprefix("+")
    if digits.startswith("00"):
        return f"+{digits.lstrip('0 ')}"
    # A single 0 is a national prefix, whose country is unknown.
    is_plain = digits.isascii() and digits.isdecimal() and not digits.startswith("0")
    return f"+{digits}" if is_plain else number


def _moment(value: object) -> datetime | None:
    """Return the time that Unix milliseconds mean (documented), or None.

    Below 0 is none: -1 often means it, and not every system can tell a time before 1970.
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
    text = _as_text(value)
    found = None if text is None else _WHOLE.fullmatch(text)
    return None if found is None else int(found[1])


def _needed(value: object, name: str) -> int:
    """Return a whole number, not negative, that an answer must have.

    Numbers and numeric strings come mixed (documented).
    """
    number = _whole(value)
    if number is None or number < 0:
        raise _wrong_shape(_no_whole_number(name))
    return number


def _no_whole_number(name: str) -> str:
    return f"the answer's {name} is not a whole number"


def _flag(value: object) -> bool | None:
    """Return a yes or no that came as a boolean, a number or a word, or None."""
    return value if isinstance(value, bool) else _FLAGS.get(_word(value) or _as_text(value) or "")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem = f"the answer is a JSON {type(value).__name__} where an object belongs"
        raise _wrong_shape(problem)
    return cast("dict[str, Any]", value)


# --- lists ----------------------------------------------------------------------------------------


class _OddEntryError(Exception):
    """If an entry of a list lacks something without which it is useless."""


def _entries(value: object, what: str, read: Callable[[dict[str, Any]], T]) -> list[T]:
    """Return the entries of a list that can be read.

    An entry that cannot be read is skipped, and one warning counts these entries. If none can
    be read, it is not the answer that was expected.
    """
    if not isinstance(value, list):
        problem = f"the answer is a JSON {type(value).__name__} where a list belongs"
        raise _wrong_shape(problem)
    entries: list[T] = []
    problems: list[str] = []
    for entry in cast("list[object]", value):
        try:
            entries.append(read(_entry(entry)))
        except _OddEntryError as error:
            problems.append(str(error))
    if problems:
        if not entries:
            raise _wrong_shape(problems[0])
        LOGGER.warning(
            "%d of %d %s were skipped: %s",
            len(problems),
            len(problems) + len(entries),
            what,
            problems[0],
            extra={"order": None, "left_out": len(problems), "list": what},
        )
    return entries


def _entry(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem = f"the answer has a JSON {type(value).__name__} where an object belongs"
        raise _OddEntryError(problem)
    return cast("dict[str, Any]", value)


def _identifying_number(value: object, name: str) -> int:
    number = _whole(value)
    if number is None or number < 0:
        raise _OddEntryError(_no_whole_number(name))
    return number


def _identifying_text(value: object, name: str) -> str:
    text = _text(value)
    if text is None:
        problem = f"the answer's {name} is not a text"
        raise _OddEntryError(problem)
    return text


def _amount(value: object, name: str) -> int | None:
    """Return satoshis, or None if the answer names none.

    Anything else that is not a whole number is refused, because a price must not be guessed.
    """
    if value is None or (isinstance(value, str) and _text(value) is None):
        return None
    return _needed(value, name)


def _amount_of_entry(value: object, name: str) -> int:
    amount = _amount(value, name)
    if amount is None:
        raise _OddEntryError(_no_whole_number(name))
    return amount


# --- the endpoints --------------------------------------------------------------------------------


@attrs.frozen
class Created:
    """What the service answers to every call that makes an order.

    `invoice` (the service's `payreq`) is empty if the answer has none. The ID alone is worth
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
    try:
        as_order_id(order_id)
    except InvalidArgumentError:
        # An order that no call can read or cancel must not be paid, so its invoice is not returned.
        problem = "the answer's orderId cannot be sent: it has control characters or is too long"
        raise _wrong_shape(problem) from None
    invoice = _SCHEME.sub("", (_text(answer.get("payreq")) or "").strip())
    return Created(order_id, invoice, answer)


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
    return _entries(value, "countries", _country_entry)


def _country_entry(entry: Mapping[str, Any]) -> Country:
    return Country(
        id=_identifying_number(entry.get("id"), "id"),
        name=_identifying_text(entry.get("eng"), "eng"),
        visible=_flag(entry.get("visible")),
        rentable=_flag(entry.get("rent")),
        raw=entry,
    )


def decode_services(value: object, _order_id: str | None) -> list[Service]:
    """Read a list of `{key, text, value, count, image: {src}}` (seen); `value` is the code."""
    return _entries(value, "services", _service_entry)


def _service_entry(entry: Mapping[str, Any]) -> Service:
    code = _identifying_text(entry.get("value"), "value")
    return Service(
        code=code,
        name=_text(entry.get("text")) or code,
        count=_whole(entry.get("count")),
        image=_image(entry.get("image")),
        raw=entry,
    )


def _image(value: object) -> str | None:
    return _text(cast("dict[str, object]", value).get("src")) if isinstance(value, dict) else None


def decode_rental_countries(value: object, _order_id: str | None) -> list[RentalCountry]:
    """Read a list of `{"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368}`."""
    return _entries(value, "rental countries", _rental_entry)


def _rental_entry(entry: Mapping[str, Any]) -> RentalCountry:
    return RentalCountry(
        country_id=_identifying_number(entry.get("cc"), "cc"),
        country=_identifying_text(entry.get("country"), "country"),
        duration_weeks=_identifying_number(entry.get("duration"), "duration"),
        price=_amount_of_entry(entry.get("price"), "price"),
        raw=entry,
    )


def decode_price(value: object, _order_id: str | None) -> Price:
    """Read `{"receive", "send", "rent", "s4s", "query"?, "computed"?}` (documented).

    A price that is missing or null is None; an answer without any is refused.
    """
    answer = _object(value)
    names = ("receive", "send", "rent", "s4s")
    receive, send, rent, platform_fee = (_amount(answer.get(name), name) for name in names)
    computed = answer.get("computed")
    price = Price(
        receive=receive,
        send=send,
        rent=rent,
        platform_fee=platform_fee,
        computed=None if computed is None else _computed_price(_object(computed)),
        raw=answer,
    )
    if price.computed is None and {receive, send, rent, platform_fee} == {None}:
        problem = "the answer has no price"
        raise _wrong_shape(problem)
    return price


def _computed_price(computed: Mapping[str, object]) -> ComputedPrice | None:
    price = _amount(computed.get("price"), "computed price")
    if price is None:
        return None
    return ComputedPrice(
        price=price,
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
        entries=tuple(_entries(answer.get("orders"), "fundings", _funding_entry)),
        raw=answer,
    )


def _funding_entry(entry: Mapping[str, Any]) -> FundingEntry:
    return FundingEntry(
        amount=_amount_of_entry(entry.get("amount"), "amount"),
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

    It is the `/orderstatus` payload (documented). Whether it names the order, and whether it is
    signed, is unknown. So put a secret that identifies the order into the URL, and take the message
    as a hint to call `get_order_status`.

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
