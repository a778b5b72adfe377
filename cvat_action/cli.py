# SPDX-License-Identifier: MIT
"""The command line, with the habits of cvat-cli.

python -m cvat_action --server-host https://cvat.example track --job 42 --frame 10
python -m cvat_action functions
python -m cvat_action local --video clip.mp4 --annotations seeds.json --out tracked.json
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import urllib3
from cvat_sdk.core.auth import configure_client_auth_arguments, make_client_from_cli
from cvat_sdk.core.client import Config
from cvat_sdk.core.exceptions import CvatSdkException
from cvat_sdk.exceptions import ApiException

from cvat_action.errors import ActionError
from cvat_action.functions_command import run_functions
from cvat_action.server import READ_SECONDS, Server
from cvat_action.track_command import INTERRUPTED, Output, TrackOptions, resume_track, run_track
from cvat_action.tracking import Pace

logger = logging.getLogger("cvat_action")

OLDEST_CVAT = (2, 40)
SAID_BY_JOURNAL = (
    "job", "frame", "target_frame", "object", "label", "function", "backward", "keyframes",
    "convert_polygon_shapes_to_tracks", "leave_open", "replace", "keep_earlier", "dry_run",
    "journal",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; a failed command ends with one critical line."""
    # The options of the connection may stand before or after the command.
    connection = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_connection_arguments(connection)
    options, rest = connection.parse_known_args(arguments)
    options = _parser().parse_args(rest, options)
    _configure_logging(options)
    try:
        if options.command == "local":
            return _run_local(options)
        if options.command == "track":
            _check_track(options)
        return _run_on_server(options)
    except ActionError as error:
        logger.critical(error)
    except (ApiException, CvatSdkException, urllib3.exceptions.HTTPError) as error:
        logger.critical(_login_failure(error))
    except KeyboardInterrupt:
        logger.critical("Stopped by Ctrl+C.")
        return INTERRUPTED
    return 1


def _run_on_server(options: argparse.Namespace) -> int:
    if options.insecure:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    client = make_client_from_cli(options, logger=logger, config=Config())
    with client:
        server = Server(client, read_seconds=getattr(options, "timeout", READ_SECONDS))
        version = server.version()
        if version and version < OLDEST_CVAT:
            logger.warning(
                "This is CVAT %d.%d; before %d.%d trackers are called in another way.",
                *version,
                *OLDEST_CVAT,
            )
        if options.command == "functions":
            run_functions(server, as_json=options.json)
            return 0
        output = Output(options.json, options.preview, options.contact_sheet, _connection(options))
        if options.resume:
            return resume_track(server, options.resume, _pace(options), output)
        return run_track(server, _track_options(options), _pace(options), output)


def _connection(options: argparse.Namespace) -> str:
    """The options of the connection but the login, for the command that goes on with a run."""
    given = {
        "--server-host": options.server_host,
        "--server-port": options.server_port,
        "--profile": options.profile,
        "--org": options.organization,
    }
    words = [f"{name} {shlex.quote(str(v))} " for name, v in given.items() if v is not None]
    return "".join(words) + ("--insecure " if options.insecure else "")


def _check_track(options: argparse.Namespace) -> None:
    """Raises ActionError where options contradict each other or would be passed over."""
    if options.replace and options.keep_earlier:
        raise ActionError("--replace and --keep-earlier contradict each other; give one of them.")
    if options.resume is None:
        if options.job is None or options.frame is None:
            raise ActionError(
                "track needs --job and --frame, or --resume with the journal of a run."
            )
        return
    values = {name: getattr(options, name) for name in SAID_BY_JOURNAL}
    given = [name for name, v in values.items() if not (v is None or v is False or v == [])]
    if given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ActionError(f"--resume goes on with what its journal says; leave out {names}.")


def _run_local(options: argparse.Namespace) -> int:
    from cvat_action.local import LocalOptions, run_local  # it loads torch

    return run_local(
        LocalOptions(
            video=options.video,
            annotations=options.annotations,
            out=options.out,
            frame=options.frame,
            target=options.target_frame,
            objects=tuple(options.object),
            labels=tuple(options.label),
            convert=options.convert_polygon_shapes_to_tracks,
            backward=options.backward,
            keyframes=options.keyframes,
            leave_open=options.leave_open,
            replace=options.replace,
            step=options.step,
            model=options.model,
        ),
        _pace(options),
        Output(options.json, options.preview, options.contact_sheet),
    )


