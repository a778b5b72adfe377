# SPDX-License-Identifier: MIT
"""CVAT for video 1.1 (XML): every object is a track of elements with a frame each.

CVAT has no tracks of masks, so a mask is a track of its own, with one element and an `outside` one
after it; that is how CVAT exports a shape, and what its import turns into a mask shape again. Its
import makes a track of any other shape, and here such a shape is a track too, which may go on.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any
from xml.etree import ElementTree  # noqa: S405 (read by _parse, which takes no entities)

from cvat_action.errors import ActionError
from cvat_action.formats.document import AttributeSpec, Document, LabelSpec, not_by_hand
from cvat_action.geometry import (
    SAME_OBJECT,
    Box,
    bounding_box,
    boxes_iou,
    finite_rotation,
    points_fault,
)
from cvat_action.job import Annotations, Wire
from cvat_action.media import Media, NumberedMedia, size_of

logger = logging.getLogger(__name__)

Element = Any
"""xml.etree.ElementTree.Element"""
TYPES = {"box": "rectangle", "polygon": "polygon", "mask": "mask"}
FRAME = r"([0-9]{1,9})"
MOST_FRAMES = 10**9
TAGS = {shape_type: tag for tag, shape_type in TYPES.items()}


def numbered(data: bytes, name: str, media: Media) -> Media:
    """The media with CVAT's frame numbers: those of the source video, before start frame and step.

    Pictures that CVAT exports of a video say theirs in their names (frame_000004); frames that were
    deleted in CVAT are missing there. Other pictures are those of the task, or of the source, by
    their order; in a task of images the names are the user's own. Raises ActionError where the
    pictures are neither.
    """
    end = data.find(b"</meta>")
    meta = _parse_named(data[: end + 7] + b"</annotations>", name) if end >= 0 else None
    start, stop, step = _frames_of_task(meta, name) if meta is not None else (0, None, 1)
    count = len(media.frame_names)
    named = [re.fullmatch(r"frame_(\d{6,7})", PurePath(n).stem) for n in media.frame_names]
    if not media.is_video and all(named) and not _is_of_images(meta):
        index_of = {int(found[1]): i for i, found in enumerate(named) if found}
        known = range(start, MOST_FRAMES if stop is None else stop + 1, step)
        if all(frame in known for frame in index_of):
            return NumberedMedia(media, index_of, step)
    last = count - 1 if stop is None else stop
    frames = range(start, last + 1, step)
    if not media.is_video and count == len(frames):
        return NumberedMedia(media, {f: i for i, f in enumerate(frames)}, step)
    if media.is_video and (start, step) == (0, 1) and count <= last + 1:
        return media  # OpenCV may count a frame fewer than CVAT
    if not frames or frames[-1] >= count:
        raise ActionError(
            f"{name} is of a task with the frames {start} to {last} in steps of {step}; "
            f"{media.name} has {count} frames, which are neither those nor their source."
        )
    return NumberedMedia(media, {f: f for f in frames}, step)


def _is_of_images(root: Element) -> bool:
    return root is not None and (root.findtext("./meta//mode") or "").strip() == "annotation"


def _frames_of_task(root: Element, name: str) -> tuple[int, int | None, int]:
    """Start frame, stop frame and step. Raises ActionError where they cannot be frame numbers, or
    are those of several tasks."""
    tasks = root.findall("./meta/project/tasks/task")
    if len(tasks) > 1:
        raise ActionError(
            f"{name} is of a project with {len(tasks)} tasks. Export the one that is to be tracked."
        )

    def number(tag: str, pattern: str) -> int | None:
        text = (root.findtext(f"./meta//{tag}") or "").strip()
        if not text:
            return None
        found = re.fullmatch(pattern, text)
        if not found:
            raise ActionError(f"{name}: the {tag} of its task is {text[:40]}.")
        return int(found[1])

    step = number("frame_filter", r"step\s*=\s*([1-9][0-9]{0,8})")
    return number("start_frame", FRAME) or 0, number("stop_frame", FRAME), step or 1


def read(data: bytes, name: str, media: Media) -> Document:
    """Raises ActionError, naming the track that is wrong."""
    root = _parse_named(data, name)
    if root.tag != "annotations":
        raise ActionError(f"{name} is not a CVAT annotation file.")
    if root.find("image") is not None:
        raise ActionError(f"{name} is in the format CVAT for images; export CVAT for video 1.1.")
    labels = _labels(root)
    by_name = {label.name: label for label in labels}
    shapes: list[Wire] = []
    tracks: list[Wire] = []
    untouched: dict[int, str] = {}
    for number, element in enumerate(root.iter("track")):
        label = by_name[element.get("label", "")]
        tags = {child.tag for child in element}
        try:
            if not tags or not tags <= set(TYPES) or (len(tags) > 1):
                element.tail = None  # text behind the track, which is no part of it
                untouched[number] = ElementTree.tostring(element, encoding="unicode")
            elif tags == {"mask"}:
                shapes += _masks(element, label)
            else:
                tracks.append(_track(element, label, number))
        except (KeyError, TypeError, ValueError) as error:
            what = error.args[0] if error.args else error
            raise ActionError(
                f"{name}: track {element.get('id', number)} cannot be read ({what})."
            ) from None
    for number, shape in enumerate(shapes, len(tracks)):
        shape["id"] = number
    _check_frames((k for o in (*shapes, *tracks) for k in o.get("shapes", [o])), name, media)
    _open_ends(tracks, name, media)
    meta = root.find("meta")
    header = "" if meta is None else ElementTree.tostring(meta, encoding="unicode").strip()
    annotations = Annotations(tuple(shapes), tuple(t for t in tracks if t["shapes"]))
    return Document(labels, annotations, "cvat", untouched, header)


def _check_frames(keyframes: Iterable[Wire], name: str, media: Media) -> None:
    count = len(media.frame_names)
    for k in keyframes:
        frame = k["frame"]
        if k["outside"] and (frame in media.missing or frame == count - 1 + media.step):
            continue  # CVAT ends a track on the next frame, also behind the last one
        if not 0 <= frame < count:
            raise ActionError(f"{name} has frame {frame}; {media.name} has {count} frames.")
        if frame in media.missing:
            raise ActionError(f"{name} has frame {frame}, of which {media.name} has no picture.")
        size = size_of(media, frame)
        fault = points_fault(k["type"], k["points"], *size)
        if fault:
            raise ActionError(f"{name}: frame {frame} has {fault}.")


def write(document: Document, media: Media) -> str:
    """A file that CVAT's import takes."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    root.append(_meta(document, media))
    number = 0
    for track in document.annotations.tracks:
        number = _add_track(root, number, document, track, _all_attributes(track))
    for shape in document.annotations.shapes:
        number = _add_track(root, number, document, shape, _shape_alone(shape, media))
    if document.format == "cvat":
        for text in document.untouched.values():
            element = _parse(text)
            element.set("id", str(number))
            root.append(element)
            number += 1
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(
        root, encoding="unicode"
    )


