# SPDX-License-Identifier: MIT
"""What the command line takes, and which options contradict each other."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from cvat_sdk.core.auth import configure_client_auth_arguments

from cvat_action.calls import Pace
from cvat_action.geometry import TRACKABLE
from cvat_action.plan import MOST_FOUND, Options
from cvat_action.server import READ_SECONDS
from sam2_tracker.errors import BadRequest
from sam2_tracker.everything import USAGE as EVERYTHING_USAGE
from sam2_tracker.everything import words_to_everything
from sam2_tracker.search_region import LARGEST_SIZE, SMALLEST_SIZE, is_size

SAID_BY_JOURNAL = (
    "job", "task", "frame", "target_frame", "object", "exclude", "label", "function", "backward",
    "keyframes", "convert_polygon_shapes_to_tracks", "leave_open", "replace", "dry_run",
    "journal", "all_seeds", "memory", "search_region", "both_ways", "parallel", "tolerance",
    "sparse", "video", "annotations", "out", "model", "step", "points", "points_as", "detect",
    "threshold", "map", "text", "everything", "every", "max_objects", "boxes_to_masks", "type",
    "min_score",
)  # fmt: skip
FOR_FINDING = ("threshold", "map", "text", "every", "max_objects", "boxes_to_masks")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """arguments: None stands for those of the process. Ends with a usage error."""
    # The options of the connection may stand before or after the command.
    connection = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_connection_arguments(connection)
    options, rest = connection.parse_known_args(arguments)
    everything = parser()
    options = everything.parse_args(rest, options)
    _check(everything, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends with a usage error where options contradict each other or would be passed over."""
    if options.command not in ("track", "local"):
        return
    if options.replace and options.keep_earlier:
        parser.error("--replace and --keep-earlier contradict each other; give one of them.")
    if options.all_seeds and (options.keyframes or options.both_ways):
        parser.error(
            "--all-seeds takes every drawn shape as an object of its own, --keyframes and "
            "--both-ways as the same object on several frames; give one of them."
        )
    if not options.detect and options.everything is None:
        for name in FOR_FINDING:
            value = getattr(options, name, None)
            if value is not None and value is not False and value != []:
                others = "" if name in ("map", "text", "threshold") else " or --everything"
                parser.error(f"--{name.replace('_', '-')} is for --detect{others}.")
    if options.both_ways and getattr(options, "step", False):
        parser.error(
            "--step shows each frame after it is tracked, and --both-ways goes through them in "
            "both directions; give one of them."
        )
    if getattr(options, "parallel", None) and not (options.both_ways or options.resume):
        parser.error("--parallel is for --both-ways.")
    if options.points_as and not options.points:
        parser.error("--points-as is for --points.")
    if options.everything is not None:
        _check_everything(parser, options)
    if options.resume is None:
        if options.command == "track":
            if options.job is not None and options.task is not None:
                parser.error("--job and --task contradict each other; give one of them.")
            if (options.job is None and options.task is None) or options.frame is None:
                parser.error("track needs --job (or --task) and --frame, or --resume JOURNAL.")
            for name in ("journal", "preview", "contact_sheet") if options.task is not None else ():
                if getattr(options, name):
                    parser.error(
                        f"--{name.replace('_', '-')} is for one job; leave it out with --task."
                    )
        elif not (options.video and options.annotations and options.out):
            parser.error("local needs --video, --annotations and --out, or --resume JOURNAL.")
        return
    values = {name: getattr(options, name, None) for name in SAID_BY_JOURNAL}
    if options.command == "local":
        values["keep_earlier"] = options.keep_earlier
    given = [name for name, v in values.items() if not (v is None or v is False or v == [])]
    if given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        parser.error(f"--resume goes on with what its journal says; leave out {names}.")


