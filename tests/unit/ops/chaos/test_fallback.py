"""A lane that moves between Redis and PostgreSQL keeps its limit whatever breaks, and breaks it when it is broken."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest

from ops.chaos.sim import fallback
from ops.chaos.sim.links import LogClient
from schemas.records import LimiterBeat
from streams.limiter.authority import Authority, Pace, Store
from streams.limiter.clock import Steadiness
from streams.limiter.port import Permit
from streams.limiter.switching import SwitchingLimiter

SEEDS = 60
MOST = 300
"""Lives within which each defect shows itself."""

pytestmark = pytest.mark.usefixtures("quiet")

Patch = pytest.MonkeyPatch


def test_every_life_keeps_to_one_authority_and_the_limit_and_calls_again() -> None:
    stores = set()
    for seed in range(SEEDS):
        life = fallback.live(seed)
        assert not life.violations, f"seed {seed}: {life.violations}\n" + "\n".join(life.trace)
        stores |= {store for _, store in life.calls}
    assert stores == set(Store)


def test_a_seed_is_lived_the_same_way_again() -> None:
    assert fallback.live(7) == fallback.live(7)
    assert fallback.live(7).calls != fallback.live(8).calls


def each_worker_takes_the_store_that_answers(patch: Patch) -> None:
    def grants(self: Authority, _now: float) -> Store | None:
        sight = self._sights.get(Store.REDIS)
        return None if sight is None else Store.REDIS if sight.answers else Store.POSTGRES

    patch.setattr(Authority, "grants", grants)


def a_new_epoch_begins_at_once(patch: Patch) -> None:
    patch.setattr(fallback, "pace", lambda _: Pace(5.0, 0.0))


def a_new_epoch_begins_before_all_others_have_stopped(patch: Patch) -> None:
    patch.setattr(fallback, "pace", lambda _: Pace(5.0, 2.0))


def a_worker_goes_on_without_news(patch: Patch) -> None:
    patch.setattr(fallback, "pace", lambda _: Pace(1e9, 10.0))


def a_rest_is_said_to_be_over_before_it_began(patch: Patch) -> None:
    whole = Authority.beat
    patch.setattr(Authority, "beat", lambda self, now: replace(whole(self, now), settled=True))


def the_last_writer_wins(patch: Patch) -> None:
    whole = Authority.hear

    def hear(self: Authority, beat: LimiterBeat, now: float) -> bool:
        if beat.epoch < self.epoch:
            self.epoch = self._told = beat.epoch
            self._holds_from = now if beat.settled else now + self.pace.rest_s
        return whole(self, beat, now)

    patch.setattr(Authority, "hear", hear)


def a_beat_is_news_when_it_comes_back(patch: Patch) -> None:
    whole = Authority.hear

    def hear(self: Authority, beat: LimiterBeat, now: float) -> bool:
        if beat.beat in self._sent and beat.worker == self.worker:
            self._sent[beat.beat] = now
        return whole(self, beat, now)

    beat = Authority.beat

    def keep(self: Authority, now: float) -> LimiterBeat:
        before = dict(self._sent)
        told = beat(self, now)
        self._sent = before | self._sent
        return told

    patch.setattr(Authority, "hear", hear)
    patch.setattr(Authority, "beat", keep)


def anybodys_beat_is_news(patch: Patch) -> None:
    whole = Authority.hear

    def hear(self: Authority, beat: LimiterBeat, now: float) -> bool:
        moved = whole(self, beat, now)
        self._fresh_until = now + self.pace.hear_s
        return moved

    patch.setattr(Authority, "hear", hear)


def the_log_is_not_read_from_its_beginning(patch: Patch) -> None:
    async def beats(self: LogClient) -> AsyncGenerator[LimiterBeat, None]:
        place = len(self._log.records)
        while True:
            if place == len(self._log.records):
                await self._log.news()
            else:
                place += 1
                yield self._log.records[place - 1]

    patch.setattr(LogClient, "beats", beats)


def nobody_looks_again_after_the_grant(patch: Patch) -> None:
    async def acquire(self: SwitchingLimiter, lead_s: float = 0.0) -> Permit:
        store = self.authority.grants(self._clock()) or Store.REDIS
        return await self._stores[store].acquire(lead_s)

    patch.setattr(SwitchingLimiter, "acquire", acquire)


def clocks_of_stores_are_trusted(patch: Patch) -> None:
    patch.setattr(Steadiness, "wait_s", lambda *_: 0.0)


def permits_never_expire(patch: Patch) -> None:
    patch.setattr(Permit, "check", lambda *_: None)


DEFECTS = [
    each_worker_takes_the_store_that_answers, a_new_epoch_begins_at_once,
    a_new_epoch_begins_before_all_others_have_stopped, a_worker_goes_on_without_news,
    a_rest_is_said_to_be_over_before_it_began, the_last_writer_wins, a_beat_is_news_when_it_comes_back,
    anybodys_beat_is_news, the_log_is_not_read_from_its_beginning, nobody_looks_again_after_the_grant,
    clocks_of_stores_are_trusted, permits_never_expire,
]  # fmt: skip


FROM: dict[Callable[[Patch], None], int] = {the_last_writer_wins: 60, clocks_of_stores_are_trusted: 35}
"""Where to begin with what few lives show."""


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_of_the_fallback_is_seen(defect: Callable[[Patch], Any], monkeypatch: Patch) -> None:
    defect(monkeypatch)
    for seed in range(FROM.get(defect, 0), FROM.get(defect, 0) + MOST):
        broken = {each.promise for each in fallback.live(seed).violations}
        if broken & {"within-the-limit", "one-authority"}:
            return
    pytest.fail("no life of so many has shown it")
