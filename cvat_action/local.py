# SPDX-License-Identifier: MIT
"""`local`: the same action on a video file and an annotation file, without a server."""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvat_action import journal as journals
from cvat_action import own_files
from cvat_action.calls import Pace
from cvat_action.commands import Output, check_pictures, finish, go, tell_refusals
from cvat_action.detectors import file_detector, only_label
from cvat_action.errors import ActionError
from cvat_action.file_sink import FileSink, extent_of
from cvat_action.formats import check_output, read_document, read_results, write_document
from cvat_action.formats.document import Document, local_job
from cvat_action.job import Job, check_range
from cvat_action.journal import Journal
from cvat_action.local_tracker import Load, LocalEverything, LocalTracker, load_tracker
from cvat_action.media import Media, open_media
from cvat_action.newcomers import Finder, first_ones
from cvat_action.plan import Options, Plan, make_plan, target_of
from cvat_action.plan_record import plan_as_json, plan_from_json
from cvat_action.preview import check_apart, check_place
from cvat_action.program import to_discard, to_resume
from cvat_action.run import Equipment
from cvat_action.snapshot import annotations_to_snapshot
from cvat_action.stepper import Stepper, step_picture
from sam2_tracker.everything import words_to_everything

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """What a run without a server reads and writes, and how."""

    video: Path
    annotations: Path
    out: Path
    model: str | None = None
    step: bool = False

    @property
    def in_place(self) -> bool:
        """The annotations are written into the file that they are read from."""
        return os.path.realpath(self.out) == os.path.realpath(self.annotations)


@dataclass(frozen=True)
class Opened:
    """The files of a run, read, and the tracker for them."""

    files: Files
    media: Media
    document: Document
    job: Job
    load: Load
    """gives the tracker"""
    out_before: str | None
    """digest of what lay at the place of the output"""


def run_local(
    files: Files, frame: int | None, options: Options, pace: Pace, output: Output,
    *, path: Path | None = None, dry_run: bool = False,
) -> int:  # fmt: skip
    """The exit code. Raises ActionError.

    frame: None: the first annotated frame, tracking backwards the last.
    """
    _check_paths(files, path, output)
    with _loaded_when_asked(files.model) as load:
        opened = _open(files, load, dry_run=dry_run)
        if frame is None:
            frame = _first_frame(opened, options)
        options = replace(options, frame=frame)
        path = path or _default_path(files, frame, target_of(opened.job, options))
        if path.exists() and not dry_run:
            raise journals.in_the_way(path, "", output.command)
        return _begin(opened, options, pace, output, path, dry_run=dry_run)


def _check_paths(files: Files, journal: Path | None, output: Output) -> None:
    """Raises ActionError where one file of the run would be written over another one.

    journal: None: it lies in the state folder, or is there already.
    """
    check_output(files.out)
    given = {"--video": files.video, "--annotations": files.annotations, "--out": files.out}
    if journal:
        check_apart(journal, {"--out": files.out})
        given["--journal"] = journal
    if files.step:
        picture = step_picture(files.out)
        check_place(picture, given)
        given["--step"] = picture
    check_pictures(output, given)


def _begin(
    opened: Opened, options: Options, pace: Pace, output: Output, path: Path, *, dry_run: bool
) -> int:
    job, load = opened.job, opened.load
    target = target_of(job, options)
    check_range(job, options.frame, target, backward=options.backward)
    if not job.frames_between(options.frame, target):
        raise ActionError(_no_frame(opened, options))
    snapshot = annotations_to_snapshot(opened.document.annotations)
    finder = _finder(opened, options)
    new = first_ones(
        finder, lambda: LocalTracker(load(), opened.media), job, snapshot, options, pace
    )
    plan = make_plan(job, snapshot, options, newcomers=new)
    for warning in plan.warnings:
        logger.warning(warning)
    held = extent_of(plan, (options.frame, target))
    lost = None if opened.files.in_place else own_files.lost_results(opened.files.out, held)
    question = plan.question or lost
    if dry_run:
        output.show(replace(plan, question=question))
        return 0
    if question:
        raise ActionError(question)
    tell_refusals(plan)
    load()  # a model that is not there leaves no journal behind
    journal = Journal.begin(path, {**plan_as_json(plan), "files": _files_as_json(opened.files)})
    return _run(opened, plan, journal, None, pace, output, finder)


def _no_frame(opened: Opened, options: Options) -> str:
    where = "before" if options.backward else "after"
    only = len(opened.media.frame_names) == 1
    why = f" Only one frame could be read from {opened.files.video}." if only else ""
    return f"There is no frame to track {where} frame {options.frame}.{why}"


