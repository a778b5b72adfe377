# SPDX-License-Identifier: MIT
"""TLS to a Redis (SAM2_REDIS_TLS=1): who is trusted, what is refused, and what the log says."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme

from faults.local import make_tracker
from faults.proxy import Proxy
from faults.reference import noise_png
from sam2_tracker.errors import StoreUnavailable
from sam2_tracker.protocol import Seed, TrackRequest
from sam2_tracker.records import open_records
from sam2_tracker.settings import settings_from_environment
from tools.redis_server import RedisServer
from tracker import Tracker

START = TrackRequest(image=noise_png(), entries=(Seed(type="rectangle", points=[2, 2, 20, 20]),))
Connect = Callable[[ssl.SSLContext | None], tuple[Proxy, Tracker]]


@pytest.fixture
def connect(redis_server: RedisServer) -> Iterator[Connect]:
    """A proxy with this side of TLS, or without any, before Redis, and a tracker that uses it."""
    with ExitStack() as stack:

        def connected(tls: ssl.SSLContext | None) -> tuple[Proxy, Tracker]:
            proxy = stack.enter_context(closing(Proxy(redis_server.port, tls=tls)))
            proxy.sent = []
            environment = {
                "CVAT_FUNCTIONS_REDIS_HOST": "localhost",
                "CVAT_FUNCTIONS_REDIS_PORT": str(proxy.port),
                "SAM2_REDIS_TLS": "1",
            }
            tracker = make_tracker(open_records(settings_from_environment(environment)))
            return proxy, stack.enter_context(closing(tracker))

        yield connected


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the authorities that the function trusts."""
    path = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def certified(authority: trustme.CA, host: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for the host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def follow(tracker: Tracker) -> None:
    """Starts an object and continues it."""
    token = tracker.track(START)[0].token
    assert token is not None
    assert tracker.track(TrackRequest(image=START.image, entries=(token,)))[0].token is not None


def refuse(tracker: Tracker) -> None:
    with pytest.raises(StoreUnavailable, match="try again"):
        tracker.track(START)


def test_a_track_goes_over_tls(connect: Connect, authority: trustme.CA) -> None:
    proxy, tracker = connect(certified(authority, "localhost"))
    follow(tracker)
    assert proxy.handshakes == 1
    assert b"cvat-sam2:" in b"".join(proxy.sent or [])  # it all went through here


def test_an_unknown_authority_is_refused_until_it_is_known(
    connect: Connect, trusted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = trustme.CA()
    proxy, tracker = connect(certified(other, "localhost"))
    refuse(tracker)
    assert "the certificate of Redis is not trusted: unable to get local issuer" in caplog.text
    assert proxy.handshakes == 1  # it would be the same a moment later
    assert proxy.sent == []
    other.cert_pem.write_to_path(str(trusted))
    follow(tracker)  # without a restart


def test_the_certificate_of_another_host_is_refused(
    connect: Connect, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, tracker = connect(certified(authority, "redis.test"))
    refuse(tracker)
    assert "the certificate of Redis is not trusted: Hostname mismatch" in caplog.text
    assert "localhost" in caplog.text
    assert proxy.handshakes == 1
    assert proxy.sent == []


@pytest.mark.parametrize("answer", [None, b"-ERR unknown command\r\n"])
def test_a_server_without_tls_is_refused(
    connect: Connect, answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis waits for the rest of what it takes for a command; another may complain at once."""
    proxy, tracker = connect(None)
    proxy.stub_answer = answer
    refuse(tracker)
    assert "TLS to Redis failed; check SAM2_REDIS_TLS and the port:" in caplog.text
