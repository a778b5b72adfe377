# SPDX-License-Identifier: MIT
"""The bundled micro model, once with a cache of keys and once without."""

from model_handler import ModelHandler, set_threads
from sam2_tracker.models import model_files
from sam2_tracker.settings import MIB, Settings


def micro_models() -> list[ModelHandler]:
    """In float32, where a batch of another size moves no pixel."""
    settings = Settings(model="sam2.1_hiera_micro")
    set_threads(1, 1)
    return [
        ModelHandler(
            model_files(settings),
            device="cpu",
            precision="float32",
            fill_hole_area=settings.fill_hole_area,
            cache_bytes=cache_mib * MIB,
        )
        for cache_mib in (64, 0)
    ]
