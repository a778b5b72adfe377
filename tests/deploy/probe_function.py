# SPDX-License-Identifier: MIT
"""Starts the function without Nuclio, tracks discs over some frames, prints time and memory.

python tests/deploy/probe_function.py                           # what check_image.py runs
SAM2_MODEL=sam2.1_hiera_tiny python tests/deploy/probe_function.py --objects 10 --frames 9
"""

import argparse
import base64
import io
import json
import logging
import resource
import sys
import time
from pathlib import Path

import nuclio_sdk
from PIL import Image, ImageDraw

if Path(__file__).parent.name == "deploy":  # else it was copied to where main.py is
    sys.path.insert(0, str(Path(__file__).parents[2]))
import main


def frame(size: tuple[int, int], time_index: int) -> str:
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(picture)
    x = size[0] // 3 + 5 * time_index
    draw.ellipse((x, 80, x + 90, 170), fill="orange")
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def ask(context: nuclio_sdk.Context, method: str, body: object = None) -> dict:
    response = main.handler(context, nuclio_sdk.Event(method=method, body=body))
    if response.status_code != 200:
        sys.exit(f"probe_function.py: {method} answers {response.status_code}: {response.body}")
    return json.loads(response.body)


def run(objects: int, frames: int, size: tuple[int, int]) -> None:
    logger = nuclio_sdk.Logger(logging.WARNING)
    logger.set_handler("default", sys.stderr, nuclio_sdk.logger.HumanReadableFormatter())
    context = nuclio_sdk.Context(logger, nuclio_sdk.Platform("local"), worker_id=0)
    start = time.monotonic()
    main.init_context(context)
    print(f"init_context: {time.monotonic() - start:.1f} s")
    print(ask(context, "GET"))
    left = size[0] // 3
    disc = [left, 125, left + 20, 90, left + 45, 80, left + 85, 110, left + 85, 145, left + 45, 170]
    body: dict = {"shapes": [{"type": "polygon", "points": disc}] * objects, "states": []}
    for time_index in range(frames):
        start = time.monotonic()
        answer = ask(context, "POST", {"image": frame(size, time_index), **body})
        seconds = time.monotonic() - start
        if any(answer["errors"]) or not all(answer["states"]):
            sys.exit(f"probe_function.py: no track: {answer}")
        body = {"shapes": [None] * objects, "states": answer["states"]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{objects} objects, {frames} frames of {size[0]}x{size[1]}: the last took {seconds:.1f} s"
    )
    print(f"peak memory: {peak:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240), metavar="PIXELS")
    options = parser.parse_args()
    run(options.objects, options.frames, tuple(options.size))
