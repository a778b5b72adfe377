# SPDX-License-Identifier: MIT
"""The command line, with the habits of cvat-cli.

cvat-sam2 --server-host https://cvat.example track --job 42 --frame 10
cvat-sam2 functions
cvat-sam2 local --video clip.mp4 --annotations seeds.json --out tracked.json
"""

import argparse
import io
import json
import logging
import math
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from getpass import GetPassWarning
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import NoReturn

import urllib3
from cvat_sdk.core.auth import configure_client_auth_arguments, make_client_from_cli
from cvat_sdk.core.client import Client, Config
from cvat_sdk.core.exceptions import CvatSdkException
from cvat_sdk.exceptions import ApiException

from cvat_action import commands, report
from cvat_action.commands import COMPLETE, FAILED, INCOMPLETE, INTERRUPTED, RESUMABLE, Output
from cvat_action.errors import ActionError, NothingToTrack
from cvat_action.geometry import TRACKABLE
from cvat_action.plan import MOST_FOUND, Options
from cvat_action.selection import name_to_ref
from cvat_action.server import AWAY, READ_SECONDS, Server, no_cvat
from cvat_action.tracking import Pace, Patience
from cvat_action.undo import undo
from sam2_tracker.errors import BadRequest
from sam2_tracker.everything import USAGE as EVERYTHING_USAGE
from sam2_tracker.everything import words_to_everything

logger = logging.getLogger("cvat_action")

OLDEST_CVAT = (2, 40)
SAID_BY_JOURNAL = (
    "job", "task", "frame", "target_frame", "object", "exclude", "label", "function", "backward",
    "keyframes", "convert_polygon_shapes_to_tracks", "leave_open", "replace", "dry_run",
    "journal", "all_seeds", "memory", "both_ways", "parallel", "tolerance", "sparse", "video",
    "annotations", "out", "model", "step", "points", "points_as", "detect", "threshold", "map",
    "text", "everything", "every", "max_objects", "boxes_to_masks", "type", "min_score",
)  # fmt: skip


WORST_LAST = (COMPLETE, INCOMPLETE, FAILED, RESUMABLE, INTERRUPTED)
"""exit codes of several jobs: the worst one counts"""

