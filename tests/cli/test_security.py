"""Kafka over TLS, with SCRAM users and ACLs: who is refused, and whether the workers can do with their own rights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from agents.acl import CLOCK, rights
from agents.embedded import Stack, StackConfig
from agents.embedded.ports import free_port
from agents.worker import WORKERS
from streams.kafka.admin import apply, diff
from streams.kafka.manifest import Manifest
from streams.settings import SaslMechanism, SecurityProtocol, Settings
from tests.cli.curfew import Finished
from tests.support.certificates import certificates
from tests.support.kafka_io import wait_until

pytestmark = pytest.mark.kafka

PASSWORD = "correct-horse-battery"
NAMES = (*WORKERS, CLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """A broker with a listener that asks, and one for ourselves (where everybody may everything)."""

    stack: Stack
    secure: str
    authority: Path

    def environment(self, directory: Path, user: str, password: str = PASSWORD) -> dict[str, str]:
        assert self.stack.address is not None
        return {
            **os.environ,
            "CURFEW_BOOTSTRAP_SERVERS": self.secure,
            "CURFEW_SCHEMA_REGISTRY_URL": self.stack.address.schema_registry_url,
            "CURFEW_DATA_DIR": str(directory),
            "CURFEW_SECURITY_PROTOCOL": "SASL_SSL",
            "CURFEW_SASL_MECHANISM": "SCRAM-SHA-512",
            "CURFEW_SASL_USERNAME": user,
            "CURFEW_SASL_PASSWORD": password,
            "CURFEW_SSL_CA_FILE": str(self.authority),
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    authority, server = certificates(tmp_path_factory.mktemp("certificates"))
    port = free_port()
    listener = "listener.name.secure"
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        f"{listener}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        f"{listener}.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": str(server),
    }
    config = StackConfig(
        data_dir=tmp_path_factory.mktemp("secured"),
        kafka_properties=properties,
        kafka_listeners={"SECURE": (port, "SASL_SSL")},
    )
    stack = Stack(config)
    with stack as address:
        manifest = Manifest.load()
        admin = AdminClient({"bootstrap.servers": address.bootstrap_servers})
        users: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(
                f"curfew-{name}", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
            )
            for name in NAMES
        ]
        for made in admin.alter_user_scram_credentials(users).values():
            made.result(30)
        apply(manifest, admin, diff(manifest, admin))
        operator = {
            **os.environ,
            "CURFEW_SCHEMA_REGISTRY_URL": address.schema_registry_url,
            "CURFEW_BOOTSTRAP_SERVERS": address.bootstrap_servers,
        }
        # a registry that has just started may need longer for the first subjects than a command waits
        wait_until(lambda: curfew(operator, "schemas", "apply").code == 0, "schemas are there", timeout_seconds=120)
        rules = [
            AclBinding(
                ResourceType[one.resource_type.upper()],
                one.resource_name,
                ResourcePatternType.PREFIXED if one.prefixed else ResourcePatternType.LITERAL,
                f"User:curfew-{name}",
                "*",
                AclOperation[one.operation.upper()],
                AclPermissionType.ALLOW,
            )
            for name in NAMES
            for one in rights(name, manifest)
        ]
        for set_rule in admin.create_acls(rules).values():
            set_rule.result(30)
        yield Secured(stack=stack, secure=f"127.0.0.1:{port}", authority=authority)


def curfew(environment: dict[str, str], *arguments: str) -> Finished:
    done = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", *arguments],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    return Finished(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.parametrize("command", ["lag", "worker events", "clock", "up"])
def test_a_wrong_password_is_one_line_and_1(secured: Secured, tmp_path: Path, command: str) -> None:
    """At once, also where a broker that is away would be waited for; with the user and without the password."""
    finished = curfew(secured.environment(tmp_path, "curfew-events", "wrong-horse"), *command.split())

    said = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    assert (finished.code, finished.out) == (1, "")
    assert len(said) == 1
    assert "refuses user 'curfew-events': wrong user or password. Correct sasl_username and sasl_password" in said[0]
    assert "wrong-horse" not in finished.err


def test_an_authority_that_is_not_the_brokers_is_one_line(secured: Secured, tmp_path: Path) -> None:
    """Otherwise the client tries again for ever."""
    other, _ = certificates(tmp_path)

    finished = curfew(secured.environment(tmp_path, "curfew-events") | {"CURFEW_SSL_CA_FILE": str(other)}, "lag")

    assert (finished.code, finished.err.count("\n")) == (1, 1)
    assert f"error: no TLS with Kafka at {secured.secure}" in finished.err
    assert "CURFEW_SSL_CA_FILE" in finished.err


def test_a_user_reads_what_its_acls_allow_and_nothing_else(secured: Secured, tmp_path: Path) -> None:
    """The clock may read its ticks and not the accounts."""
    environment = secured.environment(tmp_path, "curfew-clock")

    allowed = curfew(environment, "consume", "clock.ticks", "-e")
    refused = curfew(environment, "consume", "billing.account", "-e")

    assert allowed.code == 0, allowed.err
    assert refused.code == 1
    assert "uthoriz" in refused.err


@pytest.mark.faults
def test_all_workers_run_with_the_rights_that_are_printed(secured: Secured, tmp_path: Path) -> None:
    """Each as a user of its own; every group gets its partitions, ticks are handled, and no log names the password."""
    assert secured.stack.address is not None
    processes = {}
    for name in NAMES:
        command = ["clock"] if name == CLOCK else ["worker", name]
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "agents.cli.main", *command],
                stdout=log, stderr=subprocess.STDOUT, env=secured.environment(tmp_path / "data", f"curfew-{name}"),
            )  # fmt: skip
    try:
        admin = AdminClient({"bootstrap.servers": secured.stack.address.bootstrap_servers})
        names = [name for name in WORKERS if Manifest.load().read_by(name)]

        def working() -> bool:
            assert {name: one.poll() for name, one in processes.items() if one.poll() is not None} == {}
            listed = admin.list_consumer_groups().result(30).valid
            return set(names) <= {one.group_id for one in listed if one.state.name == "STABLE"}

        wait_until(working, "every worker has joined its group", timeout_seconds=180)
        before = _committed(secured, "persistence")
        wait_until(lambda: _committed(secured, "persistence") > before, "ticks are handled", timeout_seconds=120)
        logs = {name: (tmp_path / f"{name}.log").read_text() for name in NAMES}
        assert {name: line for name, log in logs.items() for line in log.splitlines() if "uthoriz" in line} == {}
        assert [name for name, log in logs.items() if PASSWORD in log] == []
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(120)


def _committed(secured: Secured, group: str) -> int:
    from confluent_kafka import ConsumerGroupTopicPartitions

    assert secured.stack.address is not None
    admin = AdminClient({"bootstrap.servers": secured.stack.address.bootstrap_servers})
    [answer] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    return sum(max(0, one.offset) for one in answer.result(30).topic_partitions if one.topic == "clock.ticks")


def test_settings_pass_everything_on_and_show_no_secret() -> None:
    """To librdkafka, the only client (Faust's own is never started); secrets are masked wherever settings are shown."""
    settings = Settings(
        security_protocol=SecurityProtocol.SASL_SSL, sasl_mechanism=SaslMechanism.OAUTHBEARER,
        ssl_key_password=SecretStr("hush"),
        sasl_oauthbearer={"method": SecretStr("oidc"), "client.secret": SecretStr("hush")},
    )  # fmt: skip

    config = settings.kafka()

    assert (config["security.protocol"], config["sasl.mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    assert (config["sasl.oauthbearer.method"], config["sasl.oauthbearer.client.secret"]) == ("oidc", "hush")
    assert config["ssl.key.password"] == "hush"
    assert "hush" not in repr(settings)
    assert Settings(sasl_username="unused").kafka().keys() == {"bootstrap.servers"}
