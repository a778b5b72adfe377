# SPDX-License-Identifier: MIT
"""`track`: read the job, choose the objects, track them, write the result, tell what happened."""

import json
import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cvat_action import journal as journals
from cvat_action import preview, report
from cvat_action.earlier import earlier_results
from cvat_action.errors import ActionError
from cvat_action.functions_command import choose_function
from cvat_action.job import Annotations, Job, Wire, check_range
from cvat_action.journal import Header, Journal, Record
from cvat_action.overlay import Picture
from cvat_action.results import Changes, becomes_track, changes_for
from cvat_action.selection import (
    Refusal,
    Seed,
    select,
    with_corrections,
)
from cvat_action.server import Function, Server, ServerTracker
from cvat_action.tracking import Pace, Run, TrackedObject, track
from cvat_action.upload import changes_to_batches, upload

logger = logging.getLogger(__name__)

INTERRUPTED = 130


@dataclass(frozen=True)
class TrackOptions:
    job: int
    frame: int
    target: int | None = None
    """None: the last frame of the job, with `backward` the first"""
    objects: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    function: str | None = None
    convert: bool = False
    backward: bool = False
    keyframes: bool = False
    leave_open: bool = False
    replace: bool = False
    keep_earlier: bool = False
    dry_run: bool = False
    journal: Path | None = None


@dataclass(frozen=True)
class Output:
    as_json: bool = False
    preview: Path | None = None
    contact_sheet: Path | None = None
    connection: str = ""
    """the options that led to the server, as they were given and with a blank at the end"""


def run_track(server: Server, options: TrackOptions, pace: Pace, output: Output) -> int:
    """The exit code: 0 where every frame was tracked. Raises ActionError."""
    check_pictures(output)
    job = server.job(options.job)
    target = options.target
    if target is None:
        target = job.start_frame if options.backward else job.stop_frame
    check_range(job, options.frame, target, backward=options.backward)
    frames = job.frames_between(options.frame, target)
    if not frames:
        logger.info("Nothing to do: there is no frame to track after frame %d.", options.frame)
        _tell_of_nothing(job, output, {}, dry_run=options.dry_run)
        return 0
    function = choose_function(server, options.function)
    annotations = server.annotations(job.id)
    selection = select(
        job,
        annotations,
        options.frame,
        objects=options.objects,
        labels=options.labels,
        supported=function.usable_types,
    )
    seeds = selection.seeds
    if options.keyframes:
        seeds, warnings = with_corrections(job, annotations, seeds, frames)
        for warning in warnings:
            logger.warning(warning)
    if not seeds:
        reasons = report.refusals_table(job, selection.refused) if selection.refused else ""
        raise ActionError(
            f"There is nothing to track on frame {options.frame} of {job.name}."
            + (f" Left alone:\n{reasons}" if reasons else "")
        )
    earlier = _earlier(job, annotations, seeds, frames, options)
    if any(becomes_track(s, convert=options.convert) for s in seeds) and not server.takes_tracks(
        job
    ):
        raise ActionError(
            f"The task of job {job.id} has a pool of ground truth frames, and CVAT refuses tracks "
            "in such tasks. Track polygons as shapes (without "
            "--convert-polygon-shapes-to-tracks), and leave out tracks with --object."
        )
    header = Header(
        server=server.host,
        job=job.id,
        function=function.id,
        frame=options.frame,
        target=target,
        convert=options.convert,
        leave_open=options.leave_open,
        replace=options.replace,
        keep_earlier=options.keep_earlier,
    )
    if options.dry_run:
        _show_plan(job, function, header, seeds, selection.refused, frames, earlier, output)
        return 0
    for refusal in selection.refused:
        logger.warning("Object %s is left alone: %s.", refusal.ref, refusal.reason)
    path = options.journal or journals.default_path(header)
    session = _Session(server, job, function, header, pace, output, path)
    journal = Journal.begin(path, header, seeds)
    return session.run(seeds, frames, selection.refused, journal)


