# SPDX-License-Identifier: MIT
"""Records, which are bytes under a key: in Redis, or in this process's memory.

Both stores keep a record until its time to live is over, and no longer.
"""

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from sam2_tracker.errors import StoreUnavailable
from sam2_tracker.settings import MIB, Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Shares of the time that a caller waits, SAM2_REDIS_TIMEOUT_SECONDS. Together they are less than
# all of it, so that a frozen server is reported by the client and not by the caller's deadline.
CONNECT_SHARE = 0.3
ANSWER_SHARE = 0.65
# What answers at the address may be no Redis: then the client raises these as well.
CLIENT_ERRORS = (redis.exceptions.RedisError, ValueError, RecursionError)


class Records(Protocol):
    """A store of records. Every method but close raises StoreUnavailable if the store fails."""

    name: str

    def probe(self, key: str) -> None:
        """Writes an empty record that lives a second: a store may answer and still not write."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Reads all records in one round trip, in the order of `keys`; None: unknown or expired."""

    def get_and_check(
        self, keys: Sequence[str], check: Sequence[str]
    ) -> tuple[list[bytes | None], list[bool]]:
        """Reads the records under `keys`, and tells of each key in `check` whether it is there.

        In one round trip; in none where both are empty.
        """

    def put(
        self,
        records: Sequence[tuple[str, bytes]],
        *,
        ttl_seconds: int,
        extend: Sequence[str],
        remove: Sequence[str],
    ) -> None:
        """In one round trip and this order: writes records that live `ttl_seconds`, lets the
        records in `extend` live as long from now on, and removes those in `remove`."""

    def close(self) -> None: ...


def open_records(settings: Settings) -> Records:
    """The store that the settings name. Nothing is connected yet: Redis may be down at start."""
    if settings.redis_host is None:
        return EmbeddedRecords(settings.embedded_store_mib * MIB)
    return RedisRecords(settings)


