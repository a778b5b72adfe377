# SPDX-License-Identifier: MIT
"""An entry of a request on its way through the stages of `tracker.py`: what is known of the object,
and what becomes of it. Nothing here asks the model or the store."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from sam2_tracker.errors import ObjectError, SizeChanged, StateGone, TrackerError
from sam2_tracker.frame_cache import Frame
from sam2_tracker.memory_bank import Observation, adopt_keyframes, correct_bank, start_bank
from sam2_tracker.predictions import FrameFeatures, Prediction, Prompt
from sam2_tracker.protocol import Adoption, Answer, Correction, Entry, Lent, Seed, Token
from sam2_tracker.record_format import Track
from sam2_tracker.search_region import LEAST_SHARE, SearchRegion, Window, follow, window_of
from sam2_tracker.shapes import Box, widen_box
from tracker_state import TrackState, adopt_references

_Frame = Frame[FrameFeatures]


@dataclass(kw_only=True, eq=False)
class RequestObject:
    """One entry of the request on its way through the stages."""

    entry: Entry
    state: TrackState | None = None
    """What is remembered from earlier frames."""
    prompt: Prompt | None = None
    """What was drawn on this frame, ready for the model."""
    box: Box | None = None
    """Around what was drawn on this frame, in pixels of the image."""
    region: SearchRegion | None = None
    """Where it is looked for on this frame; None: on the whole image."""
    new_state: TrackState | None = None
    """What is to be remembered from now on."""
    logits: Tensor | None = None
    """Where the model found it on this frame, if the shape of its answer is made of that."""
    answer: Answer = field(default_factory=Answer)

    @property
    def active(self) -> bool:
        return self.entry is not None and self.answer.error is None

    @property
    def seed(self) -> Seed | None:
        """The shape that was drawn on this frame."""
        entry = self.entry
        return entry if isinstance(entry, Seed) else getattr(entry, "seed", None)

    @property
    def token(self) -> Token | None:
        entry = self.entry
        return entry if isinstance(entry, Token) else getattr(entry, "token", None)

    @property
    def steps(self) -> bool:
        """Whether the model attends to the object's memory on this frame."""
        prompted = isinstance(self.entry, Correction) and self.entry.seed.is_prompt
        return prompted or isinstance(self.entry, Token)

    @property
    def made_type(self) -> str | None:
        """The type of the shape that is made of what the model finds; None: none is made."""
        seed = self.seed
        if seed is None:
            return self.state.track.shape_type if self.steps and self.state else None
        type_ = self.state.track.shape_type if self.state else seed.answer_type
        return type_ if seed.is_prompt and seed.type != type_ else None  # else as it was drawn

    def fail(self, error: ObjectError) -> None:
        self.answer = Answer(error=error)

    @property
    def drawn(self) -> Seed:
        """`seed`, of an object that was drawn on this frame."""
        if self.seed is None:
            raise TrackerError("The object was not drawn on this frame.")
        return self.seed

    @property
    def known(self) -> TrackState:
        """`state`, of an object of which something is remembered."""
        if self.state is None:
            raise TrackerError("Nothing is remembered of the object.")
        return self.state

    @property
    def computed(self) -> TrackState:
        """`new_state`, of an object that was computed on this frame."""
        if self.new_state is None:
            raise TrackerError("The object was not computed on this frame.")
        return self.new_state


def to_object(entry: Entry | ObjectError) -> RequestObject:
    """entry: what the protocol read at one index of the request, or why it could not be read."""
    if isinstance(entry, ObjectError):
        return RequestObject(entry=None, answer=Answer(error=entry))
    return RequestObject(entry=entry)


def restore(objects: Sequence[RequestObject], states: list[TrackState | StateGone]) -> None:
    """Give objects with tokens what is remembered of them. states: one for each such object."""
    waiting = [each for each in objects if each.active and each.token]
    for each, state in zip(waiting, states, strict=True):
        if isinstance(state, TrackState):
            each.state = state
        elif not isinstance(each.entry, Lent):  # a lent state: its adopter fails (`adopt`)
            each.fail(state)