def resume_track(server: Server, path: Path, pace: Pace, output: Output) -> int:
    """Goes on with a run that broke: first what was tracked is written, then tracking goes on."""
    check_pictures(output)
    record = journals.read(path)
    header = record.header
    if header.server != server.host:
        raise ActionError(f"{path} belongs to {header.server}, not to {server.host}.")
    job = server.job(header.job)
    function = choose_function(server, header.function)
    session = _Session(server, job, function, header, pace, output, path)
    record, written = session.finish_writing(record)
    last = record.done[-1] if record.done else header.frame
    frames = job.frames_between(last, header.target) if last != header.target else []
    seeds = _seeds_to_go_on_with(server.annotations(job.id), record, frames) if frames else []
    if not seeds:
        path.unlink()
        logger.info("Everything is written; nothing is left to track.")
        _tell_of_nothing(job, output, written)
        return 0
    logger.info("Going on after frame %d with %d objects.", last, len(seeds))
    session.header = replace(header, frame=last)
    journal = Journal.begin(path, session.header, seeds, over=True)
    return session.run(seeds, frames, (), journal)


class _Session:
    """One run against one job, with its journal."""

    def __init__(
        self,
        server: Server,
        job: Job,
        function: Function,
        header: Header,
        pace: Pace,
        output: Output,
        path: Path,
    ) -> None:
        self.header = header
        self._server = server
        self._job = job
        self._function = function
        self._pace = pace
        self._output = output
        self._path = path

    def run(
        self,
        seeds: Sequence[Seed],
        frames: Sequence[int],
        refused: Sequence[Refusal],
        journal: Journal,
    ) -> int:
        run = self._track(seeds, frames, journal)
        written: dict[str, int] = {}
        problem = run.broken
        pending = False
        if run.done:
            try:
                written = self._write(run.objects, run.done, journal)
            except ActionError as error:
                problem, pending = str(error), True
            except KeyboardInterrupt:
                problem, pending = "Stopped by Ctrl+C while writing.", True
        can_go_on = pending or (
            problem is not None and bool(run.done) and any(o.live for o in run.objects)
        )
        resume = (
            f"python -m cvat_action {self._output.connection}track "
            f"--resume {shlex.quote(str(self._path))}"
        )
        if can_go_on:
            journal.close()
        else:
            journal.remove()
        try:
            self._tell(run, refused, written, problem, resume if can_go_on else None)
        except ActionError as error:
            problem = f"{problem} {error}" if problem else str(error)
        if problem is None:
            return 0
        done = f" {len(run.done)} of {len(frames)} frames are tracked"
        done += (
            ", and not all of it is written." if pending else " and written." if run.done else "."
        )
        logger.critical("%s%s%s", problem, done, f" Go on with: {resume}" if can_go_on else "")
        return INTERRUPTED if run.interrupted else 1

    def finish_writing(self, record: Record) -> tuple[Record, dict[str, int]]:
        """Writes what a cut-off run has tracked and not written.

        Gives the record with the new ids, and how much of what was written.
        """
        written: Counter[str] = Counter()
        journal = Journal.append(self._path, record)
        try:
            if record.batches is not None:
                upload(
                    self._server,
                    self._job.id,
                    record.batches,
                    journal,
                    first=record.written,
                    first_unsure=record.sent > record.written,
                    repeats=self._pace.repeats,
                    first_wait=self._pace.first_wait,
                )
                for batch in record.batches[record.written :]:
                    written[f"{batch.kind}_{batch.action}d"] += len(batch.objects)
            elif record.done:
                written.update(self._write(record.objects, record.done, journal))
        finally:
            journal.close()
        return journals.read(self._path), dict(written)

    def _track(self, seeds: Sequence[Seed], frames: Sequence[int], journal: Journal) -> Run:
        tracker = ServerTracker(self._server, self._job, self._function)
        with (
            logging_redirect_tqdm(),
            tqdm(total=len(frames), desc="tracking", unit="frame", disable=None) as bar,
        ):

            def on_frame(frame: int, objects: Sequence[TrackedObject]) -> None:
                journal.frame(frame, objects)
                bar.update()
                bar.set_postfix({"frame": frame, **count_objects(frame, objects)})

            return track(tracker, self._job, seeds, frames, pace=self._pace, on_frame=on_frame)

    def _write(
        self, objects: Sequence[TrackedObject], done: Sequence[int], journal: Journal
    ) -> dict[str, int]:
        fresh = self._server.annotations(self._job.id)
        objects = _as_in_cvat_now(objects, fresh)
        replaced: list[Wire] = []
        if self.header.replace:
            seeds = [o.seed for o in objects]
            replaced = earlier_results(self._job, fresh, seeds, done)
        changes = changes_for(
            self._job,
            objects,
            convert=self.header.convert,
            leave_open=self.header.leave_open,
            replaced=replaced,
        )
        there = {s["id"] for s in fresh.shapes}
        changes = replace(
            changes, delete_shapes=tuple(s for s in changes.delete_shapes if s["id"] in there)
        )
        converted = [
            o.seed.ref
            for o in objects
            if not o.seed.is_track
            and becomes_track(o.seed, convert=self.header.convert)
            and any(not t.by_hand for t in o.frames.values())
        ]
        batches = changes_to_batches(changes)
        journal.changes(batches, converted)
        upload(
            self._server,
            self._job.id,
            batches,
            journal,
            repeats=self._pace.repeats,
            first_wait=self._pace.first_wait,
        )
        return count_changes(changes)

    def _tell(
        self,
        run: Run,
        refused: Sequence[Refusal],
        written: dict[str, int],
        problem: str | None,
        resume: str | None,
    ) -> None:
        def frame(number: int) -> Picture:
            data = self._server.frame(self._job.id, number)
            return preview.decode_picture(data, number, self._job.size(number))

        if run.done:
            if self._output.preview:
                preview.write_video(self._output.preview, frame, run.objects)
            if self._output.contact_sheet:
                preview.write_contact_sheet(self._output.contact_sheet, frame, run.objects)
        if self._output.as_json:
            told = replace(run, broken=problem)
            result = report.run_as_json(self._job, told, refused, written, resume)
            print(json.dumps(result, indent=2))
        elif run.done:
            print(report.summary_table(report.summary(self._job, run.objects)))
            if written:
                print(f"written: {_counts_as_text(written)}")


