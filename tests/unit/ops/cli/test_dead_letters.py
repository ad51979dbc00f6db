"""``kifiya dead-letters replay`` wants to know exactly what to replay, and who agreed."""

from __future__ import annotations

import pytest

from ops.cli.replay import _user
from tests.unit.ops.cli.run import CLOSED, complaint, kifiya

WHAT = "say what to replay: origins, or --payment-id, or --all with --reason"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], WHAT),
        (["a/0/1", "--payment-id", "p"], WHAT),
        (["a/0/1", "--all", "--reason", "rejected"], WHAT),
        (["--all"], "--all and --reason go together"),
        (["a/0/1", "--reason", "rejected"], "--all and --reason go together"),
        (["a/0/1", "--approved-by", "x" * 65], "--approved-by must be a name of at most 64 characters"),
        (["a/0/1", "--approved-by", "a\x1bb"], "--approved-by must be a name of at most 64 characters"),
        (["a/0/1", "--approved-by", f" {_user().upper()} "], "--approved-by must name a second person, not yourself"),
    ],
)
def test_a_replay_says_what_and_who_agreed(arguments: list[str], said: str) -> None:
    assert complaint(kifiya("dead-letters", "replay", *arguments, KAFKA_BOOTSTRAP=CLOSED)) == said
