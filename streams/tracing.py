"""Traces by OpenTelemetry: off, and free, unless the setting ``tracing`` is on; the only importer of its SDK.

A trace context travels as W3C ``traceparent`` in record headers, and inside a process as the same text: it is small, it
can be kept in a row, and nothing depends on which task or thread runs. What happens at once continues the trace it came
with. What waits for hours (a plan change until its night) begins a trace of its own that is **linked** to the one that
asked for it: a trace that stays open for days is shown by no tracer, and sampled by none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from streams.codec.cloudevents import TRACEPARENT
from streams.core.errors import Misconfigured
from streams.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext

#: The SDK keeps so many by default; more would only be dropped.
MAX_LINKS: Final = 128
#: A collector that is away must not hold up the end of a worker, whose grace is 20 s.
EXPORT_TIMEOUT_S: Final = 5
_VERSION: Final = 0

_WELL_FORMED: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: In the text of a ``traceparent``.
_TRACE_ID: Final = slice(3, 35)


class SpanKind(StrEnum):
    """What a span stands for, as OpenTelemetry calls it."""

    INTERNAL = "INTERNAL"
    CONSUMER = "CONSUMER"
    CLIENT = "CLIENT"


class Tracer(Protocol):
    """Makes spans. ``on`` tells whether it is worth keeping something only for the sake of a trace."""

    @property
    def on(self) -> bool: ...

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        links: Iterable[str] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
    ) -> AbstractContextManager[str | None]:
        """A span around the block, which gets its ``traceparent``: for the headers of what the block sends.

        ``parent`` and ``links`` are texts of others; what is none of them is ignored. Without a parent a new trace
        begins. An error that leaves the block is recorded.
        """
        ...

    def outcome(self, attributes: Mapping[str, str | int], error: str | None = None) -> None:
        """How the innermost span of this task has ended, called inside its block; ``error`` marks it as failed."""
        ...

    def close(self) -> None:
        """Export what is left."""
        ...


class Off:
    """No spans; a trace that comes in goes on to what it causes all the same."""

    on = False

    def span(self, name: str, *, parent: str | None = None, **_: object) -> AbstractContextManager[str | None]:
        return nullcontext(parent)

    def outcome(self, attributes: Mapping[str, str | int], error: str | None = None) -> None:
        """Nobody to tell."""

    def close(self) -> None:
        """Nothing to export."""


OFF: Final[Tracer] = Off()


class OpenTelemetry:
    """Spans of ``provider``."""

    on = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("curfew")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        links: Iterable[str] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
    ) -> Iterator[str | None]:
        from opentelemetry import trace
        from opentelemetry.context import Context

        found = None if parent is None else _context(parent)
        # an empty one, or whatever span is current in this task would become the parent
        context = Context() if found is None else trace.set_span_in_context(trace.NonRecordingSpan(found), Context())
        others = [one for text in dict.fromkeys(links) if (one := _context(text)) is not None]
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=trace.SpanKind[kind.value],
            links=[trace.Link(one) for one in others[:MAX_LINKS]],
            attributes=attributes,
        ) as span:
            own = span.get_span_context()
            yield f"{_VERSION:02x}-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def outcome(self, attributes: Mapping[str, str | int], error: str | None = None) -> None:
        from opentelemetry import trace

        span = trace.get_current_span()
        span.set_attributes(attributes)
        if error is not None:
            span.set_status(trace.StatusCode.ERROR, error)

    def close(self) -> None:
        """Export what is left, for a few seconds at most."""
        self._provider.shutdown()


def _context(text: str) -> SpanContext | None:
    """The span that a ``traceparent`` names; None where the text is none."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({TRACEPARENT: text})
    found = trace.get_current_span(context).get_span_context()
    return found if found.is_valid else None


def tracer(settings: Settings, app: str, instance: str) -> Tracer:
    """What the settings say. Where the spans go, and how many, say OpenTelemetry's own variables (``OTEL_…``)."""
    if not settings.tracing:
        return OFF
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Misconfigured(
            f"the setting tracing is on, but OpenTelemetry is not installed ({error}): "
            "pip install 'curfew-streams[opentelemetry]'"
        ) from None
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": f"curfew-{app}"}
    resource = Resource.create({**named, "service.instance.id": f"{app}-{instance}"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else EXPORT_TIMEOUT_S
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout)))
    trace.set_tracer_provider(provider)  # for hooks: the spans that they make are parts of ours
    return OpenTelemetry(provider)


def traceparent(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """The trace that a record belongs to; what is no ``traceparent`` (anybody may write headers) is none."""
    for name, value in headers or ():
        if name == TRACEPARENT and value is not None:
            return well_formed(value.decode("ascii", "replace"))
    return None


def well_formed(text: str | None) -> str | None:
    """``text`` if it is a ``traceparent`` as W3C Trace Context defines it, else None."""
    return text if text is not None and _WELL_FORMED.fullmatch(text) else None


def traced(headers: Sequence[tuple[str, bytes]] | None, context: str | None) -> Sequence[tuple[str, bytes]] | None:
    """``headers`` with the trace, unless there is none, or they name one already."""
    if context is None or any(name == TRACEPARENT for name, _ in headers or ()):
        return headers
    return [*(headers or ()), (TRACEPARENT, context.encode())]


def same_trace(one: str, other: str) -> bool:
    """Whether two texts name spans of one trace."""
    return one[_TRACE_ID] == other[_TRACE_ID]