def _tell_of_nothing(
    job: Job, output: Output, written: dict[str, int], *, dry_run: bool = False
) -> None:
    if output.as_json:
        told = report.run_as_json(job, Run((), ()), (), written, None)
        print(json.dumps({**told, "dry_run": True} if dry_run else told, indent=2))
    elif written:
        print(f"written: {_counts_as_text(written)}")


def count_objects(frame: int, objects: Sequence[TrackedObject]) -> dict[str, int]:
    """For the progress bar."""
    here = [o.frames[frame] for o in objects if frame in o.frames]
    return {"objects": sum(o.live for o in objects), "lost": sum(t.points is None for t in here)}


def count_changes(changes: Changes) -> dict[str, int]:
    counts = {
        "shapes_created": len(changes.create_shapes),
        "tracks_created": len(changes.create_tracks),
        "tracks_updated": len(changes.update_tracks),
        "shapes_deleted": len(changes.delete_shapes),
    }
    return {name: n for name, n in counts.items() if n}


def _counts_as_text(counts: dict[str, int]) -> str:
    parts = []
    for name, n in counts.items():
        what, done = name.split("_")
        parts.append(f"{n} {what.removesuffix('s') if n == 1 else what} {done}")
    return ", ".join(parts)


def _earlier(
    job: Job,
    annotations: Annotations,
    seeds: Sequence[Seed],
    frames: Sequence[int],
    options: TrackOptions,
) -> list[Wire]:
    """The earlier run's shapes that will be replaced. Raises ActionError where they may not be."""
    if options.keep_earlier:
        return []
    earlier = earlier_results(job, annotations, seeds, frames)
    if earlier and not options.replace:
        on = sorted({s["frame"] for s in earlier})
        raise ActionError(
            f"{len(earlier)} shapes on frames {on[0]} to {on[-1]} look like an earlier run's (same "
            "label, type and group, made automatically). --replace replaces them; --keep-earlier "
            "writes beside them."
        )
    return earlier


