# SPDX-License-Identifier: MIT
"""The wire format: requests, answers, and the errors of malformed requests."""

import base64
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_tracker.errors import BadRequest, BadShape, BadState, ObjectError, StateGone, TooLarge
from sam2_tracker.protocol import (
    Adoption,
    Answer,
    Correction,
    Lent,
    Seed,
    Shape,
    Token,
    TrackRequest,
    answers_to_json,
    body_to_request,
)

ID = "A" * 20 + "-_" + "z9" * 10 + "Q"
STATE = {"v": 1, "id": ID}
POLYGON = {"type": "polygon", "points": [1, 1, 5, 1, 3, 4]}
MASK = {"type": "mask", "points": [0, 4, 0, 0, 1, 1]}
RECTANGLE = {"type": "rectangle", "points": [1.5, 1, 5, 5]}
PICTURE = b"an encoded picture"


def body(**parts: object) -> dict[str, object]:
    return {"image": base64.b64encode(PICTURE).decode(), **parts}


def request(content: object, *, max_objects: int = 100, max_points: int = 1000) -> TrackRequest:
    return body_to_request(content, max_objects=max_objects, max_points=max_points)


# ---- requests ----


SEED, TOKEN = Seed(type="polygon", points=POLYGON["points"]), Token(id=ID)


@pytest.mark.parametrize(
    ("parts", "entries"),
    [
        ({"shapes": [None, None], "states": [STATE, STATE]}, (TOKEN, TOKEN)),  # as CVAT continues
        (
            {"shapes": [MASK, POLYGON, RECTANGLE], "states": []},
            tuple(Seed(type=s["type"], points=s["points"]) for s in (MASK, POLYGON, RECTANGLE)),
        ),
        ({"shapes": [POLYGON]}, (SEED,)),
        ({"states": [STATE]}, (TOKEN,)),
        ({"shapes": None, "states": [STATE]}, (TOKEN,)),
        ({"shapes": [POLYGON], "states": None}, (SEED,)),
        ({"shapes": [POLYGON], "states": [STATE]}, (TOKEN,)),  # the state wins
        ({"shapes": [POLYGON, None], "states": [None, STATE]}, (SEED, TOKEN)),
        ({"shapes": [None], "states": [None]}, (None,)),
        ({"shapes": [POLYGON, POLYGON, None], "states": [STATE]}, (TOKEN, SEED, None)),  # uneven
        ({"shapes": [POLYGON], "states": [None, None, STATE]}, (SEED, None, TOKEN)),
        ({"shapes": [], "states": []}, ()),
    ],
)
def test_a_state_continues_else_a_shape_starts(
    parts: dict[str, object], entries: tuple[object, ...]
) -> None:
    found = request(body(**parts))
    assert (found.image, found.entries) == (PICTURE, entries)


def test_unknown_keys_are_ignored() -> None:
    shape = {**POLYGON, "label": 3, "rotation": 0, "__class__": "x"}
    found = request(body(shapes=[shape], states=[], threshold=0.5, job=3, extra={"a": [1]}))
    assert found.entries == (SEED,)


@pytest.mark.parametrize("kind", [str, str.encode, lambda text: bytearray(text.encode())])
def test_a_body_of_text_or_bytes_is_parsed_as_json(kind: type) -> None:
    assert request(kind(json.dumps(body(shapes=[POLYGON])))).entries == (SEED,)


MALFORMED: dict[str, tuple[object, ...]] = {
    # Nuclio gives a JSON string as a text, decoded.
    "be a JSON object": (None, 3, [], [body()], b"[1]", "x", b'"x"', "[]", b"null", "null", ""),
    "The body is not valid JSON": (b"", b"\xff\xfe\xfd", b"{", b'{"image": "AAAA", }'),
    "nested too deeply": (b"[" * 100_000, b'{"a":' * 100_000),
    "A number in the body has too many digits": (b'{"shapes": ' + b"9" * 5000 + b"}",),
    "The image is missing": (
        {"shapes": [POLYGON]},
        *({"image": no, "shapes": []} for no in (None, "", 5, ["AA"])),
    ),
    "without line breaks and without a data: prefix, with \\+ and /": (
        # "AAA": padding is missing
        *({"image": no} for no in ("!!!!", "AAA", "AAAA\u00e9", "AAAA\nAAAA", "A-_A")),
        {"image": "data:image/png;base64,AAAA"},
    ),
    "There is nothing to track": (body(), body(pos_points=[[24, 20]])),
    "shapes must be a list": tuple(body(shapes=no) for no in ("abc", {"0": POLYGON}, 3)),
    "states must be a list": tuple(body(states=no) for no in ("abc", {"v": 1, "id": ID}, True)),
}


