# SPDX-License-Identifier: MIT
"""Ids of tokens and memory frames: 256 random bits as 43 url-safe characters."""

import re
import secrets

ID = re.compile(r"[A-Za-z0-9_-]{43}")


def new_id() -> str:
    return secrets.token_urlsafe(32)
