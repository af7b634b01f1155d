"""Traces of deliveries, as the receiver and a tracer see them."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from streams.core.subscriptions import Webhook
from streams.tracing import OpenTelemetry
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, answering, sender

BILLING = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def delivered_at_the_second_attempt(
    monkeypatch: pytest.MonkeyPatch, *, tracing: bool, traceparent: str = BILLING
) -> tuple[list[str], list[ReadableSpan]]:
    """(the ``traceparent`` of each request, the spans)."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    received: list[str] = []

    async def main() -> None:
        async def busy_at_first(request: web.Request) -> web.StreamResponse:
            received.append(request.headers.get("traceparent", ""))
            return web.Response(status=503 if len(received) == 1 else 200)

        async with answering(busy_at_first) as url:
            endpoint = Webhook(url=url, secret_ref=SECRET_REF)
            plant = Plant(subscription(webhook=endpoint), sender=sender())
            if tracing:
                plant.tracer = OpenTelemetry(provider)
            await plant.run(plant.attempts(plant.feed(event(0, traceparent=traceparent))))
            await plant.run(plant.attempts(plant.tick(3_600)))
            assert plant.dispatcher is not None
            await plant.maker._sender.close()

    asyncio.run(main())
    return received, list(spans.get_finished_spans())


def named(span: SpanContext | None) -> str:
    assert span is not None
    return f"{span.trace_id:032x}-{span.span_id:016x}"


def test_a_first_attempt_is_of_the_events_trace_and_a_retry_is_linked_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry has waited for up to days; its receiver goes on in the retry's own trace."""
    received, [first, retry] = delivered_at_the_second_attempt(monkeypatch, tracing=True)

    assert named(first.parent) == BILLING[3:52]
    assert retry.parent is None
    assert [named(one.context) for one in retry.links] == [BILLING[3:52]]
    assert [text[3:52] for text in received] == [named(first.context), named(retry.context)]
    assert [one.kind for one in (first, retry)] == [SpanKind.CLIENT] * 2
    assert [(one.status.status_code, one.status.description) for one in (first, retry)] == [
        (StatusCode.ERROR, "http_503"),
        (StatusCode.UNSET, None),
    ]
    assert [dict(one.attributes or {})["http.response.status_code"] for one in (first, retry)] == [503, 200]


def test_without_tracing_the_receiver_gets_the_events_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever traces before and behind Curfew does not lose the thread."""
    received, spans = delivered_at_the_second_attempt(monkeypatch, tracing=False)

    assert received == [BILLING, BILLING]
    assert spans == []


@pytest.mark.parametrize("text", [f"{BILLING}\n", "", "\ufffd", "ff" + BILLING[2:], "0" * 9_000])
def test_what_is_no_trace_context_goes_to_no_receiver(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Anybody may write headers of records. A request with a broken one would fail, and its endpoint be blamed."""
    received, _ = delivered_at_the_second_attempt(monkeypatch, tracing=False, traceparent=text)

    assert received == ["", ""]
