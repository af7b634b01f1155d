"""One Kafka for the tests of lag, with an authoriser that allows what no rule forbids; the broker is stopped in one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.brokers import Cluster, private

PROPERTIES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="package")
def lag_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = private(tmp_path_factory.mktemp("lag-stack"), with_registry=False, kafka_properties=PROPERTIES)
    with made:
        yield made


@pytest.fixture
def servers(lag_stack: Cluster) -> str:
    assert lag_stack.address is not None
    return lag_stack.address.bootstrap_servers
