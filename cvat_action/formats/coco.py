# SPDX-License-Identifier: MIT
"""COCO instances (JSON), in and out: one annotation per object and image.

Annotations that share the attribute `track_id`, as in CVAT's export, are a track.
"""

import json
from collections.abc import Sequence
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.formats.coco_geometry import annotation_to_points, points_to_geometry
from cvat_action.formats.coco_ids import frame_finder, frames_of_images, id_of, named, why
from cvat_action.formats.coco_results import keys_to_result, result_to_keys
from cvat_action.formats.coco_tracks import (
    interpolated_frames,
    is_as_read,
    is_as_read_but_rounded,
    shapes_by_frame,
    shapes_to_track,
)
from cvat_action.formats.document import AttributeSpec, Document, LabelSpec, Original
from cvat_action.formats.json_text import elements, members
from cvat_action.geometry import finite_rotation, points_fault
from cvat_action.job import Annotations, Wire
from cvat_action.media import Media, size_of

OWN_ATTRIBUTES = ("occluded", "rotation", "track_id", "keyframe", "outside")
"""attributes that CVAT's export adds to those of the label"""


def read(data: bytes, name: str, media: Media) -> Document:
    """Raises ActionError, naming the annotation that is wrong."""
    try:
        text = data.decode(json.detect_encoding(data)).removeprefix("\ufeff")
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ActionError(f"{name} is not JSON that can be read.") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise ActionError(f"{name} is not COCO: it needs images, annotations and categories.")
    try:
        frame_of = frames_of_images(content["images"], name, media)
        labels = _labels(content)
    except (KeyError, TypeError, AttributeError):
        raise ActionError(f"{name}: an image or a category is not as COCO has it.") from None
    specs = {label.id: label for label in labels}
    parts = members(text)
    texts = elements(parts.pop("annotations"))
    read_ones = [_read_one(a, frame_of, specs, media, name) for a in content["annotations"]]
    untouched = {n: texts[n] for n, (shape, _) in enumerate(read_ones) if shape is None}
    shapes: list[Wire] = []
    tracks: list[Wire] = []
    originals = {}
    for number, (is_track, places) in enumerate(_objects(read_ones), 1):
        drawn = [shape for n in places for shape in [read_ones[n][0]] if shape is not None]
        between: frozenset[int] = frozenset()
        if is_track:
            said = [content["annotations"][n].get("attributes") or {} for n in places]
            no_keyframes = [a.get("keyframe") is False for a in said]
            between = interpolated_frames(drawn, no_keyframes)
            tracks.append({**shapes_to_track(drawn, between, media), "id": number})
        for n, shape in zip(places, drawn, strict=True):
            frame = shape["frame"]
            originals[number, frame] = Original(n, texts[n], shape, frame in between)
        if not is_track:
            shapes.append({**drawn[0], "id": number})
    annotations = Annotations(tuple(shapes), tuple(tracks))
    return Document(labels, annotations, "coco", untouched, json.dumps(parts), originals)


def _read_one(
    annotation: Any,
    frame_of: dict[Any, int],
    specs: dict[int, LabelSpec],
    media: Media,
    name: str,
) -> tuple[Wire | None, Any]:
    """The shape, or None for what cannot be tracked, and the id of its track, if it has one."""
    try:
        shape = _annotation_to_shape(annotation, frame_of, specs, media)
        track_id = (annotation.get("attributes") or {}).get("track_id")
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        number = annotation.get("id") if isinstance(annotation, dict) else annotation
        raise ActionError(f"{name}: annotation {number} cannot be read ({why(error)}).") from None
    return shape, track_id


def _objects(read_ones: Sequence[tuple[Wire | None, Any]]) -> list[tuple[bool, list[int]]]:
    """(is a track, places in the file) of every object, tracks first.

    A track has one annotation per frame; a further one there is an object of its own.
    """
    tracks: dict[tuple[int, str], dict[int, int]] = {}
    alone = []
    for place, (shape, track_id) in enumerate(read_ones):
        if shape is None:
            continue
        in_track = track_id is not None and shape["type"] != "mask"
        on_frame = tracks.setdefault((shape["label_id"], str(track_id)), {}) if in_track else None
        if on_frame is None or shape["frame"] in on_frame:
            alone.append((False, [place]))
        else:
            on_frame[shape["frame"]] = place
    return [*((True, list(places.values())) for places in tracks.values()), *alone]


def write(document: Document, media: Media) -> str:
    """All objects, tracks as an annotation per visible frame.

    What is as it was read is written again byte for byte, in its place.
    """
    ours = document.format == "coco"
    parts: dict[str, str] = json.loads(document.header) if ours else {}
    new = _New(document, media, json.loads(parts.get("images", "[]")))
    texts = list(document.untouched.items()) if ours else []
    after = len(document.originals) + len(document.untouched)
    for key, shape, extra in shapes_by_frame(document, media):
        original = document.originals.get(key)
        between = original is not None and original.between and not extra["keyframe"]
        same = is_as_read_but_rounded if between else is_as_read
        if original and same(shape, original.shape):
            texts.append((original.place, original.text))
        else:
            place = after if original is None else original.place
            texts.append((place, new.annotation(shape, extra, original)))
    images = [*elements(parts.get("images", "[]")), *map(json.dumps, new.images)]
    if not ours:
        categories = [
            {"id": o.id + 1, "name": o.name, "supercategory": ""} for o in document.labels
        ]
        parts = {"info": "{}", "licenses": "[]", "categories": json.dumps(categories)}
    parts["images"] = f"[{', '.join(images)}]"
    in_order = [text for _, text in sorted(texts, key=lambda entry: entry[0])]
    parts["annotations"] = f"[{', '.join(in_order)}]"
    return "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in parts.items()) + "}"


