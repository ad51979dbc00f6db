"""Settings of the sink, read once from the environment; a bad one fails at start with the variable's name."""

from __future__ import annotations

import tempfile
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ops.kafka.clients import KafkaSettings


class SinkSettings(BaseSettings):
    """What the sink reads."""

    model_config = SettingsConfigDict(frozen=True)

    kafka_bootstrap: str
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    database_url: str
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(0, ge=0, le=65535)
    data_dir: str = Field(default_factory=lambda: tempfile.mkdtemp(prefix="kifiya-"))
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka_bootstrap, self.kafka_dialect)


class MigrateSettings(BaseSettings):
    """What a migration reads."""

    model_config = SettingsConfigDict(frozen=True)

    database_url: str
