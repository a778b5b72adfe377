# SPDX-License-Identifier: MIT
"""CVAT's interactor: each row of docs/interactor.md, by Nuclio's entry points and over HTTP."""

import base64
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from clicking import HEIGHT, NEW, OLD, WIDTH, Ask, bitmap, body, call, pictures
from cvat_requests import image_to_base64
from PIL import Image
from running import environment

import model_handler
from interactor import Interactor
from model_handler import ModelHandler
from sam2_tracker.click_protocol import ClickRequest
from sam2_tracker.clicks import MAX_CLICKS, Clicks
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.mask_logits import fill_holes
from sam2_tracker.models import ModelFiles
from sam2_tracker.settings import Settings, check_workers
from sam2_tracker.shapes import bitmap_to_mask, polygon_to_bitmap
from tools.function_process import FunctionProcess
from tools.official import official_image_predictor, opencv_holes
from tools.sam2_models import load_model

POSITIVE, NEGATIVE = [[120.0, 90.5], [150.25, 130.0]], [[20.0, 200.0], [300.0, 20.0]]
BOX = [[60.5, 40.25], [200.0, 180.0]]


def notebook(
    files: ModelFiles, image: Image.Image, clicks: Clicks, fill_hole_area: int
) -> tuple[np.ndarray, float]:
    """As sam2's image_predictor_example.ipynb refines a mask: with the best logits so far."""
    predictor = official_image_predictor(files, fill_hole_area=fill_hole_area)
    previous, masks, ious = None, np.zeros(0), np.zeros(0)
    with opencv_holes():
        predictor.set_image(image)
        first = 0 if clicks.box else 1
        for count in range(first, len(clicks.points) + 1):
            points, labels = clicks.points[:count], clicks.positive[:count]
            masks, ious, logits = predictor.predict(
                point_coords=np.array(points) if points else None,
                point_labels=np.array(labels, dtype=int) if points else None,
                box=np.array(clicks.box) if clicks.box else None,
                mask_input=previous,
                multimask_output=clicks.box is None and count == 1,
            )
            previous = logits[ious.argmax()][None]
    return masks[ious.argmax()].astype(bool), float(ious.max())


@pytest.mark.parametrize("fill_hole_area", [pytest.param(0, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize(
    ("positive", "negative", "box"),
    [
        (2, 2, False), (2, 1, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, 0, False), (2, 0, False), (0, 0, True), (0, 1, True))
        ),
    ],
)  # fmt: skip
def test_click_by_click_as_sam2s_own_example(
    small_files: ModelFiles, picture: Image.Image, positive: int, negative: int, box: bool,
    fill_hole_area: int,
) -> None:  # fmt: skip
    model = load_model(small_files, fill_hole_area=fill_hole_area)
    chosen = [*POSITIVE[:positive], *NEGATIVE[:negative]]
    clicks = Clicks(
        points=tuple((x, y) for x, y in chosen),
        positive=(True,) * positive + (False,) * negative,
        box=(60.5, 40.25, 200.0, 180.0) if box else None,
    )
    (ours,) = Interactor(model, Settings(threads=1)).click(
        request(picture, POSITIVE[:positive], NEGATIVE[:negative], [sum(BOX, [])] if box else [])
    )
    mask, iou = notebook(small_files, picture, clicks, fill_hole_area)
    assert ours.mask == bitmap_to_mask(mask)
    assert ours.confidence == min(max(iou, 0.0), 1.0)


def request(
    image: Image.Image, positive: list[Any], negative: list[Any] | None = None, boxes: Any = ()
) -> ClickRequest:
    data = base64.b64decode(image_to_base64(image))
    return ClickRequest(image=data, positive=positive, negative=negative or [], boxes=tuple(boxes))


class Counting(ModelHandler):
    """Counts what it does."""

    def __init__(self, model: ModelHandler) -> None:
        self.__dict__.update(model.__dict__)
        self.encoded = self.decoded = 0

    def encode(self, image: Image.Image, *, single: bool = False) -> Any:
        self.encoded += 1
        return super().encode(image, single=single)

    def decode(self, frame: Any, prompts: Any, **options: Any) -> Any:
        self.decoded += 1
        return super().decode(frame, prompts, **options)


def test_the_next_click_costs_one_decode_and_the_answer_never_depends_on_the_cache(
    micro_model: ModelHandler, picture: Image.Image
) -> None:
    counting = Counting(micro_model)
    warm = Interactor(counting, Settings(threads=1))
    session = [(1, 0), (1, 1), (2, 1), (2, 2), (1, 2)]  # the last one took a click back
    costs, answers = [], []
    for positive, negative in session:
        before = counting.decoded
        answers.append(warm.click(request(picture, POSITIVE[:positive], NEGATIVE[:negative]))[0])
        costs.append(counting.decoded - before)
    assert counting.encoded == 1
    # A second positive click counts as made before the negative one: both are worked out.
    assert costs == [1, 1, 2, 1, 1]
    for (positive, negative), answer in zip(session, answers, strict=True):
        cold = Interactor(micro_model, Settings(threads=1, frame_cache_mib=0))
        (other,) = cold.click(request(picture, POSITIVE[:positive], NEGATIVE[:negative]))
        assert (answer.mask, answer.confidence) == (other.mask, other.confidence)
    assert answers[0].mask != answers[3].mask  # clicks do count
    mirrored = request(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), POSITIVE[:1])
    (other,) = Interactor(micro_model, Settings(threads=1)).click(mirrored)
    assert warm.click(mirrored)[0].mask == other.mask
    assert answers[0].mask != other.mask  # the image does too


