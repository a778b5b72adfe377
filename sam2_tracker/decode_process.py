# SPDX-License-Identifier: MIT
"""Decodes one image file in a process of its own, with limits on CPU time and memory.

    python -m sam2_tracker.decode_process MAX_MEGAPIXELS < file > pixels

Writes one line of JSON: {"size": [width, height]}, followed by the RGB pixels of 3 bytes each, or
{"error": code, "message": sentence}. Ends by SIGXCPU when the CPU time is used up.
"""

import json
import os
import resource
import sys

from sam2_tracker.errors import OutOfMemory, RequestError, TooLarge
from sam2_tracker.image_decoding import (
    FORMATS_IN_PROCESS,
    MAX_JPEG_SCANS,
    open_image,
    request_errors,
    to_rgb,
)

# CPU seconds: to read the header, per megapixel, at most. Seen on one core: 0.5 s per megapixel of
# noise in lossless JPEG 2000, 1.3 s in plain PPM, 0.1 s in AVIF.
HEADER_SECONDS = 3
SECONDS_PER_MEGAPIXEL = 1
MAX_SECONDS = 20
# The hard limit has to be above the soft one: where both are reached together Linux sends SIGKILL,
# which means "out of memory" to who reads the exit code.
HARD_SECONDS = MAX_SECONDS + 2
# Memory besides the file: of Python and Pillow, and per pixel. Seen: 38 bytes in JPEG 2000.
BASE_BYTES = 512 << 20
BYTES_PER_PIXEL = 60


def main() -> None:
    max_megapixels = float(sys.argv[1])
    data = sys.stdin.buffer.read()
    memory = BASE_BYTES + len(data) + int(max_megapixels * 1e6 * BYTES_PER_PIXEL)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_seconds(0)
    os.environ["LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER"] = str(MAX_JPEG_SCANS)
    try:
        with request_errors():
            image = open_image(data, FORMATS_IN_PROCESS, max_megapixels=max_megapixels)
            limit_seconds(image.width * image.height / 1e6)
            pixels = to_rgb(image)
    except OutOfMemory:
        _write({"error": TooLarge.code, "message": "The image takes too much memory to decode."})
    except RequestError as error:
        _write({"error": error.code, "message": error.message})
    else:
        _write({"size": pixels.size})
        sys.stdout.buffer.write(pixels.tobytes())


def limit_seconds(megapixels: float) -> None:
    """Bounds the CPU time of this process by the size of the image; 0: to read the header."""
    seconds = min(HEADER_SECONDS + int(SECONDS_PER_MEGAPIXEL * megapixels), MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, HARD_SECONDS))


def _write(header: dict[str, object]) -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")


if __name__ == "__main__":
    main()
