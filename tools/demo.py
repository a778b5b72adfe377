# SPDX-License-Identifier: MIT
"""Tracks objects through a clip over HTTP, and draws the result.

    python -m tools.demo                                      a generated clip
    python -m tools.demo --video my.mp4 --seeds seeds.json    your clip, and shapes on its frames

Starts the function behind real HTTP (tools/serve.py), sends it frame after frame as CVAT does, and
writes an overlay video, a contact sheet and the annotations (COCO, RLE) to out/, those of your own
clip to a folder of its name in out/clips/. Nothing is written over that it did not write itself.
"""

import argparse
import base64
import http.client
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tqdm import tqdm

from cvat_action.commands import COMPLETE, FAILED, INTERRUPTED
from cvat_action.errors import ActionError
from cvat_action.media import Media, open_media, size_of
from cvat_action.overlay import Picture, contact_sheet, draw_masks, new_video, write_picture
from cvat_action.own_files import may_replace
from cvat_action.preview import check_apart, named_errors, written
from cvat_action.put_in_place import check_can_put, put_in_place
from cvat_action.signals import stop_on_signals
from sam2_tracker.errors import ObjectError
from sam2_tracker.memory_policy import POLICIES
from sam2_tracker.settings import with_model
from sam2_tracker.shapes import (
    Bitmap,
    bitmap_to_mask,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    mask_to_bitmap,
    polygon_to_bitmap,
)
from tools.function_process import FunctionError, FunctionProcess

ROOT = Path(__file__).resolve().parents[1]
SHEET_PICTURES = 12
# One of the better of 24 that were tried: on others the bundled model loses an object.
CLIP_SEED = 20
CLIP_FRAMES = 40
CLIP_SIZE = (640, 360)

Wire = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Clip:
    frames: Sequence[Picture]
    frame_names: Sequence[str]
    """What CVAT calls them: its import finds an image by its name."""
    sizes: Sequence[tuple[int, int]]
    """(width, height) of each frame"""
    frames_per_second: float
    seeds: dict[int, list[Wire]]
    """By frame: the shapes that start there, as CVAT sends them."""
    names: list[str]
    """One per object, in the order of their seeds."""
    labels: list[str]
    """One per object."""
    truth: NDArray[np.bool_] | None = None
    """The true masks (frames, objects, height, width), if they are known."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One object on one frame."""

    shape: Wire | None
    score: float | None


@dataclass
class Run:
    """What became of a clip."""

    results: list[list[Result]] = field(default_factory=list)
    """by frame and object"""
    seconds: list[float] = field(default_factory=list)
    """of the frames with an object"""
    problem: str = ""
    """a sentence, where tracking ended early"""
    code: int = COMPLETE


def drawn_clip() -> Clip:
    """A mask, a polygon and a rectangle on frame 0; the first object is hidden for a while."""
    from training.clips import draw_clip

    width, height = CLIP_SIZE
    clip = draw_clip(
        CLIP_SEED, frames=CLIP_FRAMES, width=width, height=height, objects=3, hidden=5,
        pictures="held_out",
    )  # fmt: skip
    first = clip.masks[0]
    return Clip(
        frames=[np.ascontiguousarray(frame[..., ::-1]) for frame in clip.frames],
        frame_names=[f"frame_{n:06d}.PNG" for n in range(CLIP_FRAMES)],
        sizes=[CLIP_SIZE] * CLIP_FRAMES,
        frames_per_second=10.0,
        seeds={
            0: [
                {"type": "mask", "points": bitmap_to_mask(first[0])},
                {"type": "polygon", "points": bitmap_to_polygon(first[1])},
                {"type": "rectangle", "points": bitmap_to_rectangle(first[2])},
            ]
        },
        names=["mask", "polygon", "rectangle"],
        labels=["mask", "polygon", "rectangle"],
        truth=clip.masks,
    )


class _DecodedOnDemand(Sequence[Picture]):
    """The frames of a video, which need not fit into memory together."""

    def __init__(self, media: Media) -> None:
        self._media = media

    def __len__(self) -> int:
        return len(self._media.frame_names)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._media.picture(index)