def _as_in_cvat_now(objects: Sequence[TrackedObject], fresh: Annotations) -> list[TrackedObject]:
    """The objects with what others may have changed in them while they were tracked."""
    tracks = {t["id"]: t for t in fresh.tracks}
    shapes = {s["id"]: s for s in fresh.shapes}
    there = []
    for o in objects:
        wire = (tracks if o.seed.is_track else shapes).get(o.seed.wire["id"])
        if wire is not None:
            corrections = tuple(
                replace(c, shape=shapes.get(c.shape["id"]) if c.shape else None)
                for c in o.seed.corrections
            )
            seed = replace(o.seed, wire=wire, corrections=corrections)
            there.append(TrackedObject(seed, o.frames, o.stopped))
        elif o.seed.is_track:
            o.stopped = "deleted in CVAT while it was tracked"
            logger.warning("Object %s: %s", o.seed.ref, o.stopped)
        else:
            there.append(o)
    return there


def _seeds_to_go_on_with(
    annotations: Annotations, record: Record, frames: Sequence[int]
) -> list[Seed]:
    tracks = {t["id"]: t for t in annotations.tracks}
    created = dict(zip(record.converted, record.track_ids, strict=True))
    seeds = []
    for o in record.objects:
        if not o.live:
            continue
        wire = o.seed.wire
        if o.seed.is_track or o.seed.ref in created:
            number = created.get(o.seed.ref, wire.get("id"))
            if number not in tracks:
                logger.warning("Object %s is no longer in CVAT; it is left out.", o.seed.ref)
                continue
            wire = tracks[number]
        frame, points = o.last_good
        seeds.append(
            replace(
                o.seed,
                ref=f"track:{wire['id']}" if "shapes" in wire else o.seed.ref,
                frame=frame,
                points=points,
                wire=wire,
                corrections=tuple(c for c in o.seed.corrections if c.frame in frames),
                asleep=o.asleep,
            )
        )
    return seeds


def _show_plan(
    job: Job,
    function: Function,
    header: Header,
    seeds: Sequence[Seed],
    refused: Sequence[Refusal],
    frames: Sequence[int],
    earlier: Sequence[Wire],
    output: Output,
) -> None:
    plan: list[dict[str, Any]] = []
    for s in seeds:
        if s.is_track:
            becomes = "keyframes of this track"
        elif becomes_track(s, convert=header.convert):
            becomes = "a new track; the shape is deleted"
        else:
            becomes = f"a {s.type} shape per frame"
        plan.append(
            {
                "object": s.ref,
                "label": job.label(s.label_id).name,
                "type": s.type,
                "becomes": becomes,
                "corrected_on": [c.frame for c in s.corrections],
            }
        )
    low, high = min(header.frame, header.target), max(header.frame, header.target)
    skipped = sorted(f for f in job.deleted_frames if low <= f <= high)
    if output.as_json:
        left = [
            {"object": r.ref, "label": job.label(r.label_id).name, "reason": r.reason}
            for r in refused
        ]
        content = {
            "dry_run": True,
            "job": job.id,
            "function": function.id,
            "frames": list(frames),
            "deleted_frames_skipped": skipped,
            "objects": plan,
            "left_alone": left,
            "shapes_replaced": len(earlier),
        }
        print(json.dumps(content, indent=2))
        return
    print(
        f"Job {job.id}, {function.id}: from frame {header.frame} to {header.target}, "
        f"{len(frames)} frames" + (f" (deleted ones skipped: {skipped})" if skipped else "")
    )
    rows = [("object", "label", "type", "becomes", "")]
    for p in plan:
        frames_of = ", ".join(map(str, p["corrected_on"]))
        corrected = f"corrected on {frames_of}" if frames_of else ""
        rows.append((p["object"], p["label"], p["type"], p["becomes"], corrected))
    print(report.table(rows))
    if refused:
        print("left alone:\n" + report.refusals_table(job, refused))
    if earlier:
        print(f"replaced: {len(earlier)} shapes of an earlier run")
    print("Nothing was tracked or written (--dry-run).")


def check_pictures(output: Output) -> None:
    """Before anything is tracked, so that no hour of work ends with a wrong path."""
    if output.preview:
        preview.check_suffix(output.preview, ".mp4")
    if output.contact_sheet:
        preview.check_suffix(output.contact_sheet, ".png")
