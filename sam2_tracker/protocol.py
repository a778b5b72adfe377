# SPDX-License-Identifier: MIT
"""The wire: CVAT's request and our response (sections 3 and 4 of the CVAT contract)."""

import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from sam2_tracker.errors import BadRequest, BadShape, BadState, ObjectError, TooLarge
from sam2_tracker.shapes import SHAPE_TYPES, Points

STATE_VERSION = 1
STATE_ID = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True)
class Seed:
    """An object that starts on this frame; its points are not checked yet."""

    type: str
    points: list[Any]


@dataclass(frozen=True, kw_only=True)
class Token:
    """Names what is remembered of an object: 256 random bits as 43 url-safe characters."""

    id: str


@dataclass(frozen=True, kw_only=True)
class TrackRequest:
    image: bytes
    """One encoded image file."""
    entries: tuple[Seed | Token | ObjectError | None, ...]
    """One per object: start it, continue it, what is wrong with it, nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    type: str
    points: Points
    outside: bool = False
    """A rectangle that was lost; its points are those where it was seen last."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What becomes of one object; all None: there was nothing to do."""

    shape: Shape | None = None
    token: Token | None = None
    score: float | None = None
    """0..1, also of an object that is not visible."""
    error: ObjectError | None = None


def body_to_request(body: object, *, max_objects: int, max_points: int) -> TrackRequest:
    """Reads a request's body: a decoded JSON object, or its bytes or text.

    A state continues, else a shape starts, else there is nothing to do; the shorter of the two
    lists counts as filled up with null. What is wrong with one object is put in its place. Raises
    BadRequest if the request itself is malformed, TooLarge if it has more than `max_objects`.
    """
    if isinstance(body, bytes | bytearray | str):
        body = _parse_json(body)
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object with image, shapes and states.")
    shapes, states = _list(body, "shapes"), _list(body, "states")
    count = max(len(shapes), len(states))
    if count > max_objects:
        raise TooLarge(f"{count} objects in one request; the limit is {max_objects}.")
    shapes += [None] * (count - len(shapes))
    states += [None] * (count - len(states))
    image = body.get("image")
    if not isinstance(image, str) or not image:
        raise BadRequest("The image is missing: it must be an encoded image file in base64.")
    try:
        data = binascii.a2b_base64(image, strict_mode=True)
    except ValueError:
        raise BadRequest("The image is not valid base64.") from None
    return TrackRequest(
        image=data,
        entries=tuple(
            _entry(shape, state, max_points) for shape, state in zip(shapes, states, strict=True)
        ),
    )


def answers_to_json(answers: list[Answer]) -> str:
    """Raises ValueError if a number is not finite: JSON has no word for it."""
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


def _parse_json(text: bytes | bytearray | str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except ValueError:
        raise BadRequest("The body is not valid JSON.") from None


def _list(body: dict[Any, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{name} must be a list.")
    return list(value)


def _entry(shape: object, state: object, max_points: int) -> Seed | Token | ObjectError | None:
    try:
        if state is not None:
            return _state_to_token(state)
        if shape is not None:
            return _shape_to_seed(shape, max_points)
        return None
    except ObjectError as error:
        return error


def _state_to_token(state: object) -> Token:
    if not isinstance(state, dict):
        raise BadState("The state is not one that this function gave out.")
    if type(state.get("v")) is not int or state["v"] != STATE_VERSION:
        raise BadState("The state is of an unknown version.")
    id_ = state.get("id")
    if not isinstance(id_, str) or not STATE_ID.fullmatch(id_):
        raise BadState("The state is not one that this function gave out.")
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
    return Seed(type=type_, points=points)


def _shape_to_wire(shape: Shape) -> dict[str, object]:
    wire: dict[str, object] = {"type": shape.type, "points": shape.points}
    return {**wire, "outside": True} if shape.outside else wire