def clip_from_files(video: Path, annotations: Path) -> Clip:
    """Reads a video and its annotations; every object starts on the frame where it is first drawn.

    Raises ActionError with a sentence that says what is wrong.
    """
    from cvat_action.formats import read_document
    from cvat_action.formats.document import local_job
    from cvat_action.selection import select_on_all

    media = open_media(video)
    document, media = read_document(annotations, media)
    job = local_job(document, media)
    drawn = [s["frame"] for s in document.annotations.shapes]
    drawn += [k["frame"] for track in document.annotations.tracks for k in track["shapes"]]
    count = len(media.frame_names)
    selection = select_on_all(job, document.annotations, range(min([*drawn, count - 1]), count))
    for refusal in selection.refused:
        print(f"Object {refusal.ref} is not tracked: {refusal.reason}.")
    if not selection.seeds:
        raise ActionError(f"{annotations} has no mask, polygon or upright box to start from.")
    seeds: dict[int, list[Wire]] = {}
    for seed in selection.seeds:
        shape = {"type": seed.type, "points": list(seed.points)}
        seeds.setdefault(seed.frame, []).append(shape)
    labels = [job.label(seed.label_id).name for seed in selection.seeds]
    return Clip(
        frames=_DecodedOnDemand(media),
        frame_names=media.frame_names,
        sizes=[size_of(media, frame) for frame in range(count)],
        frames_per_second=media.fps,
        seeds=seeds,
        names=[f"{label} {number}" for number, label in enumerate(labels, 1)],
        labels=labels,
    )


def send(
    function: FunctionProcess,
    frame: Picture,
    shapes: list[Wire | None],
    states: list[Wire | None],
) -> Wire:
    """Sends one request as CVAT's server does, with the frame as PNG in base64.

    Raises FunctionError.
    """
    _, image = cv2.imencode(".png", frame)
    body = {"image": base64.b64encode(image.tobytes()).decode(), "shapes": shapes, "states": states}
    try:
        status, answer = function.post(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FunctionError(f"The function gave no answer: {error}.") from None
    if status != 200:
        said = answer.get("error") if isinstance(answer, dict) else None
        raise FunctionError(said["message"] if said else f"The function answered {status}.")
    decoded: Wire = answer
    return decoded


def track(function: FunctionProcess, clip: Clip) -> Run:
    """Tracks to the last frame, or to the first one that fails, or until Ctrl+C."""
    run = Run()
    states: list[Wire | None] = []
    try:
        for index, frame in enumerate(tqdm(clip.frames, desc="tracking", unit="frame")):
            shapes: list[Wire | None] = [None] * len(states)
            shapes += clip.seeds.get(index, [])
            if not shapes:
                run.results.append([])
                continue
            begin = time.perf_counter()
            answer = send(function, frame, shapes, states)
            run.seconds.append(time.perf_counter() - begin)
            for name, error in zip(clip.names, answer["errors"], strict=False):
                if error:
                    raise FunctionError(f"{name}: {error['message']}")
            states = answer["states"]
            pairs = zip(answer["shapes"], answer["scores"], strict=True)
            run.results.append([Result(shape=shape, score=score) for shape, score in pairs])
    except FunctionError as error:
        run.problem, run.code = f"Frame {len(run.results)}: {error}", FAILED
    except ActionError as error:
        run.problem, run.code = str(error), FAILED
    except KeyboardInterrupt:
        run.problem, run.code = "Stopped by Ctrl+C.", INTERRUPTED
    return run


def shape_to_bitmap(shape: Wire | None, height: int, width: int) -> Bitmap | None:
    """Rasterises a shape of the answer; None if the object is not visible."""
    if shape is None or shape.get("outside"):
        return None
    points = shape["points"]
    if shape["type"] == "rectangle":
        x0, y0, x1, y1 = points
        points = [x0, y0, x1, y0, x1, y1, x0, y1]
    to_bitmap = mask_to_bitmap if shape["type"] == "mask" else polygon_to_bitmap
    try:
        return to_bitmap(points, width=width, height=height)
    except ObjectError:
        return None


def compare(truths: NDArray[np.bool_], results: Sequence[Result]) -> tuple[float, int, int]:
    """Compares one object's results with its true masks, bool (frames, height, width).

    Returns the mean IoU of the frames on which it is visible, the number of frames on which it is
    hidden, and on how many of those it was shown.
    """
    ious, hidden, shown = [], 0, 0
    for truth, result in zip(truths, results, strict=True):
        found = shape_to_bitmap(result.shape, *truth.shape)
        if not truth.any():
            hidden += 1
            shown += found is not None
            continue
        if result.shape and result.shape["type"] == "rectangle":
            left, top, right, bottom = bitmap_to_rectangle(truth)
            truth = np.zeros_like(truth)
            truth[top:bottom, left:right] = True
        found = np.zeros_like(truth) if found is None else found
        ious.append((found & truth).sum() / (found | truth).sum())
    return float(np.mean(ious)) if ious else math.nan, hidden, shown


def write_coco(clip: Clip, results: list[list[Result]], path: Path) -> None:
    labels = list(dict.fromkeys(clip.labels))
    annotations: list[Wire] = []
    for index, objects in enumerate(results):
        width, height = clip.sizes[index]
        for number, result in enumerate(objects):
            bitmap = shape_to_bitmap(result.shape, height, width)
            if bitmap is None:
                continue
            code = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": labels.index(clip.labels[number]) + 1,
                    "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                    "area": int(coco_mask.area(code)),
                    "bbox": coco_mask.toBbox(code).tolist(),
                    "iscrowd": 0,
                    "attributes": {"track_id": number},
                    "score": result.score,
                }
            )
    content = {
        "images": [
            {"id": i, "file_name": name, "width": width, "height": height}
            for i, (name, (width, height)) in enumerate(
                zip(clip.frame_names, clip.sizes, strict=True), 1
            )
        ],
        "categories": [{"id": i, "name": label} for i, label in enumerate(labels, 1)],
        "annotations": annotations,
    }
    with put_in_place(path) as part:
        part.write_text(json.dumps(content))


