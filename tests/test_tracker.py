# SPDX-License-Identifier: MIT
"""The flow of a request: rules per object, errors, limits, what is saved and what is not."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from asking import Open, track
from cvat_requests import shape_to_bitmap
from cvat_sdk.masks import encode_mask
from PIL import Image
from tracking import start, tight_box

import tracker as tracker_module
from model_handler import ModelHandler
from sam2_tracker import stopwatch
from sam2_tracker.errors import AllObjectsFailed, TooLarge
from sam2_tracker.models import ModelFiles
from sam2_tracker.object_shapes import bitmap_to_shape, seed_to_prompt
from sam2_tracker.predictions import FrameFeatures
from sam2_tracker.protocol import Seed
from sam2_tracker.record_format import Track
from sam2_tracker.time_budget import TimeBudget
from tools.redis_server import RedisServer
from tools.sam2_models import load_model
from tracker import Tracker
from training.clips import Clip, draw_clip

WIDTH, HEIGHT = 160, 120
GONE = {"v": 1, "id": "A" * 43}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(5, frames=12, width=WIDTH, height=HEIGHT, objects=3)


@pytest.fixture(scope="module")
def seeds(clip: Clip) -> list[dict[str, Any]]:
    """A mask, a polygon and a rectangle."""
    left, top, right, bottom = (int(number) for number in tight_box(clip.masks[0, 1]))
    x0, *others = tight_box(clip.masks[0, 2])
    ring = [left, top, right, top, right, bottom, left, bottom]
    return [
        {"type": "mask", "points": encode_mask(clip.masks[0, 0])},
        {"type": "polygon", "points": ring},
        {"type": "rectangle", "points": [x0 + 0.5, *others]},
    ]


@pytest.fixture(scope="module")
def family_model(family_files: ModelFiles) -> ModelHandler:
    return load_model(family_files)


@pytest.fixture
def tracker(open_tracker: Open, family_model: ModelHandler) -> Tracker:
    """Of each family, with the embedded store."""
    return open_tracker(family_model)


@pytest.fixture
def small_tracker(open_tracker: Open, small_model: ModelHandler) -> Tracker:
    return open_tracker(small_model)


def kinds(answer: dict[str, list[Any]]) -> list[str | None]:
    return [shape and shape["type"] for shape in answer["shapes"]]


def test_each_object_keeps_its_type_and_its_place(
    tracker: Tracker, clip: Clip, seeds: list[Any]
) -> None:
    answer = track(tracker, clip.frames[0], seeds)
    assert answer["shapes"] == seeds  # what was drawn is what is there
    assert answer["scores"][:2] == [1.0, 1.0]
    assert 0 <= answer["scores"][2] <= 1
    for frame in clip.frames[1:5]:
        answer = track(tracker, frame, [None] * 3, answer["states"])
        assert answer["errors"] == [None] * 3
        assert None not in answer["states"]
        assert all(0 <= score <= 1 for score in answer["scores"])
        for shape, kind in zip(answer["shapes"], ("mask", "polygon", "rectangle"), strict=True):
            assert shape is None or shape["type"] == kind
            lost = shape is None or "outside" in shape
            assert shape_to_bitmap(shape, WIDTH, HEIGHT).any() != lost


def test_nothing_to_do(tracker: Tracker, clip: Clip) -> None:
    empty: dict[str, list[Any]] = {"shapes": [], "states": [], "scores": [], "errors": []}
    assert track(tracker, clip.frames[0]) == empty
    assert track(tracker, clip.frames[0], [None, None], [None]) == {
        name: [None, None] for name in empty
    }


@pytest.mark.parametrize(
    ("points", "kind"),
    [
        ([-50, -50, 60, -50, 60, 60, -50, 60], "polygon"),
        ([-1e9, -1e9, 1e9, -1e9, 80, 1e9], "polygon"),
        ([-50, 20, 60.5, 60], "rectangle"),
        ([0, 1, 159, 119, 159, 119], "mask"),  # the pixel in the corner
        ([0, WIDTH * HEIGHT, 0, 0, WIDTH - 1, HEIGHT - 1], "mask"),  # everything
        ([80, 60, 81, 60, 81, 61, 80, 61], "polygon"),  # a pixel
        ([80, 0, 81, 0, 81, 120, 80, 120], "polygon"),  # a column
    ],
)
def test_shapes_at_the_limits_start(
    tracker: Tracker, clip: Clip, points: list[float], kind: str
) -> None:
    states = track(tracker, clip.frames[0], [{"type": kind, "points": points}])["states"]
    answer = track(tracker, clip.frames[1], [], states)
    assert answer["errors"] == [None]
    assert answer["states"] != [None]


CLICK = {"type": "points", "points": [80.5, 60.25], "neg_points": [[5, 5]]}
BOX = {"type": "rectangle", "points": [40.0, 30.0, 120.0, 90.0], "pos_points": [[80, 60]]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        (CLICK, "mask"),
        ({**CLICK, "answer": "polygon"}, "polygon"),
        ({**CLICK, "answer": "rectangle"}, "rectangle"),
        ({**BOX, "answer": "mask"}, "mask"),
        (BOX, "rectangle"),
    ],
)
def test_clicks_are_answered_in_the_type_that_is_asked_for(
    tracker: Tracker, clip: Clip, seed: dict[str, Any], kind: str
) -> None:
    """The first frame too: the mask that the model finds, where it was not drawn."""
    answer = track(tracker, clip.frames[0], [seed])
    first = answer["shapes"][0]
    if seed is BOX:
        assert first == {"type": "rectangle", "points": BOX["points"]}
    else:
        model, positive = tracker._model, seed.get("pos_points", [])
        drawn = Seed(type=seed["type"], points=seed["points"], positive=positive,
                     negative=seed.get("neg_points", []))  # fmt: skip
        clicks = seed_to_prompt(drawn, width=WIDTH, height=HEIGHT)
        (found,) = start(model, Image.fromarray(clip.frames[0]), [clicks])
        (bitmap,) = model.logits_to_bitmaps([found.logits], width=WIDTH, height=HEIGHT)
        track_of = Track(width=WIDTH, height=HEIGHT, shape_type=kind)
        wanted, _ = bitmap_to_shape(bitmap, track_of, tolerance=0.02)
        assert first == {"type": kind, "points": wanted.points}
    assert 0 <= answer["scores"][0] < 1
    for frame in clip.frames[1:3]:
        answer = track(tracker, frame, [], answer["states"])
        assert answer["errors"] == [None]
        assert kinds(answer) in ([None], [kind])


def test_what_is_corrected_on_a_tracked_frame_keeps_its_type(
    tracker: Tracker, clip: Clip, seeds: list[Any]
) -> None:
    """By clicks or a rectangle it gets the mask that is found, by an outline the outline itself."""
    started = track(tracker, clip.frames[0], seeds)["states"]
    plain = track(tracker, clip.frames[1], [], started)
    y, x = np.argwhere(clip.masks[1, 0])[clip.masks[1, 0].sum() // 2].tolist()
    click, box = {"type": "points", "points": [x, y]}, seeds[2]
    for drawn in (click, box):
        corrected = track(tracker, clip.frames[1], [{**drawn, "correction": 1}] * 3, started)
        assert kinds(corrected) == ["mask", "polygon", "rectangle"]
        assert corrected["shapes"] != plain["shapes"]
        following = track(tracker, clip.frames[2], [], corrected["states"])
        assert following["errors"] == [None] * 3
    assert corrected["shapes"][2] == box
    repeated = track(tracker, clip.frames[1], [{**seeds[1], "correction": 1}] * 3, started)
    assert repeated["shapes"] == [seeds[1]] * 3


@pytest.mark.parametrize(
    ("drawn", "box"),
    [
        # of a rectangle its part inside, no smaller than CVAT saves
        ({"type": "rectangle", "points": [-20.0, 30.0, 50.0, 900.0]}, [0.0, 30.0, 50.0, 120.0]),
        ({"type": "rectangle", "points": [20.25, 30.0, 20.75, 60.0]}, [20.0, 30.0, 21.0, 60.0]),
        # the box around what corrected it
        ({"type": "mask", "points": [0, 100, 40, 20, 49, 29], "correction": 1}, [40, 20, 50, 30]),
        (
            {"type": "polygon", "points": [-9, 50, 44, 50, 44, 70, -9, 70], "correction": 1},
            [0, 50, 44, 70],
        ),
    ],
    ids=["partly outside", "narrow", "mask", "polygon"],
)
def test_a_lost_rectangle_keeps_the_box_around_its_last_drawing(
    small_tracker: Tracker, clip: Clip, seeds: list[Any], monkeypatch: pytest.MonkeyPatch,
    drawn: dict[str, Any], box: list[float],
) -> None:  # fmt: skip
    states: list[Any] = []
    if "correction" in drawn:
        states = track(small_tracker, clip.frames[0], [seeds[2]])["states"]
    answer = track(small_tracker, clip.frames[1], [drawn], states)
    nothing = np.zeros((HEIGHT, WIDTH), np.bool_)
    monkeypatch.setattr(
        small_tracker._model, "logits_to_bitmaps", lambda logits, **_: [nothing] * len(logits)
    )
    for frame in clip.frames[2:4]:
        answer = track(small_tracker, frame, [], answer["states"])
        assert answer["shapes"] == [{"type": "rectangle", "points": box, "outside": True}]


@pytest.mark.parametrize("way", ["steps", "starts", "corrections", "all of them"])
def test_a_request_ends_when_the_time_for_its_shapes_is_spent(
    small_tracker: Tracker, clip: Clip, seeds: list[Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Also where nothing is known yet of what they cost. The number that is told fits."""
    tracker, now = small_tracker, [0.0]
    tracker.budget = TimeBudget(25.0, clock=lambda: now[0])
    make_bitmaps = tracker._model.logits_to_bitmaps

    def make_slowly(logits: Any, **size: int) -> Iterator[np.ndarray]:
        for bitmap in make_bitmaps(logits, **size):
            now[0] += 10
            yield bitmap

    known = track(tracker, clip.frames[0], [seeds[1]] * 4)["states"]  # answered as drawn
    click = {"type": "points", "points": [80, 60]}
    start, correction = {**click, "answer": "polygon"}, {**click, "correction": 1}
    shapes, states = {
        "steps": ([], known),
        "starts": ([start] * 4, []),
        "corrections": ([correction] * 4, known),
        "all of them": ([start, correction], [None, *known[:3]]),
    }[way]
    monkeypatch.setattr(tracker._model, "logits_to_bitmaps", make_slowly)
    words = r"After 25 s only 3 of 4 shapes are made; send at most 3 in one request\."
    with pytest.raises(TooLarge, match=words):
        track(tracker, clip.frames[1], shapes, states)
    assert track(tracker, clip.frames[1], shapes[:3], states[:3])["errors"] == [None] * 3