class RedisRecords:
    """Redis, or Kvrocks as CVAT ships it: plain commands, no transaction, RESP2.

    In Kvrocks, EXEC locks the whole server, and releases before 2.12 do not know RESP3.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = "redis"
        self._client = redis.Redis(
            host=settings.redis_host or "",
            port=settings.redis_port,
            password=settings.redis_password,
            ssl=settings.redis_tls,
            protocol=2,
            socket_connect_timeout=CONNECT_SHARE * settings.redis_timeout_seconds,
            socket_timeout=ANSWER_SHARE * settings.redis_timeout_seconds,
            health_check_interval=15,
            # A lost connection is opened again for 2.2 s, which bridges a restart of the server
            # that takes a second. There is no jitter, so that it always does. A timeout is not
            # repeated, so that a frozen server costs one timeout and not several.
            retry=_RetryLostConnection(
                ExponentialBackoff(base=0.05, cap=0.5),
                6,
                supported_errors=(redis.exceptions.ConnectionError,),
            ),
        )

    def probe(self, key: str) -> None:
        self.put([(key, b"")], ttl_seconds=1, extend=[], remove=[])

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            # bytes, since the client decodes nothing
            found: list[bytes | None] = self._client.mget(keys) if keys else []  # type: ignore[assignment]
            return found
        except CLIENT_ERRORS as error:
            raise _unavailable(error) from error

    def get_and_check(
        self, keys: Sequence[str], check: Sequence[str]
    ) -> tuple[list[bytes | None], list[bool]]:
        pipeline = self._client.pipeline(transaction=False)
        if keys:
            pipeline.mget(keys)
        for key in check:
            pipeline.exists(key)
        try:
            answers = pipeline.execute()
        except CLIENT_ERRORS as error:
            raise _unavailable(error) from error
        found: list[bytes | None] = answers.pop(0) if keys else []
        return found, [bool(count) for count in answers]

    def put(
        self,
        records: Sequence[tuple[str, bytes]],
        *,
        ttl_seconds: int,
        extend: Sequence[str],
        remove: Sequence[str],
    ) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, value in records:
            pipeline.set(key, value, ex=ttl_seconds)
        for key in extend:
            pipeline.expire(key, ttl_seconds)
        if remove:
            pipeline.unlink(*remove)
        try:
            pipeline.execute()
        except redis.exceptions.ReadOnlyError as error:
            # After a failover the address may lead to the new primary, but not the connection that
            # is open: the next request makes another one.
            self._client.connection_pool.disconnect()
            raise _unavailable(error) from error
        except CLIENT_ERRORS as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        self._client.close()


class _RetryLostConnection(Retry):
    """Does not retry after a refused password or certificate, because it would be refused again.

    redis-py counts these as lost connections, and its health check multiplies the attempts.
    """

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        def lost(error: Exception) -> bool:
            cause = error.__context__
            if isinstance(cause, ssl.SSLError):
                return isinstance(cause, ssl.SSLEOFError)  # closed during the handshake
            return not isinstance(error, redis.exceptions.AuthenticationError)

        return super().call_with_retry(do, fail, lost, with_failure_count)


class EmbeddedRecords:
    """The default without a Redis: the memory of this process, at most `max_bytes` of values.

    The records that expire first are dropped when it is full.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, by which records expire."""
        self.name = "embedded"
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: dict[str, tuple[bytes, float]] = {}

    def probe(self, key: str) -> None:
        pass

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self._clock()
        found = (self._records.get(key) for key in keys)
        return [record[0] if record and record[1] > now else None for record in found]

    def get_and_check(
        self, keys: Sequence[str], check: Sequence[str]
    ) -> tuple[list[bytes | None], list[bool]]:
        return self.get(keys), [record is not None for record in self.get(check)]

    def put(
        self,
        records: Sequence[tuple[str, bytes]],
        *,
        ttl_seconds: int,
        extend: Sequence[str],
        remove: Sequence[str],
    ) -> None:
        if sum(len(value) for _, value in records) > self._max_bytes:
            logger.error("the embedded store is too small: raise SAM2_EMBEDDED_STORE_MIB")
            raise StoreUnavailable("The store of the tracks is too small for so many objects.")
        expiry = self._clock() + ttl_seconds
        for key, value in records:
            self._remove(key)
            self._records[key] = (value, expiry)
            self._bytes += len(value)
        for key in extend:
            if key in self._records:  # to the end, since it now expires last
                self._records[key] = (self._records.pop(key)[0], expiry)
        for key in remove:
            self._remove(key)
        self._make_room()

    def close(self) -> None:
        self._records.clear()
        self._bytes = 0

    def _make_room(self) -> None:
        # All records get the same time to live, so the dict is in the order of their expiry.
        now, dropped = self._clock(), 0
        while self._records:
            key, (_, expiry) = next(iter(self._records.items()))
            if expiry > now and self._bytes <= self._max_bytes:
                break
            dropped += expiry > now
            self._remove(key)
        if dropped:
            logger.warning(
                "the embedded store is full: dropped its %d oldest records, and the tracks that "
                "need them are gone; raise SAM2_EMBEDDED_STORE_MIB",
                dropped,
            )

    def _remove(self, key: str) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            self._bytes -= len(record[0])


def _unavailable(error: Exception) -> StoreUnavailable:
    cause = error.__context__  # the error that redis-py turned into its own
    if isinstance(error, redis.exceptions.NoPermissionError):
        logger.error(
            "Redis does not allow a command: allow MGET, EXISTS, SET, EXPIRE, UNLINK and PING on "
            "the keys that begin with SAM2_REDIS_PREFIX: %s",
            error,
        )
    elif getattr(error, "status_code", None) == "NOAUTH":
        logger.error("Redis asks for a password: set CVAT_FUNCTIONS_REDIS_PASSWORD")
    elif isinstance(error, redis.exceptions.AuthenticationError):
        logger.error("Redis refuses the password: check CVAT_FUNCTIONS_REDIS_PASSWORD")
    elif isinstance(error, redis.exceptions.ReadOnlyError):
        logger.error("Redis is a read-only replica: check CVAT_FUNCTIONS_REDIS_HOST")
    elif isinstance(cause, ssl.SSLCertVerificationError):
        logger.error("the certificate of Redis is not trusted: %s", cause.verify_message)
    elif isinstance(cause, ssl.SSLError) or "handshake" in str(cause):
        logger.error("TLS to Redis failed; check SAM2_REDIS_TLS and the port: %s", cause)
    else:
        logger.error("Redis failed: %s: %s", type(error).__name__, error)
    return StoreUnavailable("The store of the tracks does not answer; try again in a moment.")
