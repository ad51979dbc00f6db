"""docker-compose.yml: each role starts with what its environment says, and two of them share the seals' secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from ingress.settings import IngressSettings
from sinks.settings import SinkSettings
from streams.settings import StreamSettings

SERVICES: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]
ROLES: dict[str, type[IngressSettings | StreamSettings | SinkSettings]] = {
    "ingress": IngressSettings, "intake": StreamSettings, "dispatch": StreamSettings, "delay": StreamSettings,
    "sink": SinkSettings,
}  # fmt: skip


def of(name: str, **given: str) -> dict[str, str]:
    """A service's environment, with Compose's defaults for variables that nobody has set."""

    def fill(found: re.Match[str]) -> str:
        return given.get(found[1], found[2])

    said = SERVICES[name]["environment"].items()
    return {key: re.sub(r"\$\{([A-Z_]+):?-([^}]*)\}", fill, value) for key, value in said}


@pytest.mark.parametrize("name", ROLES)
def test_a_role_has_all_that_it_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in (field for settings in ROLES.values() for field in settings.model_fields):
        monkeypatch.delenv(field.upper(), raising=False)
    for variable, value in of(name).items():
        monkeypatch.setenv(variable, value)
    settings = ROLES[name]()
    if isinstance(settings, StreamSettings):
        assert settings.admission().merchants == (frozenset({"shop"}) if name == "intake" else None)


def test_only_who_seals_and_who_checks_have_the_secret_and_it_is_the_same() -> None:
    given = {"COMMAND_SECRET": "x" * 32}
    secrets = {name: of(name, **given)["COMMAND_SECRET"] for name in ROLES if "COMMAND_SECRET" in of(name)}
    assert secrets == dict.fromkeys(("ingress", "intake"), "x" * 32)
