# SPDX-License-Identifier: MIT
"""Draw the demo clip for the plugin's tests: PNG frames and clip.json with seeds and truth.

python cvat_ui_plugin/e2e/make_clip.py out/ui_plugin
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sam2_tracker.shapes import bitmap_to_mask, bitmap_to_polygon, bitmap_to_rectangle  # noqa: E402
from training.clips import Clip, draw_clip  # noqa: E402

FRAMES = 16
WIDTH, HEIGHT = 320, 180
SEED = 83
HIDDEN = 3


def demo_clip() -> Clip:
    """Three objects; the first is covered for at least HIDDEN frames."""
    return draw_clip(
        SEED, frames=FRAMES, width=WIDTH, height=HEIGHT, objects=3, hidden=HIDDEN,
        pictures="held_out",
    )  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clip = demo_clip()
    for number, frame in enumerate(clip.frames):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.ascontiguousarray(frame[..., ::-1]))
    first = clip.masks[0]
    content = {
        "width": WIDTH,
        "height": HEIGHT,
        "frames": FRAMES,
        "seeds": [
            {"type": "mask", "points": bitmap_to_mask(first[0])},
            {"type": "polygon", "points": bitmap_to_polygon(first[1], tolerance=0.5)},
            {"type": "rectangle", "points": bitmap_to_rectangle(first[2])},
        ],
        # as masks of CVAT, frame by frame; null where the object is not visible
        "truth": [
            [bitmap_to_mask(mask) if mask.any() else None for mask in masks] for masks in clip.masks
        ],
    }
    (folder / "clip.json").write_text(json.dumps(content, separators=(",", ":")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