@pytest.mark.parametrize(
    ("said", "content"),
    [(said, content) for said, contents in MALFORMED.items() for content in contents],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_wrong_with_a_request_is_said(said: str, content: object) -> None:
    with pytest.raises(BadRequest, match=rf"{said}.*\.$"):
        request(content)


def test_more_objects_than_the_limit_are_rejected() -> None:
    assert len(request(body(shapes=[POLYGON] * 5), max_objects=5).entries) == 5
    for parts in ({"shapes": [POLYGON] * 6}, {"shapes": [], "states": [None] * 6}):
        with pytest.raises(TooLarge, match="6 objects.*limit is 5"):
            request(body(**parts), max_objects=5)


@pytest.mark.parametrize(
    "state",
    [
        *("abc", ID, 5, True, [], {}, {"v": 1}, {"id": ID}),
        *({"v": version, "id": ID} for version in (2, "1", True, 1.0)),
        *({"v": 1, "id": id_} for id_ in (None, 5, [ID], "", ID[:-1], ID + "A", ID + "\n")),
        # "\u0661": a digit to str.isdigit
        *({"v": 1, "id": ID[:-1] + last} for last in ("*", " ", "\u00e9", "\u0661")),
        *({"v": 1, "id": id_} for id_ in ("../" * 14 + "a", "\r\nFLUSHALL\r\n".ljust(43, "A"))),
        {"v": 1, "id": "A" * 1_000_000},
    ],
    ids=lambda state: repr(state)[:60],
)
def test_a_malformed_token_is_an_error_of_its_object(state: object) -> None:
    first, second = request(body(states=[state, STATE], shapes=[POLYGON])).entries
    assert isinstance(first, BadState)  # and the shape beside it does not start
    assert len(first.message) < 100
    assert second == TOKEN


@pytest.mark.parametrize(
    ("said", "shapes"),
    [
        ("object with type and points", ["abc", 5, [1, 1, 5, 1, 3, 4]]),
        ("type must be one of mask, polygon, rectangle", [{}, {"points": [1, 1, 5, 1, 3, 4]}]),
        (
            "type must be one of",
            [{"type": kind, "points": [1, 1]} for kind in ("ellipse", None, ["mask"], "MASK")],
        ),
        ("100 clicks on one object", [{"type": "points", "points": [1, 1] * 100}]),
        ("65 clicks on one object", [{**RECTANGLE, "neg_points": [[1, 1]] * 65}]),
        ("must be a list of points", [{"type": "points", "points": [1, 1], "pos_points": "abc"}]),
        ("answer must be one of", [{**RECTANGLE, "answer": "points"}]),
        (
            "takes no clicks and no answer",
            [{**POLYGON, "answer": "mask"}, {**POLYGON, "pos_points": [[1, 1]]}],
        ),
        (
            "points of a polygon must be a list",
            [{"type": "polygon", **points} for points in ({}, {"points": None}, {"points": "abc"})],
        ),
        ("points of a mask must be a list", [{"type": "mask", "points": {"0": 1}}]),
        ("has 1001 numbers; the limit is 1000", [{"type": "mask", "points": [0] * 1001}]),
        ("rotated rectangle", [{**RECTANGLE, "rotation": 30}]),
        (
            "memory must be one of",
            [
                {**POLYGON, "memory": no}
                for no in ("", "Official", 0, 1, True, [], {}, ["official"])
            ],
        ),
        (
            "search_region must be 0 or a number from 1.5 to 10",
            [
                {**POLYGON, "search_region": no}
                for no in (1, 1.4, 10.1, -2, math.nan, math.inf, "2", True, [2], {})
            ],
        ),
    ],
)
def test_a_malformed_shape_is_an_error_of_its_object(said: str, shapes: list[object]) -> None:
    *wrong, right = request(body(shapes=[*shapes, POLYGON])).entries
    for entry in wrong:
        assert isinstance(entry, BadShape)
        assert said in entry.message
    assert right == SEED


MARKS = ("correction", "adopt", "memory", "pos_points", "neg_points", "answer")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "points", "v", "id", *MARKS, "index", "distance"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.lists(json_values, max_size=4) | json_values,
    st.lists(json_values | st.just(STATE), max_size=4),
)
def test_any_json_is_a_request_or_an_error(shapes: object, states: list[object]) -> None:
    try:
        found = request(body(shapes=shapes, states=states))
    except BadRequest:
        assert shapes is not None
        assert not isinstance(shapes, list)
        return
    assert len(found.entries) == max(len(shapes or []), len(states))
    for entry in found.entries:
        assert entry is None or isinstance(
            entry, Seed | Token | Correction | Adoption | Lent | BadShape | BadState
        )


