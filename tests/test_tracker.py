# SPDX-License-Identifier: MIT
"""The flow of a request: rules per object, errors, limits, what is saved and what is not."""

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cvat_sdk.masks import decode_mask, encode_mask
from faults.local import BY_NO_CLOCK
from PIL import Image

from model_handler import FrameFeatures, ModelHandler, Prediction
from sam2_tracker.errors import AllObjectsFailed, TooLarge
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles
from sam2_tracker.object_shapes import bitmap_to_shape, seed_to_prompt
from sam2_tracker.protocol import Seed, TrackRequest, answers_to_json, body_to_request
from sam2_tracker.record_format import Track
from sam2_tracker.settings import Settings
from sam2_tracker.time_budget import TimeBudget
from tools.redis_server import RedisServer
from tools.sam2_models import load_model, random_model
from tracker import Tracker, open_store
from training.clips import Clip, draw_clip

WIDTH, HEIGHT = 160, 120
GONE = {"v": 1, "id": "A" * 43}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(5, frames=12, width=WIDTH, height=HEIGHT, objects=3)


@pytest.fixture(scope="module")
def seeds(clip: Clip) -> list[dict[str, Any]]:
    """A mask, a polygon and a rectangle."""
    y, x = np.nonzero(clip.masks[0, 2])
    corners = np.argwhere(clip.masks[0, 1])[:, ::-1]
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0) + 1
    return [
        {"type": "mask", "points": encode_mask(clip.masks[0, 0])},
        {
            "type": "polygon",
            "points": [int(n) for n in (left, top, right, top, right, bottom, left, bottom)],
        },
        {
            "type": "rectangle",
            "points": [float(n) for n in (x.min() + 0.5, y.min(), x.max() + 1, y.max() + 1)],
        },
    ]


def new_tracker(model: ModelHandler, server: RedisServer | None = None, **changes: Any) -> Tracker:
    settings = Settings(**{"threads": 1, "redis_timeout_seconds": BY_NO_CLOCK, **changes})
    if server is not None:
        settings = replace(settings, redis_host=server.host, redis_port=server.port)
    cache = MemoryCache(settings.memory_cache_mib << 20)
    return Tracker(model, open_store(settings, model, cache), settings)


@pytest.fixture(scope="module")
def family_model(family_files: ModelFiles) -> ModelHandler:
    return load_model(family_files)


@pytest.fixture
def tracker(family_model: ModelHandler) -> Iterator[Tracker]:
    """Of each family, with the embedded store."""
    opened = new_tracker(family_model)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def hiding_tracker(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Tracker]:
    """Its model holds every object for absent after the first frame."""
    files = random_model(
        repository / "models" / "sam2.1_hiera_micro.yaml", tmp_path_factory.mktemp("hiding")
    )
    content = torch.load(files.checkpoint, weights_only=True)
    for name, tensor in content["model"].items():
        if name.startswith("sam_mask_decoder.pred_obj_score_head") and tensor.shape == (1,):
            tensor.fill_(-10.0)
    torch.save(content, files.checkpoint)
    opened = new_tracker(load_model(files))
    yield opened
    opened.close()