def write_overlay(clip: Clip, results: list[list[Result]], path: Path) -> None:
    with new_video(path, clip.frames_per_second) as video:
        for index, objects in enumerate(results):
            video.write(_drawn(clip, index, objects)[0])


def write_sheet(clip: Clip, results: list[list[Result]], path: Path) -> None:
    count = len(results)
    wanted = np.linspace(0, count - 1, min(SHEET_PICTURES, count)).round().astype(int)
    pictures, captions = [], []
    for index in wanted.tolist():
        picture, hidden = _drawn(clip, index, results[index])
        pictures.append(picture)
        captions.append(f"{index}" + (f"  hidden: {', '.join(hidden)}" if hidden else ""))
    write_picture(path, contact_sheet(pictures, captions))


def _drawn(clip: Clip, index: int, objects: list[Result]) -> tuple[Picture, list[str]]:
    """A frame with its results, and the names of the objects that are hidden on it."""
    frame = clip.frames[index]
    bitmaps = [shape_to_bitmap(item.shape, *frame.shape[:2]) for item in objects]
    hidden = [clip.names[i] for i, bitmap in enumerate(bitmaps) if bitmap is None]
    return draw_masks(frame, bitmaps, clip.names), hidden


OWNER = "clip.txt"
"""holds the path of the clip that a folder in out/clips/ is of"""

FILES = {
    "overlay.mp4": write_overlay,
    "contact_sheet.png": write_sheet,
    "annotations.json": write_coco,
}


def write_files(clip: Clip, results: list[list[Result]], out: Path) -> dict[str, str]:
    """What could not be written, and why."""
    problems = {}
    for name in reversed(FILES):  # the annotations first: they are worth most
        try:
            with written(out / name):
                FILES[name](clip, results, out / name)
        except ActionError as error:
            problems[name] = str(error)
    return problems


def folder_of(video: Path) -> Path:
    """A folder of the clip's name, with a number where another clip of this name has one.

    Whose a folder is, a file in it says. Raises ActionError.
    """
    video = video.resolve()
    name, whose = video.name if video.is_dir() else video.stem, os.fsencode(video)
    clips, number = ROOT / "out" / "clips", 1
    folder = clips / name
    with named_errors(folder):
        while folder.exists() and not _is_of(folder, whose):
            number += 1
            folder = clips / f"{name}-{number}"
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / OWNER).write_bytes(whose)
    return folder


def leave_no_empty_folder(folder: Path) -> None:
    """Removes a folder of a clip that got no results."""
    owner = folder / OWNER
    if owner.is_file() and [*folder.iterdir()] == [owner]:
        owner.unlink()
        folder.rmdir()


