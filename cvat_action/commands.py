# SPDX-License-Identifier: MIT
"""`track` and `--resume`: starts a run, goes on with one, and ends it.

`run_track` and `resume_track` are for jobs of a server; local.py shares the rest.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cvat_action import journal as journals
from cvat_action import preview, report
from cvat_action.calls import Pace
from cvat_action.cvat_sink import CvatSink
from cvat_action.detectors import server_detector
from cvat_action.errors import ActionError
from cvat_action.job import Job, check_range
from cvat_action.journal import Journal
from cvat_action.newcomers import Finder, Newcomers, first_ones, object_of
from cvat_action.overlay import Picture
from cvat_action.plan import Options, Plan, make_plan, target_of, wants_whole
from cvat_action.plan_record import plan_as_json, plan_from_json
from cvat_action.program import to_discard, to_resume
from cvat_action.rebuild import rebuild
from cvat_action.receipt import Receipt, numbers_of_seeds, numbers_of_tracks
from cvat_action.run import Equipment, Outcome, run_plan
from cvat_action.seeds import Seed
from cvat_action.selection import name_to_ref
from cvat_action.server import OUR_DESCRIPTION, OURS, Function, Server, choose_function
from cvat_action.server_tracker import ServerTracker
from cvat_action.sinks import Sink
from cvat_action.tracked import TrackedObject

logger = logging.getLogger(__name__)

COMPLETE = 0
FAILED = 1
INCOMPLETE = 3
"""all frames are done, but some objects stopped, were left alone by name, or were left out"""
RESUMABLE = 4
INTERRUPTED = 130


@dataclass(frozen=True)
class Output:
    as_json: bool = False
    preview: Path | None = None
    contact_sheet: Path | None = None
    command: str = "cvat-sam2 "
    """the command with the options that led to the server, and a blank at the end"""
    gathered: list[Any] | None = None
    """what is told of several jobs in JSON, to be printed together; None: it is printed at once"""

    def tell(self, content: dict[str, Any]) -> None:
        """Prints JSON."""
        if self.gathered is None:
            print(json.dumps(content, indent=2))
        else:
            self.gathered.append(content)

    def show(self, plan: Plan) -> None:
        """What `--dry-run` shows."""
        if self.as_json:
            self.tell(report.dry_run_as_json(plan))
        else:
            report.print_plan(plan)


def run_track(
    server: Server,
    job_id: int,
    options: Options,
    pace: Pace,
    output: Output,
    *,
    function: str | None = None,
    dry_run: bool = False,
    path: Path | None = None,
) -> int:
    """The exit code. Raises ActionError before anything is tracked."""
    check_pictures(output, {"--journal": path} if path else {})
    job = server.job(job_id)
    target = target_of(job, options)
    path = path or journals.default_path(server.host, job.id, options.frame, target)
    if path.exists() and not dry_run:
        raise journals.in_the_way(path, server.host, output.command)
    chosen = choose_function(server, function)
    check_range(job, options.frame, target, backward=options.backward)
    if not job.frames_between(options.frame, target):
        where = "before" if options.backward else "after"
        logger.info("Nothing to do: there is no frame to track %s frame %d.", where, options.frame)
        if output.as_json:
            output.tell({"job": job.id, "frames": [], "complete": True, "written": {}})
        return COMPLETE
    _check_takes_clicks(chosen, options)
    _check_joins(chosen, options)
    finder = _finder(server, job, options, chosen, pace)
    snapshot = server.first_snapshot(job.id, wants_whole(options))
    found = first_ones(
        finder, lambda: ServerTracker(server, job, chosen), job, snapshot, options, pace
    )
    plan = make_plan(
        job,
        snapshot,
        options,
        server=server.host,
        function=chosen.id,
        supported=chosen.usable_types,
        receipts=numbers_of_seeds(server.host, job.id),
        tracks=numbers_of_tracks(server.host, job.id) if snapshot.tracks else {},
        newcomers=found,
    )
    for warning in plan.warnings:
        logger.warning(warning)
    _check_takes_tracks(server, job, plan)
    _warn_of_corrections(chosen, plan)
    if dry_run:
        output.show(plan)
        return COMPLETE
    if plan.question:
        raise ActionError(plan.question)
    tell_refusals(plan)
    receipt = Receipt.begin(plan)
    kept = {"path": str(receipt.path), "head": receipt.head}
    journal = Journal.begin(path, plan_as_json(plan), kept)
    return _run(server, plan, chosen, journal, receipt, None, pace, output, finder)


def _check_takes_clicks(function: Function, options: Options) -> None:
    if options.points and "points" not in function.shape_types:
        raise ActionError(
            f"Function {function.id} takes no clicks, which --points needs. Deploy this project's "
            "tracker anew, or click on the objects in CVAT with an interactor."
        )


def _check_joins(function: Function, options: Options) -> None:
    if options.both_ways and not function.is_ours:
        raise ActionError(
            f"Function {function.id} is not known as this project's tracker, and --both-ways needs "
            f"that. It is known by its id ({OURS}) or by its description "
            f'("{OUR_DESCRIPTION}"): deploy it with one of these, or leave out --both-ways.'
        )


def _warn_of_corrections(function: Function, plan: Plan) -> None:
    corrected = [
        s.ref
        for s in plan.seeds
        if any(c.points is not None and c.frame != s.frame for c in s.corrections)
    ]
    if corrected and not function.is_ours:
        logger.warning(
            "Function %s is not known as this project's tracker, so it starts anew from every "
            "correction and forgets what was before: object %s.",
            function.id,
            ", ".join(corrected),
        )


def _check_takes_tracks(server: Server, job: Job, plan: Plan) -> None:
    may_make_tracks = any(plan.becomes_track(s) for s in plan.seeds) or (
        plan.options.every and plan.options.convert
    )
    if may_make_tracks and not server.takes_tracks(job):
        raise ActionError(
            f"The task of job {job.id} has a pool of ground truth frames, and CVAT refuses tracks "
            "in such tasks. Track polygons as shapes (without "
            "--convert-polygon-shapes-to-tracks), and leave out tracks with --object."
        )


def _finder(
    server: Server, job: Job, options: Options, function: Function, pace: Pace
) -> Finder | None:
    """What says which objects are new. Raises ActionError where it cannot be used."""
    if not options.finds:
        return None
    return server_detector(server, job, options, function.usable_types, pace)


def resume_track(
    server: Server,
    path: Path,
    pace: Pace,
    output: Output,
    *,
    keep_earlier: bool = False,
) -> int:
    """Goes on with a run that broke: what was tracked is written, then tracking goes on."""
    check_pictures(output)
    journal, record = Journal.go_on(path)
    try:
        with journals.sound(path):
            whose, job_id = record.plan["server"], record.plan["job"]
        if whose != server.host:
            raise ActionError(
                f"{path} belongs to {whose or 'a run of files'}, not to {server.host}. Go on with "
                f"it: {to_resume(path, whose)}"
            )
        job = server.job(job_id)
        with journals.sound(path):
            plan = plan_from_json(record.plan, job)
            receipt = Receipt(Path(record.receipt["path"]), record.receipt["head"])
        if record.taken_back:
            raise ActionError(
                f"What the run of {path} had written was taken back with undo, so it cannot go on. "
                f"Drop its journal: {to_discard(path)}; then track anew."
            )
        if keep_earlier:
            plan = replace(plan, earlier={}, options=replace(plan.options, keep_earlier=True))
        function = choose_function(server, plan.function)
        return _run(server, plan, function, journal, receipt, record, pace, output)
    finally:
        journal.close()


def _run(
    server: Server,
    plan: Plan,
    function: Function,
    journal: Journal,
    receipt: Receipt,
    record: journals.Record | None,
    pace: Pace,
    output: Output,
    finder: Finder | None = None,
) -> int:
    if finder is None and plan.options.every:
        finder = _finder(server, plan.job, plan.options, function, pace)
    sink = CvatSink(server, plan, pace, journal, receipt, record.written if record else None)
    tracker = ServerTracker(server, plan.job, function)

    def frame(number: int) -> Picture:
        return preview.decode_picture(
            server.frame(plan.job.id, number), number, plan.job.size(number)
        )

    equipment = Equipment(tracker, sink, journal, pace, frame)
    outcome, objects, done = go(plan, equipment, record, finder)
    link = (
        f"{server.host.rstrip('/')}/tasks/{plan.job.task_id}/jobs/{plan.job.id}"
        f"?frame={plan.options.frame}"
    )
    return finish(plan, equipment, outcome, objects, done, output, link)


def go(
    plan: Plan,
    equipment: Equipment,
    record: journals.Record | None,
    finder: Finder | None = None,
) -> tuple[Outcome, list[TrackedObject], list[int]]:
    """Runs a plan, from where its journal ends.

    finder: finds new objects on the way, where the plan's options ask for it.
    """
    tracker, journal, pace = equipment.tracker, equipment.journal, equipment.pace

    def make(seed: Seed) -> TrackedObject:
        return object_of(seed, plan.tuning_of(seed))

    objects = [make(s) for s in plan.seeds]
    enter = None
    if finder and plan.options.every:
        enter = Newcomers(
            finder,
            tracker,
            plan.job,
            plan.options,
            plan.frames,
            equipment.sink.snapshot,
            make,
            pace,
        )
    done: list[int] = []
    remember = None
    if record:
        journals.fill(record, journal.path, objects, make)
        done = record.done
        live = report.counted(sum(o.live for o in objects), "object")
        if done:
            logger.info("Going on after frame %d with %s.", done[-1], live)
        if done and not plan.server:  # the memory went with the process
            drawn = journal.drawn()
            remember = partial(rebuild, plan, tracker, objects, done, drawn, pace)
    outcome = run_plan(
        plan,
        objects,
        equipment,
        done=done,
        written_until=record.written_until if record else 0,
        enter=enter,
        remember=remember,
    )
    return outcome, objects, [*done, *outcome.run.done]


def finish(
    plan: Plan,
    equipment: Equipment,
    outcome: Outcome,
    objects: Sequence[TrackedObject],
    done: Sequence[int],
    output: Output,
    link: str | None = None,
    fps: float = 10.0,
    out: Path | None = None,
) -> int:
    """Tells what became of a run, keeps or removes its journal, and gives the exit code.

    out: the file that is written, of a run without a server.

    Raises KeyboardInterrupt where a person pressed Ctrl+C during the last writing of one of several
    jobs.
    """
    journal, sink, problem = equipment.journal, equipment.sink, outcome.problem
    resume = None
    if outcome.resumable:
        resume = to_resume(journal.path, plan.server, output.command)
    _warn_of_results(plan, objects, sink)
    with report.telling():
        if output.as_json:
            written, counts = sink.written, sink.counts
            told = report.run_as_json(
                plan, done, objects, written, counts, problem=problem, resume=resume, link=link
            )
            output.tell(told | ({"job": None, "out": str(out)} if out else {}))
        elif done:
            report.print_run(plan, objects, sink.written, sink.counts, link, out)
    picture_problem, stopped_drawing = None, False
    if done:
        try:
            picture_problem = _draw(plan, objects, equipment, output, fps)
        except KeyboardInterrupt:
            picture_problem, stopped_drawing = "Stopped by Ctrl+C while drawing.", True
    if resume:
        journal.close()
    else:
        journal.remove()
    if problem is not None:
        said = _how_far(plan, outcome, done)
        logger.critical("%s %s%s", problem, said, f" Go on with: {resume}" if resume else "")
        if outcome.run.interrupted:
            return INTERRUPTED
        return RESUMABLE if resume else FAILED
    if picture_problem:
        logger.critical("%s The annotations are complete.", picture_problem)
        return INTERRUPTED if stopped_drawing else FAILED
    if outcome.run.interrupted:
        return INTERRUPTED
    if sink.interrupted and output.gathered is not None:
        raise KeyboardInterrupt  # this job is complete, and the person wants no other
    return COMPLETE if _is_complete(plan, objects, sink) else INCOMPLETE


def _is_complete(plan: Plan, objects: Sequence[TrackedObject], sink: Sink) -> bool:
    """Whether all that was asked for by name was tracked, to the end, and written."""
    named = {name_to_ref(name) for name in plan.options.objects}
    refused_by_name = any(r.ref in named for r in plan.refused)
    stopped = any(o.stopped for o in objects)
    return not (stopped or refused_by_name or sink.written.left_out)


def _warn_of_results(plan: Plan, objects: Sequence[TrackedObject], sink: Sink) -> None:
    written = sink.written
    for line in (
        *report.left_out_lines(written),
        *report.over_others_lines(written),
        *report.coinciding_lines(objects),
    ):
        logger.warning(line)
    if plan.options.min_score is not None and (refs := report.without_scores(objects)):
        logger.warning(
            "The function gives no confidence for object %s: --min-score leaves nothing out there.",
            ", ".join(refs),
        )


def _how_far(plan: Plan, outcome: Outcome, done: Sequence[int]) -> str:
    said = f"{outcome.done} of {len(plan.frames)} frames are tracked"
    if outcome.run.one_way and not outcome.done:
        return f"{said}, and {report.counted(outcome.run.one_way, 'frame')} in one direction."
    if outcome.pending:
        how_much = "not all of it is" if plan.server else "nothing was"
        return f"{said}, and {how_much} written."
    return said + (" and written." if done else ".")


def _draw(
    plan: Plan,
    objects: Sequence[TrackedObject],
    equipment: Equipment,
    output: Output,
    fps: float,
) -> str | None:
    """Writes the pictures that are asked for; what is wrong with them, else None.

    With sparse keyframes they show what CVAT makes of these.
    """
    if not (output.preview or output.contact_sheet):
        return None
    seeds, frame = [o.seed for o in objects], equipment.picture
    problems = []
    try:
        results = equipment.journal.results([seed.type for seed in seeds])
        if plan.options.sparse is not None:
            tracks = equipment.sink.tracks()
            results = preview.as_cvat_shows(plan.job, seeds, results, tracks)
    except ActionError as error:
        return str(error)
    if output.preview:
        try:
            preview.write_video(output.preview, frame, seeds, results, fps)
        except ActionError as error:
            problems.append(str(error))
    if output.contact_sheet:
        try:
            preview.write_contact_sheet(output.contact_sheet, frame, seeds, results)
        except ActionError as error:
            problems.append(str(error))
    return " ".join(problems) or None


def tell_refusals(plan: Plan) -> None:
    for refusal in plan.refused:
        logger.warning("Object %s is left alone: %s.", refusal.ref, refusal.reason)


def check_pictures(output: Output, given: Mapping[str, Path] | None = None) -> None:
    """Before anything is tracked, so that no hour of work ends with a wrong path.

    given: by option, the files and folders of the run.
    """
    if output.preview:
        preview.check_path(output.preview, ".mp4", given or {})
    if output.contact_sheet:
        preview.check_path(output.contact_sheet, ".png", given or {})
