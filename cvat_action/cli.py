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
import shlex
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from getpass import GetPassWarning

import urllib3
from cvat_sdk.core.auth import make_client_from_cli
from cvat_sdk.core.client import Client, Config
from cvat_sdk.core.exceptions import CvatSdkException
from cvat_sdk.exceptions import ApiException

from cvat_action import commands, kept_runs, report
from cvat_action.arguments import pace_of, parse, track_options
from cvat_action.calls import Pace, Patience
from cvat_action.commands import COMPLETE, FAILED, INCOMPLETE, INTERRUPTED, RESUMABLE, Output
from cvat_action.errors import ActionError, NothingToTrack
from cvat_action.program import program
from cvat_action.selection import name_to_ref
from cvat_action.server import AWAY, READ_SECONDS, Server, no_cvat
from cvat_action.signals import stop_on_signals
from cvat_action.undo import undo

logger = logging.getLogger("cvat_action")

OLDEST_CVAT = (2, 40)


WORST_LAST = (COMPLETE, INCOMPLETE, FAILED, RESUMABLE, INTERRUPTED)
"""exit codes of several jobs: the worst one counts"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; a failed command ends with one critical line."""
    options = parse(arguments)
    _configure_logging(options)
    stop_on_signals()
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
    except OSError as error:  # of a path: it is too long, say, or its folder may not be read
        where = f"{error.filename}: " if error.filename else ""
        problem, code = f"{where}{error.strerror or error}.", FAILED
    except KeyboardInterrupt:
        pass
    logger.critical(problem)
    if getattr(options, "json", False):
        print(json.dumps({"error": problem, "resume": None}, indent=2))
    return code


def _run(options: argparse.Namespace) -> int:
    if options.command == "runs":
        return kept_runs.show_runs(as_json=options.json)
    if options.command == "discard":
        return kept_runs.discard(options.path)
    if options.command == "local":
        return _run_local(options)
    return _run_on_server(options)


def _run_on_server(options: argparse.Namespace) -> int:
    pace = pace_of(options)
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
            functions = server.functions()
            with report.telling():
                report.print_functions(functions, as_json=options.json)
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
        track_options(options, options.frame),
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
    jobs = server.jobs_of_task(options.task, options.frame)
    elsewhere = _names_elsewhere(server, list(jobs), options)
    for number, range_ in jobs.items():
        logger.info("Job %d of task %d.", number, options.task)
        try:
            own = _without_names(options, elsewhere[number])
            own = _to_its_end(own, range_, jobs.values())
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


def _to_its_end(
    options: argparse.Namespace, range_: tuple[int, int], ranges: Iterable[tuple[int, int]]
) -> argparse.Namespace:
    """The options of one job. Where only another job holds the target frame, this one is tracked to
    its own first or last frame.

    range_: first and last frame of the job; ranges: of all jobs. Raises NothingToTrack for a job
    that ends where the run begins.
    """
    target, (first, last) = options.target_frame, range_
    if target is None or not any(low <= target <= high for low, high in ranges):
        return options
    own = min(max(target, first), last)
    if own == options.frame != target:
        raise NothingToTrack(f"It holds frames {first} to {last}, none of them beyond frame {own}.")
    if own != target:
        logger.info("This job holds frames %d to %d: it is tracked to frame %d.", first, last, own)
    return argparse.Namespace(**{**vars(options), "target_frame": own})


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
    return program() + " " + "".join(words) + ("--insecure " if options.insecure else "")


def _run_local(options: argparse.Namespace) -> int:
    try:
        from cvat_action.local import Files, resume_local, run_local  # it loads torch
    except ModuleNotFoundError as error:
        raise ActionError(
            f"`local` runs the model itself, and {error.name} is not installed here. In the "
            "project's folder: pip install -r requirements.txt -r requirements-torch.txt, then "
            "SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation -r requirements-sam2.txt."
        ) from None

    output = Output(options.json, options.preview, options.contact_sheet, program() + " ")
    if options.resume:
        return resume_local(options.resume, pace_of(options), output)
    files = Files(options.video, options.annotations, options.out, options.model, options.step)
    if options.points and options.frame is None:
        raise ActionError("--points needs --frame: the frame that was clicked on.")
    return run_local(
        files,
        options.frame,
        track_options(options, 0),
        pace_of(options),
        output,
        path=options.journal,
        dry_run=options.dry_run,
    )


def _configure_logging(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING if options.quiet else logging.INFO)
    logger.setLevel(logging.DEBUG if options.debug else logging.NOTSET)
    # Where Ctrl+C ends its import, torch tells of its caches when the process ends.
    logging.getLogger("torch").setLevel(logging.WARNING)
    # What urllib3 says of its own connections is in our sentences. The SDK sets the level of the
    # logger above this one whenever a client is built.
    connections = logging.getLogger("urllib3.connectionpool")
    connections.setLevel(logging.DEBUG if options.debug else logging.ERROR)


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
