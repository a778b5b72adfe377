# SPDX-License-Identifier: MIT
"""All objects of an image: as SAM2AutomaticMaskGenerator finds them, by the interactor's words."""

import itertools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from clicking import NEW, Ask, bitmap, body, call
from PIL import Image

from sam2_tracker.errors import BadRequest
from sam2_tracker.everything import Everything, box_nms, words_to_everything
from sam2_tracker.models import ModelFiles
from sam2_tracker.time_budget import TimeBudget
from tools.official import official_mask_generator

LEAST_IOU = 0.98
LOW = {"pred_iou_thresh": 0.1, "stability_score_thresh": 0.01}
"""thresholds that the bundled model's masks of single clicks reach"""
ALL = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}


def in_words(options: dict[str, float]) -> str:
    return " ".join(["everything", *(f"{key}={value}" for key, value in options.items())])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"points_per_side": 6, "pred_iou_thresh": 0.15, "stability_score_thresh": 0.02},
            marks=pytest.mark.slow,
        ),
        {"points_per_side": 5, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.1},
        pytest.param({**LOW, "points_per_side": 7, "box_nms_thresh": 0.4}, marks=pytest.mark.slow),
    ],
)
def test_the_same_masks_as_sam2s_generator(
    ask: Ask, micro_files: ModelFiles, picture: Image.Image, options: dict[str, float]
) -> None:
    status, answer = ask(text_prompts=[in_words(options)])
    assert status == 200
    truth = official_mask_generator(micro_files, **options).generate(np.array(picture))
    assert len(answer["shapes"]) == len(truth) > 0
    for ours, theirs in zip(answer["shapes"], truth, strict=True):  # in the same order
        found, expected = bitmap(ours), theirs["segmentation"]
        assert (found & expected).sum() >= LEAST_IOU * (found | expected).sum()
        confidence = float(ours["attributes"][0]["value"])
        assert confidence == pytest.approx(min(theirs["predicted_iou"], 1.0), abs=1e-4)


def test_no_more_objects_than_a_request_may_have(
    interactor_context: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"text_prompts": [in_words(LOW | {"points_per_side": 4})]}
    _, whole = ask(**words)
    function = interactor_context.user_data.function
    monkeypatch.setattr(function, "_settings", replace(function._settings, max_objects=2))
    _, surest = ask(**words)
    assert len(whole["shapes"]) > 2
    assert surest["shapes"] == whole["shapes"][:2]


def assert_advised(ask: Ask, **options: float) -> None:
    """Nothing is sure enough, and with what is advised something is found."""
    words = in_words(options | {"points_per_side": 4, "stability_score_thresh": 1})
    _, nothing = ask(text_prompts=[words])
    assert nothing["shapes"] == []
    lower = re.search(r"'(pred_iou_thresh=\S+ stability_score_thresh=\S+)'", nothing["message"])
    assert lower, nothing
    _, found = ask(text_prompts=[f"{words} {lower[1]}"])
    assert found["shapes"]
    assert "message" not in found


@pytest.mark.parametrize("least_iou", [0, 1])
def test_where_nothing_is_sure_enough_it_says_what_to_ask_for(ask: Ask, least_iou: float) -> None:
    assert_advised(ask, pred_iou_thresh=least_iou)


