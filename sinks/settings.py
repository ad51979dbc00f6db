"""Settings of the sink, read once from the environment; a bad one fails at start with the variable's name."""

from __future__ import annotations

import tempfile
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ops.kafka.clients import KafkaSettings


def _postgres_url(url: str) -> str:
    """The URL itself. Raises ValueError, which does not quote it: there is a password in it."""
    try:
        parts = urlsplit(url)
        there = bool(parts.hostname or "host=" in parts.query) and (parts.port or 1) > 0
    except ValueError:
        there = False
    if not there or parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("must be postgresql://user:password@host:port/database")
    return url


PostgresUrl = Annotated[str, AfterValidator(_postgres_url)]


class SinkSettings(BaseSettings):
    """What the sink reads."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    kafka_bootstrap: str = Field(min_length=1)
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    database_url: PostgresUrl
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(0, ge=0, le=65535)
    data_dir: str = Field(default_factory=lambda: tempfile.mkdtemp(prefix="kifiya-"))
    failpoints: str = ""
    """For tests of crashes: see ops/failpoints.py."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka_bootstrap, self.kafka_dialect)


class MigrateSettings(BaseSettings):
    """What a migration reads."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: PostgresUrl