def test_masks_do_not_make_polygons_look_cheap(
    small_tracker: Tracker, clip: Clip, seeds: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of clicks. Too many of them are refused at once, with the number that fits."""
    tracker, now, seconds = small_tracker, [0.0], {"polygon": 0.5, "mask": 0.001}
    tracker.budget = TimeBudget(25.0, clock=lambda: now[0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def make_slowly(bitmap: Any, track: Track, **options: Any) -> Any:
        now[0] += seconds[track.shape_type]
        return bitmap_to_shape(bitmap, track, **options)

    monkeypatch.setattr(tracker_module, "bitmap_to_shape", make_slowly)
    large = clip.frames[0].repeat(10, axis=0).repeat(10, axis=1)
    polygon = {"type": "polygon", "points": [10 * number for number in seeds[1]["points"]]}
    states = track(tracker, large, [polygon] * 10)["states"]
    for first in (seeds[1], seeds[0]):  # the small image counts as one of 0.25 megapixels
        started = track(tracker, clip.frames[0], [first])
        track(tracker, clip.frames[1], [], started["states"])
    clicks = {"type": "points", "points": [800, 600]}
    words = r"10 objects would take longer than 25 s here; send at most 6 in one request\."
    for shapes, tokens in (([], states), ([{**clicks, "answer": "polygon"}] * 10, [])):
        with pytest.raises(TooLarge, match=words):
            track(tracker, large, shapes, tokens)
    assert track(tracker, large, [clicks] * 10)["errors"] == [None] * 10  # answered as masks


def test_a_tiny_image_does_not_make_large_ones_look_expensive(
    small_tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making its shape takes 0.01 s, which is much for so few pixels."""
    small_tracker.budget = TimeBudget(25.0, clock=lambda: 0.0)
    clock = itertools.count(step=0.01)
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(clock))
    image = np.zeros((48, 64, 3), np.uint8)
    started = track(small_tracker, image, [{"type": "rectangle", "points": [8, 8, 40, 40]}])
    track(small_tracker, image, [], started["states"])
    shapes = {"rectangle": 20}
    small_tracker.budget.check(starts=0, steps=20, shapes=shapes, megapixels=8.3)