@pytest.mark.parametrize("agent", [NEW, "CVAT/2.73.0 python-requests/2.32", "curl/8", None])
def test_a_new_cvat_gets_a_mask_with_its_confidence(ask: Ask, agent: str | None) -> None:
    status, answer = ask(pos_points=POSITIVE, neg_points=NEGATIVE, agent=agent)
    assert status == 200
    assert set(answer) == {"shapes"}  # `mask` beside it would hide them from the page
    (shape,) = answer["shapes"]
    assert shape["type"] == "mask"
    assert bitmap(shape).any()
    (attribute,) = shape["attributes"]
    assert attribute["spec_id"] == 0
    assert isinstance(attribute["value"], str)
    assert 0 <= float(attribute["value"]) <= 1


@pytest.mark.parametrize("agent", ["CVAT/2.40.0 python-requests/2.32", OLD])
def test_an_old_cvat_gets_the_same_mask_as_pixels_with_a_polygon(ask: Ask, agent: str) -> None:
    (shape,) = ask(obj_bbox=BOX)[1]["shapes"]
    status, answer = ask(obj_bbox=BOX, agent=agent)
    assert status == 200
    left, top, right, bottom = answer["bounds"]
    whole = np.zeros((HEIGHT, WIDTH), dtype=bool)
    whole[top : bottom + 1, left : right + 1] = answer["mask"]
    np.testing.assert_array_equal(whole, bitmap(shape))
    ring = [coordinate for point in answer["points"] for coordinate in point]
    drawn = polygon_to_bitmap(ring, width=WIDTH, height=HEIGHT)
    assert (drawn & whole).any()


