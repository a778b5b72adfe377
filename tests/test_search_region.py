# SPDX-License-Identifier: MIT
"""Objects that are looked for in a window of the image."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from asking import Open, request, track
from cvat_requests import shape_to_bitmap
from cvat_sdk.masks import encode_mask
from PIL import Image
from tracking import tight_box

from model_handler import ModelHandler
from sam2_tracker import frame_cache
from sam2_tracker.errors import TooLarge
from sam2_tracker.image_decoding import decode_image
from sam2_tracker.models import ModelFiles
from sam2_tracker.object_shapes import read_drawing
from sam2_tracker.protocol import Seed
from sam2_tracker.search_region import (
    SearchRegion,
    Window,
    follow,
    start_region,
    whole_region,
)
from sam2_tracker.shapes import bitmap_to_polygon
from sam2_tracker.time_budget import TimeBudget
from tools.official import official_logits, official_predictor
from tools.redis_server import RedisServer
from tools.sam2_models import load_model
from tracker import Tracker
from tracker_state import TrackState
from training.clips import Clip, draw_clip
from training.metrics import jaccard

WIDTH, HEIGHT = 320, 240
IMAGE = {"width": WIDTH, "height": HEIGHT}


# --- where the window lies ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "box", "window"),
    [
        (2, (100, 100, 160, 120), (70, 65, 190, 155)),  # twice as wide, in the image's aspect
        (2, (100, 60, 120, 120), (30, 30, 190, 150)),  # twice as high
        (4, (100, 100, 140, 120), (40, 50, 200, 170)),
        (2, (0, 0, 60, 20), (0, 0, 120, 90)),  # moved into the image
        (2, (260, 220, 320, 240), (200, 150, 320, 240)),
        (2, (200, 100, 202, 101), (181, 86, 221, 116)),  # no smaller than LEAST_SHARE
        (2, (20, 20, 200, 200), (0, 0, WIDTH, HEIGHT)),
    ],
)
def test_a_window_around_what_was_drawn(
    size: float, box: tuple[float, ...], window: tuple[int, ...]
) -> None:
    region = start_region(size, box, **IMAGE)  # type: ignore[arg-type]
    left, top, right, bottom = region.window
    assert np.abs(np.subtract(region.window, window)).max() <= 1
    assert (right - left) / WIDTH == pytest.approx((bottom - top) / HEIGHT, abs=0.01)
    assert all(map(region.holds, (box[:2], box[2:])))  # type: ignore[arg-type]


def moved(region: SearchRegion, *boxes: tuple[float, float, float, float] | None) -> SearchRegion:
    for box in boxes:
        region = follow(region, box, **IMAGE)
    return region


BOX = (140, 100, 180, 130)
STILL = start_region(3, BOX, **IMAGE)


def test_the_window_keeps_still_while_the_object_stays_well_inside() -> None:
    near = [(143, 102, 183, 132), (141, 98, 181, 128), (138, 100, 180, 131)]
    assert moved(STILL, *near).window == STILL.window


def test_the_window_moves_with_the_object() -> None:
    boxes = [(140 + 5 * n, 100, 180 + 5 * n, 130) for n in range(25)]
    region = STILL
    for box in boxes:
        assert region.holds(box[:2])
        assert region.holds(box[2:])
        region = follow(region, box, **IMAGE)
    assert region.window != STILL.window


def test_the_window_is_wider_around_an_object_that_moves_fast() -> None:
    region = STILL
    for n in range(1, 8):
        before, region = region, moved(region, (140 + 15 * n, 100, 180 + 15 * n, 130))
        assert region.share <= 1.1 * before.share + 1e-9  # the memory has another scale
    assert region.share > STILL.share
    calm = moved(region, *[(245, 100, 285, 130)] * 30)
    assert calm.share == pytest.approx(STILL.share, rel=0.4)


def test_the_window_goes_ahead_of_a_moving_object() -> None:
    region = start_region(2, (20, 100, 60, 130), **IMAGE)
    for n in range(1, 8):
        before, region = region, moved(region, (20 + 12 * n, 100, 60 + 12 * n, 130))
        middle = (region.window[0] + region.window[2]) / 2
        assert region.window == before.window or middle > 45 + 12 * n
    assert region.window[0] > 40


def test_the_window_follows_the_size_of_the_object() -> None:
    grown = moved(STILL, *[(100, 70, 220, 160)] * 4)  # wider than the window
    assert grown.share > 1.5 * STILL.share
    assert moved(grown, *[BOX] * 40).share == pytest.approx(STILL.share, rel=0.4)
    smaller = moved(STILL, *[(152, 110, 168, 120)] * 40)
    assert smaller.share == pytest.approx(0.15, rel=0.4)


def test_the_window_grows_to_the_whole_image_while_the_object_is_not_seen() -> None:
    shares = [STILL.share]
    region = STILL
    while region.share < 1:
        region = follow(region, None, **IMAGE)
        assert region.share > shares[-1]
        shares.append(region.share)
    assert 3 < len(shares) < 6
    back = follow(region, (20, 20, 60, 50), **IMAGE)  # far away: that was no motion
    assert back.share == pytest.approx(STILL.share)
    assert back.speed == (0, 0)


def test_clicks_say_no_size_and_no_speed() -> None:
    region = follow(whole_region(3, **IMAGE), BOX, **IMAGE)
    assert (region.window, region.speed) == (STILL.window, (0, 0))


# --- what is tracked in it ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(21, frames=14, width=WIDTH, height=HEIGHT, objects=3)


def mask(clip: Clip, number: int, frame: int = 0, **keys: object) -> dict[str, Any]:
    return {"type": "mask", "points": encode_mask(clip.masks[frame, number]), **keys}


def walk(
    tracker: Tracker, clip: Clip, shapes: Sequence[Any], frames: int = 6
) -> list[dict[str, list[Any]]]:
    """The answers, each with the windows in which the next frame is searched."""
    answers: list[dict[str, list[Any]]] = []
    for frame in clip.frames[:frames]:
        answer = track(
            tracker, frame, [] if answers else shapes, answers[-1]["states"] if answers else []
        )
        answers.append({**answer, "windows": windows(tracker, answer)})
    return answers


def windows(tracker: Tracker, answer: dict[str, list[Any]]) -> list[Window | None]:
    states = tracker._store.load([state["id"] for state in answer["states"]])
    regions = [state.track.region for state in states if isinstance(state, TrackState)]
    return [region.window if region else None for region in regions]


def contains(window: Window | None, box: tuple[float, float, float, float]) -> bool:
    x0, y0, x1, y1 = window or (0, 0, 0, 0)
    return x0 <= box[0] and y0 <= box[1] and x1 >= box[2] and y1 >= box[3]


def shown(answers: Sequence[dict[str, list[Any]]]) -> list[Any]:
    """All but the tokens, which are random."""
    return [{**each, "states": None} for each in answers]


@pytest.mark.slow
def test_the_model_sees_the_window_as_if_it_were_the_image(
    micro_files: ModelFiles, open_tracker: Open, tmp_path: Path
) -> None:
    """As long as the window keeps still, the official predictor finds the same masks in it."""
    clip = draw_clip(9, frames=18, width=WIDTH, height=HEIGHT, objects=3)
    shape = mask(clip, 2, search_region=2.5, memory="official")
    answers = walk(open_tracker(load_model(micro_files)), clip, [shape], 18)
    window = answers[0]["windows"][0]
    left, top, right, bottom = window
    assert (right - left) * (bottom - top) < WIDTH * HEIGHT / 2
    (official,) = official_logits(
        official_predictor(micro_files),
        [Image.fromarray(frame[top:bottom, left:right]) for frame in clip.frames],
        [clip.masks[0, 2, top:bottom, left:right]],
        tmp_path,
    )
    compared = 0
    for before, answer in itertools.pairwise(answers):
        if before["windows"][0] != window:
            break
        compared += 1
        wanted = np.zeros((HEIGHT, WIDTH), dtype=bool)
        wanted[top:bottom, left:right] = (official[compared] > 0).numpy()
        assert wanted.any()
        assert np.array_equal(shape_to_bitmap(answer["shapes"][0], WIDTH, HEIGHT), wanted)
    assert compared >= 6


@pytest.mark.slow
def test_a_window_goes_on_in_another_process(
    clip: Clip, small_model: ModelHandler, empty_redis: RedisServer, open_tracker: Open
) -> None:
    shapes = [mask(clip, 2, search_region=2)]
    alone = walk(open_tracker(small_model), clip, shapes, 10)
    assert len({answer["windows"][0] for answer in alone}) > 1  # it moved
    workers = [open_tracker(small_model, empty_redis, search_region=size) for size in (0, 9)]
    answer = track(workers[0], clip.frames[0], shapes)
    for number, frame in enumerate(clip.frames[1:10], 1):
        answer = track(workers[number % 2], frame, [], answer["states"])
        assert answer["shapes"] == alone[number]["shapes"]


@pytest.mark.slow
def test_each_object_has_its_own_window(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    """In one request they are found where each is found alone; one sees the whole image."""
    shapes = [mask(clip, 0), mask(clip, 1, search_region=0), mask(clip, 2, search_region=2)]
    tracker = open_tracker(small_model, search_region=2.5)
    together = walk(tracker, clip, shapes)
    for number, shape in enumerate(shapes):
        alone = walk(open_tracker(small_model, search_region=2.5), clip, [shape])
        for one, all_ in zip(alone, together, strict=True):
            for name in ("shapes", "scores", "errors", "windows"):
                assert one[name] == [all_[name][number]]
    assert {answer["windows"][1] for answer in together} == {None}
    assert all(answer["windows"][0] for answer in together)


@pytest.mark.slow
def test_without_a_window_nothing_changes(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    plain = walk(open_tracker(small_model), clip, [mask(clip, 0), mask(clip, 1)], 5)
    off = [mask(clip, number, search_region=0) for number in range(2)]
    assert shown(walk(open_tracker(small_model, search_region=2), clip, off, 5)) == shown(plain)


@pytest.mark.slow
def test_a_known_image_is_searched_like_a_new_one(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    """The cache holds what the model made of the whole image, and then of each window."""
    fresh = walk(open_tracker(small_model), clip, [mask(clip, 0, search_region=2)], 5)
    tracker = open_tracker(small_model)
    walk(tracker, clip, [mask(clip, 1)], 5)
    for _ in range(2):
        again = walk(tracker, clip, [mask(clip, 0, search_region=2)], 5)
        assert shown(again) == shown(fresh)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        {"type": "rectangle"},
        {"type": "rectangle", "answer": "mask"},
        {"type": "polygon"},
        {"type": "points", "answer": "polygon"},
    ],
)
def test_an_object_is_followed_in_a_window_from_a_box_a_polygon_or_a_click(
    clip: Clip, micro_model: ModelHandler, open_tracker: Open, shape: dict[str, Any]
) -> None:
    y, x = np.argwhere(clip.masks[0, 2]).mean(axis=0)
    points = {
        "rectangle": [*tight_box(clip.masks[0, 2])],
        "polygon": bitmap_to_polygon(clip.masks[0, 2], tolerance=0.02),
        "points": [float(x), float(y)],
    }[shape["type"]]
    tracker = open_tracker(micro_model, search_region=2.5)
    answers = walk(tracker, clip, [{**shape, "points": points}], 6)
    least = 0.4 if shape == {"type": "rectangle"} else 0.8  # a box fills only its own box
    for answer, truth in zip(answers, clip.masks[:, 2], strict=False):
        left, _, right, _ = answer["windows"][0]
        assert right - left < 0.75 * WIDTH
        assert overlap(answer, truth) > least


def overlap(answer: dict[str, list[Any]], truth: np.ndarray) -> float:
    return jaccard(shape_to_bitmap(answer["shapes"][0], WIDTH, HEIGHT), truth)


@pytest.mark.slow
def test_what_is_too_small_for_the_image_is_followed_in_a_window(
    clip: Clip, micro_model: ModelHandler, open_tracker: Open
) -> None:
    """15 pixels of an image of 960: a cell of the mask grid has 10."""
    size, grey = (96, 72), ((432, 432), (324, 324))
    frames, truths = [], []
    for frame, masks in zip(clip.frames[:8], clip.masks[:, 2], strict=False):
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        truth = cv2.resize(masks.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        frames.append(np.pad(small, (*grey[::-1], (0, 0)), constant_values=128))
        truths.append(np.pad(truth, grey[::-1]))
    small_clip = Clip(np.stack(frames), np.stack(truths)[:, None])
    found = {}
    for region in (0, 3):
        tracker = open_tracker(micro_model, search_region=region)
        answers = walk(tracker, small_clip, [mask(small_clip, 0)], 8)
        shapes = [answer["shapes"][0] for answer in answers]
        masks = [shape and shape_to_bitmap(shape, 960, 720) for shape in shapes]
        found[region] = [
            mask is not None and jaccard(mask, truth) > 0.7
            for mask, truth in zip(masks, truths, strict=True)
        ]
    assert found == {0: [True] + [False] * 7, 3: [True] * 8}


@pytest.mark.parametrize(
    ("kind", "answer", "unseen"),
    [
        ("mask", "rectangle", 3),
        ("rectangle", "mask", 0),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *(("mask", "mask", unseen) for unseen in (0, 3)),
                *(("rectangle", "rectangle", unseen) for unseen in (0, 3)),
                ("mask", "rectangle", 0),
                ("rectangle", "mask", 3),
            )
        ),
    ],
)
def test_a_correction_takes_the_window_along(
    clip: Clip, small_model: ModelHandler, open_tracker: Open, kind: str, answer: str, unseen: int
) -> None:
    """The picture jumps, and a person says where the object is now: outside its window."""
    tracker = open_tracker(small_model, search_region=2)
    start = mask(clip, 2)
    if answer == "rectangle":
        start = {"type": "rectangle", "points": [*tight_box(clip.masks[0, 2])]}
    before = walk(tracker, clip, [start], 4)[-1]
    for _ in range(unseen):
        before = track(tracker, np.zeros_like(clip.frames[0]), [], before["states"])
    jumped = Clip(np.roll(clip.frames, 150, axis=2), np.roll(clip.masks, 150, axis=3))
    box = tight_box(jumped.masks[4, 2])
    drawn = mask(jumped, 2, 4) if kind == "mask" else {"type": kind, "points": [*box]}
    found = track(tracker, jumped.frames[4], [{**drawn, "correction": 1}], before["states"])
    assert found["errors"] == [None]
    left, _, right, _ = window = windows(tracker, found)[0] or (0, 0, 0, 0)
    assert contains(window, box)
    assert right - left < 0.5 * WIDTH
    after = track(tracker, jumped.frames[5], [], found["states"])
    assert overlap(after, jumped.masks[5, 2]) > (0.4 if answer == "rectangle" else 0.8)


def test_a_negative_click_far_away_leaves_the_window_as_it_is(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    shape = {"type": "rectangle", "points": [*tight_box(clip.masks[0, 2])], "answer": "mask"}
    near, far = (
        walk(open_tracker(small_model, search_region=2), clip, [{**shape, "neg_points": clicks}], 3)
        for clicks in ([], [[300.0, 10.0]])
    )
    assert shown(far) == shown(near)


def test_a_positive_click_beside_the_box_lies_in_the_window(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    shape = {"type": "rectangle", "points": [*tight_box(clip.masks[0, 2])]}
    answer = track(
        open_tracker(small_model, search_region=2),
        clip.frames[0],
        [{**shape, "pos_points": [[200, 90]]}],
    )
    assert answer["errors"] == [None]


def test_a_window_that_is_drawn_on_elsewhere_is_adopted(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    tracker = open_tracker(small_model, search_region=2)
    first = track(tracker, clip.frames[0], [mask(clip, 0)])
    last = track(tracker, clip.frames[13], [mask(clip, 0, 13)])
    adopt = {"adopt": [{"index": 1, "distance": 13}]}
    both = [first["states"][0], last["states"][0]]
    adopted = track(tracker, clip.frames[0], [adopt, None], both)
    assert adopted["errors"][0] is None
    assert windows(tracker, {"states": adopted["states"][:1]}) == windows(tracker, first)
    answer = track(tracker, clip.frames[1], [], adopted["states"][:1])
    assert shape_to_bitmap(answer["shapes"][0], WIDTH, HEIGHT).any()


def test_a_request_that_would_encode_for_too_long_is_refused(
    clip: Clip, small_model: ModelHandler, open_tracker: Open
) -> None:
    """Each window is encoded by itself; two of the objects are so large that they have none."""
    shapes = [mask(clip, number, search_region=2) for number in range(3)]
    tracker = open_tracker(small_model)
    tracker.budget.seconds = 25.0
    tracker.budget.remember("frame", 20.0)
    with pytest.raises(TooLarge, match="3 objects would take longer than 25 s here; send at most"):
        tracker.track(request(clip.frames[0], shapes))
    plain = [{**shape, "search_region": 0} for shape in shapes]
    tracker.track(request(clip.frames[0], plain))
    large = {"type": "rectangle", "points": [10, 10, 310, 230], "search_region": 2}
    tracker.track(request(clip.frames[0], [large] * 3))  # all on the whole image


def test_a_request_ends_between_two_windows_when_its_time_is_spent(
    clip: Clip, small_model: ModelHandler, open_tracker: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def encode_slowly(image: Image.Image) -> Any:
        now[0] += 20
        return encode(image)

    tracker = open_tracker(small_model)
    tracker.budget = TimeBudget(25, clock=lambda: now[0])
    encode = small_model.encode
    monkeypatch.setattr(small_model, "encode", encode_slowly)
    corner = {"type": "rectangle", "points": [5, 5, 25, 25], "search_region": 2}
    shapes = [corner, mask(clip, 2, search_region=2), mask(clip, 0)]
    said = "After 25 s only 2 of 3 search regions are done; send fewer objects at once"
    with pytest.raises(TooLarge, match=said):
        tracker.track(request(clip.frames[0], shapes))
    assert track(tracker, clip.frames[0], shapes[:1])["errors"] == [None]


def test_a_known_image_is_decoded_once_for_all_windows(
    clip: Clip, small_model: ModelHandler, open_tracker: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(data: bytes, **limits: Any) -> Image.Image:
        decoded.append(data)
        return decode_image(data, **limits)

    monkeypatch.setattr(frame_cache, "decode_image", decode)
    tracker = open_tracker(small_model)
    track(tracker, clip.frames[0], [mask(clip, 0)])
    track(tracker, clip.frames[0], [mask(clip, n, search_region=1.5) for n in range(3)])
    assert len(decoded) == 2


def test_a_drawing_does_not_keep_the_bitmap_of_the_whole_image(clip: Clip) -> None:
    """Of many drawings on a large image that would be much."""
    seed = Seed(type="mask", points=encode_mask(clip.masks[0, 2]))
    drawing = read_drawing(seed, width=WIDTH, height=HEIGHT, size=2)
    assert isinstance(drawing.prompt, np.ndarray)
    assert drawing.prompt.base is None
