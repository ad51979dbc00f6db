"""What `kifiya up` leaves for other commands beside its state: the secret of the seals, made once and kept."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ops.cli import state as of_commands
from ops.local import gateway, state
from ops.local.state import Running
from schemas import seal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIFIYA_STATE", str(tmp_path / "not" / "yet" / "state.json"))
    monkeypatch.delenv("COMMAND_SECRET", raising=False)
    return tmp_path / "not" / "yet"


def test_a_secret_is_made_once_for_its_owner_only(folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: state.command_secret(), range(8)))
    (secret,) = made
    assert len(secret) >= seal.SECRET_LEAST
    assert state.command_secret() == secret
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_gateway_elsewhere_has_a_secret_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = state.command_secret()
    monkeypatch.setenv("KIFIYA_STATE", str(folder / "other.json"))
    assert state.command_secret() != first


def test_commands_seal_under_the_environments_secret_and_else_under_the_running_gateways(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_commands.seals(Running(kafka="elsewhere:9092")) is None
    assert not folder.exists()
    ours, mine = of_commands.seals(Running(supervisor=7)), "mine" * 8
    assert ours is not None
    assert ours.header(b"v", 1) == seal.Seals([state.command_secret()]).header(b"v", 1)
    monkeypatch.setenv("COMMAND_SECRET", mine)
    named = of_commands.seals(Running(supervisor=7))
    assert named is not None
    assert named.header(b"v", 1) == seal.Seals([mine]).header(b"v", 1)


@pytest.mark.parametrize(
    ("more", "admitted"),
    [("", "shop"), ("acme", "shop,acme"), (" acme , shop,", "shop,acme"), ("*", "*"), (" * ", "*")],
)
def test_a_gateways_own_merchant_is_always_admitted(more: str, admitted: str) -> None:
    assert gateway.admitted("shop", more) == admitted
