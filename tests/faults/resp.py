# SPDX-License-Identifier: MIT
"""The commands in what a client sent to Redis (RESP arrays of bulk strings)."""

from collections.abc import Iterator


def commands(stream: bytes) -> Iterator[list[bytes]]:
    position = 0

    def line() -> bytes:
        nonlocal position
        end = stream.index(b"\r\n", position)
        found = stream[position:end]
        position = end + 2
        return found

    while position < len(stream):
        header = line()
        assert header[:1] == b"*", header[:50]
        command = []
        for _ in range(int(header[1:])):
            size = int(line()[1:])
            command.append(stream[position : position + size])
            position += size + 2
        yield command
