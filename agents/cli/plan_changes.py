"""`curfew plan-changes`: order, cancel, list and show rate plan changes, and say when one would start."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.core.midnight import TZ_VERSION, first_instant, start_instant, zone

if TYPE_CHECKING:
    from streams.core.change import Change
    from streams.core.messages import Reply, Request

# Long enough for a cold start of a worker that has its partitions already; a person gets impatient after that.
WAIT_S = 30.0
FLUSH_S = 20.0

_CHANGELOG = "plan-changes-store-changelog"
_REQUESTS = "plan-change.requests"
_REPLIES = "plan-change.replies"

_CHANGE_COLUMNS = (
    "service_id", "account_id", "element", "state", "revision", "effective_date", "zone", "start_at", "deadline_at",
    "persisted_at", "effective_at", "missed",
)  # fmt: skip

app = typer.Typer(no_args_is_help=True, help="Order, watch and resolve rate plan changes.")

Account = Annotated[str, typer.Option(help="The account of the service.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Same id and content, same answer. Default: a new id.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the reply; exit code 1 if the request is refused.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the reply.")]
Channel = Annotated[str, typer.Option(help="Where the request comes from; an element allows some channels only.")]


@app.command()
def order(
    service: str,
    element: Annotated[str, typer.Argument(help="Key of the matrix element.")],
    account: Account,
    effective_date: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="For elements with the rule date_given.")
    ] = None,
    silent: Annotated[bool, typer.Option("--silent", help="Tell the customer nothing.")] = False,
    fees: Annotated[bool, typer.Option("--fees/--no-fees", help="Charge the element's fees.")] = True,
    option: Annotated[list[str] | None, typer.Option(help="An option that the customer chose; again for more.")] = None,
    channel: Channel = "curfew",
    expected_revision: Annotated[
        int | None, typer.Option(help="Revision of the open change that this order supersedes.")
    ] = None,
    request_id: RequestId = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Order a rate plan change.

    Example: curfew plan-changes order S1 basic-to-plus --account A1 --channel crm --wait
    """
    from streams.core.messages import Request, RequestKind

    request = Request(
        request_id=request_id or str(uuid.uuid4()),
        kind=RequestKind.ORDER,
        account_id=account,
        service_id=service,
        element_key=element,
        effective_date=None if effective_date is None else effective_date.date(),
        silent=silent,
        apply_fees=fees,
        options=tuple(option or ()),
        channel=channel,
        expected_revision=expected_revision,
        requested_at=_now(),
    )
    _send(request, wait, timeout, style)


