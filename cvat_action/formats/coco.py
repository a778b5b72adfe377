# SPDX-License-Identifier: MIT
"""COCO instances (JSON): one annotation per object and image.

Polygons are polygons, RLE is a mask, a bare `bbox` is a rectangle; several polygons of one
annotation are one object in parts and so become a mask. Annotations that share the attribute
`track_id`, as in CVAT's export, are a track.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from cvat_sdk.masks import decode_mask, encode_mask
from pycocotools import mask as rle_tools

from cvat_action.errors import ActionError
from cvat_action.formats.coco_results import box_to_points, keys_to_result, result_to_keys
from cvat_action.formats.document import AttributeSpec, Document, LabelSpec, Original, not_by_hand
from cvat_action.formats.json_text import elements, members
from cvat_action.geometry import points_fault
from cvat_action.job import Annotations, Wire
from cvat_action.media import Media, size_of
from cvat_action.positions import position_among

ROUNDED = 0.011
"""pixels, and degrees: CVAT rounds keyframes to hundredths, and so what it interpolates"""
OWN_ATTRIBUTES = ("occluded", "rotation", "track_id", "keyframe", "outside")
"""attributes that CVAT's export adds to those of the label"""
MOST_DIGITS = 20


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
        frame_of = _frames(content["images"], name, media)
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
            between = _between(drawn, no_keyframes)
            tracks.append({**_track(drawn, between, media), "id": number})
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
        raise ActionError(f"{name}: annotation {number} cannot be read ({_why(error)}).") from None
    return shape, track_id


def _why(error: Exception) -> str:
    """What is wrong with an annotation."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return str(error.args[0] if error.args else type(error).__name__)


def _named(annotation: Wire, key: str, among: Mapping[Any, Any], where: str) -> Any:
    """What an annotation names by an id. Raises ValueError where that is not there."""
    number = annotation[key]
    try:
        return among[number]
    except (KeyError, TypeError):  # TypeError: a list, say
        raise ValueError(f"its {key} {number} is not in {where}") from None


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


@dataclass(frozen=True)
class Result:
    """One entry of a detector's results; its points are not checked yet."""

    frame: int
    label: str
    type: str
    points: list[float]
    score: float | None