class _NoDoctype(ElementTree.TreeBuilder):
    """Entities are declared in a document type; without one there is nothing to expand."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which no annotation file needs")


def _parse(text: str | bytes) -> Element:
    """Raises ParseError or ValueError, and LookupError where nobody knows its encoding."""
    return ElementTree.fromstring(text, ElementTree.XMLParser(target=_NoDoctype()))  # noqa: S314


def _parse_named(data: bytes, name: str) -> Element:
    try:
        return _parse(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ActionError(f"{name} is not XML that can be read: {error}.") from None


def _labels(root: Element) -> tuple[LabelSpec, ...]:
    """The header's labels with their attributes, and any further label that a track names."""
    spec_id = 0
    labels: list[LabelSpec] = []
    for element in root.iterfind("./meta//labels/label"):
        attributes = []
        for a in element.iterfind("./attributes/attribute"):
            mutable = (a.findtext("mutable") or "").strip().lower() == "true"
            attributes.append(AttributeSpec(spec_id, a.findtext("name") or "", mutable))
            spec_id += 1
        labels.append(LabelSpec(len(labels), element.findtext("name") or "", tuple(attributes)))
    known = {label.name: label for label in labels}
    for track in root.iter("track"):
        name = track.get("label", "")
        if name not in known:
            known[name] = LabelSpec(len(known), name)
        found = {a.get("name", "") for a in track.iter("attribute")}
        for attribute in sorted(found - {a.name for a in known[name].attributes}):
            old = known[name]
            more = AttributeSpec(spec_id, attribute, True)
            known[name] = LabelSpec(old.id, old.name, (*old.attributes, more))
            spec_id += 1
    return tuple(known.values())


