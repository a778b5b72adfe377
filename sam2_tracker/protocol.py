# SPDX-License-Identifier: MIT
"""The wire format: CVAT's request to Python, and our answers to JSON."""

import binascii
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from sam2_tracker.clicks import check_click_count
from sam2_tracker.errors import BadRequest, BadShape, BadState, ObjectError, TooLarge
from sam2_tracker.ids import ID
from sam2_tracker.memory_bank import MAX_CONDITIONING
from sam2_tracker.memory_policy import POLICIES
from sam2_tracker.search_region import LARGEST_SIZE, SMALLEST_SIZE, is_size
from sam2_tracker.shapes import ANSWER_TYPES, PROMPT_TYPES, SHAPE_TYPES, Points

STATE_VERSION = 1
MAX_DISTANCE = 1 << 30
"""Two keyframes of an object lie so many frames apart at most."""
DRAW_AGAIN = "Start the object again from a shape."
MAX_TOLERANCE = 0.1
"""The largest tolerance of polygons, 1 - IoU."""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A shape that was drawn on this frame; its points are not checked yet."""

    type: str
    points: list[Any]
    policy: str | None = None
    """The memory policy of an object that starts; None: the function's own."""
    tolerance: float | None = None
    """How much the IoU of the object's polygons with its masks may be short of 1; None: as set."""
    positive: list[Any] = field(default_factory=list)
    """Clicks on the object, [x, y] each, beside a rectangle's corners or the points themselves."""
    negative: list[Any] = field(default_factory=list)
    """Clicks that are not on the object."""
    answer: str | None = None
    """The type in which the object is answered; None: its own, and a mask for points."""
    search_region: float | None = None
    """Side of the window in which an object that starts is searched, in sizes of the object; 0: the
    whole image; None: the function's own."""

    @property
    def is_prompt(self) -> bool:
        """SAM 2 finds the mask."""
        return self.type in PROMPT_TYPES

    @property
    def answer_type(self) -> str:
        return self.answer or ("mask" if self.type == "points" else self.type)


@dataclass(frozen=True, kw_only=True)
class Token:
    """Names the remembered state of an object: 256 random bits as 43 url-safe characters."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A shape that was drawn on this frame of an object that is tracked already."""

    token: Token
    seed: Seed
    distance: int
    """0: the token's frame is this one. 1: it is the frame before; then this one counts as done."""


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """An object that takes over what was drawn of it on other frames. The image is not used."""

    token: Token
    keyframes: tuple[tuple[int, int], ...]
    """Of each: the index of its entry in this request, and how many frames its token's frame lies
    after this token's frame, in the direction of tracking; negative: before."""


@dataclass(frozen=True, kw_only=True)
class Lent:
    """A state that an `Adoption` names, and that is not tracked itself."""

    token: Token


Entry = Seed | Token | Correction | Adoption | Lent | None
"""What a request asks for one object: start it, continue it, ... or nothing."""


@dataclass(frozen=True, kw_only=True)
class TrackRequest:
    image: bytes
    """One encoded image file."""
    entries: tuple[Entry | ObjectError, ...]
    """One per object; an ObjectError says what is wrong with the entry."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    type: str
    points: Points
    outside: bool = False
    """True for a rectangle whose object is not visible; its points are the last visible ones."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of one object; all None: the request asked nothing of it."""

    shape: Shape | None = None
    token: Token | None = None
    score: float | None = None
    """0..1, also of an object that is not visible."""
    error: ObjectError | None = None


def body_to_request(body: object, *, max_objects: int, max_points: int) -> TrackRequest:
    """Reads a request's body: a decoded JSON object, or its bytes or text.

    A state continues, else a shape starts, else there is nothing to do; the shorter of the two
    lists counts as filled up with null. A shape beside a state counts only if it says so, by the
    key `correction` or `adopt`. The error of a malformed object takes its place. Raises
    BadRequest if the request itself is malformed, TooLarge if it has more than `max_objects`.
    """
    content = read_body(body, "image, shapes and states")
    shapes, states = _list(content, "shapes"), _list(content, "states")
    count = max(len(shapes), len(states))
    if count > max_objects:
        raise TooLarge(f"{count} objects in one request; the limit is {max_objects}.")
    shapes += [None] * (count - len(shapes))
    states += [None] * (count - len(states))
    data = read_image(content)
    if not {"shapes", "states"} & content.keys():
        raise BadRequest("There is nothing to track: send shapes, states or both.")
    entries = [
        _entry(shape, state, max_points) for shape, state in zip(shapes, states, strict=True)
    ]
    return TrackRequest(image=data, entries=_lend(entries, shapes))


