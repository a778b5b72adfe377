# SPDX-License-Identifier: MIT
"""The memory of a run without a server, which went with the process that held it, built up again.

The frames that are done are tracked once more, with the same objects and the same drawings. Only
the states count that come out of it: results that are there stay as they are.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tqdm import tqdm

from cvat_action.calls import Pace, Tracker
from cvat_action.plan import Plan
from cvat_action.report import counted
from cvat_action.run import Progress
from cvat_action.tracked import TrackedObject
from cvat_action.tracking import Run, StepCorrection, track

logger = logging.getLogger(__name__)


def rebuild(
    plan: Plan,
    tracker: Tracker,
    objects: Sequence[TrackedObject],
    done: Sequence[int],
    drawn: Mapping[int, Sequence[StepCorrection]],
    pace: Pace,
) -> Run | None:
    """Gives the objects their states after the last frame that is done.

    drawn: by frame, what a person drew while stepping. Returns the run if tracking again breaks,
    else None.
    """
    # The gaps of --both-ways begin at drawings, which are started anew in any case.
    gaps = plan.options.both_ways and tracker.joins
    followed = [o for o in objects if o.seed.found or not gaps]
    if not any(o.live for o in followed):
        return None
    logger.info(
        "The tracker's memory was lost when the last run ended. %s tracked again to rebuild it; "
        "the results there do not change.",
        counted(len(done), "frame") + (" is" if len(done) == 1 else " are"),
    )
    place = {frame: number for number, frame in enumerate(done, 1)}
    again = [TrackedObject(o.seed, tuning=o.tuning) for o in followed]
    entered: dict[int, list[TrackedObject]] = {}
    for o in again:
        if o.seed.found and o.seed.frame in place:
            entered.setdefault(o.seed.frame, []).append(o)
    first = [o for o in again if not (o.seed.found and o.seed.frame in place)]
    with tqdm(total=len(done), desc="tracking again", unit="frame", disable=None) as bar:
        progress = Progress(len(done), bar)

        def keep(frame: int) -> None:
            for o in again:
                o.frames.clear()
            progress.tell(frame, place[frame], first)

        run = track(
            tracker,
            plan.job,
            first,
            done,
            pace=pace,
            on_frame=lambda frame, _: drawn.get(frame, ()),
            enter=lambda frame, _: entered.get(frame, []),
            keep=keep,
        )
    if run.broken:  # what was in the way may be put right
        return replace(run, objects=tuple(objects), done=(), resumable=True)
    for o, each in zip(followed, again, strict=True):
        o.state = each.state if each.live else None
    return None
