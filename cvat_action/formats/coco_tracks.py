# SPDX-License-Identifier: MIT
"""Tracks in COCO: annotations of one `track_id`, of which some are interpolated."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cvat_action.formats.document import Document, not_by_hand
from cvat_action.job import Wire
from cvat_action.media import Media
from cvat_action.positions import position_among

ROUNDED = 0.011
"""pixels, and degrees: CVAT rounds keyframes to hundredths, and so what it interpolates"""


def interpolated_frames(shapes: Sequence[Wire], no_keyframes: Sequence[bool]) -> frozenset[int]:
    """The frames of a track's annotations that CVAT interpolated between two keyframes.

    no_keyframes: what each annotation says of itself. The first and the last one before a gap are
    keyframes always. Where one of those between two keyframes is not as CVAT interpolates it,
    somebody changed it, and all of them count as keyframes.
    """
    in_order = sorted(zip(shapes, no_keyframes, strict=True), key=lambda each: each[0]["frame"])
    frames = {shape["frame"] for shape in shapes}
    found: set[int] = set()
    held: dict[int, Any] = {}
    left: Wire | None = None
    waiting: list[Wire] = []
    for shape, no_keyframe in in_order:
        last = shape["frame"] + 1 not in frames
        if left is not None and no_keyframe and not last:
            waiting.append(shape)
            continue
        if left is not None and all(_is_between(left, shape, held, each) for each in waiting):
            found |= {each["frame"] for each in waiting}
            waiting = []
        for each in (*waiting, shape):
            held |= {a["spec_id"]: a["value"] for a in each["attributes"]}
        left, waiting = (None if last else shape), []
    return frozenset(found)


def _is_between(left: Wire, right: Wire, held: Mapping[int, Any], shape: Wire) -> bool:
    """Whether CVAT shows a shape where `left` and `right` are keyframes.

    held: the attributes that hold there.
    """
    if left["type"] != right["type"]:
        return False
    position = position_among([left, right], shape["frame"])
    attributes = [{"spec_id": s, "value": v} for s, v in held.items()]
    return position is not None and is_as_read_but_rounded(
        {**position, "attributes": attributes}, shape
    )


def shapes_to_track(shapes: list[Wire], between: Collection[int], media: Media) -> Wire:
    """A track with a keyframe for every annotation, and an end before every gap.

    COCO says nothing of such a gap, so it may be tracked.

    between: frames of annotations that are no keyframes.
    """
    frame_count = len(media.frame_names)
    own = ("label_id", "group", "source", "elements")
    shapes = sorted(shapes, key=lambda s: s["frame"])
    keyframes: list[Wire] = []
    for i, shape in enumerate(shapes):
        if shape["frame"] in between:
            continue
        k = {key: value for key, value in shape.items() if key not in (*own, "score")}
        keyframes.append(k)
        after = shape["frame"] + 1
        if after < frame_count and (i + 1 == len(shapes) or shapes[i + 1]["frame"] > after):
            keyframes.append(not_by_hand({**k, "frame": after, "outside": True}, media))
    return {
        **{key: shapes[0][key] for key in own},
        "frame": shapes[0]["frame"],
        "attributes": [],
        "shapes": keyframes,
    }


def shapes_by_frame(
    document: Document, media: Media
) -> Iterator[tuple[tuple[int, int], Wire, Wire]]:
    """Every shape, and every track on every frame where it is visible.

    Gives (id, frame), the shape, and its extra attributes.
    """
    for shape in document.annotations.shapes:
        yield (shape["id"], shape["frame"]), shape, _rotation(shape)
    named = _track_ids(document)
    for track in document.annotations.tracks:
        in_order = sorted(track["shapes"], key=lambda k: k["frame"])
        keyframes = {k["frame"] for k in in_order}
        held = {a["spec_id"]: a["value"] for a in track["attributes"]}
        for frame in range(track["frame"], len(media.frame_names)):
            position = position_among(in_order, frame)
            if position is None:
                continue
            own = position["attributes"] if position["frame"] == frame else []
            held |= {a["spec_id"]: a["value"] for a in own}
            if position["outside"] or frame in media.missing:
                continue
            all_held = [{"spec_id": s, "value": v} for s, v in held.items()]
            key = track["id"], frame
            as_read = key in document.originals and frame in keyframes
            shape = {**position, "frame": frame, "attributes": own if as_read else all_held}
            shape["label_id"] = track["label_id"]
            extra = {"track_id": named[track["id"]], "keyframe": frame in keyframes}
            yield key, shape, _rotation(shape) | extra


def _rotation(shape: Wire) -> Wire:
    return {"rotation": shape["rotation"]} if shape["type"] == "rectangle" else {}


def _track_ids(document: Document) -> dict[int, Any]:
    """What `track_id` is written for each track: the file's own, or the next number."""
    named = {}
    for (number, _), original in document.originals.items():
        named[number] = (json.loads(original.text).get("attributes") or {}).get("track_id")
    used = [n for n in named.values() if isinstance(n, int)]
    after = max(used, default=-1) + 1
    new = [t["id"] for t in document.annotations.tracks if named.get(t["id"]) is None]
    return named | {number: after + n for n, number in enumerate(new)}


def is_as_read(shape: Wire, read: Wire) -> bool:
    names = ("type", "label_id", "occluded", "rotation", "attributes")
    return list(shape["points"]) == list(read["points"]) and all(
        shape[name] == read[name] for name in names
    )


def is_as_read_but_rounded(shape: Wire, read: Wire) -> bool:
    """Whether a shape between two keyframes is as it was read, but for rounding."""
    turned = abs(shape["rotation"] - read["rotation"])
    values, values_read = (
        {a["spec_id"]: a["value"] for a in each["attributes"]} for each in (shape, read)
    )
    return (
        all(shape[name] == read[name] for name in ("type", "label_id", "occluded"))
        and values == values_read
        and turned <= ROUNDED
        and len(shape["points"]) == len(read["points"])
        and all(abs(a - b) <= ROUNDED for a, b in zip(shape["points"], read["points"], strict=True))
    )