FOR_FINDING = ("threshold", "map", "text", "every", "max_objects", "boxes_to_masks")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; a failed command ends with one critical line."""
    # The options of the connection may stand before or after the command.
    connection = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_connection_arguments(connection)
    options, rest = connection.parse_known_args(arguments)
    parser = _parser()
    options = parser.parse_args(rest, options)
    _check(parser, options)
    _configure_logging(options)
    _stop_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a label may be of any script
    problem = "Stopped by Ctrl+C."
    code = INTERRUPTED
    try:
        return _run(options)
    except ActionError as error:
        problem, code = str(error), FAILED
    except (ApiException, CvatSdkException, urllib3.exceptions.HTTPError) as error:
        problem, code = _login_failure(error, options), FAILED
    except (EOFError, GetPassWarning):
        problem, code = "There is no login: give --auth USER:PASS or set CVAT_ACCESS_TOKEN.", FAILED
    except KeyboardInterrupt:
        pass
    logger.critical(problem)
    if getattr(options, "json", False):
        print(json.dumps({"error": problem, "resume": None}, indent=2))
    return code


def _run(options: argparse.Namespace) -> int:
    if options.command == "runs":
        return commands.show_runs(as_json=options.json)
    if options.command == "discard":
        return commands.discard(options.path)
    if options.command == "local":
        return _run_local(options)
    return _run_on_server(options)


def _run_on_server(options: argparse.Namespace) -> int:
    pace = _pace(options)
    with _client(options, pace) as client:
        server = Server(client, read_seconds=getattr(options, "timeout", READ_SECONDS), pace=pace)
        version = server.version()
        if version and version < OLDEST_CVAT:
            logger.warning(
                "This is CVAT %d.%d; before %d.%d trackers are called in another way.",
                *version,
                *OLDEST_CVAT,
            )
        if options.command == "functions":
            report.print_functions(server.functions(), as_json=options.json)
            return 0
        if options.command == "undo":
            return INCOMPLETE if undo(server, options.path) else COMPLETE
        output = Output(options.json, options.preview, options.contact_sheet, _command(options))
        if options.resume:
            return commands.resume_track(
                server, options.resume, pace, output, keep_earlier=options.keep_earlier
            )
        if options.task is not None:
            return _track_task(server, options, pace, output)
        return _track_job(server, options.job, options, pace, output)


def _track_job(
    server: Server, number: int, options: argparse.Namespace, pace: Pace, output: Output
) -> int:
    return commands.run_track(
        server,
        number,
        _track_options(options, options.frame),
        pace,
        output,
        function=options.function,
        dry_run=options.dry_run,
        path=options.journal,
    )


def _track_task(server: Server, options: argparse.Namespace, pace: Pace, output: Output) -> int:
    """Every job of a task that holds the frame: what fails in one does not stop the others.

    Where jobs overlap, a job without an object to track is passed over if another one has some.
    """
    output = replace(output, gathered=[])
    codes = []
    empty: list[tuple[int, ActionError]] = []
    numbers = server.jobs_of_task(options.task, options.frame)
    elsewhere = _names_elsewhere(server, numbers, options)
    for number in numbers:
        logger.info("Job %d of task %d.", number, options.task)
        try:
            own = _without_names(options, elsewhere[number])
            codes.append(_track_job(server, number, own, pace, output))
        except NothingToTrack as error:
            empty.append((number, error))
        except ActionError as error:
            codes.append(_failed(number, error, output))
        except KeyboardInterrupt:
            codes.append(INTERRUPTED)
            logger.critical("Stopped by Ctrl+C.")
        if INTERRUPTED in codes:
            break
    others = bool(codes)
    for number, why in empty:
        if others:
            logger.info("Job %d is passed over: %s", number, why)
            output.tell({"job": number, "passed_over": str(why)})
        else:
            codes.append(_failed(number, why, output))
    if output.as_json:
        with report.telling():
            print(json.dumps(output.gathered, indent=2))
    return max(codes, key=WORST_LAST.index)


def _names_elsewhere(
    server: Server, numbers: Sequence[int], options: argparse.Namespace
) -> dict[int, set[str]]:
    """By job: the names of `--object` and `--exclude` that are objects of other jobs only.

    A job that cannot be read has none; what is wrong with it is told when it is tracked.
    """
    named = {name: name_to_ref(name) for name in (*options.object, *options.exclude)}
    names: dict[int, set[str]] = {number: set() for number in numbers}
    for number in numbers if named else ():
        with suppress(ActionError):
            held = server.first_snapshot(number, lambda shape: False)
            refs = {*map(str, held.shapes), *(f"track:{id_}" for id_ in held.tracks)}
            names[number] = {name for name, ref in named.items() if ref in refs}
    anywhere = set().union(*names.values())
    return {number: anywhere - own for number, own in names.items()}


def _without_names(options: argparse.Namespace, elsewhere: set[str]) -> argparse.Namespace:
    """The options of one job. A job without any of the wanted objects keeps them, and says so."""
    wanted = [name for name in options.object if name not in elsewhere]
    excluded = [name for name in options.exclude if name not in elsewhere]
    changed = {"object": wanted or options.object, "exclude": excluded}
    return argparse.Namespace(**{**vars(options), **changed})


def _failed(number: int, error: ActionError, output: Output) -> int:
    """The exit code of a job that failed, which is told."""
    logger.critical("Job %d: %s", number, error)
    output.tell({"job": number, "error": str(error), "resume": None})
    return FAILED


def _client(options: argparse.Namespace, pace: Pace) -> Client:
    """Waits for a CVAT that is restarting."""
    host = options.server_host
    if host and "://" not in host and not options.profile:
        options.server_host = f"https://{host}"
        logger.info("--server-host has no http:// or https://; trying %s.", options.server_host)
    if options.insecure:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    patience = Patience(pace)
    quiet = logging.getLogger("cvat_sdk_client")
    quiet.setLevel(logging.ERROR)  # our own sentences say it
    while True:
        try:
            with warnings.catch_warnings():
                # Without a terminal nobody can be asked for a password.
                warnings.simplefilter("error", GetPassWarning)
                return make_client_from_cli(options, logger=quiet, config=Config())
        except ApiException as error:
            if error.status not in AWAY or not patience.waits(f"CVAT answered {error.status}."):
                raise
        except (TypeError, AttributeError, ValueError):  # what the SDK makes of another JSON
            raise no_cvat(options.server_host or "The server") from None


def _command(options: argparse.Namespace) -> str:
    """The command and the options of the connection but the login, to go on with a run."""
    given = {
        "--server-host": options.server_host,
        "--server-port": options.server_port,
        "--profile": options.profile,
        "--org": options.organization,
    }
    words = [f"{name} {shlex.quote(str(v))} " for name, v in given.items() if v is not None]
    return _program() + " " + "".join(words) + ("--insecure " if options.insecure else "")


def _program() -> str:
    """What to type to get here again."""
    name = Path(sys.argv[0]).name
    if name == "__main__.py" or not name.startswith("cvat-sam2"):
        return f"{shlex.quote(sys.executable)} -m cvat_action"
    return shlex.quote(sys.argv[0])


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


def _run_local(options: argparse.Namespace) -> int:
    try:
        from cvat_action.local import Files, resume_local, run_local  # it loads torch
    except ModuleNotFoundError as error:
        raise ActionError(
            f"`local` runs the model itself, and {error.name} is not installed here. In the "
            "project's folder: pip install -r requirements.txt -r requirements-torch.txt, then "
            "SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation -r requirements-sam2.txt."
        ) from None

    output = Output(options.json, options.preview, options.contact_sheet, _program() + " ")
    if options.resume:
        return resume_local(options.resume, _pace(options), output)
    files = Files(options.video, options.annotations, options.out, options.model, options.step)
    if options.points and options.frame is None:
        raise ActionError("--points needs --frame: the frame that was clicked on.")
    return run_local(
        files,
        options.frame,
        _track_options(options, 0),
        _pace(options),
        output,
        path=options.journal,
        dry_run=options.dry_run,
    )


def _track_options(options: argparse.Namespace, frame: int) -> Options:
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
        return str(Path(options.detect).resolve())
    return str(options.detect) if options.detect else None


def _pace(options: argparse.Namespace) -> Pace:
    given = {
        name: getattr(options, name)
        for name in ("seconds_per_call", "objects_per_call", "wait")
        if hasattr(options, name)
    }
    return Pace(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cvat-sam2",
        description="Track objects of a CVAT job to a target frame with SAM 2, from outside CVAT.",
        epilog="Exit codes: 0 all is done; 1 failed; 2 wrong usage; 3 done, but some objects "
        "stopped or were left out; 4 ended early, go on with --resume; 130 stopped by Ctrl+C.",
    )
    parser.add_argument("--version", action="version", version=f"cvat-sam2 {_version()}")
    _add_connection_arguments(parser)
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser

    functions = add("functions", help="list the trackers of the server and which can be used")
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
        help="with --both-ways: track N gaps at once (default: 1); best is the function's "
        "number of workers",
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
        help="give tracks as few keyframes as keep what CVAT makes between them at this IoU "
        "(default: %(const)s; rectangles: 0.95) or a pixel's mean distance",
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
        "the better result; written when all is tracked (implies --keyframes)",
    )
    add(
        "--memory",
        choices=("official", "quality", "anchors"),
        help="which frames an object is remembered by (default: the function's setting)",
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
        help="send fewer objects per call when one nears this (default: %(default)g)",
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
        type=_seconds_or_none,
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
        help="which label what the detector calls MODEL gets (default: the equal names); "
        "may be repeated",
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


def _iou(text: str) -> float:
    return _between(text, 0.5, 0.999)


def _between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _seconds(text: str) -> float:
    value = _seconds_or_none(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return value


def _seconds_or_none(text: str) -> float:
    """0: no seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _configure_logging(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING if options.quiet else logging.INFO)
    logger.setLevel(logging.DEBUG if options.debug else logging.NOTSET)
    # What urllib3 says of its own connections is in our sentences. The SDK sets the level of the
    # logger above this one whenever a client is built.
    connections = logging.getLogger("urllib3.connectionpool")
    connections.setLevel(logging.DEBUG if options.debug else logging.ERROR)


def _stop_on_signals() -> None:
    """A signal that ends the process ends the run as Ctrl+C does."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    try:
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)
    except ValueError:
        pass  # not in the main thread: no signal arrives here


def _login_failure(error: Exception, options: argparse.Namespace) -> str:
    status = getattr(error, "status", None)
    if status in (400, 401):
        return f"CVAT does not accept the login ({status}): check --auth or CVAT_ACCESS_TOKEN."
    if status:
        return f"CVAT answered {status} to the login."
    if isinstance(error, urllib3.exceptions.HTTPError) or status == 0:
        cause = getattr(error, "reason", None) or error
        host = options.server_host or "the default server"
        ssl = "SSL" in str(cause)
        hint = " If it has no certificate, write http://." if ssl else ""
        return f"{host} did not answer: {cause}. Check --server-host and --server-port.{hint}"
    return str(error)
