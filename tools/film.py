# SPDX-License-Identifier: MIT
"""Tracks three people through a film that a package carries under a free licence.

    python -m tools.film                                        into out/film
    python -m tools.film --sheet docs/images/film.jpg           and README's picture, which has
                                                                to be moved away before

The first frames of OpenCV's `vtest.avi` (Apache-2.0 and BSD-3-Clause) are used, from Debian's
package opencv-doc. No training has seen them: the evaluation takes them as background. The people
were outlined by hand on frame 0 (film_seeds.json).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cvat_action.errors import ActionError
from cvat_action.overlay import new_video, write_picture
from cvat_action.preview import check_path, named_errors, written
from tools import demo
from training.pictures import FILMED, FOLDER, NoPicturesError, fetch, filmed

PACKAGE = "opencv-doc"
SEEDS = Path(__file__).with_name("film_seeds.json")
FRAMES = 16
FRAMES_PER_SECOND = 10.0
SHEET_WIDTH = 1200


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.film", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--pictures", type=Path, default=FOLDER, help="the unpacked packages")
    parser.add_argument("--out", type=Path, default=demo.ROOT / "out" / "film")
    parser.add_argument("--sheet", type=Path, help="write the contact sheet there too")
    options = parser.parse_args(arguments)
    video = options.out / "film.mp4"
    try:
        if options.sheet:
            check_path(options.sheet, ".jpg", {})
        fetch(options.pictures, [PACKAGE])
        frames = filmed(options.pictures / FILMED[0])[:FRAMES]
        with named_errors(video):
            options.out.mkdir(parents=True, exist_ok=True)
        with written(video), new_video(video, FRAMES_PER_SECOND) as file:
            for frame in frames:
                file.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    except (NoPicturesError, ActionError) as error:
        print(error, file=sys.stderr)
        return 1
    code = demo.main(["--video", str(video), "--seeds", str(SEEDS), "--out", str(options.out)])
    if code == 0 and options.sheet:
        sheet = np.asarray(cv2.imread(str(options.out / "contact_sheet.png")))
        height = round(sheet.shape[0] * SHEET_WIDTH / sheet.shape[1])
        resized = cv2.resize(sheet, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)
        small = resized.astype(np.uint8, copy=False)
        try:
            with written(options.sheet):
                write_picture(options.sheet, small, [cv2.IMWRITE_JPEG_QUALITY, 85])
        except ActionError as error:
            print(error, file=sys.stderr)
            return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