def test_nothing_found(interactor_context: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new page says "No shapes to display"; the old one draws nothing, and does not break."""
    function = interactor_context.user_data.function
    none = np.zeros((HEIGHT, WIDTH), dtype=bool)
    monkeypatch.setattr(function._model, "single_bitmaps", lambda *args, **size: iter([none]))
    assert ask(pos_points=POSITIVE) == (200, {"shapes": []})
    old = {"mask": [[0]], "points": [], "bounds": [0, 0, 0, 0]}
    assert ask(pos_points=POSITIVE, agent=OLD) == (200, old)


def test_a_gpu_without_room_to_fill_holes_is_asked_again_and_then_503(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, failures = ask(pos_points=POSITIVE), [1]

    def fill(*arguments: Any, **options: Any) -> Any:
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return fill_holes(*arguments, **options)

    monkeypatch.setattr(model_handler, "fill_holes", fill)
    assert ask(pos_points=POSITIVE) == expected
    assert not failures
    failures[:] = [1, 1]
    status, answer = ask(pos_points=POSITIVE)
    assert (status, answer["error"]["code"]) == (503, "out_of_memory")
    assert ask(pos_points=POSITIVE) == expected


SECOND_OUTSIDE = [[10.0, 10.0], [100.0, 100.0], [400.0, 300.0], [500.0, 400.0]]
SECOND_EXCHANGED = [[10.0, 10.0], [100.0, 100.0], [300.0, 230.0], [150.0, 100.0]]
BOTH_SOUND = [[10.0, 10.0], [100.0, 100.0], [150.0, 100.0], [300.0, 230.0]]


@pytest.mark.parametrize(
    ("boxes", "clicks", "indexes"),
    [
        (SECOND_OUTSIDE, [], [1]),
        (SECOND_EXCHANGED, [], [1]),
        (BOTH_SOUND, [[1e6, 5.0]], [0, 1]),  # it may belong to either
    ],
)
def test_of_several_boxes_the_bad_one_is_named(
    ask: Ask, boxes: list[list[float]], clicks: list[list[float]], indexes: list[int]
) -> None:
    status, answer = ask(obj_bbox=boxes, neg_points=clicks)
    assert (status, answer["error"]["indexes"]) == (400, indexes)


def test_failed_objects_are_counted(
    interactor_context: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(
        interactor_context.logger, "warn_with", lambda message, **fields: lines.append(fields)
    )
    ask(obj_bbox=SECOND_OUTSIDE)
    ask(obj_bbox=BOTH_SOUND, neg_points=[[1e6, 5.0]])
    told = [(line["failed"], line["failed_codes"]) for line in lines]
    assert told == [(1, "empty_shape"), (2, "bad_shape")]


def test_a_box_in_which_nothing_is_found_leaves_its_number_out(
    interactor_context: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interactor_context.user_data.function._model
    bitmaps = model.single_bitmaps

    def nothing_in_the_first(logits: Any, **size: int) -> Any:
        first, *others = bitmaps(logits, **size)
        return [np.zeros_like(first), *others]

    monkeypatch.setattr(model, "single_bitmaps", nothing_in_the_first)
    _, answer = ask(obj_bbox=BOTH_SOUND)
    assert [shape["box"] for shape in answer["shapes"]] == [1]


@pytest.mark.parametrize("version", ["9" * 5000 + ".1", "2." + "9" * 5000])
def test_a_version_of_thousands_of_digits_counts_as_new(ask: Ask, version: str) -> None:
    assert ask(pos_points=POSITIVE, agent=f"CVAT/{version}")[1].keys() == {"shapes"}


def test_several_boxes_are_several_objects_and_each_click_belongs_to_the_nearest(ask: Ask) -> None:
    boxes = [[10.0, 10.0], [100.0, 100.0], [150.0, 100.0], [300.0, 230.0]]
    click = [[140.0, 110.0]]  # outside of both
    _, together = ask(obj_bbox=boxes, neg_points=click)
    _, first = ask(obj_bbox=boxes[:2])
    _, second = ask(obj_bbox=boxes[2:], neg_points=click)
    alone = first["shapes"] + second["shapes"]
    assert together["shapes"] == [{**shape, "box": n} for n, shape in enumerate(alone)]
    assert len(together["shapes"]) == 2
    _, old = ask(obj_bbox=boxes, neg_points=click, agent=OLD)
    assert np.sum(old["mask"]) == (bitmap(first["shapes"][0]) | bitmap(second["shapes"][0])).sum()


def test_keys_that_cvat_leaves_out(interactor_context: Any, picture: Image.Image, ask: Ask) -> None:
    content = {"image": image_to_base64(picture), "pos_points": POSITIVE, "obj_bbox": None}
    assert call(interactor_context, content, NEW) == ask(pos_points=POSITIVE)


@pytest.mark.parametrize(
    ("clicks", "sentence"),
    [
        ({}, "at least once"),
        ({"neg_points": NEGATIVE}, "at least once"),
        ({"pos_points": [[WIDTH + 1, 5]]}, "does not lie on the image"),
        ({"pos_points": [[5, -0.5]]}, "does not lie on the image"),
        ({"pos_points": POSITIVE, "neg_points": [[1e308, 5]]}, "does not lie on the image"),
        ({"pos_points": [[math.nan, 5]]}, "finite"),
        ({"pos_points": [[math.inf, 5]]}, "finite"),
        ({"pos_points": [["5", 5]]}, "numbers"),
        ({"pos_points": [[True, 5]]}, "numbers"),
        ({"pos_points": [[5]]}, "each with two numbers"),
        ({"pos_points": [5, 5]}, "each with two numbers"),
        ({"pos_points": {"x": 5}}, "each with two numbers"),
        ({"pos_points": [[5, 5]] * 5000}, f"limit is {MAX_CLICKS}"),
        ({"pos_points": POSITIVE, "neg_points": [[5, 5]] * MAX_CLICKS}, f"limit is {MAX_CLICKS}"),
        ({"obj_bbox": [[5, 5]]}, "two points"),
        ({"obj_bbox": [[50, 50], [5, 5]]}, "left <= right"),
        ({"obj_bbox": [[-50, -50], [-5, -5]]}, "covers no pixel"),
        ({"obj_bbox": [[math.nan, 5], [50, 50]]}, "finite"),
        ({"pos_points": POSITIVE, "text_prompts": ["a cat"]}, "as words only"),
        ({"pos_points": POSITIVE, "image": ""}, "image is missing"),
        ({"pos_points": POSITIVE, "image": "AAAA"}, "image"),
    ],
)
def test_hostile_input_gets_a_sentence(ask: Ask, clicks: dict[str, Any], sentence: str) -> None:
    status, answer = ask(**clicks)
    assert status == 400
    assert sentence in answer["error"]["message"]
    assert ask(pos_points=POSITIVE)[0] == 200  # it goes on


def test_more_boxes_than_objects_are_allowed(ask: Ask) -> None:
    status, answer = ask(obj_bbox=[[5, 5], [50, 50]] * 101)
    assert (status, answer["error"]["code"]) == (413, "too_large")


def test_the_step_of_a_box_counts_where_the_time_is_spent(
    micro_model: ModelHandler, picture: Image.Image
) -> None:
    interactor = Interactor(micro_model, Settings(threads=1))
    told: list[tuple[int, int]] = []
    interactor.budget.begin = lambda: lambda done, of, *_: told.append((done, of))
    interactor.click(request(picture, POSITIVE[:1], [], [sum(BOX, [])]))
    assert told[1:3] == [(0, 2), (1, 2)]  # after the check of the objects


def test_several_interactors_need_no_redis() -> None:
    check_workers(Settings(function="interactor", workers=4), worker_id=3)
    with pytest.raises(ConfigurationError, match="Redis"):
        check_workers(Settings(workers=4), worker_id=3)


@pytest.mark.slow
def test_ten_annotators_click_at_once_on_one_worker(micro_files: ModelFiles) -> None:
    """Ten clicks fall on five frames. Each frame is encoded once, in any order of the clicks, and
    each click gets the answer that it gets alone."""
    frames = pictures(5)
    clicks = [body(frames[n % 5], pos_points=[[100.0 + 10 * n, 120.0]]) for n in range(10)]
    variables = environment(micro_files, SAM2_FUNCTION="interactor")
    with FunctionProcess(variables) as server, ThreadPoolExecutor(10) as annotators:
        assert server.get()["store"] == {"kind": "none", "answers": True}
        found = list(annotators.map(server.post, clicks))
        assert [status for status, _ in found] == [200] * 10
        requests = [line for line in server.log.splitlines() if "objects" in line and "200" in line]
        assert len(requests) == 10
        assert sum(bool(re.search("encode_ms", line)) for line in requests) == 5
        assert [server.post(each) for each in clicks] == found  # alone
