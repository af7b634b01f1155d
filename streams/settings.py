"""Settings, read once per process: flag > environment (``CURFEW_…``) > ``curfew.toml`` > running dev stack > default.

Secrets are :class:`pydantic.SecretStr`, so neither a log line nor a traceback can show them.
"""

from __future__ import annotations

import difflib
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from streams import dev_stack
from streams.core.errors import Misconfigured


class ClockMode(StrEnum):
    """Who moves business time: the machine's clock, or the ticks of a virtual clock."""

    WALL = "wall"
    VIRTUAL = "virtual"


class SecurityProtocol(StrEnum):
    """How Kafka is spoken to, as Kafka calls it."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(StrEnum):
    """How a client says who it is, as Kafka calls it."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"


class FileSource(TomlConfigSettingsSource):
    """``curfew.toml`` of the current directory. Raises Misconfigured for a file that cannot be read, and for a name
    that no setting has: misspelt, it would silently be the default, which for ``environment`` is the lax one."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        file = str(settings_cls.model_config["toml_file"])
        try:
            super().__init__(settings_cls)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{file} cannot be read: {error}; the settings are in docs/settings.md") from error
        for name in self.toml_data:
            if name not in settings_cls.model_fields:
                near = difflib.get_close_matches(name.lower().removeprefix("curfew_"), settings_cls.model_fields, n=2)
                hint = f"; did you mean {' or '.join(near)}?" if near else "."
                raise Misconfigured(f"{file}: there is no setting {name!r}{hint} All of them: docs/settings.md")


class DevStackSource(PydanticBaseSettingsSource):
    """Addresses of the stack that ``curfew dev start`` runs in this directory; its ports may be any free ones."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # everything comes at once, from __call__

    def __call__(self) -> dict[str, Any]:
        try:
            state = json.loads((dev_stack.directory() / "state.json").read_bytes())
            os.kill(state["pid"], 0)
        except (OSError, ValueError, KeyError):
            return {}
        if state.get("status") != "ready":
            return {}
        return {name: state[name] for name in ("bootstrap_servers", "schema_registry_url") if state.get(name)}


class Settings(BaseSettings):
    """Everything a process of Curfew can be told; frozen after it was read."""

    model_config = SettingsConfigDict(
        env_prefix="CURFEW_", toml_file="curfew.toml", frozen=True, extra="ignore", populate_by_name=True
    )

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="Kafka brokers, host:port, comma separated")
    schema_registry_url: str = Field(
        default="http://127.0.0.1:8081/apis/ccompat/v7", description="registry, speaking the Confluent API"
    )
    security_protocol: SecurityProtocol = Field(
        default=SecurityProtocol.PLAINTEXT, description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    ssl_ca_file: Path | None = Field(default=None, description="PEM of who has signed the brokers' certificates")
    ssl_certificate_file: Path | None = Field(default=None, description="PEM of our own certificate, for mutual TLS")
    ssl_key_file: Path | None = Field(default=None, description="PEM of its key")
    ssl_key_password: SecretStr | None = Field(default=None, description="password of that key")
    sasl_mechanism: SaslMechanism | None = Field(
        default=None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    sasl_username: str | None = Field(default=None, description="Kafka user")
    sasl_password: SecretStr | None = Field(default=None, description="its password")
    sasl_oauthbearer: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='librdkafka\'s sasl.oauthbearer.*, e.g. {"method": "oidc", "client.id": "…", "client.secret": "…"}',
    )
    data_dir: Path = Field(default=Path(".curfew"), description="where stores, logs and the SQLite billing store live")
    database_url: SecretStr | None = Field(
        default=None, description="billing store, e.g. postgresql+psycopg://user@host/db; default SQLite in data_dir"
    )
    sqlite_cache_mib: int = Field(
        default=64, ge=1, description="MiB of a SQLite billing store that the persister keeps in memory"
    )
    clock: ClockMode = Field(default=ClockMode.WALL, description="wall, or virtual for demo and tests")
    environment: str = Field(
        default="development",
        description="development allows http and loopback webhooks; production, or any other word, refuses them",
    )
    webhook_secrets: tuple[str, ...] = Field(
        default=("env:CURFEW_SECRET_*",), description="references of secrets that subscriptions may name, as patterns"
    )
    webhook_allow_networks: tuple[str, ...] = Field(
        default=(), description="private networks (CIDR) that subscriptions may send to, if they name them too"
    )
    calculations: tuple[str, ...] = Field(
        default=(), description="calculations that subscriptions may name, each as package.module:NAME"
    )
    hooks: tuple[str, ...] = Field(default=(), description="hooks of rate plan changes, each as package.module:name")
    second_part_hours: int | None = Field(
        default=None,
        ge=1,
        description="hours before the deadline from which options, product, fees and tasks may be written; memberships "
        "go in at once; default both at once",
    )
    usage_retention_days: int = Field(
        default=62,
        ge=1,
        description="usage is counted for so long after its event time, and known again if it comes twice; longer than "
        "a period and the grace of its contract",
    )
    watchdog_webhook_url: str | None = Field(
        default=None, description="where watchdog and canary send notices: a URL that takes signed webhooks"
    )
    watchdog_webhook_secret: str = Field(
        default="env:CURFEW_SECRET_WATCHDOG",
        description="reference of the secret that signs them; webhook_secrets has to allow it",
    )
    watchdog_mail_to: tuple[str, ...] = Field(default=(), description="addresses to which notices are mailed")
    watchdog_mail_from: str = Field(default="curfew@localhost", description="sender of these mails")
    email_from: str = Field(default="curfew@localhost", description="sender of e-mails to subscribers")
    email_templates: Path | None = Field(
        default=None, description="directory of templates that e-mail subscriptions may name: NAME.txt, NAME.html"
    )
    smtp_url: SecretStr | None = Field(
        default=None, description="mail server, smtp://user:password@host:587 or smtps://host:465"
    )
    board_token: SecretStr | None = Field(
        default=None, description="who gives it to the board may act there; default nobody: the board is read-only"
    )
    health_host: str = Field(
        default="127.0.0.1",
        description="address that /health and /metrics listen on; in a container 0.0.0.0, or Prometheus cannot come in",
    )
    tracing: bool = Field(
        default=False,
        description="export traces by OTLP (extra opentelemetry); OpenTelemetry's own variables, OTEL_…, say where to",
    )
    log_level: str = Field(default="info", description="debug, info, warning or error")
    log_format: str = Field(default="console", description="console or json")

    @property
    def billing_store_url(self) -> str:
        """SQLAlchemy URL of the billing store; the SQLite file in ``data_dir`` unless one is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.data_dir / 'billing.sqlite').absolute()}"

    def kafka(self, **extra: Any) -> dict[str, Any]:
        """librdkafka configuration that every client of ours starts from (one place for addresses and security)."""
        return {"bootstrap.servers": self.bootstrap_servers, **self._security(), **extra}

    def _security(self) -> dict[str, str]:
        """What is set of it, under librdkafka's names; nothing for PLAINTEXT."""
        if self.security_protocol is SecurityProtocol.PLAINTEXT:
            return {}
        found = {
            "security.protocol": self.security_protocol.value,
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self.ssl_key_password,
        }
        if self.security_protocol in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL):
            found |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password,
                **{f"sasl.oauthbearer.{name}": value for name, value in self.sasl_oauthbearer.items()},
            }
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in found.items()
            if value is not None
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSource(settings_cls), DevStackSource(settings_cls)