def _check_everything(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if (
        getattr(options, "text", ())
        or options.map
        or (options.command == "local" and options.detect)
    ):
        parser.error("--everything finds all objects; leave out --text, --map and files.")
    if options.threshold is not None:
        least = f"--everything 'pred_iou_thresh={options.threshold:g}'"
        parser.error(f"--threshold is for --detect; here it is a parameter: {least}.")
    try:
        words_to_everything([f"everything {options.everything}"])
    except BadRequest:
        parser.error(f"--everything {options.everything!r}: {EVERYTHING_USAGE}")


def track_options(options: argparse.Namespace, frame: int) -> Options:
    return Options(
        frame=frame,
        target=options.target_frame,
        objects=tuple(options.object),
        labels=tuple(options.label),
        excluded=tuple(options.exclude),
        types=tuple(options.type),
        min_score=options.min_score,
        convert=options.convert_polygon_shapes_to_tracks,
        backward=options.backward,
        keyframes=options.keyframes or options.both_ways,
        leave_open=options.leave_open,
        replace=options.replace,
        keep_earlier=options.keep_earlier,
        all_seeds=options.all_seeds,
        memory=options.memory,
        search_region=options.search_region,
        both_ways=options.both_ways,
        parallel=getattr(options, "parallel", None) or 1,
        tolerance=options.tolerance,
        sparse=options.sparse,
        points=tuple(options.points),
        points_as=options.points_as or "mask",
        detect=_detector(options),
        threshold=options.threshold,
        mapping=tuple(options.map),
        texts=tuple(getattr(options, "text", ())),
        everything=None
        if options.everything is None
        else f"everything {options.everything}".strip(),
        every=options.every or 0,
        most_found=options.max_objects or MOST_FOUND,
        masks=options.boxes_to_masks,
    )


def _detector(options: argparse.Namespace) -> str | None:
    """A function's id, or the whole path of a file, by which a resumed run finds it again."""
    if options.command == "local" and options.detect:
        return os.path.realpath(options.detect)
    return str(options.detect) if options.detect else None


def pace_of(options: argparse.Namespace) -> Pace:
    given = {
        name: getattr(options, name)
        for name in ("seconds_per_call", "objects_per_call", "wait")
        if hasattr(options, name)
    }
    return Pace(**given)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cvat-sam2",
        description="Track objects of a CVAT job to a target frame with SAM 2, from outside CVAT.",
        epilog="Exit codes: 0 all is done; 1 failed; 2 wrong usage; 3 done, but some objects "
        "stopped or were left out; 4 ended early, go on with --resume; 130 stopped by Ctrl+C.",
    )
    parser.add_argument("--version", action="version", version=f"cvat-sam2 {_version()}")
    _add_connection_arguments(parser)
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser

    functions = add(
        "functions",
        help="list the trackers of the server, which of them can be used, and the detectors",
    )
    functions.add_argument("--json", action="store_true", help="print JSON")
    track = _track_parser(add("track", help="track objects of a job"))
    local = _local_parser(add("local", help="track in a video file, without a server"))
    for parser_of_command in (track, local):
        _add_tracking_arguments(parser_of_command)
        _add_finding_arguments(parser_of_command)
    runs = add("runs", help="list runs that were cut off, and receipts of what was written")
    runs.add_argument("--json", action="store_true", help="print JSON")
    discard = add("discard", help="drop the journal of a run that was cut off")
    discard.add_argument("path", type=Path, metavar="JOURNAL")
    undo = add("undo", help="take back what a run wrote, except what a person changed since")
    undo.add_argument("path", type=Path, metavar="RECEIPT")
    return parser


def _version() -> str:
    try:
        return metadata.version("cvat-sam2")
    except metadata.PackageNotFoundError:
        return "from source"