def read_results(data: bytes, name: str, document: Document, media: Media) -> list[Result]:
    """COCO results (a list with `image_id`, `category_id`, `score`, and a box or a segmentation),
    or COCO instances, whose annotations may have a `score`.

    Images and categories of a list are those of the annotation file, as COCO writes it. Raises
    ActionError, naming the entry that is wrong.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ActionError(f"{name} is not JSON that can be read.") from None
    entries, frame_of, label_of = content, _frames_of(document, media), _names_of(document)
    if isinstance(content, dict):
        entries = content.get("annotations")
        try:
            frame_of = _frames(content["images"], name, media)
            label_of = {_id(c): str(c["name"]) for c in content["categories"]}
        except (KeyError, TypeError, AttributeError):
            entries = None
    if not isinstance(entries, list):
        raise ActionError(f"{name} holds neither COCO results (a list) nor COCO instances.")
    results = []
    for number, entry in enumerate(entries):
        try:
            if entry["image_id"] in frame_of:  # a file may hold more than this clip
                frame = frame_of[entry["image_id"]]
                label = _named(entry, "category_id", label_of, "categories")
                results.append(_result(entry, frame, label, media))
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ActionError(f"{name}: entry {number} cannot be read ({_why(error)}).") from None
    if entries and not results:
        raise ActionError(
            f"{name}: none of its images is a frame of {media.name}. A list of results has the "
            "image ids of the annotation file; COCO instances have file names of their own."
        )
    return results


def _result(entry: Wire, frame: int, label: str, media: Media) -> Result:
    size = size_of(media, frame)
    kind, points = _points(entry, *size)
    if not points:
        raise ValueError("it has neither a box nor a segmentation")
    score = entry.get("score")
    if score is not None and not math.isfinite(score):
        raise ValueError(f"its score is {score}")
    return Result(frame, label, kind, points, None if score is None else min(max(score, 0.0), 1.0))


def _frames_of(document: Document, media: Media) -> dict[Any, int]:
    """Image id to frame: of the images that the document lists, and of all where these are
    numbered as `write` does it."""
    known: dict[Any, int] = {}
    if document.format == "coco":
        find = _frame_finder(media)
        listed = json.loads(json.loads(document.header).get("images", "[]"))
        known = {i["id"]: f for i in listed if (f := find(i["file_name"])) is not None}
    if all(number == frame + 1 for number, frame in known.items()):
        return {frame + 1: frame for frame in range(len(media.frame_names))}
    return known


def _names_of(document: Document) -> dict[Any, str]:
    """Category id to name, as `write` numbers them."""
    first = 0 if document.format == "coco" else 1
    return {label.id + first: label.name for label in document.labels}


def write(document: Document, media: Media) -> str:
    """All objects, tracks as an annotation per visible frame.

    What is as it was read is written again byte for byte, in its place.
    """
    ours = document.format == "coco"
    parts: dict[str, str] = json.loads(document.header) if ours else {}
    new = _New(document, media, json.loads(parts.get("images", "[]")))
    texts = list(document.untouched.items()) if ours else []
    after = len(document.originals) + len(document.untouched)
    for key, shape, extra in _shapes_by_frame(document, media):
        original = document.originals.get(key)
        between = original is not None and original.between and not extra["keyframe"]
        same = _agrees if between else _is_as_read
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
        find = _frame_finder(media)
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
            **_geometry(shape, *size, crowd=self._crowd),
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


def _is_as_read(shape: Wire, read: Wire) -> bool:
    names = ("type", "label_id", "occluded", "rotation", "attributes")
    return list(shape["points"]) == list(read["points"]) and all(
        shape[name] == read[name] for name in names
    )


def _agrees(shape: Wire, read: Wire) -> bool:
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


def _frames(images: Sequence[Any], name: str, media: Media) -> dict[Any, int]:
    """Image id to frame. Raises TypeError where an id is no number."""
    frames: dict[Any, int] = {}
    name_of: dict[int, Any] = {}
    find = _frame_finder(media)
    for image in images:
        frame = find(image["file_name"])
        if frame is None:
            raise ActionError(
                f"{name}: image {image['file_name']!r} is not a frame of {media.name}: it has "
                f"{len(media.frame_names)} frames, {media.frame_names[0]} to "
                f"{media.frame_names[-1]}."
            )
        if frame in name_of:
            raise ActionError(
                f"{name}: images {name_of[frame]!r} and {image['file_name']!r} are both frame "
                f"{frame} of {media.name}. Frames are known by their file names without folders; "
                "give each folder a file of its own."
            )
        name_of[frame] = image["file_name"]
        frames[_id(image)] = frame
    return frames


def _frame_finder(media: Media) -> Callable[[str], int | None]:
    """File name to frame: with suffix, without it, or by the number at its end (videos)."""
    by_name = {name: frame for frame, name in enumerate(media.frame_names) if name}
    by_stem = {PurePosixPath(name).stem: frame for name, frame in reversed(by_name.items())}

    def find(file_name: str) -> int | None:
        path = PurePosixPath(str(file_name).replace("\\", "/"))
        frame = by_name.get(path.name, by_stem.get(path.stem))
        digits = re.search(r"\d+$", path.stem)
        if frame is None and media.is_video and digits and len(digits[0]) < MOST_DIGITS:
            number = int(digits[0])
            return number if number < len(media.frame_names) else None
        return frame

    return find


def _id(entry: Wire) -> int:
    if not isinstance(entry["id"], int):
        raise TypeError("an id that is no number")
    return entry["id"]


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
        labels.append(LabelSpec(_id(category), str(category["name"]), tuple(specs)))
    return tuple(labels)


def _annotation_to_shape(
    annotation: Wire, frame_of: dict[Any, int], specs: dict[int, LabelSpec], media: Media
) -> Wire | None:
    """None for what is neither mask, polygon nor box (keypoints, say)."""
    frame: int = _named(annotation, "image_id", frame_of, "images")
    label: LabelSpec = _named(annotation, "category_id", specs, "categories")
    size = size_of(media, frame)
    if annotation.get("keypoints"):
        return None
    kind, points = _points(annotation, *size)
    if not points:
        return None
    fault = points_fault(kind, points, *size)
    if fault:
        raise ValueError(fault)
    attributes = annotation.get("attributes") or {}
    shape = {
        "type": kind,
        "frame": frame,
        "points": points,
        "label_id": label.id,
        "group": 0,
        "source": "file",
        "outside": False,
        "occluded": bool(attributes.get("occluded", False)),
        "z_order": 0,
        "rotation": float(attributes.get("rotation") or 0) if kind == "rectangle" else 0.0,
        "attributes": [
            {"spec_id": a.id, "value": _text(attributes[a.name])}
            for a in label.attributes
            if a.name in attributes
        ],
        "elements": [],
    }
    return keys_to_result(annotation, shape, label)


def _points(annotation: Wire, width: int, height: int) -> tuple[str, list[float]]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(
                f"its RLE is of size {segmentation['size']}, the frame {height, width}"
            )
        counts = segmentation["counts"]
        runs = counts if isinstance(counts, list) else _runs(counts)
        if sum(runs) != width * height or min(runs) < 0:
            raise ValueError("the RLE's counts do not fill its image")
        compressed = (
            rle_tools.frPyObjects(segmentation, height, width)
            if isinstance(counts, list)
            else segmentation
        )
        return "mask", _rle_to_points(compressed)
    parts = segmentation or []
    # Converters leave slivers of one or two points beside the rest.
    whole = [part for part in parts if not isinstance(part, list) or len(part) >= 6]
    if whole or annotation.get("bbox"):
        parts = whole
    for part in parts:
        fault = points_fault("polygon", part, width, height)
        if fault:
            raise ValueError(fault)
    if len(parts) > 1:
        codes = rle_tools.frPyObjects(parts, height, width)
        return "mask", _rle_to_points(rle_tools.merge(codes))
    if parts:
        return "polygon", [float(p) for p in parts[0]]
    if annotation.get("bbox"):
        left, top, box_width, box_height = (float(p) for p in annotation["bbox"])
        return "rectangle", box_to_points(left, top, box_width, box_height)
    return "", []


def _runs(counts: str) -> list[int]:
    """The runs of a compressed RLE: 5 bits per character, lowest first, from character 48 on.

    From the fourth run on it is the difference to the run before the last. pycocotools does not say
    where too few runs leave a part of its bitmap unwritten, so they are counted here.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def _rle_to_points(rle: Any) -> list[float]:
    """Raises ValueError where the runs do not fit the image."""
    with warnings.catch_warnings():  # pycocotools 2.0.11 uses what numpy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        bitmap = np.asarray(rle_tools.decode(rle), dtype=bool)
    return encode_mask(bitmap) if np.any(bitmap) else []