def read_body(body: object, keys: str) -> dict[Any, Any]:
    """A decoded JSON object, or its bytes or text. keys: what it holds, for the message.

    Raises BadRequest.
    """
    no_object = f"The body must be a JSON object with {keys}."
    if isinstance(body, bytes | bytearray | str):
        body = _parse_json(body, no_object)
    if not isinstance(body, dict):
        raise BadRequest(no_object)
    return body


def read_image(content: dict[Any, Any]) -> bytes:
    """The encoded image file of a request. Raises BadRequest."""
    image = content.get("image")
    if not isinstance(image, str) or not image:
        raise BadRequest("The image is missing: it must be an encoded image file in base64.")
    try:
        return binascii.a2b_base64(image, strict_mode=True)
    except ValueError:
        raise BadRequest(
            "The image is not valid base64. Send it without line breaks and without a data: "
            "prefix, with + and / (not - and _), and with = at its end where it is needed."
        ) from None


def answers_to_json(answers: list[Answer]) -> str:
    """Encodes the answers in their order. Raises ValueError for a number that is not finite."""
    return json.dumps(
        {
            "shapes": [answer.shape and _shape_to_wire(answer.shape) for answer in answers],
            "states": [
                answer.token and {"v": STATE_VERSION, "id": answer.token.id} for answer in answers
            ],
            "scores": [answer.score for answer in answers],
            "errors": [
                answer.error and {"code": answer.error.code, "message": answer.error.message}
                for answer in answers
            ],
        },
        allow_nan=False,
        separators=(",", ":"),
    )


def error_to_json(code: str, message: str, indexes: list[int]) -> str:
    return json.dumps({"error": {"code": code, "message": message, "indexes": indexes}})