def _track_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    add = parser.add_argument
    add("--job", type=_count, metavar="ID", help="number of the job")
    add("--task", type=_count, metavar="ID", help="all jobs of this task that hold the frame")
    add("--function", metavar="ID", help="the tracker (see `functions`)")
    add("--detect", metavar="ID", help="track what this detector finds, too (see `functions`)")
    add(
        "--text",
        action="append",
        default=[],
        metavar="WORDS",
        help="what to look for, where the function of --detect takes words; may be repeated",
    )
    add(
        "--parallel",
        type=_positive,
        metavar="N",
        help="with --both-ways: N calls at once (default: 1); best is the function's number of "
        "workers",
    )
    add(
        "--timeout",
        type=_seconds,
        default=READ_SECONDS,
        metavar="SECONDS",
        help="wait this long for one answer (default: %(default)g)",
    )
    return parser


def _local_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    add = parser.add_argument
    add("--video", type=Path, help="a video, or a folder of images in name order")
    add(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="the objects: COCO (.json) or CVAT for video 1.1 (.xml), or a ZIP of CVAT's export",
    )
    add("--out", type=Path, metavar="FILE", help="what to write: .json or .xml")
    add("--detect", metavar="FILE", help="track what a detector found, too: COCO results (.json)")
    add(
        "--model",
        metavar="NAME",
        help="sam2.1_hiera_tiny, ... (default: SAM2_MODEL, else the bundled micro model)",
    )
    add(
        "--step",
        action="store_true",
        help="show each frame and ask whether to go on, correct or stop",
    )
    return parser


def _add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    configure_client_auth_arguments(parser)
    parser.add_argument(
        "--debug", "--verbose", action="store_true", dest="debug", help="log every request"
    )
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def _add_tracking_arguments(parser: argparse.ArgumentParser) -> None:
    _add_what_is_tracked(parser.add_argument)
    _add_what_it_becomes(parser.add_argument)
    _add_how_it_is_tracked(parser.add_argument)
    _add_how_it_runs(parser.add_argument)


def _add_what_is_tracked(add: Callable[..., object]) -> None:
    add("--frame", type=_count, metavar="N", help="the frame on which the objects are drawn")
    add("--target-frame", type=_count, metavar="N", help="track to this frame (default: the last)")
    add(
        "--object",
        action="append",
        default=[],
        metavar="ID",
        help="only this object: 17 is a shape, track:5 a track; may be repeated",
    )
    add("--label", action="append", default=[], metavar="NAME", help="only objects of this label")
    add(
        "--type",
        action="append",
        default=[],
        choices=TRACKABLE,
        help="only objects of this type; may be repeated",
    )
    add("--exclude", action="append", default=[], metavar="ID", help="not this object")
    add(
        "--all-seeds",
        action="store_true",
        help="also objects drawn on later frames of the range, each from its frame on",
    )


def _add_what_it_becomes(add: Callable[..., object]) -> None:
    add(
        "--convert-polygon-shapes-to-tracks",
        action="store_true",
        help="polygon shapes become tracks instead of one shape per frame",
    )
    add(
        "--tolerance",
        type=_tolerance,
        metavar="T",
        help="how much a polygon's IoU with the mask may be short of 1, from 0 to 0.1, to have "
        "fewer points (default: the function's setting)",
    )
    add(
        "--sparse",
        type=_iou,
        nargs="?",
        const=0.97,
        metavar="IOU",
        help="give tracks only as many keyframes as CVAT's interpolation needs to keep this IoU, "
        "or a pixel's mean distance (without a number %(const)s, and 0.95 for rectangles); "
        "without this option every frame is a keyframe",
    )
    add(
        "--min-score",
        type=_share,
        metavar="S",
        help="do not write results of a confidence below this, 0 to 1 (default: write all)",
    )
    add(
        "--leave-open",
        action="store_true",
        help="do not end tracks after the target frame; CVAT repeats the last position",
    )
    add(
        "--replace",
        action="store_true",
        help="replace the shapes of an earlier run, and write deleted keyframes again",
    )
    add("--keep-earlier", action="store_true", help="write beside the shapes of an earlier run")


