"""Settings of the ingress, read once from the environment; a bad one fails at start with the variable's name."""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingress.security_headers import ORIGIN
from ops.kafka.clients import KafkaSettings
from schemas import rate_limit, seal
from schemas.api_key import PEPPER_LEAST
from schemas.lanes import Lane, parse_lanes
from schemas.seal import Seals

_BOOTSTRAP: Final = re.compile(r"[^\s,:]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}")


class IngressSettings(BaseSettings):
    """What the ingress reads."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    kafka_bootstrap: str
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    redis_url: str
    database_url: str
    api_key_pepper: SecretStr = Field(min_length=PEPPER_LEAST)
    """Under which API keys are signed: the one that `kifiya keys create` had."""
    api_key_grace_s: float = Field(900, ge=0)
    """How long keys that are known go on working while PostgreSQL is away; no revocation reaches us then."""
    command_secret: SecretStr = SecretStr("")
    """Secrets, comma-separated, of which the first seals commands: intake's, where its KAFKA_MERCHANTS is not ``*``."""
    rate_limit: str = "1000/second"
    """Requests and lines of batches of one merchant, of all processes together, where the merchant has no own limit."""
    lanes: str = '{"simulator": {"provider": "simulator", "limit": 2}}'
    ingress_host: str = "127.0.0.1"
    ingress_port: int = Field(8000, ge=0, le=65535)
    """0 takes a free port; the log line ``listening`` says which."""
    publish_timeout_s: float = Field(1.0, gt=0, le=30)
    """How long a create may wait for Kafka's ack before it goes to the outbox; that and Redis may add 0.3 s each."""
    outbox_max_rows: int = Field(1_000_000, ge=0)
    """Commands that may wait in the outbox, of all processes together; beyond them creates are answered 503."""
    outbox_max_bytes: int = Field(1024**3, ge=0)
    """Bytes of their values that may."""
    in_flight_max: int = Field(1000, ge=1)
    """Requests in hand beyond which new ones are answered 503 at once; 256 of them work, the others wait in line."""
    idempotent_replay: Literal["conflict", "original"] = "conflict"
    """How a repeat is answered: 409 with the payment as it stands, or 200 with the payment as it was first answered."""
    remember_s: int = Field(86_400, ge=60)
    """How long Redis remembers an accepted payment; beyond it PostgreSQL and the stream do."""
    event_streams_max: int = Field(2000, ge=1)
    """Streams of events that may be open at a time; one more is answered 503."""
    event_streams_per_merchant: int = Field(50, ge=1)
    """Streams of one merchant's events; one more is answered 429."""
    event_heartbeat_s: float = Field(15.0, gt=0, le=300)
    """How often a stream without events says that it is alive, and asks whether its key still works."""
    cors_origins: str = ""
    """Origins whose pages may use the API from a browser, separated by commas; none where empty."""
    hsts_max_age_s: int = Field(0, ge=0)
    """How long browsers shall come over TLS only; 0: nothing is said, as TLS ends before the gateway or nowhere."""
    failpoints: str = ""
    """For tests of crashes: see ops/failpoints.py."""
    access_log: bool = False
    """One JSON line for each request; at 1,000 a second that costs a twenty-fifth of a core."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("command_secret")
    @classmethod
    def _secrets(cls, value: SecretStr) -> SecretStr:
        seal.parse(value.get_secret_value())
        return value

    @field_validator("rate_limit")
    @classmethod
    def _rate(cls, value: str) -> str:
        rate_limit.parse(value)
        return value

    @field_validator("kafka_bootstrap")
    @classmethod
    def _hosts(cls, value: str) -> str:
        hosts = [host.strip() for host in value.split(",")]
        if not all(_BOOTSTRAP.fullmatch(host) for host in hosts):
            raise ValueError("must be host:port, or several of them separated by commas")
        return ",".join(hosts)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        origins = [origin.strip() for origin in value.split(",") if origin.strip()]
        if not all(ORIGIN.fullmatch(origin) for origin in origins):
            raise ValueError("must be origins such as https://shop.example, separated by commas; not *, no path")
        return ",".join(origins)

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        return _url(value, {"redis", "rediss", "unix"})

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        return _url(value, {"postgres", "postgresql"})

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka_bootstrap, self.kafka_dialect)

    def seals(self) -> Seals | None:
        """What seals commands; None where no secret is set."""
        return seal.parse(self.command_secret.get_secret_value())

    @property
    def origins(self) -> frozenset[str]:
        """The origins that may read answers."""
        return frozenset(origin for origin in self.cors_origins.split(",") if origin)

    def lane_table(self) -> dict[str, Lane]:
        """The lanes by name. Raises ValueError naming what is wrong."""
        return parse_lanes(self.lanes)


def _url(value: str, schemes: set[str]) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:  # its message holds the URL, and the URL a password
        raise ValueError("is not a URL") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must be a URL that begins with {' or '.join(sorted(schemes))}://")
    return value