# ---- answers ----


def test_answers_keep_their_places() -> None:
    answers = [
        Answer(shape=Shape(type="mask", points=[0, 1, 2, 1, 2, 1]), token=TOKEN, score=0.5),
        Answer(),
        Answer(token=TOKEN, score=0.01),  # not visible, but it may come back
        Answer(error=StateGone("It is gone.")),
        Answer(
            shape=Shape(type="rectangle", points=[1.0, 2.0, 3.0, 4.0], outside=True),
            token=TOKEN,
            score=0.0,
        ),
        Answer(shape=Shape(type="polygon", points=[1, 1, 5, 1, 3, 4]), token=TOKEN, score=1.0),
    ]
    assert json.loads(answers_to_json(answers)) == {
        "shapes": [
            {"type": "mask", "points": [0, 1, 2, 1, 2, 1]},
            None,
            None,
            None,
            {"type": "rectangle", "points": [1, 2, 3, 4], "outside": True},
            {"type": "polygon", "points": [1, 1, 5, 1, 3, 4]},
        ],
        "states": [STATE, None, STATE, None, STATE, STATE],
        "scores": [0.5, None, 0.01, None, 0.0, 1.0],
        "errors": [None, None, None, {"code": "state_gone", "message": "It is gone."}, None, None],
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_never_sent(number: float) -> None:
    shape = Shape(type="polygon", points=[number, 1.0])
    for answer in (Answer(score=number), Answer(shape=shape)):
        with pytest.raises(ValueError, match="JSON"):
            answers_to_json([answer])


def test_a_token_is_small_and_is_read_back_unchanged() -> None:
    answer = json.loads(answers_to_json([Answer(token=TOKEN)]))
    assert len(json.dumps(answer["states"][0])) < 200
    assert request(body(states=answer["states"])).entries == (TOKEN,)


# ---- corrections, keyframes, memory policies ----

OTHER = {"v": 1, "id": "B" * 43}
OTHER_TOKEN = Token(id="B" * 43)
THIRD = {"v": 1, "id": "C" * 43}


def entries(shapes: list[object], states: list[object]) -> tuple[object, ...]:
    return request(body(shapes=shapes, states=states)).entries


def code(entry: object) -> str | None:
    return entry.code if isinstance(entry, ObjectError) else None


@pytest.mark.parametrize(
    ("shape", "distance"), [(MASK, 0), (MASK, 1), (POLYGON, 0), (RECTANGLE, 1)]
)
def test_a_shape_that_corrects_a_state(shape: dict[str, object], distance: int) -> None:
    seed = Seed(type=shape["type"], points=shape["points"])
    expected = Correction(token=TOKEN, seed=seed, distance=distance)
    assert entries([{**shape, "correction": distance}], [STATE]) == (expected,)


@pytest.mark.parametrize(
    "shape",
    [
        *({**MASK, "correction": value} for value in (2, -1, 0.0, 1.0, True, "1", None, [], {})),
        {**MASK, "correction": 1e400},
        {**RECTANGLE, "correction": 0},
        {"type": "ellipse", "points": [], "correction": 1},
        {"correction": 1},
        {**MASK, "correction": 1, "adopt": []},
        *({"adopt": adopt} for adopt in (None, [], {}, "1", 1, [1], [[]], [None], [{}])),
        *({"adopt": [{"index": index, "distance": 3}]} for index in ("1", 1.0, True, None, [1])),
    ],
    ids=repr,
)
def test_a_malformed_mark_is_an_error_of_its_object(shape: object) -> None:
    wrong, right = entries([shape, None], [STATE, OTHER])
    assert code(wrong) == "bad_shape"
    assert right == OTHER_TOKEN


@pytest.mark.parametrize("shape", [MASK, {**MASK, "memory": "anchors"}, {**MASK, "other": 1}])
def test_a_shape_without_a_mark_does_not_correct(shape: object) -> None:
    """CVAT's own page sends the first shape again beside each state."""
    assert entries([shape], [STATE]) == (TOKEN,)


def test_a_correction_without_a_state_is_a_start() -> None:
    assert entries([{**POLYGON, "correction": 1}], [None]) == (SEED,)


KEYFRAME = {"index": 1, "distance": 3}


def adopting(*keyframes: tuple[int, int]) -> dict[str, object]:
    return {"adopt": [{"index": index, "distance": distance} for index, distance in keyframes]}


def test_an_object_adopts_the_keyframes_of_others() -> None:
    found = entries([adopting((1, 30), (2, -12)), None, None], [STATE, OTHER, THIRD])
    assert found == (
        Adoption(token=TOKEN, keyframes=((1, 30), (2, -12))),
        Lent(token=OTHER_TOKEN),
        Lent(token=Token(id="C" * 43)),
    )


def test_two_objects_may_adopt_each_other() -> None:
    assert entries([adopting((1, 5)), adopting((0, -5))], [STATE, OTHER]) == (
        Adoption(token=TOKEN, keyframes=((1, 5),)),
        Adoption(token=OTHER_TOKEN, keyframes=((0, -5),)),
    )


@pytest.mark.parametrize(
    "adopt",
    [
        [KEYFRAME] * 8,
        *([{**KEYFRAME, "distance": d}] for d in ("1", 1.5, False, None, 10**400, -(1 << 31))),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_a_malformed_adoption_names_is_not_tracked_on(adopt: object) -> None:
    wrong, other = entries([{"adopt": adopt}, None], [STATE, OTHER])
    assert code(wrong) == "bad_shape"
    assert other == Lent(token=OTHER_TOKEN)  # this image need not be of the frame after it


@pytest.mark.parametrize("index", [0, -1, 2, 3, 10**30])
def test_only_another_state_of_the_request_can_be_adopted(index: int) -> None:
    """0 is the object itself, 2 a shape that starts."""
    wrong, *others = entries([adopting((index, 1)), None, POLYGON], [STATE, OTHER, None])
    assert code(wrong) == "bad_state"
    assert others == [OTHER_TOKEN, SEED]


@pytest.mark.parametrize(
    ("distance", "state", "said"),
    [(3, None, "at the same index"), (1 << 40, STATE, "is at most 1073741824 frames")],
)
def test_why_nothing_is_adopted_is_said(distance: int, state: object, said: str) -> None:
    wrong, other = entries([adopting((1, distance)), None], [state, OTHER])
    assert said in str(wrong)
    assert other == Lent(token=OTHER_TOKEN)


def test_an_adoption_that_fails_lends_nothing() -> None:
    found = entries([adopting((n, 5)) for n in (1, 2, 7)], [STATE, OTHER, THIRD])
    assert [code(entry) for entry in found] == ["bad_state"] * 3


def test_a_malformed_state_that_is_adopted_is_both_objects_error() -> None:
    found = entries([adopting((1, 3)), None], [STATE, {"v": 2}])
    assert [code(entry) for entry in found] == ["bad_state", "bad_state"]


@pytest.mark.parametrize("policy", ["official", "quality", "anchors", None])
def test_a_shape_may_name_its_memory_policy(policy: str | None) -> None:
    assert entries([{**POLYGON, "memory": policy}], []) == (replace(SEED, policy=policy),)


@pytest.mark.parametrize("size", [0, 1.5, 2, 10, None])
def test_a_shape_may_name_its_search_region(size: float | None) -> None:
    wanted = replace(SEED, search_region=size)
    assert entries([{**POLYGON, "search_region": size}], []) == (wanted,)