@contextlib.contextmanager
def _loaded_when_asked(model: str | None) -> Iterator[Load]:
    """Gives the tracker, which is loaded the first time: many a command ends before it tracks."""
    load = functools.cache(lambda: load_tracker(model))
    try:
        yield load
    finally:
        if load.cache_info().currsize:
            load().close()


def _finder(opened: Opened, options: Options) -> Finder | None:
    """What says which objects are new. Raises ActionError where it cannot be used."""
    job, media = opened.job, opened.media
    if options.everything is not None:
        label_id = only_label(job, options)
        wanted = words_to_everything([options.everything])
        return LocalEverything(opened.load(), media, job, label_id, wanted)
    if options.detect is None:
        return None
    results = read_results(Path(options.detect), opened.document, media)
    return file_detector(options.detect, results, job, options)


def resume_local(path: Path, pace: Pace, output: Output) -> int:
    """Goes on with a run that broke, from the same files."""
    journal, record = Journal.go_on(path)
    try:
        if server := record.plan.get("server"):
            raise ActionError(
                f"{path} belongs to a run on a server. Go on with it: "
                f"{to_resume(path, str(server))}"
            )
        with journals.sound(path):
            said = dict(record.plan["files"])
            sha256 = said.pop("sha256")
            files = Files(**{**said, **{k: Path(said[k]) for k in ("video", "annotations", "out")}})
        _check_paths(files, None, output)
        record.states = [None] * len(record.states)  # they went with the process
        with _loaded_when_asked(files.model) as load:
            opened = _open(files, load)
            if sha256 != own_files.digest(files.annotations):
                raise ActionError(
                    f"{files.annotations} is not as it was when this run began, so the run cannot "
                    f"go on. Put it back, or drop the run: {to_discard(path)}."
                )
            with journals.sound(path):
                plan = plan_from_json(record.plan, opened.job)
            finder = _finder(opened, plan.options)
            return _run(opened, plan, journal, record, pace, output, finder)
    finally:
        journal.close()


def _open(files: Files, load: Load, *, dry_run: bool = False) -> Opened:
    """Reads the files, and writes the unchanged document once as a trial, to nowhere.

    So a document that cannot be written is known now, not after an hour of tracking.
    """
    if not (files.in_place or dry_run):
        own_files.check_ours(files.out)
    out_before = own_files.digest(files.out)
    document, media = read_document(files.annotations, open_media(files.video))
    _warn_of_what_is_left_out(document, files.out)
    write_document(files.out, document, media, dry=True)
    return Opened(files, media, document, local_job(document, media), load, out_before)


def _run(
    opened: Opened,
    plan: Plan,
    journal: Journal,
    record: journals.Record | None,
    pace: Pace,
    output: Output,
    finder: Finder | None,
) -> int:
    media, out = opened.media, opened.files.out
    sink = FileSink(
        opened.document, plan, media, out, in_place=opened.files.in_place, before=opened.out_before
    )
    ask = Stepper(plan.job, media, out).ask if opened.files.step else None
    tracker = LocalTracker(opened.load(), media)
    equipment = Equipment(tracker, sink, journal, pace, media.picture, ask)
    outcome, objects, done = go(plan, equipment, record, finder)
    return finish(plan, equipment, outcome, objects, done, output, fps=media.fps, out=out)


def _default_path(files: Files, frame: int, target: int) -> Path:
    name = journals.name_of_path(files.out)
    return journals.folder() / f"local-{name}-frame-{frame}-to-{target}.jsonl"


def _files_as_json(files: Files) -> dict[str, Any]:
    return {
        "video": str(files.video.resolve()),
        "annotations": str(files.annotations.resolve()),
        "out": str(files.out.resolve()),
        "sha256": own_files.digest(files.annotations),
        "model": files.model,
        "step": files.step,
    }


def _first_frame(opened: Opened, options: Options) -> int:
    annotations = opened.document.annotations
    annotated = [s["frame"] for s in annotations.shapes]
    annotated += [k["frame"] for t in annotations.tracks for k in t["shapes"] if not k["outside"]]
    if not annotated and options.finds:
        job = opened.job
        shown = job.frames_between(job.start_frame - 1, job.stop_frame)
        return shown[-1] if options.backward else shown[0]
    if not annotated:
        raise ActionError(f"There is no object to track in {opened.files.annotations}.")
    return max(annotated) if options.backward else min(annotated)


def _warn_of_what_is_left_out(document: Document, out: Path) -> None:
    target = "coco" if out.suffix.lower() == ".json" else "cvat"
    if document.untouched and target != document.format:
        logger.warning(
            "%d objects of other kinds are not written: they have no form in %s.",
            len(document.untouched),
            out.suffix,
        )