def _open_ends(tracks: Sequence[Wire], name: str, media: Media) -> None:
    """Lets tracking go on over the ends that CVAT's export gives to shapes, in place.

    Not where the next shape is there already: then it is what an earlier run made of this one.
    """
    alone = [t for t in tracks if _is_one_shape(t["shapes"], media)]
    results: dict[tuple[int, int, str], list[Box]] = {}
    for track in alone:
        shape = track["shapes"][0]
        if track["source"] == "auto":
            key = shape["frame"], track["label_id"], shape["type"]
            results.setdefault(key, []).append(_box(shape))
    followed = 0
    for track in alone:
        shape, end = track["shapes"]
        there = results.get((end["frame"], track["label_id"], shape["type"]))
        if there and (boxes_iou([_box(shape)], there) >= SAME_OBJECT).any():
            followed += 1
        else:
            track["shapes"][1] = not_by_hand(end, media)
    if followed:
        logger.warning(
            "%s holds results of an earlier run as tracks of one frame each. What they follow (%d) "
            "is not tracked over them; delete the tracks that are to be made anew.",
            name,
            followed,
        )


def _box(shape: Wire) -> Box:
    return bounding_box(shape["type"], shape["points"])


def _is_one_shape(keyframes: Sequence[Wire], media: Media) -> bool:
    """Whether this is how CVAT exports a shape: one position, and an end on the next frame.

    A track that a person hid right after its first frame looks the same.
    """
    if len(keyframes) != 2:
        return False
    shape, end = keyframes
    return (
        (shape["outside"], end["outside"]) == (False, True)
        and end["frame"] == shape["frame"] + media.step
        and end["points"] == shape["points"]
    )


def _track(element: Element, label: LabelSpec, number: int) -> Wire:
    mutable = {a.id for a in label.attributes if a.mutable}
    keyframes = [_element_to_shape(e, label) for e in element if e.get("keyframe", "1") == "1"]
    keyframes.sort(key=lambda k: k["frame"])
    first = keyframes[0]["attributes"] if keyframes else []
    for k in keyframes:
        k["attributes"] = [a for a in k["attributes"] if a["spec_id"] in mutable]
    return {
        "id": number,
        "label_id": label.id,
        "frame": keyframes[0]["frame"] if keyframes else 0,
        "group": int(element.get("group_id", 0)),
        "source": element.get("source", "file"),
        "attributes": [a for a in first if a["spec_id"] not in mutable],
        "elements": [],
        "shapes": keyframes,
    }


def _masks(element: Element, label: LabelSpec) -> Iterator[Wire]:
    for e in element:
        shape = _element_to_shape(e, label)
        if not shape["outside"]:
            yield {
                **shape,
                "label_id": label.id,
                "group": int(element.get("group_id", 0)),
                "source": element.get("source", "file"),
                "elements": [],
            }


def _element_to_shape(e: Element, label: LabelSpec) -> Wire:
    specs = {a.name: a.id for a in label.attributes}
    return {
        "type": TYPES[e.tag],
        "frame": int(e.attrib["frame"]),
        "points": list(_points(e)),
        "outside": e.get("outside") == "1",
        "occluded": e.get("occluded") == "1",
        "z_order": int(e.get("z_order", 0)),
        "rotation": finite_rotation(e.get("rotation", 0)),
        "attributes": [
            {"spec_id": specs[a.attrib["name"]], "value": a.text or ""}
            for a in e.iterfind("attribute")
        ],
    }


