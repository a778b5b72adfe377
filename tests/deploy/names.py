# SPDX-License-Identifier: MIT
"""The names that the deploy scripts give."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "pth-facebookresearch-sam2-tracker"
INTERACTOR = NAME.replace("tracker", "interactor")
CONTAINER = f"nuclio-nuclio-{NAME}"
IMAGE = "cvat.pth.facebookresearch.sam2"
BUILT = "r.example.org/sam2:1"
"""An image that others have built."""
SHA256 = "ab" * 32
INFO = '{"version": "0.1.0", "model": "sam2.1_hiera_tiny", "device": "cpu"}'
VERSION = re.findall(r'^VERSION = "(.+)"$', (ROOT / "main.py").read_text(), re.MULTILINE)[0]
TINY = f"{VERSION}-sam2.1_hiera_tiny"
"""The tag of the default model's image."""
