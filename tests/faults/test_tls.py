# SPDX-License-Identifier: MIT
"""TLS to a Redis (SAM2_REDIS_TLS=1): who is trusted, what is refused, and what the log says."""

import random
import ssl
from pathlib import Path

import pytest
import trustme

from faults.local import make_tracker
from faults.proxy import Proxy
from faults.reference import image_to_png, noise_images
from sam2_tracker.errors import StoreUnavailable
from sam2_tracker.protocol import Seed, TrackRequest
from sam2_tracker.records import open_records
from sam2_tracker.settings import settings_from_environment
from tools.redis_server import RedisServer
from tracker import Tracker

PICTURE = image_to_png(noise_images(random.Random(0), 1, width=40, height=30)[0])
START = TrackRequest(image=PICTURE, entries=(Seed(type="rectangle", points=[2, 2, 20, 20]),))


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
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


def tls_tracker(port: int) -> Tracker:
    environment = {
        "CVAT_FUNCTIONS_REDIS_HOST": "localhost",
        "CVAT_FUNCTIONS_REDIS_PORT": str(port),
        "SAM2_REDIS_TLS": "1",
    }
    return make_tracker(open_records(settings_from_environment(environment)))


def follow(tracker: Tracker) -> None:
    """Starts an object and continues it."""
    token = tracker.track(START)[0].token
    assert token is not None
    assert tracker.track(TrackRequest(image=PICTURE, entries=(token,)))[0].token is not None


def refuse(tracker: Tracker) -> None:
    with pytest.raises(StoreUnavailable, match="try again"):
        tracker.track(START)


def test_a_track_goes_over_tls(server: RedisServer, authority: trustme.CA, trusted: Path) -> None:
    proxy = Proxy(server.port, tls=certified(authority, "localhost"))
    proxy.sent = []
    tracker = tls_tracker(proxy.port)
    follow(tracker)
    tracker.close()
    proxy.close()
    assert proxy.handshakes == 1
    assert b"cvat-sam2:" in b"".join(proxy.sent)  # it all went through here


def test_an_unknown_authority_is_refused_until_it_is_known(
    server: RedisServer, authority: trustme.CA, trusted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = trustme.CA()
    proxy = Proxy(server.port, tls=certified(other, "localhost"))
    proxy.sent = []
    tracker = tls_tracker(proxy.port)
    refuse(tracker)
    assert "the certificate of Redis is not trusted: unable to get local issuer" in caplog.text
    assert proxy.handshakes == 1  # it would be the same a moment later
    assert proxy.sent == []
    other.cert_pem.write_to_path(str(trusted))
    follow(tracker)  # without a restart
    tracker.close()
    proxy.close()


def test_the_certificate_of_another_host_is_refused(
    server: RedisServer, authority: trustme.CA, trusted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy(server.port, tls=certified(authority, "redis.test"))
    proxy.sent = []
    tracker = tls_tracker(proxy.port)
    refuse(tracker)
    assert "the certificate of Redis is not trusted: Hostname mismatch" in caplog.text
    assert "localhost" in caplog.text
    assert proxy.handshakes == 1
    assert proxy.sent == []
    tracker.close()
    proxy.close()


@pytest.mark.parametrize("answer", [None, b"-ERR unknown command\r\n"])
def test_a_server_without_tls_is_refused(
    server: RedisServer, answer: bytes | None, trusted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis waits for the rest of what it takes for a command; another may complain at once."""
    proxy = Proxy(server.port)
    proxy.stub_answer = answer
    tracker = tls_tracker(proxy.port)
    refuse(tracker)
    assert "TLS to Redis failed; check SAM2_REDIS_TLS and the port:" in caplog.text
    tracker.close()
    proxy.close()
