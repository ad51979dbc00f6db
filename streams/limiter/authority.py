"""Who grants a lane's permits: Redis or PostgreSQL, one at a time, by the order of one Kafka log. Pure.

An epoch's number says who grants (even: Redis, odd: PostgreSQL), so two workers that propose the next one at once
propose the same. Each worker tells the highest epoch it knows, once a second, under a key of its own; the highest in
the log counts. It calls while it surely has read all that was in the log ``hear_s`` ago, and begins a new epoch
``rest_s`` after its own word of it came back. The argument is in ops/chaos/FALLBACK.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from schemas.records import LimiterBeat

BEAT_S: Final = 1.0
AWAY_S: Final = 10.0
"""How long a store is away before the lane may leave it, and how long Redis is back before the lane returns."""
LEAST_HEAR_S: Final = 5.0
SLACK_S: Final = 1.0
"""Beyond two windows, for clocks that run apart and requests on their way."""
FORGET_S: Final = 900.0
"""Workers that are silent for so long are gone, and their last word is taken off the log."""
_NEVER: Final = float("inf")


class Store(StrEnum):
    """Who may grant."""

    REDIS = "redis"
    POSTGRES = "postgres"

    @property
    def other(self) -> Store:
        """The one it is not."""
        return Store.POSTGRES if self is Store.REDIS else Store.REDIS


def granting(epoch: int) -> Store:
    """Who grants in this epoch."""
    return Store.POSTGRES if epoch % 2 else Store.REDIS


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: without news for ``hear_s`` a worker stops; a new epoch begins ``rest_s`` after it was written down."""

    hear_s: float
    rest_s: float


def pace(window_s: float) -> Pace:
    """The pace of a lane; ``window_s`` is its window with the guard.

    Between the last call of an epoch, granted up to a window ahead, and the first of the next there are two windows.
    """
    hear_s = max(LEAST_HEAR_S, 2 * window_s + SLACK_S)
    return Pace(hear_s, 2 * hear_s)


@dataclass(frozen=True, slots=True)
class Sight:
    """Whether a store answers, and since when that is so."""

    answers: bool
    since: float

    def looked(self, at: float, *, answers: bool) -> Sight:
        """What it is after a look."""
        return self if answers == self.answers else Sight(answers, at)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another worker's last word, and when it was heard."""

    heard_at: float
    redis: bool
    postgres: bool

    def sees(self, store: Store) -> bool:
        """Whether that store answers it."""
        return self.redis if store is Store.REDIS else self.postgres


def moves(here: Store, sights: dict[Store, Sight], peers: Iterable[Peer], now: float) -> bool:
    """Whether the lane should leave ``here``, as one worker sees it: nobody who can call now may be cut off by it."""
    mine, there = sights[here], sights[here.other]
    gone = not mine.answers and now - mine.since >= AWAY_S
    home = here.other is Store.REDIS and now - there.since >= AWAY_S
    cut_off = (peer.sees(here) and not peer.sees(here.other) for peer in peers)
    return there.answers and (gone or home) and not any(cut_off)


@dataclass(slots=True)
class Authority:
    """One worker's view of one lane; ``worker`` names the process, from its start to its end.

    ``leaves_redis``: whether it proposes to leave Redis; all return to it.
    """

    lane: str
    worker: str
    pace: Pace
    leaves_redis: bool = True
    epoch: int = 0
    peers: dict[str, Peer] = field(default_factory=dict)
    _holds_from: float = -_NEVER  # nothing was granted before epoch 0
    _fresh_until: float = -_NEVER
    _told: int = 0
    _beats: int = 0
    _sent: dict[int, float] = field(default_factory=dict)
    _sights: dict[Store, Sight] = field(default_factory=dict)

    def grants(self, now: float) -> Store | None:
        """Who may grant now; None: nobody, as this worker knows too little, or a new epoch has not begun."""
        return granting(self.epoch) if self._holds_from <= now <= self._fresh_until else None

    def see(self, store: Store, now: float, *, answers: bool) -> None:
        """Whether a store answers this worker."""
        self._sights[store] = self._sights.get(store, Sight(answers, now)).looked(now, answers=answers)

    def beat(self, now: float) -> LimiterBeat:
        """What to tell now, both stores having been seen. A word once told is not taken back: it may be in the log."""
        live = [peer for peer in self.peers.values() if now - peer.heard_at <= self.pace.hear_s]
        here = self.grants(now)
        may = here is Store.POSTGRES or self.leaves_redis
        if here is not None and may and moves(here, self._sights, live, now):
            self._told = self.epoch + 1
        self._told = max(self._told, self.epoch)
        self._beats += 1
        self._sent = {number: at for number, at in self._sent.items() if now - at < self.pace.hear_s}
        self._sent[self._beats] = now
        return LimiterBeat(
            lane=self.lane,
            worker=self.worker,
            beat=self._beats,
            epoch=self._told,
            settled=self._told == self.epoch and self._holds_from <= now,
            redis=self._sights[Store.REDIS].answers,
            postgres=self._sights[Store.POSTGRES].answers,
        )

    def hear(self, beat: LimiterBeat, now: float) -> bool:
        """Take the log's next record; whether the epoch is another one now."""
        if beat.lane != self.lane:
            return False
        mine = beat.worker == self.worker
        moved = beat.epoch > self.epoch
        if moved:
            self.epoch, self._holds_from = beat.epoch, _NEVER
        if beat.epoch == self.epoch:
            if beat.settled:
                self._holds_from = min(self._holds_from, now)
            elif mine and self._holds_from == _NEVER:
                self._holds_from = now + self.pace.rest_s
        if mine:
            # From when it was sent: what was written to the log later may not be read yet.
            sent_at = self._sent.pop(beat.beat, -_NEVER)
            self._fresh_until = max(self._fresh_until, sent_at + self.pace.hear_s)
        else:
            self.peers[beat.worker] = Peer(now, beat.redis, beat.postgres)
        return moved

    def forget(self, now: float) -> list[str]:
        """Workers that are gone and whose epoch this one has told since: their last word may be taken off the log."""
        if self.grants(now) is None:
            return []
        gone = [name for name, peer in self.peers.items() if now - peer.heard_at > FORGET_S]
        for name in gone:
            del self.peers[name]
        return gone
