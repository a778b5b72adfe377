# SPDX-License-Identifier: MIT
"""A TCP proxy before Redis: watches, is slow, answers for the server, speaks TLS."""

import contextlib
import select
import socket
import ssl
import threading
import time

CHUNK = 1 << 16


class Proxy:
    """Forwards bytes; what it does besides is set by its attributes."""

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """tls: of a server; clients then speak TLS, and the target what is inside."""
        self._target = ("127.0.0.1", target_port)
        self._tls = tls
        self.delay_seconds = 0.0
        """Before each chunk of an answer."""
        self.stub_answer: bytes | None = None
        """Sent in place of the server's answer; then the connection is closed."""
        self.handshakes = 0
        """Begun by clients, those that failed too."""
        self.round_trips = 0
        """How often a client spoke after the server, or first."""
        self.sent: list[bytes] | None = None
        """What clients sent, chunk by chunk, where somebody put a list here."""
        self._lock = threading.Lock()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def lead_to(self, target_port: int) -> None:
        """New connections go there; the open ones stay where they are."""
        self._target = ("127.0.0.1", target_port)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._accepting.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), self._shake_hands(client) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with socket.create_connection(self._target, timeout=5) as server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pump(client, server)

    def _shake_hands(self, client: socket.socket) -> socket.socket:
        if self._tls is None:
            return client
        with self._lock:
            self.handshakes += 1
        # This closes the client if it does not like the certificate.
        return self._tls.wrap_socket(client, server_side=True)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        spoke_last = server
        while not self._closed:
            readable, _, _ = select.select([client, server], [], [], 1.0)
            for source in readable:
                # More than a record of TLS: none of it stays behind where select does not see it.
                data = source.recv(CHUNK)
                if not data:
                    return
                if source is client and self.sent is not None:
                    self.sent.append(data)
                if source is client and spoke_last is server:
                    with self._lock:
                        self.round_trips += 1
                spoke_last = source
                if source is client and self.stub_answer is not None:
                    client.sendall(self.stub_answer)
                    return
                target = server if source is client else client
                if source is server and self.delay_seconds:
                    time.sleep(self.delay_seconds)
                target.sendall(data)
