"""The default store: results kept in this process, for its lifetime, within bounds."""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from autosell_rmq.config.check import seconds, whole
from autosell_rmq.exceptions import InProgress
from autosell_rmq.idempotency.store import Abandoned, Call, Note, Record, Stored

logger = logging.getLogger(__name__)

_OVERHEAD = 512  # bytes that Python's objects and dicts take per entry, beside the text; measured


@dataclass(slots=True)  # frozen takes twice as long: one for each message
class _Entry:
    """A claim, and then its result."""

    fingerprint: str
    size: int
    data: bytes = b""
    expires: float = math.inf


@dataclass(frozen=True, slots=True)
class _Noted:
    note: Note
    expires: float
    size: int


class MemoryStore:
    """Remembers results in this process only: a restart, or a second process, knows nothing of them.

    A key is forgotten `ttl` seconds after its result, or earlier when a bound is reached: then the oldest
    notes go first, and after them the result that was asked for longest ago. What is being handled is never
    forgotten; when it alone fills the store, new keys are refused with `InProgress`, so that they wait in the
    delay line. A duplicate that comes after its key was forgotten runs the handler again.

    A single result too large for `max_bytes` is returned and not remembered, with a warning in the log: to
    fail instead would repeat an effect that has happened, and to keep it would break the bound. Keep
    `max_bytes` well above the largest result (the default is four times the largest body).

    Belongs to one event loop; claims are atomic because nothing is awaited between look and claim.

    Args:
        ttl: seconds that a result or a note is kept.
        lease: seconds that a key stays claimed when its handler was abandoned in a thread (`Abandoned`).
        max_entries: claims, results and notes at once.
        max_bytes: size of all entries, with an estimate of what Python itself needs for each.
        clock: monotonic seconds.
    """

    durable = False
    transactional = False

    def __init__(
        self,
        *,
        ttl: float = 3600.0,
        lease: float = 60.0,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        seconds("ttl", ttl)
        seconds("lease", lease)
        whole("max_entries", max_entries, least=1)
        whole("max_bytes", max_bytes, least=1)
        self._ttl = ttl
        self._lease = lease
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._size = 0  # of all entries
        self._processing: dict[str, _Entry] = {}
        self._processing_size = 0
        self._abandoned: OrderedDict[str, float] = OrderedDict()  # of those the end of the claim, first first
        self._done: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._oldest: OrderedDict[str, None] = OrderedDict()  # the keys of _done, first to expire first
        self._notes: OrderedDict[str, _Noted] = OrderedDict()  # first to expire first
        self._next_expiry = math.inf

    @property
    def entries(self) -> int:
        """How many claims, results and notes there are now."""
        return len(self._processing) + len(self._done) + len(self._notes)

    @property
    def size(self) -> int:
        """The bytes counted against `max_bytes` now."""
        return self._size

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Keeps what is known: the store may be opened again."""

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        """Run `call` unless `key` is done already; see `IdempotencyStore.run_once`.

        Raises:
            InProgress: the key is being handled, or the store is full of keys that are.
        """
        if self._clock() >= self._next_expiry:
            self._forget_expired()
        if (done := self._done.get(key)) is not None:
            self._done.move_to_end(key)
            return Stored(data=done.data, fingerprint=done.fingerprint, duplicate=True)
        claim = self._claim(key, fingerprint)
        try:
            data = await call.run()
        except Abandoned:
            until = self._abandoned[key] = self._clock() + self._lease
            self._next_expiry = min(self._next_expiry, until)
            raise
        except BaseException:
            self._release(key)
            raise
        self._remember(key, claim, data)
        return Stored(data=data, fingerprint=fingerprint, duplicate=False)

    async def note(self, key: str, note: Note) -> None:
        """Keep a note on `key`; see `IdempotencyStore.note`. No result is forgotten to make room for one."""
        self._forget_expired()
        if key in self._done:
            return
        self._drop_note(key)
        size = _OVERHEAD + len(key) + len(note.fingerprint) + len(note.data)
        while self._notes and not self._has_room(size):
            self._drop_note(next(iter(self._notes)))
        if not self._has_room(size):
            logger.warning("the store is full: there is no room for a note on %s", key)
            return
        expires = self._clock() + self._ttl
        self._notes[key] = _Noted(note, expires, size)
        self._next_expiry = min(self._next_expiry, expires)
        self._size += size

    async def lookup(self, key: str) -> Record | None:
        """What is known of `key`; looking does not count as use."""
        self._forget_expired()
        if (done := self._done.get(key)) is not None:
            expires_at = self._date(done.expires)
            return Record(state="done", fingerprint=done.fingerprint, data=done.data, expires_at=expires_at)
        if (claim := self._processing.get(key)) is not None:
            return Record(state="processing", fingerprint=claim.fingerprint)
        if (noted := self._notes.get(key)) is not None:
            note, expires_at = noted.note, self._date(noted.expires)
            return Record(
                state=note.state,
                fingerprint=note.fingerprint,
                data=note.data or None,
                expires_at=expires_at,
            )
        return None

    def _date(self, moment: float) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=moment - self._clock())

    def _claim(self, key: str, fingerprint: str) -> _Entry:
        if key in self._processing:
            raise InProgress(f"{key} is being handled")
        size = _OVERHEAD + len(key) + len(fingerprint)
        if not (self._has_room(size) or self._make_room(size)):
            raise InProgress(f"the store is full: {len(self._processing)} keys are being handled")
        claim = self._processing[key] = _Entry(fingerprint, size)
        self._processing_size += size
        self._size += size
        return claim

    def _release(self, key: str) -> None:
        size = self._processing.pop(key).size
        self._processing_size -= size
        self._size -= size

    def _remember(self, key: str, entry: _Entry, data: bytes) -> None:
        """Put the result in the place of the claim."""
        self._release(key)
        if self._notes:
            self._drop_note(key)
        size = entry.size + len(data)
        if self._size + size > self._max_bytes and not self._make_room(size):
            logger.warning(
                "the result of %s takes %d bytes and does not fit into max_bytes=%d: it is not remembered,"
                " a duplicate will run again",
                key,
                size,
                self._max_bytes,
            )
            return
        entry.data, entry.size = data, size
        expires = entry.expires = self._clock() + self._ttl
        self._done[key] = entry
        self._oldest[key] = None
        self._size += size
        if expires < self._next_expiry:
            self._next_expiry = expires

    def _make_room(self, size: int) -> bool:
        """Forget until one more entry of `size` fits; False, and nothing forgotten, if it cannot."""
        if size > self._max_bytes - self._processing_size or len(self._processing) >= self._max_entries:
            return False
        while not self._has_room(size):
            if self._notes:
                self._drop_note(next(iter(self._notes)))
            else:
                self._forget(next(iter(self._done)))
        return True

    def _has_room(self, size: int) -> bool:
        entries = len(self._processing) + len(self._done) + len(self._notes)
        return self._size + size <= self._max_bytes and entries < self._max_entries

    def _forget_expired(self) -> None:
        now = self._clock()
        self._next_expiry = math.inf
        while self._oldest and self._is_over(self._done[key := next(iter(self._oldest))].expires, now):
            self._forget(key)
        while self._notes and self._is_over(self._notes[key := next(iter(self._notes))].expires, now):
            self._drop_note(key)
        while self._abandoned and self._is_over(self._abandoned[key := next(iter(self._abandoned))], now):
            del self._abandoned[key]
            self._release(key)

    def _is_over(self, expires: float, now: float) -> bool:
        """Whether the first to expire has; else it is looked at again then."""
        if expires <= now:
            return True
        self._next_expiry = min(self._next_expiry, expires)
        return False

    def _forget(self, key: str) -> None:
        self._size -= self._done.pop(key).size
        del self._oldest[key]

    def _drop_note(self, key: str) -> None:
        if (noted := self._notes.pop(key, None)) is not None:
            self._size -= noted.size
