# SPDX-License-Identifier: MIT
"""SAM 2: encode a frame, start objects on it, step known objects to it, correct them.

Objects whose numbers fit together go through the model as one batch (`sam2_tracker/passes.py`);
each object's memory is handed in and out. A call changes neither its arguments nor the model's
weights; only caches live on between two calls.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sam2_tracker.batches import Batches
from sam2_tracker.build_model import LoadedModel, build_model
from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import ConfigurationError, ModelFailure
from sam2_tracker.mask_logits import (
    SINGLE_HOLE_FILL_LOGIT,
    fill_holes,
    logits_to_bitmaps,
    logits_to_image_size,
    stability,
)
from sam2_tracker.memory_bank import MemoryBank, MemoryLayout
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import Recall, recall
from sam2_tracker.models import ModelFiles
from sam2_tracker.modules.image_resize import (
    antialias_device,
    image_to_pixels,
    image_to_smooth_pixels,
)
from sam2_tracker.out_of_memory import memory_errors
from sam2_tracker.passes import Passes
from sam2_tracker.predictions import Candidates, FrameFeatures, Prompt, Result
from sam2_tracker.shapes import Bitmap, Box

# Objects that go through the model together; bounds the memory of a request with many.
OBJECTS_AT_ONCE = 32
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
NO_MEMORY = "The device has too little memory for this frame."


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What runs here; the first part of what a function tells of itself."""

    model: str
    fingerprint: str
    device: str
    precision: str
    threads: int