def adopt(objects: Sequence[RequestObject]) -> None:
    """Objects that take over the drawn frames of others. No model work."""
    for each in objects:
        if not isinstance(each.entry, Adoption) or each.state is None:
            continue
        others = [(n, objects[n].state, distance) for n, distance in each.entry.keyframes]
        try:
            each.new_state = _adopted(each.state, others)
        except ObjectError as error:
            each.fail(error)


def _adopted(own: TrackState, others: Sequence[tuple[int, TrackState | None, int]]) -> TrackState:
    """others: index in the request, state and distance of each.

    Raises StateGone, SizeChanged, TooManyKeyframes.
    """
    known = [(state, distance) for _, state, distance in others if state is not None]
    if len(known) < len(others):
        gone = ", ".join(str(index) for index, state, _ in others if state is None)
        raise StateGone(
            f"Of this object's keyframes those at index {gone} are not known any more; start them "
            "again from their shapes."
        )
    sizes = {(state.track.width, state.track.height) for state, _ in known}
    if sizes != {(own.track.width, own.track.height)}:
        raise SizeChanged(
            "The keyframes of this object lie on images of other sizes. Adopt only those that lie "
            "on images of this object's own size."
        )
    bank = adopt_keyframes(own.bank, [(state.bank, distance) for state, distance in known])
    return adopt_references(own, bank, *(state for state, _ in known))


def check_sizes(objects: Sequence[RequestObject], frame: _Frame) -> None:
    """Fail the objects that are remembered from images of another size."""
    for each in objects:
        # What is adopted or lent does not look at this image.
        if each.state is None or isinstance(each.entry, Adoption | Lent):
            continue
        track = each.state.track
        if (track.width, track.height) != (frame.width, frame.height):
            each.fail(
                SizeChanged(
                    "Image sizes of the start frame and the current frame are different: "
                    f"{track.width} x {track.height}, {frame.width} x {frame.height}. Start the "
                    "object anew on this frame."
                )
            )


def by_window(objects: Sequence[RequestObject], frame: _Frame) -> dict[Window, list[RequestObject]]:
    """The objects by the part of the image in which they are looked for, in order."""
    groups: dict[Window, list[RequestObject]] = {}
    for each in objects:
        window = window_of(each.region, width=frame.width, height=frame.height)
        groups.setdefault(window, []).append(each)
    return groups


def observation_of(each: RequestObject, found: Prediction) -> Observation:
    """What was found, with an area that does not depend on the size of the window."""
    if each.region is None:
        return found.seen
    scale = (each.region.share / LEAST_SHARE) ** 2  # at least 1: no mask has an area of 0
    return replace(found.seen, area=round(found.seen.area * scale))


def prompted_state(
    each: RequestObject, seen: Observation, frame: _Frame, policy: str
) -> TrackState:
    """What is remembered of an object that was drawn on this frame."""
    seed = each.drawn
    drawn = start_bank(seed.policy or policy, seen)
    track = Track(
        width=frame.width,
        height=frame.height,
        shape_type=seed.answer_type,
        tolerance=seed.tolerance,
    )
    if each.box is not None:
        # What is answered while the object is lost, if it is never seen again.
        box = widen_box(each.box, width=frame.width, height=frame.height)
        region = each.region
        if region and not each.made_type:  # else it follows what the model found
            region = follow(region, each.box, width=frame.width, height=frame.height)
        track = replace(track, box=box, region=region)
    if each.state is None:
        return TrackState(track=track, bank=drawn)
    distance = each.entry.distance if isinstance(each.entry, Correction) else 0
    bank = correct_bank(each.state.bank, drawn, distance=distance)
    # The object keeps the type in which it is answered.
    tolerance = each.state.track.tolerance if seed.tolerance is None else seed.tolerance
    track = replace(each.state.track, box=track.box, tolerance=tolerance, region=track.region)
    return adopt_references(replace(each.state, track=track), bank)
