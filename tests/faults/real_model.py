# SPDX-License-Identifier: MIT
"""The bundled micro model, as the workers run it: same precision, same threads."""

from model_handler import ModelHandler, set_threads
from settings import Settings
from weights import model_files


def micro_model() -> ModelHandler:
    settings = Settings(model="sam2.1_hiera_micro")
    set_threads(1, 1)
    return ModelHandler(
        model_files(settings),
        device="cpu",
        precision=settings.precision,
        fill_hole_area=settings.fill_hole_area,
    )
