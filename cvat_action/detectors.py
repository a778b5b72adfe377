# SPDX-License-Identifier: MIT
"""Where detections come from: another function of the same CVAT, or a file."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvat_action.calls import Cure, Pace, Patience
from cvat_action.detections import Detection, Reader
from cvat_action.errors import ActionError
from cvat_action.formats.coco_detections import Result
from cvat_action.job import Job, Wire
from cvat_action.plan import Options
from cvat_action.server import Function, HttpFailure, Server
from cvat_action.server_tracker import call_failure

logger = logging.getLogger(__name__)

MOST_SAID = 500
OUR_INTERACTOR = "pth-facebookresearch-sam2-interactor"
"""the id under which this project's function-interactor.yaml deploys it"""


@dataclass(frozen=True)
class ServerDetector:
    """The `Finder` behind `POST /api/lambda/functions/<id>`; see "What a detector finds" in
    docs/action.md."""

    server: Server
    job: Job
    function: Function
    supported: Collection[str]
    """shape types that the tracker takes"""
    question: Wire
    """what is asked besides the frame"""
    label_id: int | None
    """of what is found, where the function knows no labels"""
    pace: Pace

    @property
    def name(self) -> str:
        return self.function.id

    def find(self, frame: int) -> list[Detection]:
        """Raises ActionError."""
        reader = Reader(self.job, frame, self.supported)
        of_interactor = self.function.kind == "interactor"
        answer = self._ask(frame)
        try:
            found = reader.read(answer, label_id=self.label_id, says_score=of_interactor)
        except ActionError as error:
            raise ActionError(f"Function {self.name} cannot be used: {error}.") from None
        tell_left_out(reader, frame, self.name)
        tell_message(frame, self.name, answer.get("message"))
        return found

    def _ask(self, frame: int) -> Any:
        body = {
            "job": self.job.id, "task": self.job.task_id, "frame": frame, **self.question,
        }  # fmt: skip
        patience = Patience(self.pace)
        while True:
            try:
                return self.server.call_function(self.function.id, body)
            except HttpFailure as failure:
                wrong = call_failure(failure, self.function.id)
                helps = wrong.cure in (Cure.REPEAT, Cure.FEWER)
                if not helps or not patience.waits(wrong):
                    raise ActionError(self._sentence(frame, failure, str(wrong))) from None

    def _sentence(self, frame: int, failure: HttpFailure, why: str) -> str:
        if failure.status == 500:
            why = (
                f"{why} Or its answer is not as CVAT takes a detector's: CVAT's log says so "
                "(docker logs cvat_server)."
            )
        elif failure.status == 413 and self.function.kind == "interactor":
            why = (
                "It would take longer than the function's time budget (SAM2_TIME_BUDGET_SECONDS), "
                "or the image is larger than it takes (413); the function's log says which. For "
                "--everything ask for fewer clicks: --everything points_per_side=16."
            )
        elif failure.status and 400 <= failure.status < 500 and failure.status != 404:
            why = str(failure)
        return f"Nothing was found on frame {frame}, because {self.name} could not be asked. {why}"


@dataclass(frozen=True)
class FileDetector:
    """The `Finder` of results in a file."""

    name: str
    job: Job
    on_frame: Mapping[int, Sequence[tuple[int, Result]]]
    """label id and result, by frame"""

    def find(self, frame: int) -> list[Detection]:
        reader = Reader(self.job, frame)
        found = [
            reader.shape(label_id, each.type, each.points, each.score)
            for label_id, each in self.on_frame.get(frame, ())
        ]
        tell_left_out(reader, frame, self.name)
        return [each for each in found if each]


def file_detector(name: str, results: Sequence[Result], job: Job, options: Options) -> FileDetector:
    """The results that the options ask for. Raises ActionError where no label is the job's."""
    mapping = mapped_labels({each.label for each in results}, job, options.mapping)
    ids = {name: job.label_named(name).id for name in set(mapping.values())}
    least = options.threshold or 0.0
    on_frame: dict[int, list[tuple[int, Result]]] = {}
    for each in results:
        sure = each.score is None or each.score >= least
        if sure and each.label in mapping:
            on_frame.setdefault(each.frame, []).append((ids[mapping[each.label]], each))
    return FileDetector(Path(name).name, job, on_frame)


