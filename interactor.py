# SPDX-License-Identifier: MIT
"""The flow of one request of CVAT's interactor: clicks on one image to the mask of the object.

CVAT sends all clicks with every request, and the answer depends on the request alone: caches only
save time. SAM 2 refines a mask click by click, each from the logits of the step before, so every
request replays its clicks. CVAT does not say in which order they were made, so their order is a
fixed one: docs/interactor.md, "Click by click".
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from model_handler import NO_MEMORY, ModelHandler, ModelInfo
from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.click_protocol import ClickRequest, Found, request_to_objects
from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import BadShape, ModelFailure, failing_objects
from sam2_tracker.everything import POINTS_PER_BATCH, Everything, box_nms, inclusive_box
from sam2_tracker.frame_cache import Frame, FrameCache
from sam2_tracker.models import model_files
from sam2_tracker.out_of_memory import memory_errors, retry_after_release
from sam2_tracker.predictions import FrameFeatures
from sam2_tracker.settings import MIB, Settings
from sam2_tracker.shapes import Bitmap, bitmap_to_mask
from sam2_tracker.stopwatch import Stopwatch
from sam2_tracker.threads import set_threads
from sam2_tracker.time_budget import Check, TimeBudget

FEWER_BOXES = "send fewer boxes at once"
LOGITS_SHARE = 16
"""One part of this many of the frame cache holds what clicks found, the others hold images."""


@dataclass(frozen=True, kw_only=True)
class InteractorInfo(ModelInfo):
    """What a running interactor is, for GET and for the log at start."""

    store: str
    limits: dict[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mask:
    logits: Tensor
    """float32 (size / 4, size / 4) on the model's device."""
    iou: float
    """As the model predicts it."""


@dataclass(frozen=True)
class _GridMask:
    """One of the three masks of a click of the grid."""

    click: Clicks
    index: int
    iou: float
    box: tuple[int, int, int, int]