def request(
    frame: np.ndarray | bytes, shapes: Sequence[Any] = (), states: Sequence[Any] = ()
) -> TrackRequest:
    if isinstance(frame, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG")
        frame = buffer.getvalue()
    image = base64.b64encode(frame).decode()
    return body_to_request(
        {"image": image, "shapes": list(shapes), "states": list(states)},
        max_objects=100,
        max_points=1_000_000,
    )


def track(
    tracker: Tracker, frame: np.ndarray, shapes: Sequence[Any] = (), states: Sequence[Any] = ()
) -> dict[str, list[Any]]:
    """The answer as it goes over the wire."""
    answer: dict[str, list[Any]] = json.loads(
        answers_to_json(tracker.track(request(frame, shapes, states)))
    )
    assert len({len(each) for each in answer.values()}) == 1
    return answer


# ---- results ----


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
            if shape is not None:
                assert shape["type"] == kind
                check_shape(shape)


def check_shape(shape: dict[str, Any]) -> None:
    points = shape["points"]
    assert {type(number) for number in points} <= {int, float}
    if shape["type"] == "mask":
        bitmap = decode_mask(points, image_width=WIDTH, image_height=HEIGHT)
        assert bitmap.any()
        assert encode_mask(bitmap)[-4:] == points[-4:]  # tight
    else:
        assert min(points) >= 0
        assert max(points[0::2]) <= WIDTH
        assert max(points[1::2]) <= HEIGHT
    if shape["type"] == "polygon":
        assert len(points) >= 6
        assert len(points) % 2 == 0
    if shape["type"] == "rectangle":
        left, top, right, bottom = points
        assert left < right
        assert top < bottom


def test_a_state_continues_else_a_shape_starts_else_nothing(
    tracker: Tracker, clip: Clip, seeds: list[Any]
) -> None:
    mask, polygon, rectangle = seeds
    states = track(tracker, clip.frames[0], seeds)["states"]
    answer = track(
        tracker,
        clip.frames[1],
        [None, rectangle, polygon, None, mask],
        [states[0], states[1], None, None],
    )
    assert [shape and shape["type"] for shape in answer["shapes"]][1:] == [
        "polygon",  # the state of index 1 was a polygon's: it wins over the rectangle
        "polygon",
        None,
        "mask",
    ]
    assert answer["shapes"][2] == polygon
    assert answer["shapes"][4] == mask
    assert [state is None for state in answer["states"]] == [False, False, False, True, False]
    assert answer["scores"][3] is None
    assert answer["errors"] == [None] * 5


def test_nothing_to_do(tracker: Tracker, clip: Clip) -> None:
    empty: dict[str, list[Any]] = {"shapes": [], "states": [], "scores": [], "errors": []}
    assert track(tracker, clip.frames[0]) == empty
    assert track(tracker, clip.frames[0], [None, None], [None]) == {
        name: [None, None] for name in empty
    }


@pytest.mark.parametrize("frame_cache_mib", [0, 64])
def test_a_frame_is_encoded_once_and_known_the_next_time(
    micro_model: ModelHandler,
    clip: Clip,
    seeds: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    frame_cache_mib: int,
) -> None:
    tracker = new_tracker(micro_model, frame_cache_mib=frame_cache_mib)
    encoded = count_calls(monkeypatch, micro_model, "encode")
    states = track(tracker, clip.frames[0], seeds)["states"]
    first = track(tracker, clip.frames[1], [], states)
    assert len(encoded) == 2
    again = track(tracker, clip.frames[1], [], states)
    assert len(encoded) == (2 if frame_cache_mib else 3)
    assert again["shapes"] == first["shapes"]
    tracker.close()


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    calls: list[int] = []
    method: Callable[..., Any] = getattr(owner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


# ---- objects that are not visible ----


def test_what_is_not_visible_is_null_and_keeps_its_state(
    hiding_tracker: Tracker, clip: Clip, seeds: list[Any]
) -> None:
    answer = track(hiding_tracker, clip.frames[0], seeds[:2])
    for frame in clip.frames[1:4]:
        answer = track(hiding_tracker, frame, [], answer["states"])
        assert answer["shapes"] == [None, None]
        assert None not in answer["states"]
        assert answer["errors"] == [None, None]
        assert all(0 <= score < 0.01 for score in answer["scores"])


@pytest.mark.parametrize(
    ("points", "answered"),
    [
        ([-20.0, 30.0, 50.0, 900.0], [0.0, 30.0, 50.0, float(HEIGHT)]),  # its part inside
        ([20.25, 30.0, 20.75, 60.0], [20.0, 30.0, 21.0, 60.0]),  # no smaller than CVAT saves
    ],
)
def test_a_lost_rectangle_answers_a_box_that_cvat_can_save(
    hiding_tracker: Tracker, clip: Clip, points: list[float], answered: list[float]
) -> None:
    states = track(hiding_tracker, clip.frames[0], [{"type": "rectangle", "points": points}])
    answer = track(hiding_tracker, clip.frames[1], [], states["states"])
    assert answer["shapes"][0]["points"] == answered


# ---- errors of single objects ----


def square(side: int) -> dict[str, Any]:
    return {"type": "polygon", "points": [5, 5, 5 + side, 5, 5 + side, 5 + side, 5, 5 + side]}


def test_where_all_fail_the_request_does(tracker: Tracker, clip: Clip) -> None:
    with pytest.raises(AllObjectsFailed) as caught:
        tracker.track(request(clip.frames[0], [None, square(0)], [GONE]))
    assert (caught.value.status, caught.value.code) == (410, "state_gone")
    assert caught.value.indexes == [0, 1]
    with pytest.raises(AllObjectsFailed) as caught:
        tracker.track(request(clip.frames[0], [square(0), None], [None, GONE]))
    assert (caught.value.status, caught.value.code) == (400, "empty_shape")
    assert caught.value.indexes == [0, 1]


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


# ---- clicks ----


CLICK = {"type": "points", "points": [80.5, 60.25], "neg_points": [[5, 5]]}
BOX = {"type": "rectangle", "points": [40.0, 30.0, 120.0, 90.0], "pos_points": [[80, 60]]}


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
        model = tracker._model
        frame = model.encode(Image.fromarray(clip.frames[0]))
        clicks = seed_to_prompt(
            Seed(type=seed["type"], points=seed["points"], positive=seed.get("pos_points", []),
                 negative=seed.get("neg_points", [])), width=WIDTH, height=HEIGHT,
        )  # fmt: skip
        (found,) = model.start(frame, [clicks], width=WIDTH, height=HEIGHT)
        assert isinstance(found, Prediction)
        (bitmap,) = model.logits_to_bitmaps([found.logits], width=WIDTH, height=HEIGHT)
        track_of = Track(width=WIDTH, height=HEIGHT, shape_type=kind)
        wanted, _ = bitmap_to_shape(bitmap, track_of, tolerance=0.02)
        assert wanted is not None
        assert first == {"type": kind, "points": wanted.points}
    assert 0 <= answer["scores"][0] < 1
    for frame_index in (1, 2):
        answer = track(tracker, clip.frames[frame_index], [], answer["states"])
        assert answer["errors"] == [None]
        assert answer["shapes"][0] is None or answer["shapes"][0]["type"] == kind


def test_clicks_correct_a_tracked_frame_and_the_object_keeps_its_type(
    tracker: Tracker, clip: Clip, seeds: list[Any]
) -> None:
    start = track(tracker, clip.frames[0], seeds)["states"]
    y, x = np.argwhere(clip.masks[1, 0])[clip.masks[1, 0].sum() // 2].tolist()
    click = {"type": "points", "points": [x, y], "correction": 1}
    corrected = track(tracker, clip.frames[1], [click] * 3, start)
    assert corrected["errors"] == [None] * 3
    kinds = [shape and shape["type"] for shape in corrected["shapes"]]
    assert kinds == ["mask", "polygon", "rectangle"]
    plain = track(tracker, clip.frames[1], [], start)
    assert corrected["shapes"] != plain["shapes"]
    following = track(tracker, clip.frames[2], [], corrected["states"])
    assert following["errors"] == [None] * 3


def test_a_rectangle_that_corrects_a_mask_is_answered_by_the_mask_that_is_found(
    tracker: Tracker, clip: Clip, seeds: list[Any]
) -> None:
    start = track(tracker, clip.frames[0], seeds)["states"]
    box = {"type": "rectangle", "points": seeds[2]["points"], "correction": 1}
    corrected = track(tracker, clip.frames[1], [box] * 3, start)
    kinds = [shape and shape["type"] for shape in corrected["shapes"]]
    assert kinds == ["mask", "polygon", "rectangle"]
    assert corrected["shapes"][2]["points"] == box["points"]
    drawn = {**seeds[1], "correction": 1}
    repeated = track(tracker, clip.frames[1], [drawn] * 3, start)
    assert repeated["shapes"] == [seeds[1]] * 3  # a drawn outline is the answer itself


def test_a_lost_rectangle_keeps_the_box_around_its_last_correction(
    micro_model: ModelHandler, clip: Clip, seeds: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = new_tracker(micro_model)
    (state,) = track(tracker, clip.frames[0], [seeds[2]])["states"]
    drawn = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    drawn[20:30, 40:50] = True
    outline = {"type": "polygon", "points": [-9, 50, 44, 50, 44, 70, -9, 70]}
    around = {"mask": [40, 20, 50, 30], "polygon": [0, 50, 44, 70]}
    for shape in ({"type": "mask", "points": encode_mask(drawn)}, outline):
        corrected = track(tracker, clip.frames[1], [{**shape, "correction": 1}], [state])
        with monkeypatch.context() as patched:
            patched.setattr(
                micro_model, "logits_to_bitmaps",
                lambda logits, **_: iter([np.zeros((HEIGHT, WIDTH), np.bool_)] * len(logits)),
            )  # fmt: skip
            lost = track(tracker, clip.frames[2], [], corrected["states"])["shapes"][0]
        assert lost == {"type": "rectangle", "points": around[shape["type"]], "outside": True}
    tracker.close()


def test_the_time_for_new_shapes_is_counted_from_the_arrival_of_the_request(
    micro_model: ModelHandler, clip: Clip, seeds: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = new_tracker(micro_model)
    now = [0.0]
    tracker.budget = TimeBudget(25.0, clock=lambda: now[0])
    open_frame = tracker._frames.open

    def open_slowly(image: bytes) -> Any:
        now[0] += 26
        return open_frame(image)

    monkeypatch.setattr(tracker._frames, "open", open_slowly)
    with pytest.raises(TooLarge, match="After 25 s only 1 of 3 new shapes are prepared"):
        track(tracker, clip.frames[0], seeds)
    assert track(tracker, clip.frames[0], seeds[:1])["errors"] == [None]  # one is always prepared
    tracker.close()


def test_a_tiny_image_does_not_make_large_ones_look_expensive(
    micro_model: ModelHandler,
) -> None:
    tracker = new_tracker(micro_model)
    image = np.zeros((48, 64, 3), np.uint8)
    start = track(tracker, image, [{"type": "rectangle", "points": [8, 8, 40, 40]}])
    track(tracker, image, [], start["states"])
    tracker.budget.check(starts=0, steps=20, megapixels=8.3)
    tracker.close()


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


# ---- errors of the request ----


def spoiled(features: FrameFeatures) -> FrameFeatures:
    return replace(features, levels=tuple(level * torch.nan for level in features.levels))


def test_features_that_the_model_could_not_use_are_not_kept(
    micro_model: ModelHandler, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every repetition of that frame would fail as well."""
    tracker = new_tracker(micro_model)
    encode = micro_model.encode

    entry = request(clip.frames[0], [square(40)])
    with monkeypatch.context() as patched:
        patched.setattr(micro_model, "encode", lambda image: spoiled(encode(image)))
        with pytest.raises(AllObjectsFailed, match="not finite") as caught:
            tracker.track(entry)
    assert (caught.value.status, caught.value.code) == (500, "model_failure")
    (answer,) = tracker.track(entry)
    assert answer.token is not None
    tracker.close()


def test_a_model_that_fails_saves_nothing(
    family_model: ModelHandler,
    clip: Clip,
    seeds: list[Any],
    empty_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = new_tracker(family_model, empty_redis)
    states = track(tracker, clip.frames[0], seeds)["states"]
    with empty_redis.client() as client:
        before = client.dbsize()
        encode = family_model.encode
        with monkeypatch.context() as patched:
            patched.setattr(family_model, "encode", lambda image: spoiled(encode(image)))
            with pytest.raises(AllObjectsFailed, match="not finite"):
                tracker.track(request(clip.frames[1], [seeds[0]], [None, *states]))
        assert client.dbsize() == before
    assert track(tracker, clip.frames[1], [], states)["errors"] == [None] * 3
    tracker.close()


# ---- the store ----


def test_a_seed_says_how_far_its_polygons_may_be_from_its_masks(
    micro_model: ModelHandler, clip: Clip, seeds: list[Any], empty_redis: RedisServer
) -> None:
    tracker = new_tracker(micro_model, empty_redis)
    big = [clip.frames[n].repeat(6, axis=0).repeat(6, axis=1) for n in (0, 1, 2)]
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
    tracker.close()