def _add_how_it_is_tracked(add: Callable[..., object]) -> None:
    add("--backward", action="store_true", help="track to a target frame before the frame")
    add(
        "--keyframes",
        action="store_true",
        help="what a person drew on later frames of the range joins the object's memory",
    )
    add(
        "--both-ways",
        action="store_true",
        help="with what a person drew on several frames: track every gap from both ends and take "
        "the better result, or what was drawn, carried by optical flow; written when all is "
        "tracked (implies --keyframes)",
    )
    add(
        "--memory",
        choices=("official", "quality", "anchors"),
        help="which frames an object is remembered by (default: the function's setting)",
    )
    add(
        "--search-region",
        type=_region,
        metavar="SIZES",
        help="look for each object in a window of so many times its size, from "
        f"{SMALLEST_SIZE:g} to {LARGEST_SIZE:g}; 0: in the whole image (default: the function's "
        "setting)",
    )


def _add_how_it_runs(add: Callable[..., object]) -> None:
    add("--dry-run", action="store_true", help="show what would be tracked; write nothing")
    add("--resume", type=Path, metavar="JOURNAL", help="go on with a run that broke")
    add("--journal", type=Path, metavar="FILE", help="where to keep what is needed to resume")
    add("--json", action="store_true", help="print the summary as JSON")
    add("--preview", type=Path, metavar="MP4", help="write a video with the objects drawn in")
    add("--contact-sheet", type=Path, metavar="PNG", help="write a sheet of some of its frames")
    add(
        "--seconds-per-call",
        type=_seconds,
        default=Pace.seconds_per_call,
        metavar="S",
        help="send fewer objects per call when one takes nearly this long (default: %(default)g)",
    )
    add(
        "--objects-per-call",
        type=_positive,
        default=Pace.objects_per_call,
        metavar="N",
        help="at most this many objects per call (default: all)",
    )
    add(
        "--wait",
        type=_seconds_or_zero,
        default=Pace.wait,
        metavar="S",
        help="wait this long in all for a server or function that is away (default: %(default)g)",
    )


def _add_finding_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--points",
        action="append",
        default=[],
        metavar="'LABEL x,y -x,y'",
        help="track an object that is not drawn, too: clicks on it on --frame, with a minus clicks "
        "that are not on it; may be repeated",
    )
    add("--points-as", choices=("mask", "polygon"), help="what --points become (default: mask)")
    add(
        "--everything",
        nargs="?",
        const="",
        metavar="PARAMETERS",
        help="track all objects of the frame, too: masks of a grid of clicks; parameters are "
        "'points_per_side=32 pred_iou_thresh=0.8 stability_score_thresh=0.95 box_nms_thresh=0.7'",
    )
    add(
        "--every",
        type=_positive,
        metavar="K",
        help="look for new objects on every K-th frame, too (default: on the first only)",
    )
    add("--threshold", type=_share, metavar="T", help="least confidence of a detection, 0 to 1")
    add(
        "--map",
        action="append",
        default=[],
        metavar="MODEL=LABEL",
        help="what the detector calls MODEL gets the label LABEL, and what no --map names is left "
        "out (default: labels of the same name); may be repeated",
    )
    add(
        "--max-objects",
        type=_positive,
        metavar="N",
        help=f"at most this many new objects (default: {MOST_FOUND})",
    )
    add("--boxes-to-masks", action="store_true", help="detected boxes become masks")


def _share(text: str) -> float:
    return _between(text, 0, 1)


def _tolerance(text: str) -> float:
    return _between(text, 0, 0.1)


def _region(text: str) -> float:
    size = _number(text)
    if is_size(size):
        return size
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither 0 nor a number from {SMALLEST_SIZE:g} to {LARGEST_SIZE:g}"
    )


def _iou(text: str) -> float:
    return _between(text, 0.5, 0.999)


def _between(text: str, low: float, high: float) -> float:
    value = _number(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
    return value


def _number(text: str) -> float:
    """The number that the text says. If it says none: NaN, which lies in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _seconds(text: str) -> float:
    value = _seconds_or_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return value


def _seconds_or_zero(text: str) -> float:
    """0: no seconds."""
    value = _number(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
