# SPDX-License-Identifier: MIT
"""SAM 2: encode a frame, start objects on it, step known objects to it, correct them.

The truth is `sam2.sam2_video_predictor.SAM2VideoPredictor`, and for clicks on a single image
`sam2.sam2_image_predictor.SAM2ImagePredictor`. Their modules are called here on all objects of a
frame at once, with each object's memory handed in and out. A call changes neither its arguments nor
the model's weights; only caches live on between two calls.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from sam2_tracker.batches import Batches
from sam2_tracker.build_model import LoadedModel, build_model
from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import ConfigurationError, ModelFailure
from sam2_tracker.mask_logits import (
    SINGLE_HOLE_FILL_LOGIT,
    fill_holes,
    find_distractors,
    logits_to_bitmaps,
    logits_to_image_size,
    mask_areas,
    stability,
)
from sam2_tracker.memory_bank import MemoryBank, MemoryLayout, Observation, name_memory
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.memory_policy import Recall, recall
from sam2_tracker.models import ModelFiles
from sam2_tracker.modules.image_resize import (
    antialias_device,
    image_to_pixels,
    image_to_smooth_pixels,
)
from sam2_tracker.out_of_memory import memory_errors
from sam2_tracker.shapes import Bitmap, Box

# Objects that go through the model together; bounds the memory of a request with many.
OBJECTS_AT_ONCE = 32
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
MASK_LOGIT_LIMIT = 32.0
"""The official predictor cuts logits to this before it feeds them back as a prompt."""
NO_MEMORY = "The device has too little memory for this frame."
NOT_FINITE = "The model's numbers for this object are not finite."


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What runs here; the first part of what a function tells of itself."""

    model: str
    fingerprint: str
    device: str
    precision: str
    threads: int


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameFeatures:
    """One encoded frame, in levels from fine to coarse."""

    levels: tuple[Tensor, ...]
    """Each (height x width, 1, channels)."""
    positions: tuple[Tensor, ...]
    """Positional encodings of each level, (height x width, 1, hidden channels)."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each level."""

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One object on one frame."""

    logits: Tensor
    """float32 (size / 4, size / 4) on the model's device; above 0 is the object."""
    score: float
    """0..1: sigmoid of the object score times the predicted IoU of the chosen mask."""
    seen: Observation
    """What the memory keeps of it."""


Result = Prediction | ModelFailure
"""What becomes of one object of a batch."""

Prompt = Bitmap | Box | Clicks
"""What can be drawn of an object: a mask, a box, or clicks with or without a box."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The masks that a prompt may mean on a single image, without any memory."""

    logits: Tensor
    """float32 (masks, size / 4, size / 4) on the model's device; above 0 is the object."""
    ious: tuple[float, ...]
    """The IoU that the model predicts of each mask."""

    @property
    def best(self) -> int:
        """The index of the mask with the highest predicted IoU, the first of equal ones."""
        return max(range(len(self.ious)), key=self.ious.__getitem__)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Heads:
    """What SAM 2's mask decoder makes of several objects."""

    candidates: Tensor
    """Low-resolution logits of all candidate masks, (objects, masks, height, width)."""
    ious: Tensor
    """Predicted IoU of each candidate, (objects, masks)."""
    logits: Tensor
    """Low-resolution logits of the chosen masks, float32 (objects, 1, height, width)."""
    high_resolution: Tensor
    """The same at the size of the model's input."""
    pointers: Tensor
    """float32 (objects, channels)."""
    object_scores: Tensor
    """Logits (objects, 1)."""