def check_files(out: Path, given: dict[str, Path]) -> None:
    """Raises ActionError where the results would harm what is there.

    given: by option, the files of the clip.
    """
    paths = [out / name for name in FILES]
    for path in paths:
        check_apart(path, given)
    others = [str(path) for path in paths if path.is_file() and not may_replace(path)]
    if others:
        there, them = ("are", "them") if len(others) > 1 else ("is", "it")
        raise ActionError(
            f"{', '.join(others)} {there} there already, and this command has not noted that it "
            f"wrote {them}: another program or an older version did, or somebody changed {them} "
            f"since. Nothing is written over. Move {them} away: mv {shlex.join(others)} FOLDER, or "
            'name another folder for the results: make demo ARGS="--out FOLDER".'
        )
    for path in paths:
        with named_errors(path):
            check_can_put(path)


def _is_of(folder: Path, whose: bytes) -> bool:
    owner = folder / OWNER
    return owner.is_file() and owner.read_bytes() == whose


def print_table(clip: Clip, run: Run) -> None:
    print(f"\n{'object':<20}{'frames':>8}{'lowest score':>14}", end="")
    known = clip.truth is not None
    print(f"{'mean IoU':>10}{'hidden':>8}{'shown while hidden':>20}" if known else "")
    for number, name in enumerate(clip.names):
        mine = [objects[number] for objects in run.results if len(objects) > number]
        scores = [item.score for item in mine if item.score is not None]
        print(f"{name:<20}{len(mine):>8}{min(scores, default=math.nan):>14.2f}", end="")
        if clip.truth is not None:
            figures = compare(clip.truth[1 : len(mine), number], mine[1:])
            print("{:>10.3f}{:>8}{:>20}".format(*figures), end="")
        print()
    milliseconds = statistics.median(run.seconds) * 1000
    print(f"\n{milliseconds:.0f} ms per frame (median, whole HTTP request)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.demo", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--video", type=Path, help="a video file or a folder of images; default: a generated clip"
    )
    parser.add_argument(
        "--seeds", type=Path, help="shapes: COCO (.json) or CVAT for video 1.1 (.xml)"
    )
    parser.add_argument("--model", help="default: SAM2_MODEL, or the bundled micro model")
    parser.add_argument("--memory", choices=POLICIES, help="default: the function's setting")
    parser.add_argument(
        "--out", type=Path, help="folder for the results; default: out, of --video out/clips/NAME"
    )
    options = parser.parse_args(arguments)
    stop_on_signals()
    try:
        return run_demo(options)
    except (FunctionError, ActionError) as error:
        print(f"\n{error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nStopped by Ctrl+C.", file=sys.stderr)
        return INTERRUPTED


def run_demo(options: argparse.Namespace) -> int:
    """The exit code. Raises FunctionError or ActionError before anything is tracked."""
    if bool(options.video) != bool(options.seeds):
        raise ActionError(
            "A clip and its objects belong together: make demo VIDEO=my.mp4 SEEDS=seeds.json "
            "(--video and --seeds)."
        )
    given = {"--video": options.video, "--seeds": options.seeds} if options.video else {}
    clip = clip_from_files(options.video, options.seeds) if options.video else drawn_clip()
    if options.out or not options.video:
        return track_into(options.out or ROOT / "out", clip, given, options)
    folder = folder_of(options.video)
    try:
        return track_into(folder, clip, given, options)
    finally:
        leave_no_empty_folder(folder)


def track_into(out: Path, clip: Clip, given: dict[str, Path], options: argparse.Namespace) -> int:
    """The exit code. Raises FunctionError or ActionError before anything is tracked.

    given: by option, the files of the clip.
    """
    with named_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    check_files(out, given)
    print("Starting the function ...")
    environment = with_model(os.environ, options.model) if options.model else {**os.environ}
    if options.memory:
        environment["SAM2_MEMORY_POLICY"] = options.memory
    with FunctionProcess(environment) as function:
        info = function.get()
        print(f"{info['model']} on {info['device']} in {info['precision']} at {function.url}")
        run = track(function, clip)
    if not any(run.results):
        print(f"\n{run.problem} Nothing is tracked, so nothing is written.", file=sys.stderr)
        return run.code
    problems = write_files(clip, run.results, out)
    print_table(clip, run)
    for name in FILES:
        if name not in problems:
            print(f"  {os.path.relpath(out / name)}")
    said = [*problems.values()]
    if run.problem:
        count = f"{len(run.results)} of {len(clip.frames)} frames are tracked."
        said.insert(0, f"{run.problem} {count}")
    if said:
        print(f"\n{' '.join(said)}", file=sys.stderr)
    return run.code or (FAILED if problems else COMPLETE)


if __name__ == "__main__":
    sys.exit(main())
