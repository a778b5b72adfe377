# SPDX-License-Identifier: MIT
"""The parts of a JSON text as they are written, so that they can be written again byte for byte."""

import json
import re

_BLANK = re.compile(r"[ \t\n\r]*")


def members(text: str) -> dict[str, str]:
    """The values of an object as text, by key. `text` is JSON that was read already."""
    found = {}
    at = _after(text, 0, "{")
    while text[at] != "}":
        key, at = json.JSONDecoder().raw_decode(text, at)
        start = _after(text, at, ":")
        _, end = json.JSONDecoder().raw_decode(text, start)
        found[key] = text[start:end]
        at = _after(text, end, ",")
    return found


def elements(text: str) -> list[str]:
    """The elements of an array as text."""
    found = []
    at = _after(text, 0, "[")
    while text[at] != "]":
        _, end = json.JSONDecoder().raw_decode(text, at)
        found.append(text[at:end])
        at = _after(text, end, ",")
    return found


def _after(text: str, at: int, sign: str) -> int:
    """Where the text goes on after blanks and a sign, if that is there."""
    at = _blank(text, at)
    return _blank(text, at + 1) if text[at] == sign else at


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at