@app.command()
def cancel(
    service: str,
    account: Account,
    channel: Channel = "curfew",
    expected_revision: Annotated[int | None, typer.Option(help="Cancel only this revision.")] = None,
    request_id: RequestId = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Cancel the open change of a service; possible until its start instant.

    Example: curfew plan-changes cancel S1 --account A1 --wait
    """
    from streams.core.messages import Request, RequestKind

    request = Request(
        request_id=request_id or str(uuid.uuid4()),
        kind=RequestKind.CANCEL,
        account_id=account,
        service_id=service,
        element_key=None,
        effective_date=None,
        silent=False,
        apply_fees=True,
        options=(),
        channel=channel,
        expected_revision=expected_revision,
        requested_at=_now(),
    )
    _send(request, wait, timeout, style)


@app.command(name="list")
def list_changes(
    state: Annotated[list[str] | None, typer.Option(help="Only changes in this state; again for more.")] = None,
    account: Annotated[str | None, typer.Option(help="Only changes of this account.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Also changes that a later one replaced.")] = False,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """List plan changes, the nearest deadline first, as the scheduler's changelog has them now.

    Example: curfew plan-changes list --state pending -f json
    """
    rows = [
        _row(change)
        for change in sorted(_changes(history=history), key=lambda one: (one.deadline_at, one.service_id, one.revision))
        if (not state or change.state in state) and (account is None or change.account_id == account)
    ]
    show(rows, style, columns=_CHANGE_COLUMNS)


@app.command(name="show")
def show_change(service: str, style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Show the latest change of a service and those before it; exit code 1 if there is none.

    Example: curfew plan-changes show S1 -f json
    """
    found = sorted((one for one in _changes(history=True) if one.service_id == service), key=lambda one: -one.revision)
    if not found:
        note(f"service {service} has no plan change")
        raise typer.Exit(Exit.FAILURE)
    rows = [_row(change) for change in found]
    if style is TableOrJson.JSON:
        show(rows, style, columns=_CHANGE_COLUMNS)
    else:
        names = [f"revision {change.revision}" for change in found]
        fields = [{"field": field, **dict(zip(names, (row[field] for row in rows), strict=True))} for field in rows[0]]
        show(fields, style, columns=("field", *names))


@app.command()
def deadline(
    zone_name: Annotated[str, typer.Argument(metavar="ZONE", help="IANA zone, or - to read zone,date lines.")],
    effective_date: Annotated[str | None, typer.Argument(metavar="DATE", help="Local date, 2018-11-04.")] = None,
    lead: Annotated[int, typer.Option(min=1, help="Elapsed hours between start and deadline.")] = 6,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """When a change for DATE starts and has its deadline: the first instant of DATE in ZONE. Needs no Kafka.

    Example: curfew plan-changes deadline America/Sao_Paulo 2018-11-04 --lead 6
    """
    if zone_name == "-":
        rows = list(_deadlines_of(sys.stdin, lead))
    elif effective_date is None:
        raise typer.BadParameter("give a local date such as 2018-11-04", param_hint="DATE")
    else:
        try:
            rows = [_deadline(zone_name, effective_date, lead)]
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="ZONE DATE") from error
    show(rows, style, columns=("zone", "date", "start", "deadline", "start_local", "deadline_local"))


def _deadlines_of(lines: Iterable[str], lead: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        zone_name, _, day = line.strip().partition(",")
        try:
            yield _deadline(zone_name.strip(), day.strip(), lead)
        except ValueError as error:
            raise typer.BadParameter(f"line {number}: {error}", param_hint="-") from error


def _deadline(zone_name: str, day: str, lead: int) -> dict[str, Any]:
    """Raises ValueError for an unknown zone or no date."""
    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{day!r} is no date; write 2018-11-04") from None
    try:
        at = first_instant(zone_name, wanted)
    except OverflowError:
        raise ValueError(f"{day} is too near to the end of the calendar") from None
    start, local = start_instant(at, lead), zone(zone_name)
    return {
        "zone": zone_name,
        "date": wanted.isoformat(),
        "lead_hours": lead,
        "start": _utc(start),
        "deadline": _utc(at),
        "start_local": start.astimezone(local).isoformat(),
        "deadline_local": at.astimezone(local).isoformat(),
        "tz_version": TZ_VERSION,
    }


def _send(request: Request, wait: bool, timeout: float, style: TableOrJson) -> None:
    """Produce the request; with ``wait`` print the reply. Replies are watched from before the request is sent."""
    from confluent_kafka import Producer

    from streams.codec import Codec, Registry
    from streams.core.errors import Transient
    from streams.kafka.partitioner import PARTITIONER
    from streams.settings import Settings

    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    replies = _Replies(settings.kafka(), codec) if wait else None
    value, problems = codec.encode(_REQUESTS, request), list[str]()
    producer = Producer(settings.kafka(partitioner=PARTITIONER, acks="all", log_level=0))
    producer.produce(
        _REQUESTS,
        key=request.account_id,
        value=value,
        on_delivery=lambda error, message: problems.append(error.str()) if error is not None else None,
    )
    if producer.flush(FLUSH_S) or problems:
        raise Transient(f"the request was not delivered: {problems or 'no answer'}; is bootstrap_servers right?")
    if replies is None:
        show([{"request_id": request.request_id, "service_id": request.service_id}], style, columns=("request_id",))
        return
    reply = replies.wait_for(request, timeout)
    if reply is None:
        note(f"no reply within {timeout:g} s: is `curfew up` running? Ask again with --request-id {request.request_id}")
        raise typer.Exit(Exit.FAILURE)
    show([_reply_row(reply)], style, columns=("accepted", "state", "reasons", "revision", "start_at", "deadline_at"))
    if not reply.accepted:
        raise typer.Exit(Exit.FAILURE)


class _Replies:
    """Everything that is replied from now on."""

    def __init__(self, kafka: dict[str, Any], codec: Any) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._codec = codec
        config = {**kafka, "group.id": f"curfew-replies-{uuid.uuid4()}", "enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer(config)
        numbers = self._consumer.list_topics(_REPLIES, timeout=WAIT_S).topics[_REPLIES].partitions
        ends = [
            TopicPartition(_REPLIES, number, self._consumer.get_watermark_offsets(TopicPartition(_REPLIES, number))[1])
            for number in numbers
        ]
        self._consumer.assign(ends)

    def wait_for(self, request: Request, timeout: float) -> Reply | None:
        from streams.core.messages import Reply

        until = time.monotonic() + timeout
        try:
            while (left := until - time.monotonic()) > 0:
                message = self._consumer.poll(min(left, 0.5))
                if message is None or message.error() is not None:
                    continue
                reply: Reply = self._codec.decode(message.value(), Reply)
                if (reply.request_id, reply.service_id) == (request.request_id, request.service_id):
                    return reply
            return None
        finally:
            self._consumer.close()


def _changes(*, history: bool) -> list[Change]:
    """Rows of the scheduler's changelog, the last of each key; nothing is joined and nothing committed."""
    from streams.core.change_rows import CHANGE, PAST, unpack_change
    from streams.kafka.scan import Scanner
    from streams.settings import Settings

    prefixes = (CHANGE.encode(), PAST.encode()) if history else (CHANGE.encode(),)
    latest: dict[bytes, bytes | None] = {}
    with Scanner(Settings().kafka(log_level=0)) as scanner:
        for message in scanner.read(_CHANGELOG, scanner.spans(_CHANGELOG)):
            key, value = message.key(), message.value()
            if isinstance(key, bytes) and key.startswith(prefixes):
                latest[key] = value if isinstance(value, bytes) else None
    return [unpack_change(value) for value in latest.values() if value is not None]


def _row(change: Change) -> dict[str, Any]:
    return {
        "service_id": change.service_id,
        "account_id": change.account_id,
        "change_id": change.change_id,
        "revision": change.revision,
        "state": change.state.value,
        "element": change.element.key,
        "from_rate_plan_id": change.element.from_rate_plan_id,
        "to_rate_plan_id": change.to_rate_plan_id,
        "effective_date": change.effective_date.isoformat(),
        "zone": change.zone,
        "start_at": _utc(change.start_at),
        "release_at": _utc(change.release_at),
        "deadline_at": _utc(change.deadline_at),
        "persisted_at": None if change.persisted_at is None else _utc(change.persisted_at),
        "effective_at": None if change.effective_at is None else _utc(change.effective_at),
        "missed": change.missed,
        "silent": change.silent,
        "reason": change.reason,
        "request_id": change.request_id,
    }


def _reply_row(reply: Reply) -> dict[str, Any]:
    return {
        "request_id": reply.request_id,
        "service_id": reply.service_id,
        "change_id": reply.change_id,
        "revision": reply.revision,
        "accepted": reply.accepted,
        "state": reply.state,
        "reasons": list(reply.reasons),
        "start_at": None if reply.start_at is None else _utc(reply.start_at),
        "deadline_at": None if reply.deadline_at is None else _utc(reply.deadline_at),
    }


def _utc(at: datetime) -> str:
    """``2018-11-04T03:00:00Z``, with a fraction only where there is one."""
    return at.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
