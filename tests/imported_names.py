# SPDX-License-Identifier: MIT
"""What a source file imports, read from its text."""

import ast
from pathlib import Path


def imports(path: Path) -> set[str]:
    """First parts of all that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found
