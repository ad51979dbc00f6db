"""Settings of the ingress, read once from the environment; a bad one fails at start with the variable's name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ops.kafka.clients import KafkaSettings
from schemas.lanes import Lane, parse_lanes


class IngressSettings(BaseSettings):
    """What the ingress reads."""

    model_config = SettingsConfigDict(frozen=True)

    kafka_bootstrap: str
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    redis_url: str
    database_url: str
    lanes: str = '{"simulator": {"provider": "simulator", "limit": 2}}'
    ingress_host: str = "127.0.0.1"
    ingress_port: int = Field(8000, ge=0, le=65535)
    publish_timeout_s: float = Field(1.5, gt=0, le=30)
    """How long a request waits for Kafka's ack before it is answered 503."""
    in_flight_max: int = Field(2000, ge=1)
    """Requests in hand beyond which new ones are answered 503 at once."""
    remember_s: int = Field(86_400, ge=60)
    """How long Redis remembers an accepted payment; beyond it PostgreSQL and the stream do."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka_bootstrap, self.kafka_dialect)

    def lane_table(self) -> dict[str, Lane]:
        """The lanes by name. Raises ValueError naming what is wrong."""
        return parse_lanes(self.lanes)