def test_masks_without_a_pixel_are_not_advised(
    interactor_context: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interactor_context.user_data.function._model
    decode = model.decode

    def nothing(*arguments: Any, **options: Any) -> Any:
        found = decode(*arguments, **options)
        return [replace(each, logits=each.logits.abs() * -1 - 1) for each in found]

    monkeypatch.setattr(model, "decode", nothing)
    _, answer = ask(text_prompts=[in_words(LOW | {"points_per_side": 2})])
    assert answer["shapes"] == []
    assert answer["message"].startswith("No click of the grid gave a mask.")


def test_where_the_surest_masks_have_no_pixel_another_one_is_advised(
    interactor_context: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interactor_context.user_data.function._model
    decode = model.decode

    def without_the_surest(*arguments: Any, **options: Any) -> Any:
        found = [
            replace(each, logits=each.logits.clone()) for each in decode(*arguments, **options)
        ]
        for each in found:
            each.logits[each.best] = -1
        return found

    monkeypatch.setattr(model, "decode", without_the_surest)
    assert_advised(ask, pred_iou_thresh=1)


@pytest.mark.parametrize(
    ("asked", "seconds", "said"),
    [
        ({"text_prompts": [in_words(ALL | {"points_per_side": 12})]}, 30,
         r"only \d+ of 144 clicks are looked at; .* with points_per_side=6\."),
        ({"text_prompts": [in_words(ALL | {"points_per_side": 1})]}, 0.5,
         r"only 1 of \d masks are made; .* with points_per_side=1\."),
        ({"obj_bbox": [[1, 1], [90, 90], [9, 9], [50, 50]]}, 0.5,
         r"only 1 of 2 objects are found; send fewer boxes at once\."),
        ({"pos_points": [[20.0, 20.0]] * 9}, 4,
         r"only 5 of 9 clicks are looked at; send the same again\."),
    ],
)  # fmt: skip
def test_a_request_ends_when_its_time_is_spent(
    interactor_context: Any, picture: Image.Image, monkeypatch: pytest.MonkeyPatch, asked: Any,
    seconds: float, said: str,
) -> None:  # fmt: skip
    budget = TimeBudget(seconds, clock=itertools.count().__next__)
    monkeypatch.setattr(interactor_context.user_data.function, "budget", budget)
    content = body(picture.resize((99, int(seconds * 10) + 90)), **asked)  # no click on it is known
    status, answer = call(interactor_context, content, NEW)
    assert (status, answer["error"]["code"]) == (413, "too_large")
    assert re.search(f"After {seconds:g} s {said}", answer["error"]["message"]), answer
    if "again" in said:  # what was worked out is kept
        assert call(interactor_context, content, NEW)[0] == 200


def test_clicks_that_find_nothing_take_time_too(
    interactor_context: Any, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 256 clicks, 64 at once, only the first one finds a mask."""
    function, now = interactor_context.user_data.function, [0.0]
    monkeypatch.setattr(function, "budget", TimeBudget(25, clock=lambda: now[0]))
    decode = function._model.decode

    def decode_slowly(features: Any, clicks: Any, **options: Any) -> list[Any]:
        now[0] += 10
        (found,) = decode(features, clicks[:1], **options)
        first = replace(found, ious=(0.9 if now[0] == 10 else 0.0, 0.0, 0.0))
        return [first, *[replace(found, ious=(0.0, 0.0, 0.0))] * (len(clicks) - 1)]

    monkeypatch.setattr(function._model, "decode", decode_slowly)
    words = in_words(ALL | {"points_per_side": 16})
    status, answer = call(interactor_context, body(picture, text_prompts=[words]), NEW)
    assert (status, answer["error"]["message"]) == (
        413,
        "After 25 s only 192 of 256 clicks are looked at; ask for fewer clicks, with "
        "points_per_side=8.",
    )


@pytest.mark.parametrize(
    "words",
    [
        ["a red car"], [""], [5], "everything", ["everything", "everything"], [["everything"]],
        ["everything points_per_side=0"], ["everything points_per_side=65"],
        ["everything points_per_side=1e9"], ["everything pred_iou_thresh=nan"],
        ["everything box_nms_thresh=1.1"], ["everything unknown=1"], ["everything points_per_side"],
    ],
)  # fmt: skip
def test_other_words_are_refused_with_what_is_taken(words: object) -> None:
    with pytest.raises(BadRequest, match="as words only 'everything'"):
        words_to_everything(words)


def test_everything_beside_clicks_is_refused(ask: Ask) -> None:
    status, answer = ask(text_prompts=["everything"], pos_points=[[5.0, 5.0]])
    assert status == 400
    assert answer["error"]["message"] == "Everything is looked for without clicks and boxes."


def test_the_grid_is_the_middles_of_its_cells() -> None:
    assert Everything(points_per_side=2).points(8, 4) == [(2, 1), (6, 1), (2, 3), (6, 3)]


def test_nms_keeps_the_box_with_the_highest_predicted_iou() -> None:
    boxes = [(0, 0, 10, 10), (1, 0, 10, 10), (50, 50, 60, 60), (0, 0, 10, 4)]
    assert box_nms(boxes, [0.81, 0.9, 0.85, 0.8], 0.7) == [1, 2, 3]
    assert box_nms([], [], 0.7) == []
    lines = [(10, 10, 10, 90), (200, 10, 200, 90), (50, 50, 80, 50), (10, 10, 10, 90)]
    assert box_nms(lines, [0.9, 0.8, 0.7, 0.6], 0.7) == [0, 1, 2]  # the last one is the first again
