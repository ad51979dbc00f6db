"""Settings of the stream roles, read once from the environment; a bad one fails at start with the variable's name."""

from __future__ import annotations

import tempfile
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ops.kafka.clients import KafkaSettings
from schemas import seal, topics
from schemas.lanes import Lane, parse_lanes
from streams.admission import EVERY, GOOD_SHARE, Admission, parse_merchants
from streams.share import parse_weights


class StreamSettings(BaseSettings):
    """What intake, dispatch and delay read."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    kafka_bootstrap: str
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    redis_url: str = ""
    database_url: str = ""
    simulator_url: str = ""
    lanes: str = '{"simulator": {"provider": "simulator", "limit": 2}}'
    retry_tiers: str = ",".join(topics.DEFAULT_TIERS)
    command_partitions: int = Field(12, ge=1, le=1024)
    lane_partitions: int = Field(8, ge=1, le=1024)
    dedup_window_s: float = Field(7 * 86400, gt=0)
    ledger_window_s: float = Field(7 * 86400, gt=0)
    merchant_weights: str = "{}"
    kafka_merchants: str = EVERY
    """Merchants whom producers other than the gateway's own parts may name, comma-separated; ``*`` is each."""
    command_secret: SecretStr = SecretStr("")
    """Secrets of the ingress's seals, comma-separated: a record that has one may name each merchant."""
    max_attempts: int = Field(8, ge=1, le=100)
    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    data_dir: str = Field(default_factory=lambda: tempfile.mkdtemp(prefix="kifiya-"))
    limiter_fallback: Literal["", "off", "follow", "postgres"] = ""
    failpoints: str = ""
    """For tests of crashes: see ops/failpoints.py."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("kafka_merchants")
    @classmethod
    def _merchants(cls, value: str) -> str:
        parse_merchants(value)
        return value

    @field_validator("command_secret")
    @classmethod
    def _secrets(cls, value: SecretStr) -> SecretStr:
        seal.parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _ledger_outlives_dedup(self) -> Self:
        """What intake lets through as new must not be what the ledger forgot before."""
        if self.ledger_window_s < self.dedup_window_s:
            raise ValueError("LEDGER_WINDOW_S must not be shorter than DEDUP_WINDOW_S")
        return self

    @model_validator(mode="after")
    def _fallback_has_somewhere_to_go(self) -> Self:
        if self.fallback != "off" and not self.database_url:
            raise ValueError(f"LIMITER_FALLBACK={self.limiter_fallback} needs DATABASE_URL")
        return self

    @property
    def fallback(self) -> Literal["off", "follow", "postgres"]:
        """What a lane does without Redis; where nothing is said, it goes on by PostgreSQL if it knows one."""
        return self.limiter_fallback or ("postgres" if self.database_url else "off")

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka_bootstrap, self.kafka_dialect)

    def lane_table(self) -> dict[str, Lane]:
        """The lanes by name; the first one is the default. Raises ValueError naming what is wrong."""
        return parse_lanes(self.lanes, default_url=self.simulator_url)

    def admission(self) -> Admission:
        """Who may name which merchants. Raises ValueError where the ingress could name none."""
        merchants, seals = parse_merchants(self.kafka_merchants), seal.parse(self.command_secret.get_secret_value())
        if merchants is not None and seals is None:
            raise ValueError("COMMAND_SECRET: is missing: where KAFKA_MERCHANTS is not *, the ingress is known by it")
        return Admission(merchants, seals, int(self.dedup_window_s * 1000 * GOOD_SHARE))

    def weights(self) -> dict[str, float]:
        """Shares of a lane by merchant, 1 for whoever is not named. Raises ValueError."""
        return parse_weights(self.merchant_weights)

    def tiers(self) -> tuple[str, ...]:
        """The retry tiers, shortest first. Raises ValueError."""
        names = tuple(name.strip() for name in self.retry_tiers.split(",") if name.strip())
        if not names or list(names) != sorted(names, key=topics.tier_ms):
            raise ValueError("RETRY_TIERS must list at least one delay, shortest first, as in 1s,5s,1m")
        return names