def _between(shapes: Sequence[Wire], no_keyframes: Sequence[bool]) -> frozenset[int]:
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
    return position is not None and _agrees({**position, "attributes": attributes}, shape)


def _track(shapes: list[Wire], between: Collection[int], media: Media) -> Wire:
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


def _shapes_by_frame(
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


def _geometry(shape: Wire, width: int, height: int, *, crowd: int) -> Wire:
    """crowd: `iscrowd` of a mask."""
    points = [float(p) for p in shape["points"]]
    if shape["type"] == "rectangle":
        left, top, right, bottom = points
        box = [left, top, right - left, bottom - top]
        return {"segmentation": [], "area": box[2] * box[3], "bbox": box, "iscrowd": 0}
    if shape["type"] == "polygon":
        xs, ys = points[0::2], points[1::2]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        area = float(rle_tools.area(rle_tools.frPyObjects([points], height, width))[0])
        return {"segmentation": [points], "area": area, "bbox": box, "iscrowd": 0}
    bitmap = decode_mask([int(p) for p in points], image_width=width, image_height=height)
    rle = rle_tools.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {
        "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
        "area": float(rle_tools.area(rle)),
        "bbox": [float(v) for v in rle_tools.toBbox(rle)],
        "iscrowd": crowd,
    }


def _text(value: Any) -> str | None:
    """As the wire form has it; null stays what it is."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