@pytest.mark.parametrize(
    ("change", "state", "sentence"),
    [
        ({"points": [WIDTH + 1, 5]}, None, "does not lie on the image"),
        ({"points": [float("nan"), 5]}, None, "finite"),
        ({"points": [5]}, None, "pairs of numbers"),
        ({"points": []}, None, "at least once"),
        ({"points": [5, 5], "neg_points": [[5]]}, None, "two numbers"),
        ({"points": [5, 5], "correction": 0}, GONE, "state of the frame before"),
        ({"points": [5, 5], "correction": 1, "answer": "mask"}, GONE, "leave answer out"),
    ],
)
def test_clicks_that_make_no_sense(
    tracker: Tracker, clip: Clip, change: dict[str, Any], state: Any, sentence: str
) -> None:
    with pytest.raises(AllObjectsFailed, match=sentence) as caught:
        track(tracker, clip.frames[0], [{"type": "points", **change}], [state])
    assert (caught.value.status, caught.value.code) == (400, "bad_shape")


def test_a_model_that_fails_saves_nothing_and_its_features_are_not_kept(
    open_tracker: Open, family_model: ModelHandler, clip: Clip, seeds: list[Any],
    empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Else every repetition of that frame would fail as well."""
    tracker, encode = open_tracker(family_model, empty_redis), family_model.encode
    states = track(tracker, clip.frames[0], seeds)["states"]
    wanted = clip.frames[1], [seeds[0]], [None, *states]

    def spoiled(image: Image.Image) -> FrameFeatures:
        features = encode(image)
        return replace(features, levels=tuple(level * torch.nan for level in features.levels))

    def stored() -> list[bytes]:
        with empty_redis.client() as client:  # the key of a probe lives for a second
            return sorted(key for key in client.keys("*") if not key.endswith(b":ready"))

    before = stored()
    with monkeypatch.context() as patched:
        patched.setattr(family_model, "encode", spoiled)
        with pytest.raises(AllObjectsFailed, match="not finite") as caught:
            track(tracker, *wanted)
        assert (caught.value.status, caught.value.code) == (500, "model_failure")
    assert stored() == before
    assert track(tracker, *wanted)["errors"] == [None] * 4


def test_a_seed_says_how_far_its_polygons_may_be_from_its_masks(
    open_tracker: Open, small_model: ModelHandler, clip: Clip, seeds: list[Any],
    empty_redis: RedisServer,
) -> None:  # fmt: skip
    tracker = open_tracker(small_model, empty_redis)
    big = clip.frames[:3].repeat(6, axis=1).repeat(6, axis=2)
    points = [6 * p for p in seeds[1]["points"]]
    kept = [{"type": "polygon", "points": points, "tolerance": t} for t in (0, 0.02, 0.1, None)]
    states = track(tracker, big[0], kept)["states"]
    for frame in big[1:]:  # it holds for the whole track, and is read from the store
        answer = track(tracker, frame, [], states)
        states = answer["states"]
        exact, default, coarse, unsaid = (shape["points"] for shape in answer["shapes"])
        assert len(exact) > len(default) > len(coarse)
        assert unsaid == default
        assert all(value == int(value) for value in exact)
    refused = track(tracker, big[0], [{**kept[0], "tolerance": 0.2}, kept[0]])
    assert refused["errors"][0]["code"] == "bad_shape"
    assert "0 to 0.1" in refused["errors"][0]["message"]