class ModelHandler:
    """A loaded SAM 2."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: str = "auto",
        precision: str = "auto",
        fill_hole_area: int = 8,
        image_size: int = 0,
        memory_frames: int = 0,
        conditioning_frames: int = 0,
        cache: MemoryCache | None = None,
    ) -> None:
        """Loads the model; the options are those of `build_model` and the settings of their name.

        cache: holds what attention derives from memory frames; without one nothing is kept.
        Raises ConfigurationError.
        """
        self._cache = cache or MemoryCache(0)
        self._loaded: LoadedModel = build_model(
            files,
            device=device,
            precision=precision,
            image_size=image_size,
            memory_frames=memory_frames,
            cache=self._cache,
        )
        self.network = self._loaded.network
        self.fill_hole_area = fill_hole_area
        self._conditioning_frames = conditioning_frames
        self._batches = Batches(OBJECTS_AT_ONCE, self.release_memory)
        self._image_mean = torch.tensor(IMAGE_MEAN, device=self.device)[:, None, None]
        self._image_std = torch.tensor(IMAGE_STD, device=self.device)[:, None, None]
        grid = (self.network.image_size // 4) ** 2
        if fill_hole_area >= grid:
            raise ConfigurationError(
                f"SAM2_FILL_HOLE_AREA is {fill_hole_area}, but a whole mask of this model has "
                f"{grid} low-resolution pixels; take a smaller number."
            )
        self.passes = Passes(
            self.network, self.layout, device=self.device, fill_hole_area=fill_hole_area
        )

    @property
    def name(self) -> str:
        return self._loaded.name

    @property
    def fingerprint(self) -> str:
        return self._loaded.fingerprint

    @property
    def device(self) -> torch.device:
        return self._loaded.device

    @property
    def precision(self) -> str:
        """float32 or bfloat16."""
        return self._loaded.precision

    @property
    def layout(self) -> MemoryLayout:
        return self._loaded.layout

    def info(self) -> ModelInfo:
        return ModelInfo(
            model=self.name,
            fingerprint=self.fingerprint,
            device=str(self.device),
            precision=self.precision,
            threads=torch.get_num_threads(),
        )

    def encode(self, image: Image.Image, *, single: bool = False) -> FrameFeatures:
        """Encodes an RGB image of any size.

        single: as sam2's predictor for single images resizes it; else as that for videos. Take
        True for decode(), False for start(), step() and correct(). Raises OutOfMemory.
        """
        size = self.network.image_size
        with self._inference():
            if single:
                tensor = image_to_smooth_pixels(image, size, self.device)
            else:
                pixels = image_to_pixels(image, size, self.device)
                tensor = pixels.permute(2, 0, 1).float().div_(255.0)
            tensor.sub_(self._image_mean).div_(self._image_std)
            dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
            encoded = self.network.forward_image(tensor[None].to(dtype))
            _, levels, positions, sizes = self.network._prepare_backbone_features(encoded)
            if self.device.type == "cuda":
                # Else its time would count as that of what first waits for the device.
                torch.cuda.synchronize(self.device)
        return FrameFeatures(levels=tuple(levels), positions=tuple(positions), sizes=tuple(sizes))

    def scale_mask(self, mask: Bitmap) -> Bitmap:
        """Scales a mask (bool, (height, width)) to the size of the model's input.

        One of that size is left as it is. start() scales by itself; to do it mask by mask saves
        memory where many objects start on a large image. Raises OutOfMemory.
        """
        size = self.network.image_size
        if mask.shape == (size, size):
            return mask
        device = antialias_device(max(mask.shape), size, self.device)
        with self._inference():
            full = torch.from_numpy(mask)[None, None].to(device).float()
            resized = F.interpolate(
                full, size=(size, size), mode="bilinear", align_corners=False, antialias=True
            )[0, 0]
            # Cut at 0.5, or at the maximum if that is lower: a tiny object keeps its best pixels.
            return (resized >= resized.max().clamp(max=0.5)).cpu().numpy()

    def decode(
        self,
        frame: FrameFeatures,
        prompts: Sequence[Clicks],
        *,
        width: int,
        height: int,
        multimask: bool,
        previous: Sequence[Tensor] = (),
    ) -> list[Candidates | ModelFailure]:
        """What clicks and boxes mean on a single image: SAM2ImagePredictor.predict, for many.

        frame: encoded with single=True. width, height: of the image that was clicked on. multimask:
        three masks of each prompt, which helps where one click can mean a part or the whole; else
        one. previous: for each prompt the logits (size / 4, size / 4) of the mask that it corrects;
        empty: it corrects none. Prompts of equally many points run as one batch. Returns one result
        per prompt, in order: a ModelFailure where its numbers are not finite. Raises OutOfMemory.
        """

        def run(indexes: list[int]) -> list[Candidates | ModelFailure]:
            with self._inference():
                points = self.passes.points_of([prompts[i] for i in indexes], width, height)
                masks = torch.stack([previous[i] for i in indexes])[:, None] if previous else None
                return self.passes.decode(frame, points, masks, multimask)

        return self._batches.run([prompt.count for prompt in prompts], run)

    def start(
        self, frame: FrameFeatures, prompts: Sequence[Prompt], *, width: int, height: int
    ) -> list[Result]:
        """Starts objects from masks (bool, (height, width)), boxes (x0, y0, x1, y1 in pixels) and
        clicks.

        A mask may be scaled already. All masks run as one batch, and so do all prompts of equally
        many points. Returns one result per prompt, in order: a ModelFailure where its numbers are
        not finite. Raises OutOfMemory.
        """
        clicked = [_to_clicks(prompt) for prompt in prompts]

        def run(indexes: list[int]) -> list[Result]:
            points = [each for i in indexes if (each := clicked[i]) is not None]
            if points:
                with self._inference():
                    return self.passes.start(
                        frame, self.passes.points_of(points, width, height), None
                    )
            chosen = [prompts[index] for index in indexes]
            masks = [self.scale_mask(each) for each in chosen if isinstance(each, np.ndarray)]
            with self._inference():
                stacked = torch.from_numpy(np.stack(masks))[:, None].to(self.device).float()
                return self.passes.start(frame, None, stacked)

        return self._batches.run([each and each.count for each in clicked], run)

    def step(self, frame: FrameFeatures, banks: Sequence[MemoryBank]) -> list[Result]:
        """Tracks objects on the next frame; those that attend to equally much run as one batch.

        Returns one result per bank, in order: a ModelFailure where its numbers are not finite.
        Raises OutOfMemory.
        """
        recalls = [self._recall(bank) for bank in banks]

        def run(indexes: list[int]) -> list[Result]:
            with_candidates = any(banks[index].policy == "anchors" for index in indexes)
            with self._inference():
                return self.passes.step(frame, [recalls[i] for i in indexes], with_candidates)

        return self._batches.run([each.size for each in recalls], run)

    def correct(
        self,
        frame: FrameFeatures,
        banks: Sequence[MemoryBank],
        prompts: Sequence[Box | Clicks],
        *,
        width: int,
        height: int,
    ) -> list[Result]:
        """Tracks objects on the next frame and corrects each by a box or clicks there.

        As the official predictor does on a frame that was tracked: the decoder sees the prompt, the
        frame's features with the memory in them, and the mask that tracking found. A correction by
        a mask needs none of it: that is a start. Returns one result per bank, in order: a
        ModelFailure where its numbers are not finite. Raises OutOfMemory.
        """
        recalls = [self._recall(bank) for bank in banks]
        clicked = [each for prompt in prompts if (each := _to_clicks(prompt)) is not None]

        def run(indexes: list[int]) -> list[Result]:
            with self._inference():
                points = self.passes.points_of([clicked[i] for i in indexes], width, height)
                return self.passes.correct(frame, [recalls[i] for i in indexes], points)

        keys = [(own.size, each.count) for own, each in zip(recalls, clicked, strict=True)]
        return self._batches.run(keys, run)

    def logits_to_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int
    ) -> Iterator[Bitmap]:
        """Scales predictions' logits to image size and cuts them at 0: bool (height, width) each.

        Raises OutOfMemory.
        """
        return logits_to_bitmaps(
            logits, width=width, height=height, packed=self.device.type == "cuda"
        )

    def single_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int
    ) -> Iterator[Bitmap]:
        """logits_to_bitmaps for masks of decode(), with their holes filled as SAM2ImagePredictor
        fills them. Raises OutOfMemory."""
        area, logit = self.fill_hole_area, SINGLE_HOLE_FILL_LOGIT
        with memory_errors(NO_MEMORY):
            filled = [fill_holes(each[None, None], largest=area, logit=logit) for each in logits]
        return self.logits_to_bitmaps([each[0, 0] for each in filled], width=width, height=height)

    def stable_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int, least: float
    ) -> Iterator[tuple[float, Bitmap | None] | None]:
        """The stability of each mask of decode(), and its bitmap without filled holes.

        No bitmap: the stability is below `least`. None: the mask has no pixel. Raises OutOfMemory.
        """
        for each in logits:
            with memory_errors(NO_MEMORY), torch.inference_mode():
                full = logits_to_image_size(each, width=width, height=height)
                seen, stable = full > 0, stability(full)
                empty = not seen.any()
                bitmap: Bitmap | None = seen.cpu().numpy() if stable >= least else None
            yield None if empty else (stable, bitmap)

    def device_failed(self) -> bool:
        """Whether the GPU refuses all further work of this process.

        After an illegal address, a failed launch or a reset every call of CUDA fails: only another
        process can use the GPU again.
        """
        if self.device.type != "cuda":
            return False
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:
            return True
        return False

    def release_memory(self) -> None:
        """Gives back all device memory that is held for speed only.

        Raises RuntimeError where the GPU has failed: a convolution on it says what a lack of memory
        says too ("unable to find an engine").
        """
        self._cache.clear()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()

    def _recall(self, bank: MemoryBank) -> Recall:
        return recall(bank, self.layout, conditioning_frames=self._conditioning_frames)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with (
            memory_errors(NO_MEMORY),
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            yield


def _to_clicks(prompt: Prompt) -> Clicks | None:
    """None: it is a mask."""
    if isinstance(prompt, tuple):
        return Clicks(box=prompt)
    return prompt if isinstance(prompt, Clicks) else None
