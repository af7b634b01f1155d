"""Traces of a plan change: one of the request, and one of the night, which is linked to it and not its child."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link

from streams.core.plan_change.rows import trace_key
from streams.kafka.chunks import Output
from streams.tracing import OpenTelemetry, same_trace, traceparent
from tests.plan_changes.makers import DEADLINE, NOON, a_request
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account

#: The CRM's: it has begun the trace in which the order is placed.
CRM = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS = [("traceparent", CRM.encode())]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def plant(spans: InMemorySpanExporter) -> Plant:
    """Account A1 with service S1 at noon; all three apps make spans."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    made = Plant()
    made.knows(an_account(), a_service(), a_plan())
    made.tick(NOON)
    for lane in (made.events, made.changes, made.execution):
        lane.tracer = OpenTelemetry(provider)
    return made


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    [found] = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def text(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}"


def linked(link: Link) -> str:
    return f"{link.context.trace_id:032x}-{link.context.span_id:016x}"


def sent(outputs: Iterable[Output], topic: str) -> list[str | None]:
    return [traceparent(output.headers) for output in outputs if output.topic == topic]


def test_an_order_goes_on_in_the_trace_of_the_one_who_asked(plant: Plant, spans: InMemorySpanExporter) -> None:
    """The decision is a child of the CRM's span; reply and event carry it on."""
    outputs = plant.request(a_request(), headers=HEADERS)

    order = named(spans, "decide order")
    assert parent(order) == CRM[3:52]
    assert sent(outputs, "plan-change.replies") == sent(outputs, "events.findings") == [text(order)]


def test_what_is_due_after_the_wait_is_linked_to_the_order_and_no_child_of_it(
    plant: Plant, spans: InMemorySpanExporter
) -> None:
    """A trace of its own, in which execution and its result follow each other."""
    plant.request(a_request(), headers=HEADERS)
    order = named(spans, "decide order")
    plant.changes.reopen()  # the row and not the memory of the process knows it

    commands = plant.tick(DEADLINE)
    outcomes = plant.execute(commands)

    begin, execute, result = (named(spans, name) for name in ("begin execute", "run execute", "take result of execute"))
    assert begin.parent is None
    assert [linked(link) for link in begin.links] == [text(order)[3:52]]
    assert not same_trace(text(begin), text(order))
    assert sent(commands, "plan-change.commands") == [text(begin)]
    assert parent(execute) == text(begin)[3:52]
    assert parent(result) == text(execute)[3:52]
    assert all(found is None or same_trace(found, text(begin)) for found in sent(outcomes, "events.findings"))


def test_a_request_that_is_refused_does_not_take_the_link(plant: Plant, spans: InMemorySpanExporter) -> None:
    """A second order of the service is refused while the first pends."""
    plant.request(a_request(), headers=HEADERS)
    order = text(named(spans, "decide order"))
    plant.request(a_request(request_id="R-other"), headers=HEADERS)
    kept = plant.changes.store.get(trace_key("S1"))

    assert kept == order.encode()


def test_without_tracing_a_trace_goes_on_and_nothing_is_kept() -> None:
    """Whoever traces beside Curfew does not lose the thread of what happens at once; no row is written for it."""
    plant = Plant()
    plant.knows(an_account(), a_service(), a_plan())
    plant.tick(NOON)
    outputs = plant.request(a_request(), headers=HEADERS)

    assert sent(outputs, "plan-change.replies") == [CRM]
    assert plant.changes.store.get(trace_key("S1")) is None
    assert sent(plant.tick(DEADLINE), "plan-change.commands") == [None]


def test_a_text_that_is_no_trace_is_ignored(plant: Plant, spans: InMemorySpanExporter) -> None:
    """Anybody may write headers; a new trace begins."""
    plant.request(a_request(), headers=[("traceparent", b"nonsense \xff")])

    assert named(spans, "decide order").parent is None
