"""Traces of a real worker, as a collector gets them: by OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.faults.flow import Flow, producer, read
from tests.runtime.test_flow import key_in
from tests.support.kafka_io import wait_until

pytestmark = pytest.mark.kafka

ONE, OTHER = (f"00-{letter * 32}-{letter * 16}-01" for letter in "ab")


class Collector:
    """Takes what an OTLP exporter sends."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    names = {one.key: one.value.string_value for one in resource.resource.attributes}
                    collector.services.add(names["service.name"])
                    collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, partition: int) -> list[Span]:
        """The spans of the chunks of a partition."""
        wanted = str(partition)
        return [
            span
            for span in self.spans
            if any(one.key == "messaging.destination.partition.id" and one.value.string_value == wanted
                   for one in span.attributes)
        ]  # fmt: skip


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_a_chunk_is_a_span_of_the_trace_of_its_records_or_linked_to_all_of_them(
    flow: Flow, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it sends goes on in its trace. The last spans are exported when the worker stops."""
    monkeypatch.setenv("CURFEW_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    feeding = producer(flow.servers)
    for partition, traces in enumerate(([ONE], [ONE, OTHER], [])):
        for number, trace in enumerate(traces or [None]):
            theirs: dict[str, str | bytes | None] = {} if trace is None else {"traceparent": trace.encode()}
            feeding.produce(flow.input, b'{"revision":1}', key=key_in(partition, number), headers=theirs)
    assert feeding.flush(30) == 0

    app = flow.start()
    wait_until(lambda: len(read(flow.servers, flow.output)) == 4, "all are handled")
    assert app.stop() == 0

    [single], mixed, [untraced] = (collector.of(partition) for partition in range(3))
    assert single.trace_id.hex() == ONE[3:35]
    assert single.parent_span_id.hex() == ONE[36:52]
    # one chunk, as a rule; where the consumer has got them one by one, each goes on in its own trace
    of_links = {link.trace_id.hex() for span in mixed for link in span.links}
    assert of_links | {span.trace_id.hex() for span in mixed if span.parent_span_id} == {ONE[3:35], OTHER[3:35]}
    assert all(not span.links or not span.parent_span_id for span in mixed)
    assert untraced.parent_span_id == b""
    assert collector.services == {f"curfew-{flow.name}"}
    sent = set()
    for message in read(flow.servers, flow.output):
        headers: Any = message.headers()
        sent.add((message.partition(), dict(headers)["traceparent"].decode()[3:52]))
    assert sent == {
        (partition, f"{span.trace_id.hex()}-{span.span_id.hex()}")
        for partition in range(3)
        for span in collector.of(partition)
    }