def tell_left_out(reader: Reader, frame: int, name: str) -> None:
    if reader.left_out:
        logger.warning("Frame %d: left out of what %s found: %s.", frame, name, reader.left_out)


def tell_message(frame: int, name: str, message: Any) -> None:
    """What a function says to the person who asked, as our interactor does where it finds none."""
    if message and isinstance(message, str):
        logger.warning("Frame %d: %s says: %s", frame, name, message[:MOST_SAID])


def server_detector(
    server: Server, job: Job, options: Options, supported: Collection[str], pace: Pace
) -> ServerDetector:
    """The function that finds objects. Raises ActionError where it cannot be used."""
    listed = server.functions()
    wanted = options.detect or OUR_INTERACTOR
    function = next((f for f in listed if f.id == wanted), None)
    if function is None and options.detect is None:
        raise ActionError(
            f"{server.host} has no function {wanted}, which --everything asks; deploy it with "
            "--interactor, or name it with --detect."
        )
    if function is None:
        known = ", ".join(f.id for f in listed if f.kind == "detector") or "none"
        raise ActionError(f"{server.host} has no function {wanted!r}. Its detectors: {known}.")
    question: Wire = {}
    label_id = None
    if options.threshold is not None:
        question["threshold"] = options.threshold
    texts = options.texts or ((options.everything,) if options.everything else ())
    if texts:
        if function.kind != "interactor":
            raise ActionError(
                f"{function.id} takes no text: it is a {function.kind}, and CVAT hands text on to "
                "interactors only."
            )
        label_id = only_label(job, options)
        question |= {"pos_points": [], "neg_points": [], "text_prompts": list(texts)}
    elif function.kind != "detector":
        raise ActionError(
            f"{function.id} is not a detector, but {_a(function.kind)}."
            + (
                " It finds objects by --text, if it takes any."
                if function.kind == "interactor"
                else ""
            )
        )
    else:
        question["mapping"] = _mapping(function, job, options.mapping)
    return ServerDetector(server, job, function, supported, question, label_id, pace)


def only_label(job: Job, options: Options) -> int:
    """The label that objects get whose finder knows none. Raises ActionError."""
    if not options.labels and len(job.labels) == 1:
        return job.labels[0].id
    if len(options.labels) != 1:
        names = ", ".join(label.name for label in job.labels)
        raise ActionError(f"Say with one --label which label what is found gets: {names}.")
    return job.label_named(options.labels[0]).id


def mapped_labels(known: Collection[str], job: Job, pairs: Collection[str]) -> Mapping[str, str]:
    """Label of the detector to label of the job: `pairs` (`MODEL=LABEL`), or else equal names.

    known: the detector's labels; empty: it does not say. Raises ActionError.
    """
    ours = [label.name for label in job.labels]
    if not pairs:
        same = {name: name for name in known if name in ours}
        if known and not same:
            raise ActionError(
                f"None of the detector's labels ({_some(known)}) is a label of {job.name} "
                f"({_some(ours)}). Say which become which with --map MODEL=LABEL."
            )
        return same
    mapping: dict[str, str] = {}
    for pair in pairs:
        theirs, equals, name = pair.rpartition("=")
        if not equals or not theirs or name not in ours:
            raise ActionError(
                f"--map {pair!r} is not MODEL=LABEL with a label of {job.name}: {_some(ours)}."
            )
        if known and theirs not in known:
            raise ActionError(
                f"--map {pair!r}: the detector has no label {theirs!r}. It has: {_some(known)}."
            )
        mapping[theirs] = name
    return mapping


def _mapping(function: Function, job: Job, pairs: Collection[str]) -> Wire:
    """CVAT's `mapping`; empty: CVAT maps equal names itself, with their attributes."""
    mapping = mapped_labels(function.labels, job, pairs)
    return {theirs: {"name": ours} for theirs, ours in mapping.items()} if pairs else {}


def _some(names: Collection[str]) -> str:
    first = list(names)[:20]
    return ", ".join(first) + (", …" if len(names) > len(first) else "")


def _a(kind: str) -> str:
    return (
        f"an {kind}" if kind[:1] in "aeiou" and kind else f"a {kind or 'function of unknown kind'}"
    )