class _New:
    """Annotations and images that the file did not have."""

    def __init__(self, document: Document, media: Media, images: Sequence[Wire]) -> None:
        find = frame_finder(media)
        self.images: list[Wire] = []
        self._document = document
        self._media = media
        self._image_of = {
            f: i["id"] for i in images for f in [find(i["file_name"])] if f is not None
        }
        self._used = {i["id"] for i in images}
        held = [json.loads(o.text) for o in document.originals.values()]
        if document.format == "coco":
            held += map(json.loads, document.untouched.values())
        self._last = max((a["id"] for a in held if isinstance(a.get("id"), int)), default=0)
        runs = [a for a in held if isinstance(a.get("segmentation"), dict)]
        # Training tools skip masks with iscrowd=1. Where a file has masks with iscrowd=0, new ones
        # get 0 too.
        self._crowd = int(not runs or all(a.get("iscrowd") for a in runs))

    def annotation(self, shape: Wire, extra: Wire, original: Original | None) -> str:
        """In the place of `original`, if there is one."""
        frame = shape["frame"]
        size = size_of(self._media, frame)
        label = self._document.label(shape["label_id"])
        attributes = {"occluded": bool(shape.get("occluded"))} | extra
        for a in shape["attributes"]:
            spec = label.attribute(a["spec_id"])
            as_is = spec.text or a["value"] is None
            attributes[spec.name] = a["value"] if as_is else self._value(a["value"])
        number = json.loads(original.text).get("id") if original else None
        if number is None:
            self._last += 1
            number = self._last
        ours = self._document.format == "coco"
        category = label.id if ours else label.id + 1
        content = {
            "id": number,
            "image_id": self._image(frame, *size),
            "category_id": category,
            **points_to_geometry(shape, *size, crowd=self._crowd),
            "attributes": attributes,
            **result_to_keys(shape, label, category),
        }
        return json.dumps(content)

    def _value(self, text: str) -> Any:
        """What the file had; of another format booleans and numbers as such, as CVAT's export has
        them. Text where that would lose something."""
        try:
            value = json.loads(text)
            same = json.dumps(value, allow_nan=False) == text
        except ValueError:
            return text
        plain = isinstance(value, bool | int | float)
        return value if same and (plain or self._document.format == "coco") else text

    def _image(self, frame: int, width: int, height: int) -> Any:
        if frame not in self._image_of:
            number = self._image_of[frame] = max((frame, *self._used)) + 1
            self._used.add(number)
            name = self._media.frame_names[frame]
            self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        return self._image_of[frame]


def _labels(content: Wire) -> tuple[LabelSpec, ...]:
    names: dict[int, dict[str, bool]] = {}
    for annotation in content["annotations"]:
        of_label = names.setdefault(annotation.get("category_id"), {})
        for name, value in (annotation.get("attributes") or {}).items():
            if name not in OWN_ATTRIBUTES:
                of_label[name] = of_label.get(name, False) or isinstance(value, str)
    labels = []
    spec_id = 0
    for category in content["categories"]:
        specs = []
        for attribute, text in sorted(names.get(category["id"], {}).items()):
            specs.append(AttributeSpec(spec_id, attribute, True, text))
            spec_id += 1
        labels.append(LabelSpec(id_of(category), str(category["name"]), tuple(specs)))
    return tuple(labels)


def _annotation_to_shape(
    annotation: Wire, frame_of: dict[Any, int], specs: dict[int, LabelSpec], media: Media
) -> Wire | None:
    """None for what is neither mask, polygon nor box (keypoints, say)."""
    frame: int = named(annotation, "image_id", frame_of, "images")
    label: LabelSpec = named(annotation, "category_id", specs, "categories")
    size = size_of(media, frame)
    if annotation.get("keypoints"):
        return None
    shape_type, points = annotation_to_points(annotation, *size)
    if not points:
        return None
    fault = points_fault(shape_type, points, *size)
    if fault:
        raise ValueError(fault)
    attributes = annotation.get("attributes") or {}
    rotation = attributes.get("rotation") if shape_type == "rectangle" else None
    shape = {
        "type": shape_type,
        "frame": frame,
        "points": points,
        "label_id": label.id,
        "group": 0,
        "source": "file",
        "outside": False,
        "occluded": bool(attributes.get("occluded", False)),
        "z_order": 0,
        "rotation": finite_rotation(rotation or 0),
        "attributes": [
            {"spec_id": a.id, "value": _text(attributes[a.name])}
            for a in label.attributes
            if a.name in attributes
        ],
        "elements": [],
    }
    return keys_to_result(annotation, shape, label)


def _text(value: Any) -> str | None:
    """As the wire form has it; null stays what it is."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