def _parse_json(text: bytes | bytearray | str, no_object: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        # A text may be a JSON string that Nuclio has decoded already: valid, but no object.
        wrong = no_object if isinstance(text, str) else "The body is not valid JSON."
        raise BadRequest(wrong) from None
    except ValueError:  # of Python, for a long whole number
        limit = sys.get_int_max_str_digits()
        raise BadRequest(
            f"A number in the body has too many digits; the limit is {limit}."
        ) from None


def _list(body: dict[Any, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{name} must be a list.")
    return list(value)


def _entry(shape: object, state: object, max_points: int) -> Entry | ObjectError:
    try:
        if state is not None:
            token = _state_to_token(state)
            marks = {"correction", "adopt"} & shape.keys() if isinstance(shape, dict) else set()
            return _marked(token, shape, marks, max_points) if marks else token
        if isinstance(shape, dict) and "adopt" in shape:
            raise BadState("adopt needs the state of this object beside it, at the same index.")
        if shape is not None:
            return _shape_to_seed(shape, max_points)
        return None
    except ObjectError as error:
        return error


def _marked(token: Token, shape: Any, marks: set[str], max_points: int) -> Correction | Adoption:
    """A state beside a shape that says what it is for."""
    if len(marks) > 1:
        raise BadShape("A shape is either a correction or an adoption, not both.")
    if "adopt" in marks:
        return Adoption(token=token, keyframes=_keyframes(shape["adopt"]))
    distance = shape["correction"]
    if type(distance) is not int or distance not in (0, 1):
        raise BadShape(
            "correction must be 0 if the state's frame is this one, or 1 if it is the one before."
        )
    seed = _shape_to_seed(shape, max_points)
    if seed.is_prompt and distance == 0:
        raise BadShape(
            f"A shape of type {seed.type} corrects a frame from the state of the frame before it: "
            "send that state, and 1 as correction."
        )
    if seed.answer is not None:
        raise BadShape("A corrected object keeps its type: leave answer out.")
    return Correction(token=token, seed=seed, distance=distance)


def _keyframes(adopt: object) -> tuple[tuple[int, int], ...]:
    """Reads `[{"index": 1, "distance": 30}, ...]`."""
    if not isinstance(adopt, list) or not 1 <= len(adopt) < MAX_CONDITIONING:
        raise BadShape(f"adopt must be a list of 1 to {MAX_CONDITIONING - 1} keyframes.")
    keyframes = []
    for item in adopt:
        numbers = item if isinstance(item, dict) else {}
        index, distance = numbers.get("index"), numbers.get("distance")
        if type(index) is not int or type(distance) is not int:
            raise BadShape("A keyframe to adopt has the whole numbers index and distance.")
        if abs(distance) > MAX_DISTANCE:
            raise BadShape(f"The distance of a keyframe to adopt is at most {MAX_DISTANCE} frames.")
        keyframes.append((index, distance))
    return tuple(keyframes)


def _lend(
    entries: list[Entry | ObjectError], shapes: list[object]
) -> tuple[Entry | ObjectError, ...]:
    """Checks what adoptions name, and marks the states that serve an adoption only.

    A state that is named serves nothing else, also where the adoption fails: this image need not be
    of the frame after it.
    """
    checked = list(entries)
    failed = True
    while failed:  # an adoption that fails lends nothing: those that name it fail as well
        failed = False
        for own, entry in enumerate(checked):
            bad = _unusable(own, entry, checked) if isinstance(entry, Adoption) else None
            if bad is not None:
                checked[own] = BadState(
                    "An object cannot adopt its own state."
                    if bad == own
                    else f"At index {bad} there is no state that can be adopted."
                )
                failed = True
    for index in _named(shapes):
        if 0 <= index < len(entries) and isinstance(entry := checked[index], Token):
            checked[index] = Lent(token=entry)
    return tuple(checked)


def _unusable(own: int, adoption: Adoption, entries: list[Entry | ObjectError]) -> int | None:
    """The first index that an adoption names and that has no state to lend; None: all have one."""
    for index, _ in adoption.keyframes:
        other = entries[index] if 0 <= index < len(entries) and index != own else None
        if not isinstance(other, Token | Adoption):
            return index
    return None


def _named(shapes: list[object]) -> set[int]:
    """The indexes that stand in the adoptions of a request, sound or not."""
    adoptions = [shape.get("adopt") for shape in shapes if isinstance(shape, dict)]
    items = [item for each in adoptions if isinstance(each, list) for item in each]
    indexes = [item.get("index") for item in items if isinstance(item, dict)]
    return {index for index in indexes if type(index) is int}


def _state_to_token(state: object) -> Token:
    if not isinstance(state, dict):
        raise BadState(f"The state is not one that this function gave out. {DRAW_AGAIN}")
    if type(state.get("v")) is not int or state["v"] != STATE_VERSION:
        raise BadState(f"The state is of an unknown version. {DRAW_AGAIN}")
    id_ = state.get("id")
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise BadState(f"The state is not one that this function gave out. {DRAW_AGAIN}")
    return Token(id=id_)


def _shape_to_seed(shape: object, max_points: int) -> Seed:
    if not isinstance(shape, dict):
        raise BadShape("A shape must be an object with type and points.")
    type_, points = shape.get("type"), shape.get("points")
    if not isinstance(type_, str) or type_ not in SHAPE_TYPES:
        raise BadShape(f"The shape's type must be one of {', '.join(SHAPE_TYPES)}.")
    if not isinstance(points, list):
        raise BadShape(f"The points of a {type_} must be a list of numbers.")
    if len(points) > max_points:
        raise BadShape(f"The {type_} has {len(points)} numbers; the limit is {max_points}.")
    if type_ == "rectangle" and shape.get("rotation"):
        raise BadShape("A rotated rectangle cannot be tracked; draw a polygon or a mask.")
    policy = shape.get("memory")
    if policy is not None and policy not in POLICIES:
        raise BadShape(f"memory must be one of {', '.join(POLICIES)}.")
    if type_ == "points":
        check_click_count(len(points) // 2)
    positive, negative = (_clicks(shape, name) for name in ("pos_points", "neg_points"))
    answer = shape.get("answer")
    if type_ not in PROMPT_TYPES and (positive or negative or answer is not None):
        raise BadShape(f"A {type_} takes no clicks and no answer: it is the mask itself.")
    if answer is not None and answer not in ANSWER_TYPES:
        raise BadShape(f"answer must be one of {', '.join(ANSWER_TYPES)}.")
    return Seed(
        type=type_,
        points=points,
        policy=policy,
        tolerance=_tolerance(shape),
        positive=positive,
        negative=negative,
        answer=answer,
        search_region=_search_region(shape),
    )


def _clicks(shape: dict[Any, Any], name: str) -> list[Any]:
    clicks = shape.get(name)
    if clicks is None:
        return []
    if not isinstance(clicks, list):
        raise BadShape(f"{name} must be a list of points, each with two numbers.")
    check_click_count(len(clicks))
    return clicks


def _tolerance(shape: dict[Any, Any]) -> float | None:
    tolerance = shape.get("tolerance")
    if tolerance is None:
        return None
    if type(tolerance) not in (int, float) or not 0 <= tolerance <= MAX_TOLERANCE:
        raise BadShape(f"tolerance must be a number from 0 to {MAX_TOLERANCE}.")
    return float(tolerance)


def _search_region(shape: dict[Any, Any]) -> float | None:
    size = shape.get("search_region")
    if size is None:
        return None
    if type(size) not in (int, float) or not is_size(size):
        raise BadShape(
            f"search_region must be 0 or a number from {SMALLEST_SIZE:g} to {LARGEST_SIZE:g}."
        )
    return float(size)


def _shape_to_wire(shape: Shape) -> dict[str, object]:
    wire: dict[str, object] = {"type": shape.type, "points": shape.points}
    return {**wire, "outside": True} if shape.outside else wire
