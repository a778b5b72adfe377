# SPDX-License-Identifier: MIT
"""float32 as the official predictor rounds it, for any number of objects in a batch.

SAM 2 keeps its memories in bfloat16. A float32 sum taken in another order differs in its last bit;
now and then that moves a memory to the next bfloat16, and a later logit by some hundredths. So in
float32, the reference precision, every sum is taken in the official order: the memory attention is
the official module, and the few layers whose kernels depend on the number of objects see one object
at a time.
"""

from collections.abc import Sequence

import torch
from sam2.modeling.memory_attention import MemoryAttention as OfficialMemoryAttention
from sam2.modeling.sam.transformer import Attention
from sam2.modeling.sam2_utils import LayerNorm2d
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn

from sam2_tracker.memory_bank import MemoryFrame


class PlainMemoryAttention(nn.Module):
    """The official memory attention, called as `memory_attention.MemoryAttention` is."""

    def __init__(
        self, module: OfficialMemoryAttention, *, memory_positions: Tensor, time_encodings: Tensor
    ) -> None:
        """memory_positions: (pixels, memory channels); time_encodings: (ages, memory channels)."""
        super().__init__()
        self.module = module
        # (ages, pixels, 1, channels)
        self._positions = (memory_positions + time_encodings[:, None])[:, :, None]

    def forward(
        self,
        pixels: Tensor,
        pixel_positions: Tensor,
        memories: Sequence[Sequence[MemoryFrame]],
        ages: Sequence[Sequence[int]],
        pointers: Tensor,
        pointer_positions: Tensor,
    ) -> Tensor:
        """Shapes as in `memory_attention.MemoryAttention.forward`.

        Order and encodings of the tokens as in SAM2Base._prepare_memory_conditioned_features.
        """
        count = len(memories)
        frames = torch.stack(
            [torch.stack([frame.features for frame in object_]) for object_ in memories], dim=1
        )
        tokens = frames.float().permute(0, 3, 1, 2)  # frames, tokens, objects, channels
        if len({tuple(own) for own in ages}) == 1:
            positions = self._positions[list(ages[0])].expand(-1, -1, count, -1)
        else:
            positions = torch.cat([self._positions[list(own)] for own in ages], dim=2)
        attended: Tensor = self.module(
            curr=[pixels[:, None].expand(-1, count, -1)],
            curr_pos=[pixel_positions[:, None].expand(-1, count, -1)],
            memory=torch.cat((tokens.flatten(0, 1), pointers.transpose(0, 1))),
            memory_pos=torch.cat((positions.flatten(0, 1), pointer_positions.transpose(0, 1))),
            num_obj_ptr_tokens=pointers.shape[1],
        )
        return attended.transpose(0, 1)


def keep_objects_apart(model: SAM2VideoPredictor) -> None:
    """Lets the layers whose rounding depends on the batch see one object at a time, in place.

    Which these are was found by comparing every layer's output for one object and for five.
    """
    layers = {
        f"{part}.{name}".removesuffix(".")
        for part in ("sam_mask_decoder", "obj_ptr_proj", "obj_ptr_tpos_proj")
        for name, layer in model.get_submodule(part).named_modules()
        if isinstance(layer, Attention | nn.Linear | LayerNorm2d)
    }
    layers.add("sam_prompt_encoder.mask_downscaling")
    for name in layers:
        if name.rpartition(".")[0] not in layers:  # else it is a part of one
            model.set_submodule(name, _OneByOne(model.get_submodule(name)))
    points = model.sam_prompt_encoder.pe_layer
    encode = points.forward_with_coords
    points.forward_with_coords = lambda coordinates, size: torch.cat(
        [encode(one, size) for one in coordinates.split(1)]
    )


class _OneByOne(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        objects = len(next(iter((*inputs, *named.values()))))
        # Contiguous, as what belongs to one object alone is.
        return torch.cat(
            [
                self.layer(
                    *(each[index : index + 1].contiguous() for each in inputs),
                    **{k: v[index : index + 1].contiguous() for k, v in named.items()},
                )
                for index in range(objects)
            ]
        )