class Interactor:
    def __init__(self, model: ModelHandler, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        share = settings.frame_cache_mib * MIB // LOGITS_SHARE
        self._frames: FrameCache[FrameFeatures] = FrameCache(
            settings.frame_cache_mib * MIB - share, max_megapixels=settings.max_image_megapixels
        )
        self.budget = TimeBudget(settings.time_budget_seconds)
        # By the digest of the image and the clicks that led there.
        self._steps: ByteCache[tuple[bytes, Clicks], _Mask] = ByteCache(share)

    def click(self, request: ClickRequest, watch: Stopwatch | None = None) -> list[Found]:
        """The object of each box, or the one that was clicked on.

        Raises RequestError, and of that TooLarge where it takes longer than the time budget.
        """
        watch, check = watch or Stopwatch(), self.budget.begin()
        return retry_after_release(lambda: self._click(request, watch, check), self._release_memory)

    def find_all(
        self, image: bytes, wanted: Everything, watch: Stopwatch | None = None
    ) -> tuple[list[Found], str]:
        """The objects of an image, the surest first; as many as a request may have.

        The text is empty, or says why there are none and what to ask for. Raises as `click`.
        """
        watch, check = watch or Stopwatch(), self.budget.begin()
        return retry_after_release(
            lambda: self._find_all(image, wanted, watch, check), self._release_memory
        )

    def _open(self, image: bytes, watch: Stopwatch) -> Frame[FrameFeatures]:
        watch.image_bytes = len(image)
        with watch.phase("decode"):
            return self._frames.open(image)

    def _click(self, request: ClickRequest, watch: Stopwatch, check: Check) -> list[Found]:
        frame = self._open(request.image, watch)
        found: list[_Mask] = []
        objects = request_to_objects(request, width=frame.width, height=frame.height)
        watch.objects = watch.started = len(objects)
        content = self._encode(frame, watch)
        with watch.phase("start"):
            for index, clicks in enumerate(objects):
                check(len(found), len(objects), "objects are found", FEWER_BOXES)
                with failing_objects([index]):
                    found.append(self._find(frame, content, clicks, check))
        with watch.phase("shapes"):
            bitmaps = self._model.single_bitmaps(
                [each.logits for each in found], width=frame.width, height=frame.height
            )
            answer: list[Found] = []
            for each, bitmap in zip(found, bitmaps, strict=True):
                check(len(answer), len(found), "masks are made", FEWER_BOXES)
                answer.append(_found(bitmap, each.iou))
            return answer

    def warm_up(self) -> None:
        """Runs every part that a click needs, so that no request pays for what happens once."""
        side = 64
        features = self._model.encode(Image.new("RGB", (side, side)), single=True)
        frame = Frame[FrameFeatures](digest=b"", width=side, height=side, content=features)
        middle = (side / 2, side / 2)
        clicks = Clicks(points=(middle, middle), positive=(True, False))
        self._find(frame, features, clicks, self.budget.begin())
        self._steps.clear()

    def info(self) -> InteractorInfo:
        return InteractorInfo(
            **vars(self._model.info()),
            store="none",
            limits={
                "image_megapixels": self._settings.max_image_megapixels,
                "objects": self._settings.max_objects,
                "time_budget_seconds": self._settings.time_budget_seconds,
            },
        )

    def store_answers(self) -> bool:
        """It needs no store."""
        return True

    def device_failed(self) -> bool:
        """Whether only another process can use the GPU again."""
        return self._model.device_failed()

    def close(self) -> None:
        """It holds nothing that outlives it."""

    def _release_memory(self) -> None:
        self._frames.clear()
        self._steps.clear()
        self._model.release_memory()

    def _encode(self, frame: Frame[FrameFeatures], watch: Stopwatch) -> FrameFeatures:
        content = frame.content
        if isinstance(content, Image.Image):
            with watch.phase("encode"):
                content = self._model.encode(content, single=True)
            self._frames.keep(frame, content)
        return content

    def _find_all(
        self, image: bytes, wanted: Everything, watch: Stopwatch, check: Check
    ) -> tuple[list[Found], str]:
        """Only the box of a mask is held until the duplicates are known: the masks of a thousand
        clicks on a large image are gigabytes. Those that stay are computed once more."""
        frame = self._open(image, watch)
        features = self._encode(frame, watch)
        with watch.phase("start"):
            masks, nearest = self._look_everywhere(frame, features, wanted, check)
        kept = box_nms(
            [mask.box for mask in masks], [mask.iou for mask in masks], wanted.box_nms_thresh
        )[: self._settings.max_objects]
        watch.objects = watch.started = len(kept)
        found: list[Found] = []
        with watch.phase("shapes"), failing_objects([0]):
            for mask in (masks[i] for i in kept):
                check(len(found), len(kept), "masks are made", wanted.fewer)
                bitmap = self._bitmap(frame, features, mask.click, mask.index)
                found.append(_found(bitmap, mask.iou))
        return found, "" if found else wanted.why_nothing(nearest)

    def _look_everywhere(
        self,
        frame: Frame[FrameFeatures],
        features: FrameFeatures,
        wanted: Everything,
        check: Check,
    ) -> tuple[list[_GridMask], tuple[float, float] | None]:
        """The masks that are sure and stable; and of the mask that is nearest to it the predicted
        IoU and the stability, or None if no mask has a pixel."""
        width, height = frame.width, frame.height
        clicks = [
            Clicks(points=(point,), positive=(True,)) for point in wanted.points(width, height)
        ]
        masks: list[_GridMask] = []
        nearest: tuple[float, float] | None = None
        for first in range(0, len(clicks), POINTS_PER_BATCH):
            check(first, len(clicks), "clicks are looked at", wanted.fewer)
            batch = clicks[first : first + POINTS_PER_BATCH]
            found = self._model.decode(features, batch, width=width, height=height, multimask=True)
            with memory_errors(NO_MEMORY):
                some_pixel = [
                    (click, index, each.ious[index], each.logits[index])
                    for click, each in zip(batch, found, strict=True)
                    if not isinstance(each, ModelFailure)
                    for index in each.with_pixels
                ]
            looked_at = [mask for mask in some_pixel if mask[2] > wanted.pred_iou_thresh]
            if some_pixel and not masks and not looked_at:  # the surest, for what is told of it
                looked_at = [max(some_pixel, key=lambda mask: mask[2])]
            shown = self._model.stable_bitmaps(
                [logits for *_, logits in looked_at],
                width=width,
                height=height,
                least=wanted.stability_score_thresh,
            )
            masks_of_batch = zip(looked_at, shown, strict=True)
            for done, ((click, index, iou, _), mask) in enumerate(masks_of_batch):
                check(
                    first + done * len(batch) // len(looked_at),
                    len(clicks),
                    "clicks are looked at",
                    wanted.fewer,
                )
                if mask is None:
                    continue
                stability, bitmap = mask
                scores = iou, stability
                nearest = max(nearest or scores, scores, key=wanted.nearness)
                if iou > wanted.pred_iou_thresh and bitmap is not None:
                    masks.append(_GridMask(click, index, iou, inclusive_box(bitmap)))
        return masks, nearest

    def _bitmap(
        self, frame: Frame[FrameFeatures], features: FrameFeatures, click: Clicks, index: int
    ) -> Bitmap:
        """One of the three masks of a click."""
        width, height = frame.width, frame.height
        (found,) = self._model.decode(features, [click], width=width, height=height, multimask=True)
        if isinstance(found, ModelFailure):
            raise found
        (bitmap,) = self._model.logits_to_bitmaps([found.logits[index]], width=width, height=height)
        return bitmap

    def _find(
        self, frame: Frame[FrameFeatures], features: FrameFeatures, clicks: Clicks, check: Check
    ) -> _Mask:
        """What the last of the clicks leads to. Raises ModelFailure, TooLarge."""
        mask = None
        steps = len(clicks.points) + (clicks.box is not None)
        for done, step in enumerate(click_by_click(clicks)):
            key = (frame.digest, step)
            known = self._steps.get(key)
            if known is None:
                check(done, steps, "clicks are looked at", "send the same again")
                known = self._decode(frame, features, step, mask)
                self._steps.put(key, known, known.logits.nbytes)
            mask = known
        if mask is None:
            raise BadShape("Click on the object at least once, or draw a box around it.")
        return mask

    def _decode(
        self,
        frame: Frame[FrameFeatures],
        features: FrameFeatures,
        step: Clicks,
        before: _Mask | None,
    ) -> _Mask:
        (found,) = self._model.decode(
            features,
            [step],
            width=frame.width,
            height=frame.height,
            multimask=step.count == 1,  # one click can mean a part or the whole
            previous=() if before is None else (before.logits,),
        )
        if isinstance(found, ModelFailure):
            raise found
        return _Mask(logits=found.logits[found.best], iou=found.ious[found.best])


def _found(bitmap: Bitmap, iou: float) -> Found:
    mask = bitmap_to_mask(bitmap) if bitmap.any() else []
    return Found(mask=mask, confidence=min(max(iou, 0.0), 1.0))


def click_by_click(clicks: Clicks) -> Iterator[Clicks]:
    """The prompts that lead to a mask, each with one click more than the one before.

    The box comes first, without one the first positive click; then the other positive clicks, then
    the negative ones. CVAT does not tell in which order they were made.
    """
    first = 0 if clicks.box is not None else 1
    for count in range(first, len(clicks.points) + 1):
        yield replace(clicks, points=clicks.points[:count], positive=clicks.positive[:count])


def build_interactor(settings: Settings) -> Interactor:
    """Loads the model. Raises ConfigurationError."""
    set_threads(settings.threads, settings.workers)
    model = ModelHandler(
        model_files(settings),
        device=settings.device,
        precision=settings.precision,
        fill_hole_area=settings.fill_hole_area,
        image_size=settings.image_size,
    )
    return Interactor(model, settings)
