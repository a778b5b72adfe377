# SPDX-License-Identifier: MIT
"""Runs inside what check_image.py has built: starts the function, tracks a polygon."""

import base64
import io
import json
import logging
import resource
import sys
import time

import nuclio_sdk
from PIL import Image, ImageDraw

import main


def frame(x: int) -> str:
    picture = Image.new("RGB", (320, 240), "navy")
    ImageDraw.Draw(picture).ellipse((x, 80, x + 90, 170), fill="orange")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def ask(context: nuclio_sdk.Context, method: str, body: object = None) -> dict:
    response = main.handler(context, nuclio_sdk.Event(method=method, body=body))
    if response.status_code != 200:
        sys.exit(f"probe_function.py: {method} answers {response.status_code}: {response.body}")
    return json.loads(response.body)


logger = nuclio_sdk.Logger(logging.INFO)
logger.set_handler("default", sys.stderr, nuclio_sdk.logger.HumanReadableFormatter())
context = nuclio_sdk.Context(logger, nuclio_sdk.Platform("local"), worker_id=0)
start = time.monotonic()
main.init_context(context)
print(f"init_context: {time.monotonic() - start:.1f} s")
print(ask(context, "GET"))
polygon = {"type": "polygon", "points": [100, 125, 120, 90, 145, 80, 185, 110, 185, 145, 145, 170]}
answer = ask(context, "POST", {"image": frame(100), "shapes": [polygon], "states": []})
answer = ask(context, "POST", {"image": frame(105), "shapes": [None], "states": answer["states"]})
if answer["errors"] != [None] or not answer["states"][0]:
    sys.exit(f"probe_function.py: no track: {answer}")
print("tracked:", json.dumps(answer["shapes"])[:200])
print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