def _track_options(options: argparse.Namespace) -> TrackOptions:
    return TrackOptions(
        job=options.job,
        frame=options.frame,
        target=options.target_frame,
        objects=tuple(options.object),
        labels=tuple(options.label),
        function=options.function,
        convert=options.convert_polygon_shapes_to_tracks,
        backward=options.backward,
        keyframes=options.keyframes,
        leave_open=options.leave_open,
        replace=options.replace,
        keep_earlier=options.keep_earlier,
        dry_run=options.dry_run,
        journal=options.journal,
    )


def _pace(options: argparse.Namespace) -> Pace:
    return Pace(
        seconds_per_call=options.seconds_per_call,
        objects_per_call=options.objects_per_call,
        repeats=options.repeats,
        first_wait=options.first_wait,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cvat_action",
        description="Track objects of a CVAT job to a target frame with SAM 2, from outside CVAT.",
    )
    _add_connection_arguments(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    functions = commands.add_parser(
        "functions", help="list the trackers of the server and which can be used"
    )
    functions.add_argument("--json", action="store_true", help="print JSON")

    on_server = commands.add_parser("track", help="track objects of a job")
    on_server.add_argument("--job", type=_count, metavar="ID", help="number of the job")
    on_server.add_argument("--function", metavar="ID", help="the tracker (see `functions`)")
    on_server.add_argument(
        "--dry-run", action="store_true", help="show what would be tracked; write nothing"
    )
    on_server.add_argument(
        "--keep-earlier",
        action="store_true",
        help="write beside shapes that look like an earlier run's",
    )
    on_server.add_argument(
        "--resume", type=Path, metavar="JOURNAL", help="go on with a run that broke"
    )
    on_server.add_argument(
        "--journal", type=Path, metavar="FILE", help="where to keep what is needed to resume"
    )
    on_server.add_argument(
        "--timeout",
        type=_seconds,
        default=READ_SECONDS,
        metavar="SECONDS",
        help="wait this long for one answer (default: %(default)g)",
    )
    _add_tracking_arguments(on_server)

    local = commands.add_parser("local", help="track in a video file, without a server")
    local.add_argument(
        "--video", type=Path, required=True, help="a video, or a folder of images in name order"
    )
    local.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE",
        help="the objects: COCO (.json) or CVAT for video 1.1 (.xml), or a ZIP of CVAT's export",
    )
    local.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="what to write: .json or .xml"
    )
    local.add_argument(
        "--model",
        metavar="NAME",
        help="sam2.1_hiera_tiny, ... (default: SAM2_MODEL, else the bundled micro model)",
    )
    local.add_argument(
        "--step",
        action="store_true",
        help="show each frame and ask whether to go on, correct or stop",
    )
    _add_tracking_arguments(local)
    return parser


def _add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    configure_client_auth_arguments(parser)
    parser.add_argument(
        "--debug", "--verbose", action="store_true", dest="debug", help="log every request"
    )


def _add_tracking_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
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
        "--convert-polygon-shapes-to-tracks",
        action="store_true",
        help="polygon shapes become tracks instead of one shape per frame",
    )
    add("--backward", action="store_true", help="track to a target frame before the frame")
    add(
        "--keyframes",
        action="store_true",
        help="start again from what a person drew on later frames of the range",
    )
    add(
        "--leave-open",
        action="store_true",
        help="do not end tracks after the target frame; CVAT repeats the last position",
    )
    add("--replace", action="store_true", help="replace the shapes of an earlier run")
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
    add("--repeats", type=_count, default=Pace.repeats, help="repeat a call this often")
    add("--first-wait", type=_seconds, default=Pace.first_wait, help=argparse.SUPPRESS)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _configure_logging(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    if options.debug:
        logger.setLevel(logging.DEBUG)
        logging.getLogger("urllib3").setLevel(logging.DEBUG)


def _login_failure(error: Exception) -> str:
    status = getattr(error, "status", None)
    if status in (400, 401):
        return f"CVAT does not accept the login ({status}): check --auth or CVAT_ACCESS_TOKEN."
    if status:
        return f"CVAT answered {status} to the login."
    if isinstance(error, urllib3.exceptions.HTTPError):
        cause = getattr(error, "reason", None) or error
        return f"CVAT did not answer: {cause}. Check --server-host and --server-port."
    return str(error)