def prediction_of(result: Result) -> Prediction:
    """Raises the ModelFailure that the result is."""
    if not isinstance(result, Prediction):
        raise result
    return result


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
        self._fill_hole_area = fill_hole_area
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
                points = self._point_prompts([prompts[i] for i in indexes], width, height)
                masks = torch.stack([previous[i] for i in indexes])[:, None] if previous else None
                return self._decode_single(frame, points, masks, multimask)

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
                    return self._start_batch(
                        frame, self._point_prompts(points, width, height), None
                    )
            chosen = [prompts[index] for index in indexes]
            masks = [self.scale_mask(each) for each in chosen if isinstance(each, np.ndarray)]
            with self._inference():
                stacked = torch.from_numpy(np.stack(masks))[:, None].to(self.device).float()
                return self._start_batch(frame, None, stacked)

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
                return self._step_batch(frame, [recalls[i] for i in indexes], with_candidates)

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
                points = self._point_prompts([clicked[i] for i in indexes], width, height)
                return self._correct_batch(frame, [recalls[i] for i in indexes], points)

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
        area, logit = self._fill_hole_area, SINGLE_HOLE_FILL_LOGIT
        with memory_errors(NO_MEMORY):
            filled = [fill_holes(each[None, None], largest=area, logit=logit) for each in logits]
        return self.logits_to_bitmaps([each[0, 0] for each in filled], width=width, height=height)

    def stable_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int, least: float
    ) -> Iterator[tuple[float, Bitmap | None]]:
        """The stability of each mask of decode(), and its bitmap without filled holes.

        None: the stability is below `least`. Raises OutOfMemory.
        """
        for each in logits:
            with memory_errors(NO_MEMORY), torch.inference_mode():
                full = logits_to_image_size(each, width=width, height=height)
                stable = stability(full)
                bitmap: Bitmap | None = (full > 0).cpu().numpy() if stable >= least else None
            yield stable, bitmap

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

    def _point_prompts(
        self, prompts: Sequence[Clicks], width: int, height: int
    ) -> dict[str, Tensor]:
        """Prompts of equally many points. SAM 2 takes a box as two points, labelled 2 and 3."""
        coordinates, labels = [], []
        for prompt in prompts:
            corners = () if prompt.box is None else (prompt.box[:2], prompt.box[2:])
            coordinates.append([*corners, *prompt.points])
            labels.append([*(2, 3)[: len(corners)], *map(int, prompt.positive)])
        scale = torch.tensor([width, height], dtype=torch.float32)
        points = torch.tensor(coordinates, dtype=torch.float32)
        return {
            "point_coords": (points / scale * self.network.image_size).to(self.device),
            "point_labels": torch.tensor(labels, dtype=torch.int32, device=self.device),
        }

    def _decode_single(
        self,
        frame: FrameFeatures,
        points: dict[str, Tensor],
        previous: Tensor | None,
        multimask: bool,
    ) -> list[Candidates | ModelFailure]:
        """previous: mask logits (objects, 1, h, w). As SAM2ImagePredictor._predict."""
        network, count = self.network, len(points["point_labels"])
        if previous is not None:
            previous = previous.clamp(-MASK_LOGIT_LIMIT, MASK_LOGIT_LIMIT)
        sparse, dense = network.sam_prompt_encoder(
            points=(points["point_coords"], points["point_labels"]), boxes=None, masks=previous
        )
        # SAM 2 adds this where there is no memory, as on the first frame of a video.
        levels = [*frame.levels[:-1], frame.levels[-1] + network.no_mem_embed]
        maps = [
            _to_map(level, size)
            for level, size in zip(_expand(levels, count), frame.sizes, strict=True)
        ]
        logits, ious, _, _ = network.sam_mask_decoder(
            image_embeddings=maps[-1],
            image_pe=network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,  # the image is there for each prompt
            high_res_features=maps[:-1] or None,
        )
        logits, ious = logits.float(), ious.float()
        sound = (logits.flatten(1).isfinite().all(dim=1) & ious.isfinite().all(dim=1)).tolist()
        return [
            Candidates(logits=logits[index], ious=tuple(own))
            if sound[index]
            else ModelFailure(NOT_FINITE)
            for index, own in enumerate(ious.tolist())
        ]

    def _start_batch(
        self, frame: FrameFeatures, points: dict[str, Tensor] | None, masks: Tensor | None
    ) -> list[Result]:
        count = len(masks if masks is not None else points["point_labels"])  # type: ignore[index]
        _, outputs, _, _ = self.network._track_step(
            frame_idx=0,
            is_init_cond_frame=True,
            current_vision_feats=_expand(frame.levels, count),
            current_vision_pos_embeds=_expand(frame.positions, count),
            feat_sizes=list(frame.sizes),
            point_inputs=points,
            mask_inputs=masks,
            output_dict={},
            num_frames=1,  # not read on a conditioning frame
            track_in_reverse=False,
            prev_sam_mask_logits=None,
        )
        heads = self._heads(outputs)
        return self._results(heads, self._remember_prompted(frame, heads), drawn=masks is not None)

    def _step_batch(
        self, frame: FrameFeatures, recalls: Sequence[Recall], with_candidates: bool
    ) -> list[Result]:
        heads = self._decode(frame, self._attend(frame, recalls))
        memories, _ = self.network._encode_new_memory(
            current_vision_feats=_expand(frame.levels, len(recalls)),
            feat_sizes=list(frame.sizes),
            pred_masks_high_res=heads.high_resolution,
            object_score_logits=heads.object_scores,
            is_mask_from_pts=False,
        )
        return self._results(heads, memories, with_candidates=with_candidates)

    def _correct_batch(
        self, frame: FrameFeatures, recalls: Sequence[Recall], points: dict[str, Tensor]
    ) -> list[Result]:
        attended = self._attend(frame, recalls)
        tracked = self._decode(frame, attended).logits
        previous = tracked.clamp(-MASK_LOGIT_LIMIT, MASK_LOGIT_LIMIT)
        heads = self._decode(frame, attended, points=points, previous=previous)
        return self._results(heads, self._remember_prompted(frame, heads))

    def _attend(self, frame: FrameFeatures, recalls: Sequence[Recall]) -> Tensor:
        """The frame's features with each object's memory in them, (objects, channels, h, w)."""
        # MemoryAttention chooses its own dtypes.
        with torch.autocast(self.device.type, enabled=False):
            attended = self.network.memory_attention(
                frame.levels[-1][:, 0],
                frame.positions[-1][:, 0],
                [each.memories for each in recalls],
                [each.ages for each in recalls],
                *self._pointer_tokens(recalls),
            )
        return _to_map(attended.transpose(0, 1), frame.sizes[-1])

    def _decode(
        self,
        frame: FrameFeatures,
        features: Tensor,
        *,
        points: dict[str, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> _Heads:
        """features: from `_attend`. previous: mask logits (objects, 1, h, w) as a prompt."""
        levels = _expand(frame.levels, len(features))
        maps = [_to_map(level, size) for level, size in zip(levels, frame.sizes, strict=True)]
        return self._heads(
            self.network._forward_sam_heads(
                backbone_features=features,
                point_inputs=points,
                mask_inputs=previous,
                high_res_features=maps[:-1] or None,
                multimask_output=self.network._use_multimask(False, points),
            )
        )

    def _heads(self, outputs: tuple[Tensor, ...]) -> _Heads:
        candidates, _, ious, logits, high_resolution, pointers, object_scores = outputs
        return _Heads(
            candidates=candidates,
            ious=ious.float(),
            logits=fill_holes(logits.float(), largest=self._fill_hole_area),
            high_resolution=high_resolution,
            pointers=pointers.float(),
            object_scores=object_scores.float(),
        )

    def _remember_prompted(self, frame: FrameFeatures, heads: _Heads) -> Tensor:
        """The memory of a prompted frame, encoded from its low-resolution logits, holes filled."""
        encoded: tuple[Tensor, object] = self.network._encode_new_memory(
            current_vision_feats=_expand(frame.levels, len(heads.logits)),
            feat_sizes=list(frame.sizes),
            pred_masks_high_res=F.interpolate(
                heads.logits,
                size=(self.network.image_size,) * 2,
                mode="bilinear",
                align_corners=False,
            ),
            object_score_logits=heads.object_scores,
            is_mask_from_pts=True,
        )
        return encoded[0]

    def _pointer_tokens(self, recalls: Sequence[Recall]) -> tuple[Tensor, Tensor]:
        """Object pointers as memory tokens and their positions, (objects, tokens, channels).

        Order and encodings as in SAM2Base._prepare_memory_conditioned_features.
        """
        network, layout, count = self.network, self.layout, len(recalls)
        if not network.use_obj_ptrs_in_encoder or not recalls[0].pointers:
            none = torch.zeros(count, 0, layout.channels, device=self.device)
            return none, none
        pointers = torch.stack([torch.stack(each.pointers) for each in recalls])
        if network.add_tpos_enc_to_obj_ptrs:
            distances = torch.tensor([each.distances for each in recalls], device=self.device)
            # SAM 2 divides by the most pointers it can use, or by the video's length if that is
            # smaller. Here it is always the former, so that a step does not depend on the length.
            projected = network.proj_tpos_enc_in_obj_ptrs
            time = get_1d_sine_pe(
                distances / layout.pointers,
                dim=layout.pointer_channels if projected else layout.channels,
            )
            time = network.obj_ptr_tpos_proj(time)
        else:
            time = pointers.new_zeros(*pointers.shape[:2], layout.channels)
        # A pointer is wider than a memory token: it is cut into several.
        tokens_each = layout.pointer_channels // layout.channels
        tokens = pointers.reshape(count, -1, layout.channels)
        return tokens, time.repeat_interleave(tokens_each, dim=1)

    def _results(
        self, heads: _Heads, memories: Tensor, *, drawn: bool = False, with_candidates: bool = False
    ) -> list[Result]:
        """drawn: the masks are the prompts themselves, so their score is 1."""
        # bfloat16 on every device, also before its first use: as the official predictor keeps it.
        memories = memories.to(torch.bfloat16).flatten(2)  # a map is a row of tokens
        ious, best = heads.ious.max(dim=1)
        scores = heads.object_scores.sigmoid()[:, 0] * ious
        sound = (
            heads.logits.flatten(1).isfinite().all(dim=1)
            & memories.flatten(1).isfinite().all(dim=1)
            & heads.pointers.isfinite().all(dim=1)
            & scores.isfinite()
        ).tolist()
        areas = mask_areas(heads.logits)
        object_scores, predicted_ious = heads.object_scores[:, 0].tolist(), ious.tolist()
        distractors = [False] * len(areas)
        if with_candidates and heads.candidates.shape[1] > 1:
            distractors = find_distractors(heads.candidates, best.tolist())
        return [
            Prediction(
                logits=heads.logits[index, 0],
                score=1.0 if drawn else score,
                seen=Observation(
                    memory=name_memory(memories[index]),
                    pointer=heads.pointers[index],
                    object_score=object_scores[index],
                    predicted_iou=predicted_ious[index],
                    area=areas[index],
                    distractor=distractors[index],
                ),
            )
            if sound[index]
            else ModelFailure(NOT_FINITE)
            for index, score in enumerate(scores.tolist())
        ]

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


def _expand(levels: Sequence[Tensor], count: int) -> list[Tensor]:
    return [level.expand(-1, count, -1) for level in levels]


def _to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(pixels, objects, channels) to (objects, channels, height, width)."""
    _, objects, channels = tokens.shape
    return tokens.permute(1, 2, 0).reshape(objects, channels, *size)