def _points(e: Element) -> Iterable[float]:
    if e.tag == "box":
        return [float(e.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr")]
    if e.tag == "mask":
        left, top = int(e.attrib["left"]), int(e.attrib["top"])
        right = left + int(e.attrib["width"]) - 1
        bottom = top + int(e.attrib["height"]) - 1
        return [*(int(r) for r in e.attrib["rle"].split(",")), left, top, right, bottom]
    pairs = [pair.split(",") for pair in e.attrib["points"].split(";")]
    return [float(value) for x, y in pairs for value in (x, y)]


def _all_attributes(track: Wire) -> Iterator[Wire]:
    """Keyframes with all attributes that hold there: an element carries them all in this format."""
    held = {a["spec_id"]: a["value"] for a in track["attributes"]}
    for k in track["shapes"]:
        held |= {a["spec_id"]: a["value"] for a in k["attributes"]}
        yield {**k, "attributes": [{"spec_id": s, "value": v} for s, v in held.items()]}


def _shape_alone(shape: Wire, media: Media) -> Iterator[Wire]:
    yield shape
    after = shape["frame"] + media.step
    if after < len(media.frame_names):
        yield {**shape, "frame": after, "outside": True}


def _add_track(
    root: Element, number: int, document: Document, o: Wire, keyframes: Iterable[Wire]
) -> int:
    """Returns the next track's number."""
    label = document.label(o["label_id"])
    attributes = {"id": str(number), "label": label.name, "source": o.get("source") or "manual"}
    if o.get("group"):
        attributes["group_id"] = str(o["group"])
    track = ElementTree.SubElement(root, "track", attributes)
    for k in keyframes:
        element = ElementTree.SubElement(track, TAGS[k["type"]], _shape_to_attributes(k))
        for a in k["attributes"]:
            name = label.attribute(a["spec_id"]).name
            ElementTree.SubElement(element, "attribute", {"name": name}).text = a["value"]
    return number + 1


def _shape_to_attributes(k: Wire) -> dict[str, str]:
    values = {
        "frame": str(k["frame"]),
        "keyframe": "1",
        "outside": str(int(k["outside"])),
        "occluded": str(int(k["occluded"])),
    }
    points = k["as_read"] if "as_read" in k else k["points"]
    if k["type"] == "rectangle":
        values |= {n: f"{p:.2f}" for n, p in zip(("xtl", "ytl", "xbr", "ybr"), points, strict=True)}
        if k.get("rotation"):
            values["rotation"] = f"{k['rotation']:.2f}"
    elif k["type"] == "polygon":
        pairs = zip(points[0::2], points[1::2], strict=True)
        values["points"] = ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs)
    else:
        *runs, left, top, right, bottom = (int(p) for p in points)
        values |= {
            "rle": ", ".join(map(str, runs)),
            "left": str(left),
            "top": str(top),
            "width": str(right - left + 1),
            "height": str(bottom - top + 1),
        }
    return {**values, "z_order": str(k.get("z_order") or 0)}


def _meta(document: Document, media: Media) -> Element:
    if document.format == "cvat" and document.header:
        return _parse(document.header)
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    count = len(media.frame_names)
    for tag, text in (
        ("id", "0"),
        ("name", media.name),
        ("size", str(count)),
        ("mode", "interpolation"),
        ("start_frame", "0"),
        ("stop_frame", str(count - 1)),
    ):
        ElementTree.SubElement(task, tag).text = text
    labels = ElementTree.SubElement(task, "labels")
    for label in document.labels:
        element = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(element, "name").text = label.name
        attributes = ElementTree.SubElement(element, "attributes")
        for a in label.attributes:
            entry = ElementTree.SubElement(attributes, "attribute")
            ElementTree.SubElement(entry, "name").text = a.name
            ElementTree.SubElement(entry, "mutable").text = str(a.mutable)
            ElementTree.SubElement(entry, "input_type").text = "text"
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(media.sizes[0][0])
    ElementTree.SubElement(size, "height").text = str(media.sizes[0][1])
    return meta
