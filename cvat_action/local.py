# SPDX-License-Identifier: MIT
"""`local`: the same action on a video file and an annotation file, without a server.

The only place that knows the tracker itself (tracker.py), which runs in this process.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cvat_sdk.masks import encode_mask
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cvat_action import preview, report
from cvat_action.earlier import earlier_results
from cvat_action.errors import ActionError
from cvat_action.formats import check_output, read_document, write_document
from cvat_action.formats.document import Document, changed, local_job
from cvat_action.geometry import bounding_box, points_fault, points_in_image, points_to_bitmap
from cvat_action.job import Annotations, Job, check_range
from cvat_action.media import Media, open_media
from cvat_action.results import changes_for
from cvat_action.selection import (
    Seed,
    Selection,
    select,
    with_corrections,
)
from cvat_action.track_command import Output, check_pictures, count_changes, count_objects
from cvat_action.tracking import (
    Answer,
    CallFailed,
    Corrected,
    Cure,
    Pace,
    StopTracking,
    TrackedObject,
    track,
)
from sam2_tracker.errors import (
    AllObjectsFailed,
    ConfigurationError,
    OutOfMemory,
    RequestError,
    StoreUnavailable,
    TooLarge,
)
from sam2_tracker.protocol import Seed as StartSeed
from sam2_tracker.protocol import Token, TrackRequest
from sam2_tracker.settings import settings_from_environment, with_model
from tracker import Tracker, build_tracker

logger = logging.getLogger(__name__)

MICRO_MODEL = "sam2.1_hiera_micro"


@dataclass(frozen=True)
class LocalOptions:
    video: Path
    annotations: Path
    out: Path
    frame: int | None = None
    """None: the first annotated frame, with `backward` the last"""
    target: int | None = None
    objects: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    model: str | None = None
    convert: bool = False
    backward: bool = False
    keyframes: bool = False
    leave_open: bool = False
    replace: bool = False
    step: bool = False


def run_local(options: LocalOptions, pace: Pace, output: Output) -> int:
    """The exit code: 0 where every frame was tracked, or a person stopped. Raises ActionError."""
    check_output(options.out)
    check_pictures(output)
    media = open_media(options.video)
    document = read_document(options.annotations, media)
    job = local_job(document, media)
    frame, frames = _frames(job, document.annotations, options)
    selection = select(
        job, document.annotations, frame, objects=options.objects, labels=options.labels
    )
    seeds = _seeds(job, document.annotations, selection, frame, frames, options)
    tracker = _build_tracker(options.model)
    try:
        stepper = _Stepper(job, media, options.out) if options.step else None
        with (
            logging_redirect_tqdm(),
            tqdm(total=len(frames), desc="tracking", unit="frame", disable=None) as bar,
        ):

            def on_frame(number: int, objects: Sequence[TrackedObject]) -> Sequence[Corrected]:
                bar.update()
                bar.set_postfix({"frame": number, **count_objects(number, objects)})
                return stepper.ask(number, objects) if stepper else ()

            run = track(
                LocalTracker(tracker, media), job, seeds, frames, pace=pace, on_frame=on_frame
            )
    finally:
        tracker.close()
    written: dict[str, int] = {}
    if run.done:
        replaced = (
            earlier_results(job, document.annotations, seeds, run.done) if options.replace else []
        )
        changes = changes_for(
            job,
            run.objects,
            convert=options.convert,
            leave_open=options.leave_open,
            replaced=replaced,
        )
        written = count_changes(changes)
        _warn_of_what_is_left_out(document, options.out)
        write_document(options.out, changed(document, changes), media)
        if output.preview:
            preview.write_video(output.preview, media.picture, run.objects, media.fps)
        if output.contact_sheet:
            preview.write_contact_sheet(output.contact_sheet, media.picture, run.objects)
    if output.as_json:
        told = report.run_as_json(job, run, selection.refused, written, None)
        print(json.dumps({**told, "job": None, "out": str(options.out)}, indent=2))
    elif run.done:
        print(report.summary_table(report.summary(job, run.objects)))
    if run.broken is None:
        return 0
    where = f" {len(run.done)} of {len(frames)} frames are in {options.out}." if run.done else ""
    logger.critical("%s%s", run.broken, where)
    return 130 if run.interrupted else 1


class LocalTracker:
    """The `Tracker` of the frame loop on the tracker itself, without JSON and HTTP between."""

    def __init__(self, tracker: Tracker, media: Media) -> None:
        self._tracker = tracker
        self._media = media

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        seeds = tuple(StartSeed(type=s["type"], points=s["points"]) for s in shapes)
        return self._track(frame, seeds)

    def step(self, frame: int, states: list[Any]) -> Answer:
        return self._track(frame, tuple(Token(id=state) for state in states))

    def _track(self, frame: int, entries: tuple[StartSeed | Token, ...]) -> Answer:
        request = TrackRequest(image=self._media.encoded(frame), entries=entries)
        try:
            answers = self._tracker.track(request)
        except AllObjectsFailed as failure:
            fault = {"code": failure.code, "message": failure.message}
            none: list[Any] = [None] * len(entries)
            return Answer(none, none, none, [fault] * len(entries))
        except RequestError as failure:
            raise CallFailed(_cure(failure), f"{failure.message}") from failure
        return Answer(
            shapes=[
                a.shape
                and {"type": a.shape.type, "points": a.shape.points, "outside": a.shape.outside}
                for a in answers
            ],
            states=[a.token and a.token.id for a in answers],
            scores=[a.score for a in answers],
            errors=[
                {"code": a.error.code, "message": a.error.message} if a.error else None
                for a in answers
            ],
        )


class _Stepper:
    """`--step`: shows every frame and asks what to do."""

    HELP = (
        "Enter: go on.  s: stop here.  r: go on to the end without asking.\n"
        "c OBJECT x,y x,y x,y ...: correct an object with a polygon; two points: with a box.\n"
        "c OBJECT outside: it is not visible, from here until it is corrected again."
    )

    def __init__(self, job: Job, media: Media, out: Path) -> None:
        self._job = job
        self._media = media
        self._picture = out.with_suffix(".step.png")
        self._asking = True
        _say(self.HELP)

    def ask(self, frame: int, objects: Sequence[TrackedObject]) -> list[Corrected]:
        """Raises StopTracking where the person wants no more."""
        corrections: dict[int, Corrected] = {}
        if not self._asking:
            return []
        self._show(frame, objects)
        while True:
            sys.stderr.write(f"frame {frame}> ")
            sys.stderr.flush()
            line = sys.stdin.readline()
            words = line.split()
            if not line or words == ["s"]:
                raise StopTracking(list(corrections.values()))
            if not words:
                return list(corrections.values())
            if words == ["r"]:
                self._asking = False
                return list(corrections.values())
            if words[0] != "c" or len(words) < 3:
                _say(self.HELP)
                continue
            try:
                index = _index_of(words[1], objects)
                points = self._points(words[2:], objects[index].seed, frame)
            except ActionError as error:
                _say(str(error))
                continue
            corrections[index] = Corrected(index, points)
            _say(f"Object {objects[index].seed.ref} is corrected; Enter goes on.")

    def _show(self, frame: int, objects: Sequence[TrackedObject]) -> None:
        rows = [("object", "label", "visible", "confidence")]
        for o in objects:
            t = o.frames.get(frame)
            name = self._job.label(o.seed.label_id).name
            if t is None:
                rows.append((o.seed.ref, name, o.stopped or "-", ""))
            else:
                score = "-" if t.score is None else f"{t.score:.2f}"
                rows.append((o.seed.ref, name, "no" if t.points is None else "yes", score))
        picture = preview.draw(self._media.picture(frame), frame, objects)
        cv2.imwrite(str(self._picture), picture)
        _say(f"{report.table(rows)}\nDrawn in {self._picture}")

    def _points(self, words: Sequence[str], seed: Seed, frame: int) -> tuple[float, ...] | None:
        if list(words) == ["outside"]:
            return None
        try:
            flat = [float(v) for word in words for v in word.split(",", 1)]
        except ValueError:
            raise ActionError("Points are written as x,y x,y x,y.") from None
        width, height = self._job.size(frame)
        kind = "rectangle" if len(words) == 2 else "polygon"
        fault = points_fault(kind, flat, width, height)
        if fault:
            raise ActionError(f"That is {fault}.")
        flat = points_in_image(kind, flat, width, height)
        left, top, right, bottom = bounding_box(kind, flat)
        if seed.type == "rectangle":
            return (left, top, right, bottom)
        if kind == seed.type:
            return tuple(flat)
        if seed.type == "polygon":
            return (left, top, right, top, right, bottom, left, bottom)
        bitmap = points_to_bitmap(kind, flat, width, height)
        if not np.any(bitmap):
            raise ActionError("That covers no pixel of the frame.")
        return tuple(encode_mask(bitmap))


def _frames(job: Job, annotations: Annotations, options: LocalOptions) -> tuple[int, list[int]]:
    annotated = [s["frame"] for s in annotations.shapes]
    annotated += [k["frame"] for t in annotations.tracks for k in t["shapes"] if not k["outside"]]
    if not annotated:
        raise ActionError(f"There is no object to track in {options.annotations}.")
    frame = options.frame
    if frame is None:
        frame = max(annotated) if options.backward else min(annotated)
    target = options.target
    if target is None:
        target = job.start_frame if options.backward else job.stop_frame
    check_range(job, frame, target, backward=options.backward)
    frames = job.frames_between(frame, target)
    if not frames:
        raise ActionError(f"There is no frame to track after frame {frame}.")
    return frame, frames


def _seeds(
    job: Job,
    annotations: Annotations,
    selection: Selection,
    frame: int,
    frames: Sequence[int],
    options: LocalOptions,
) -> tuple[Seed, ...]:
    for refusal in selection.refused:
        logger.warning("Object %s is left alone: %s.", refusal.ref, refusal.reason)
    seeds = selection.seeds
    if not seeds:
        raise ActionError(f"There is nothing to track on frame {frame} of {job.name}.")
    if options.keyframes:
        seeds, warnings = with_corrections(job, annotations, seeds, frames)
        for warning in warnings:
            logger.warning(warning)
    earlier = earlier_results(job, annotations, seeds, frames)
    if earlier and not options.replace:
        raise ActionError(
            f"{len(earlier)} shapes on the frames to track look like an earlier run's; --replace "
            "replaces them."
        )
    return seeds


def _build_tracker(model: str | None) -> Tracker:
    environment = with_model(os.environ, model) if model else dict(os.environ)
    if not environment.get("SAM2_MODEL") and not environment.get("SAM2_CONFIG"):
        environment["SAM2_MODEL"] = MICRO_MODEL
        logger.warning(
            "No --model and no SAM2_MODEL: running the bundled micro model, which is for trying."
        )
    logging.getLogger("sam2").setLevel(logging.WARNING)
    try:
        return build_tracker(settings_from_environment(environment))
    except ConfigurationError as error:
        raise ActionError(error.message) from error


def _cure(failure: RequestError) -> Cure:
    if isinstance(failure, TooLarge):
        return Cure.FEWER_FOR_GOOD
    if isinstance(failure, OutOfMemory):
        return Cure.FEWER
    if isinstance(failure, StoreUnavailable):
        return Cure.REPEAT
    return Cure.NONE


def _warn_of_what_is_left_out(document: Document, out: Path) -> None:
    target = "coco" if out.suffix.lower() == ".json" else "cvat"
    if document.untouched and target != document.format:
        logger.warning(
            "%d objects of other kinds are not written: they have no form in %s.",
            len(document.untouched),
            out.suffix,
        )


def _index_of(name: str, objects: Sequence[TrackedObject]) -> int:
    for index, o in enumerate(objects):
        if o.seed.ref == name:
            return index
    raise ActionError(f"There is no object {name}; there are "
                      f"{', '.join(o.seed.ref for o in objects)}.")  # fmt: skip


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
