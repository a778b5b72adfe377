# SPDX-License-Identifier: MIT
"""One object tracked through one clip by the function's own model code, without store and HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvat_action.both_ways import kept_of
from cvat_action.carrying import Drawing, Estimate, Flow, carry
from model_handler import ModelHandler
from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.mask_logits import logits_to_bitmaps
from sam2_tracker.memory_bank import MemoryBank, adopt_keyframes, correct_bank, start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.object_shapes import cut_prompt, follow_bitmap, place_bitmap
from sam2_tracker.predictions import FrameFeatures, prediction_of
from sam2_tracker.search_region import SearchRegion, Window, start_region, window_of
from sam2_tracker.settings import MIB
from sam2_tracker.shapes import Bitmap, bitmap_to_rectangle
from training.clips import Clip
from training.real_clip import NoClipError, read_real_clip

MOST_FEATURES = 2048 * MIB
Masks = NDArray[np.bool_]
"""bool (frames, height, width) of one object."""


@dataclass
class Found:
    """What tracking found, by frame."""

    masks: dict[int, Bitmap] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    """The answer's score: 0 to 1; 1 where the object was drawn."""


class Followed(NamedTuple):
    """An object between two frames."""

    bank: MemoryBank
    region: SearchRegion | None
    """Where it is looked for next; None: on the whole image."""


class Session:
    """The frames of a clip and the ways to track one object through them."""

    def __init__(
        self, model: ModelHandler, frames: NDArray[np.uint8], policy: str, search_region: float = 0
    ) -> None:
        """frames: uint8 (frames, height, width, 3), RGB. search_region: as the setting."""
        self._model = model
        self._policy = policy
        self._search_region = search_region
        self._frames = frames
        self.count, height, width = frames.shape[:3]
        self._size = {"width": width, "height": height}
        self._features: ByteCache[tuple[int, Window], FrameFeatures] = ByteCache(MOST_FEATURES)
        self._flow = Flow(lambda frame: frames[frame, :, :, ::-1], (width, height))

    def start(self, frame: int, mask: Bitmap) -> Followed:
        region = None
        if self._search_region:
            left, top, right, bottom = bitmap_to_rectangle(mask)
            region = start_region(self._search_region, (left, top, right, bottom), **self._size)
        window = window_of(region, **self._size)
        features = self._encode(frame, window)
        cut = cut_prompt(mask, region) if region else mask
        (result,) = self._model.start(features, [cut], **_size_of(window))
        return Followed(start_bank(self._policy, prediction_of(result).seen), region)

    def anew(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Each drawn frame starts the object anew, up to the next one."""
        found, starts = Found(), sorted(drawn)
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            self._draw(found, start, drawn[start])
            self._follow(found, self.start(start, drawn[start]), range(start + 1, end))
        return found

    def joined(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Tracked once from the first drawn frame; the others join on the way."""
        found, starts = Found(), sorted(drawn)
        followed = self.start(starts[0], drawn[starts[0]])
        self._draw(found, starts[0], drawn[starts[0]])
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            followed = self._follow(found, followed, range(start + 1, end))
            if end in drawn:
                followed = _correct(followed, self.start(end, drawn[end]))
                self._draw(found, end, drawn[end])
        return found

    def both_ways(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Tracked forwards from the first drawn frame and backwards from the last.

        Each end stands on the nearest drawn frames, and those on the way join. In a gap between two
        of them the answer switches once from the forward to the backward result: where the sum of
        the scores is largest.
        """
        starts = sorted(drawn)
        started = {frame: self.start(frame, drawn[frame]) for frame in starts}
        forward = self._sweep(started, range(starts[0], self.count))
        backward = self._sweep(started, range(starts[-1], -1, -1))
        found = Found()
        for frame in starts:
            self._draw(found, frame, drawn[frame])
        for left, right in zip([-1, *starts], [*starts, self.count], strict=True):
            _merge(found, forward, backward, range(left + 1, right))
        return found

    def carried(self, drawn: Mapping[int, Bitmap]) -> Found:
        """Both ways, and then what was drawn is carried to the frames beside it by optical flow."""
        found, starts = self.both_ways(drawn), sorted(drawn)
        drawings = [Drawing(frame, drawn[frame]) for frame in starts]

        def tracked(frame: int) -> Estimate:
            return Estimate(found.masks[frame], found.scores[frame])

        better: dict[int, Estimate] = {}
        for left, right in zip(drawings, [*drawings[1:], None], strict=True):
            gap = range(left.frame + 1, right.frame if right else self.count)
            better |= dict(carry(self._flow, left, right, gap, tracked))
        for frame, estimate in better.items():
            found.masks[frame], found.scores[frame] = estimate.mask, estimate.score
        return found

    def _sweep(self, started: Mapping[int, Followed], frames: range) -> Found:
        """Over frames that begin with a drawn one; started: from the drawn frames."""
        found = Found()
        followed = _adopt(started, frames[0], frames.step)
        for frame in frames[1:]:
            if frame in started:
                followed = _correct(followed, started[frame])
            else:
                followed = self._follow(found, followed, [frame])
        return found

    def _follow(self, found: Found, followed: Followed, frames: Sequence[int]) -> Followed:
        bank, region = followed.bank, followed.region
        for frame in frames:
            window = window_of(region, **self._size)
            (result,) = self._model.step(self._encode(frame, window), [bank])
            prediction = prediction_of(result)
            bank = remember(bank, prediction.seen, self._model.layout)
            (mask,) = logits_to_bitmaps([prediction.logits], **_size_of(window), packed=False)
            found.masks[frame] = place_bitmap(mask, window, **self._size)
            found.scores[frame] = prediction.score
            if region is not None:
                region = follow_bitmap(region, found.masks[frame])
        return Followed(bank, region)

    def _encode(self, frame: int, window: Window) -> FrameFeatures:
        features = self._features.get((frame, window))
        if features is None:
            features = self._model.encode(Image.fromarray(self._frames[frame]).crop(window))
            self._features.put((frame, window), features, features.nbytes)
        return features

    def _draw(self, found: Found, frame: int, mask: Bitmap) -> None:
        found.masks[frame], found.scores[frame] = mask, 1.0


def read_clip(folder: Path) -> Clip:
    """A filmed clip with masks on all frames (`training.real_clip`); its objects count as one.

    Raises NoClipError if the folder is no such clip.
    """
    clip = read_real_clip(folder)
    if len(clip.masks) != len(clip.frames):
        raise NoClipError(f"{folder}: {len(clip.frames) - len(clip.masks)} frames have no mask.")
    masks = [clip.masks[frame].any(0) for frame in range(len(clip.frames))]
    return Clip(clip.frames, np.stack(masks)[:, None])


def _correct(followed: Followed, drawn: Followed) -> Followed:
    return Followed(correct_bank(followed.bank, drawn.bank, distance=1), drawn.region)


def _adopt(started: Mapping[int, Followed], own: int, direction: int) -> Followed:
    """The bank that was drawn on frame `own`, with the nearest others; at most 8 together."""
    others = sorted((frame for frame in started if frame != own), key=lambda f: abs(f - own))[:7]
    lent = [(started[f].bank, (f - own) * direction) for f in others]
    return Followed(adopt_keyframes(started[own].bank, lent), started[own].region)


def _size_of(window: Window) -> dict[str, int]:
    left, top, right, bottom = window
    return {"width": right - left, "height": bottom - top}


def _merge(found: Found, forward: Found, backward: Found, frames: Sequence[int]) -> None:
    ahead, back = ([found.scores.get(f, -1.0) for f in frames] for found in (forward, backward))
    kept = kept_of(ahead, back)
    for number, frame in enumerate(frames):
        source = forward if number < kept else backward
        found.masks[frame], found.scores[frame] = source.masks[frame], source.scores[frame]
