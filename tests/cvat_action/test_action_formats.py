# SPDX-License-Identifier: MIT
"""Annotation files and frames, without a tracker."""

import itertools
import json
import os
import re
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
import pytest
from cvat_sdk.masks import decode_mask, encode_mask
from PIL import Image
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO

from cvat_action.errors import ActionError
from cvat_action.formats import read_document, write_document
from cvat_action.formats.document import Edit, edited, local_job
from cvat_action.formats.json_text import elements, members
from cvat_action.media import open_media

WIDTH, HEIGHT, FRAMES = 40, 30, 6

VIDEO_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job>
      <id>42</id><size>6</size><mode>interpolation</mode>
      <labels>
        <label><name>car</name><color>#fff</color><type>any</type>
          <attributes>
            <attribute><name>colour</name><mutable>False</mutable><input_type>text</input_type><default_value></default_value><values></values></attribute>
            <attribute><name>moving</name><mutable>True</mutable><input_type>checkbox</input_type><default_value>false</default_value><values>false</values></attribute>
          </attributes>
        </label>
        <label><name>bone</name><type>skeleton</type></label>
      </labels>
    </job>
  </meta>
  <track id="0" label="car" source="manual" group_id="3">
    <polygon frame="1" keyframe="1" outside="0" occluded="1" points="3.00,2.00;9.50,2.00;9.00,7.00" z_order="2">
      <attribute name="colour">red &amp; blue</attribute><attribute name="moving">false</attribute>
    </polygon>
    <polygon frame="2" keyframe="0" outside="0" occluded="1" points="3.00,2.00;9.50,2.00;9.00,7.00" z_order="2">
      <attribute name="colour">red &amp; blue</attribute><attribute name="moving">false</attribute>
    </polygon>
    <polygon frame="3" keyframe="1" outside="1" occluded="1" points="3.00,2.00;9.50,2.00;9.00,7.00" z_order="2">
      <attribute name="colour">red &amp; blue</attribute><attribute name="moving">true</attribute>
    </polygon>
  </track>
  <track id="1" label="car" source="semi-auto">
    <box frame="0" keyframe="1" outside="0" occluded="0" xtl="5.00" ytl="6.00" xbr="20.00" ybr="16.50" rotation="30.00" z_order="0">
      <attribute name="colour">green</attribute><attribute name="moving">true</attribute>
    </box>
  </track>
  <track id="2" label="car" source="manual">
    <mask frame="1" keyframe="1" outside="0" occluded="0" rle="3, 2, 3, 11, 1, 4" left="2" top="1" width="6" height="4" z_order="1">
    </mask>
    <mask frame="2" keyframe="1" outside="1" occluded="0" rle="3, 2, 3, 11, 1, 4" left="2" top="1" width="6" height="4" z_order="1">
    </mask>
  </track>
  <track id="3" label="bone" source="manual">
    <skeleton frame="0" keyframe="1" z_order="0">
      <points label="knee" keyframe="1" outside="0" occluded="0" points="3.00,4.00"></points>
    </skeleton>
  </track>
</annotations>
"""  # noqa: E501


@pytest.fixture
def folder_of(tmp_path):
    """A folder with pictures of these names."""

    def folder_of(*names, folder="f"):
        (tmp_path / folder).mkdir()
        for n, name in enumerate(names):
            Image.new("RGB", (WIDTH, HEIGHT), (n, 0, 0)).save(tmp_path / folder / name)
        return tmp_path / folder

    return folder_of


@pytest.fixture
def folder(folder_of):
    return folder_of(*(f"pic_{n}.png" for n in range(FRAMES)), folder="pictures")


@pytest.fixture
def media(folder):
    return open_media(folder)


def read(folder, content, media):
    """The document of a text or of COCO's content, and the frames that belong to it."""
    text = content if isinstance(content, str) else json.dumps(content)
    path = folder / ("a.xml" if text.startswith("<") else "a.json")
    path.write_text(text)
    return read_document(path, media)


def through(path, document, media):
    """Written and read back."""
    write_document(path, document, media)
    return read_document(path, media)[0]


def bitmap():
    picture = np.zeros((HEIGHT, WIDTH), bool)
    picture[4:9, 5:20] = True
    picture[6, 8:11] = False
    picture[20, 30] = True
    return picture


def coco():
    mask = bitmap()
    compressed = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    marked = {"occluded": True, "colour": "red", "age": 3}
    tracked = {"track_id": 0, "keyframe": True}
    annotations = [
        {"segmentation": [[3.5, 2.0, 9.5, 2.0, 9.0, 7.0]], "attributes": marked},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": _runs(mask)}, "iscrowd": 1},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()}},
        {"segmentation": [], "bbox": [5.0, 6.0, 10.0, 8.0]},
        {"segmentation": [[1, 1, 5, 1, 5, 5, 1, 5], [20, 20, 25, 20, 25, 25]]},
        {"segmentation": [[2, 2, 6, 2, 6, 6]], "attributes": tracked},
        {"segmentation": [[3, 2, 7, 2, 7, 6]], "attributes": tracked, "image_id": 12},
        {"segmentation": [], "bbox": [], "keypoints": [1, 1, 2], "num_keypoints": 1},
    ]  # fmt: skip
    for i, a in enumerate(annotations):
        annotations[i] = {"id": i + 1, "image_id": 11, "category_id": 9, "bbox": [0, 0, 1, 1], **a}
    return {
        "info": {"description": "kept"},
        "licenses": [],
        "categories": [{"id": 9, "name": "car", "supercategory": ""}],
        "images": [
            {"id": 11, "file_name": "sub/pic_1.png", "width": WIDTH, "height": HEIGHT},
            {"id": 12, "file_name": "pic_2.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": annotations,
    }


def _runs(mask):
    flat = mask.ravel(order="F").tolist()
    runs = [len(list(run)) for _, run in itertools.groupby(flat)]
    return runs if not flat[0] else [0, *runs]


# --- CVAT for video ------------------------------------------------------------------------------


def test_cvat_xml_is_read_as_cvat_holds_it(tmp_path, media):
    document, _ = read(tmp_path, VIDEO_XML, media)
    polygon, box = document.annotations.tracks
    (mask,) = document.annotations.shapes
    assert [(k["frame"], k["outside"], k["occluded"], k["z_order"]) for k in polygon["shapes"]] == [
        (1, False, True, 2), (3, True, True, 2),
    ]  # fmt: skip
    assert polygon["group"] == 3
    assert polygon["attributes"] == [{"spec_id": 0, "value": "red & blue"}]
    assert polygon["shapes"][1]["attributes"] == [{"spec_id": 1, "value": "true"}]
    assert polygon["shapes"][0]["points"] == [3.0, 2.0, 9.5, 2.0, 9.0, 7.0]
    assert box["shapes"][0]["points"] == [5.0, 6.0, 20.0, 16.5]
    assert box["shapes"][0]["rotation"] == 30.0
    assert (mask["type"], mask["frame"]) == ("mask", 1)
    assert mask["points"] == [3, 2, 3, 11, 1, 4, 2, 1, 7, 4]
    decode_mask(mask["points"], image_width=WIDTH, image_height=HEIGHT)


@pytest.mark.parametrize("behind", ["", "text"])
def test_cvat_xml_comes_back_the_same(tmp_path, media, behind):
    text = VIDEO_XML.replace("</annotations>", f"{behind}</annotations>")
    document, _ = read(tmp_path, text, media)
    again = through(tmp_path / "b.xml", document, media)
    assert again.annotations == document.annotations
    assert again.labels == document.labels
    root = ElementTree.parse(tmp_path / "b.xml").getroot()
    assert root.findtext("./meta/job/id") == "42"
    assert root.find("./track/skeleton/points").get("points") == "3.00,4.00"
    numbers = [t.get("id") for t in root.iter("track")]
    assert len(set(numbers)) == len(numbers) == 4


def task_xml(start, stop, step):
    """VIDEO_XML of a task with start frame and step: its frame n is frame start + n * step."""
    at = {n: start + n * step for n in range(6)}
    text = VIDEO_XML.replace(
        "<size>6</size>",
        f"<size>6</size><start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame>"
        f"<frame_filter>step={step}</frame_filter>",
    )
    return re.sub(r' frame="(\d)"', lambda found: f' frame="{at[int(found[1])]}"', text)


FROM_1 = [f"frame_{n:06}.png" for n in range(1, 7)]
"""as ffmpeg calls them"""


def of_images(text):
    return text.replace("interpolation", "annotation")


def of_project(text, *other_tasks):
    """What CVAT exports of a project: each of its tasks has a header of its own."""
    tasks = f"<project><tasks>{''.join(other_tasks)}<task>"
    return text.replace("<job>", tasks).replace("</job>", "</task></tasks></project>")


def pictures(*numbers, name="pic_{}.png"):
    return [name.format(n) for n in numbers]


@pytest.mark.parametrize(
    ("text", "names", "frame", "place", "tracked"),
    [
        pytest.param(
            *(task_xml(2, 12, 2), pictures(2, 4, 8, 10, 12, name="frame_{:06}.png")),
            *(4, 1, [2, 4, 8, 10, 12]),
            id="exported pictures, frame 6 deleted",
        ),
        pytest.param(
            *(task_xml(2, 12, 2), pictures(*range(6)), 4, 1, range(2, 13, 2)),
            id="pictures of the task",
        ),
        pytest.param(
            *(task_xml(2, 12, 2), pictures(*range(14), name="pic_{:02}.png")),
            *(4, 4, range(2, 13, 2)),
            id="pictures of the source",
        ),
        pytest.param(
            *(of_images(task_xml(0, 5, 1)), FROM_1, 1, 1, range(6)), id="a user's own names"
        ),
        pytest.param(
            *(task_xml(0, 5, 1), FROM_1, 1, 1, range(6)), id="numbers that the task has not"
        ),
        pytest.param(
            *(of_images(task_xml(0, 5, 1)), pictures(*range(9)), 1, 1, range(6)),
            id="more pictures than the task has",
        ),
        pytest.param(
            *(of_project(task_xml(1, 6, 1)), pictures(*range(6)), 1, 0, range(1, 7)),
            id="a project's only task",
        ),
    ],
)
def test_frames_of_a_task_are_its_own_in_the_folder_and_in_the_file(
    tmp_path, folder_of, text, names, frame, place, tracked
):
    """Frame numbers in the file are the source's; what CVAT's task leaves out is not tracked."""
    folder = folder_of(*names)
    document, media = read(tmp_path, text, open_media(folder))
    assert document.annotations.shapes[0]["frame"] == tracked[1]
    assert media.encoded(frame) == (folder / names[place]).read_bytes()
    job = local_job(document, media)
    assert job.frames_between(-1, job.stop_frame) == list(tracked)
    assert job.next_frame(tracked[0]) == tracked[1]
    write_document(tmp_path / "b.xml", document, media)
    again, _ = read_document(tmp_path / "b.xml", open_media(folder))
    assert again.annotations == document.annotations
    before, after = (ElementTree.parse(tmp_path / f"{name}.xml") for name in "ab")
    frames = [{e.get("frame") for e in root.findall("track/*")} for root in (before, after)]
    assert frames[0] == frames[1]


@pytest.mark.parametrize(
    ("task", "frames"),
    [
        pytest.param((2, 40, 2), range(2, 41, 2), id="start frame and step"),
        pytest.param((0, 40, 1), range(41), id="the video is longer"),
        pytest.param((0, 50, 1), range(50), id="a frame of it cannot be decoded"),
    ],
)
def test_a_source_video_is_tracked_on_the_frames_of_its_task(tmp_path, grey_clip, task, frames):
    document, media = read(tmp_path, task_xml(*task), open_media(grey_clip))
    job = local_job(document, media)
    assert job.frames_between(-1, job.stop_frame) == list(frames)
    assert abs(int(media.picture(8).mean()) - 8 * 5) <= 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (task_xml(2, 12, 2), "has 5 frames, which are neither"),
        (of_images(task_xml(0, 5, 1)), "has 5 frames, which are neither"),
        (of_project(task_xml(0, 4, 1), "<task></task>"), "a.xml is of a project with 2 tasks"),
        (VIDEO_XML, "has frame 3"),
        (task_xml(2, 12, 0), "a.xml: the frame_filter of its task is step=0"),
        (task_xml(2, 10**30, 2), "a.xml: the stop_frame of its task is 1000"),
        (task_xml(2, "9" * 5000, 2), "a.xml: the stop_frame of its task is 9999"),
    ],
    ids=[
        *("too few", "one too few", "several tasks", "other numbers", "no step", "a huge end"),
        "a number of 5000 digits",
    ],
)
def test_pictures_that_are_not_those_of_the_task_are_refused(tmp_path, folder_of, text, said):
    names = [f"pic_{n}" for n in range(5)] if "step" in text else ["frame_000000", "frame_000001"]
    with pytest.raises(ActionError, match=said):
        read(tmp_path, text, open_media(folder_of(*(f"{name}.png" for name in names))))


def test_cvats_import_would_find_one_mask_per_track(tmp_path, media):
    """Of a track of masks CVAT's import keeps the first only; see formats/cvat_video.py."""
    document, _ = read(tmp_path, VIDEO_XML, media)
    (mask,) = document.annotations.shapes
    new = [{**mask, "frame": 2, "id": 50}, {**mask, "frame": FRAMES - 1, "id": 51}]
    write_document(tmp_path / "b.xml", edited(document, Edit(shapes=new)), media)
    tracks = ElementTree.parse(tmp_path / "b.xml").iter("track")
    masks = [t for t in tracks if t.find("mask") is not None]
    assert [[(m.get("frame"), m.get("outside")) for m in t] for t in masks] == [
        [("1", "0"), ("2", "1")], [("2", "0"), ("3", "1")], [("5", "0")],
    ]  # fmt: skip


# --- COCO ----------------------------------------------------------------------------------------


def test_coco_is_read_by_what_an_annotation_holds(tmp_path, media):
    document, _ = read(tmp_path, coco(), media)
    polygon, counted, compressed, box, parts = document.annotations.shapes
    assert (polygon["type"], polygon["frame"], polygon["occluded"]) == ("polygon", 1, True)
    assert {a["value"] for a in polygon["attributes"]} == {"red", "3"}
    assert counted["points"] == compressed["points"] == encode_mask(bitmap())
    assert box["points"] == [5.0, 6.0, 15.0, 14.0]
    assert parts["type"] == "mask"
    (track,) = document.annotations.tracks
    assert [(k["frame"], k["outside"]) for k in track["shapes"]] == [
        (1, False), (2, False), (3, True),
    ]  # fmt: skip


# pycocotools 2.0.11 uses what numpy 2 deprecates
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_comes_back_the_same_and_pycocotools_reads_it(tmp_path, media):
    document, _ = read(tmp_path, coco(), media)
    again = through(tmp_path / "b.json", document, media)
    for kind in ("shapes", "tracks"):
        left, right = (
            sorted(({**o, "id": 0} for o in getattr(d.annotations, kind)), key=json.dumps)
            for d in (document, again)
        )
        assert left == right
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["info"] == {"description": "kept"}
    assert content["annotations"] == coco()["annotations"]
    dataset = COCO(str(tmp_path / "b.json"))
    masks = [a for a in dataset.dataset["annotations"] if isinstance(a["segmentation"], dict)]
    assert np.array_equal(dataset.annToMask(masks[0]).astype(bool), bitmap())


UNUSUAL = """{ "type":"instances","info":{"year" : 2024.10},
 "images":[{"id": 11,"file_name":"pic_1.png","width":40,"height":30,"coco_url":"x"},
   {"id":12,"file_name":"pic_2.png","width":40,"height":30}],
 "annotations":[
  {"image_id":11, "id":705,"category_id":9, "score":0.50, "bbox":[1,1,5,5.00],
    "attributes":{"rotation": 30.0,"size":"1.10","n":"NaN","age":3}},
  {"id":5,"image_id":11,"category_id":9,"iscrowd":0,"area":2.0,"attributes":{"track_id": 4},
    "segmentation":{"size":[30,40],"counts":[10,2,1188]}},
  {"id":77,"image_id":11,"category_id":9,"keypoints":[1,1,2],"num_keypoints":1},
  {"id":8,"image_id":11,"category_id":9,"bbox":[2,2,4,4],"attributes":{"track_id":7,"rotation":9.0}},
  {"id":9,"image_id":12,"category_id":9,"bbox":[3,2,4,4],"attributes":{"track_id":7,"rotation":9.5}},
  {"id":10,"image_id":12,"category_id":9,"bbox":[3,2,4,5],"attributes":{"track_id":7}}
 ], "categories":[{"id":9,"name":"car","supercategory":"vehicle","x":[]}], "split" : "train"}"""


def test_what_was_not_tracked_comes_back_byte_for_byte(tmp_path, media):
    document, _ = read(tmp_path, UNUSUAL, media)
    box, mask, second_on_its_frame = document.annotations.shapes
    assert second_on_its_frame["points"] == [3, 2, 7, 7]
    (moved,) = document.annotations.tracks
    keyframes = [{**k, "points": [4, 2, 8, 6]} if k["frame"] == 2 else k for k in moved["shapes"]]
    new = [{**box, "frame": 2, "id": 50, "rotation": 0.0}, {**mask, "frame": 2, "id": 51}]
    changed = edited(document, Edit(new, updated={moved["id"]: {**moved, "shapes": keyframes}}))
    write_document(tmp_path / "b.json", changed, media)
    before, after = members(UNUSUAL), members((tmp_path / "b.json").read_text())
    assert after.keys() == before.keys()
    same = after.keys() - {"annotations", "images"}
    assert {k: after[k] for k in same} == {k: before[k] for k in same}
    assert elements(after["images"]) == elements(before["images"])
    old, written = (elements(each["annotations"]) for each in (before, after))
    assert written[:4] == old[:4]
    assert written[5] == old[5]
    edited_box, _, new_box, new_mask = map(json.loads, written[4:])
    assert (edited_box["id"], edited_box["bbox"]) == (9, [4, 2, 4, 4])
    kept = edited_box["attributes"]
    assert (kept["track_id"], kept["rotation"], kept["keyframe"]) == (7, 9.5, True)
    assert new_box["attributes"] | {"size": "1.10", "n": "NaN", "age": 3} == new_box["attributes"]
    assert [new_box["id"], new_mask["id"], new_mask["iscrowd"]] == [706, 707, 0]
    assert new_mask["area"] == 2.0


def test_from_one_format_to_the_other(tmp_path, media):
    document, _ = read(tmp_path, coco(), media)
    there = through(tmp_path / "b.xml", document, media)
    assert there.annotations.tracks[0]["shapes"][0]["points"] == [2, 2, 6, 2, 6, 6]
    assert there.labels[0].name == "car"
    masks = [s["points"] for s in there.annotations.shapes]
    assert masks[0] == encode_mask(bitmap())
    back = through(tmp_path / "c.json", there, media)
    assert [s["points"] for s in back.annotations.shapes if s["type"] == "mask"] == masks


def test_slivers_beside_the_rest_are_left_out(tmp_path, media):
    content = coco()
    ring = [2, 2, 20, 2, 20, 20]
    kinds = {
        "mask": [ring, [30, 1, 35, 1, 35, 9], [1, 2, 3, 4]],
        "polygon": [[1, 2, 3, 4], ring],
        "rectangle": [[]],
    }
    one = {"image_id": 11, "category_id": 9, "bbox": [2, 2, 18, 18]}
    content["annotations"] = [
        {**one, "id": i, "segmentation": parts} for i, parts in enumerate(kinds.values())
    ]
    shapes = read(tmp_path, content, media)[0].annotations.shapes
    assert [s["type"] for s in shapes] == list(kinds)
    assert shapes[1]["points"] == ring


def test_keypoints_without_a_number_are_written_again(tmp_path, media):
    content = coco()
    (keypoints,) = (a for a in content["annotations"] if a.get("keypoints"))
    del keypoints["id"]
    through(tmp_path / "b.json", read(tmp_path, content, media)[0], media)
    written = json.loads((tmp_path / "b.json").read_text())["annotations"]
    assert [a["keypoints"] for a in written if "keypoints" in a] == [keypoints["keypoints"]]


def small(*file_names):
    """COCO with these images and a box on each."""
    one = {"category_id": 1, "bbox": [1, 1, 5, 5]}
    return {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(file_names)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{**one, "id": i, "image_id": i} for i in range(len(file_names))],
    }


STEADY = {0: 2, 1: 4, 2: 6, 3: 8, 4: 10}
"""the left edge of a box by frame"""


@pytest.mark.parametrize(
    ("lefts", "marked", "changed", "keyframes"),
    [
        (STEADY, [0, 4], {}, [0, 4]),
        ({0: 2, 1: 2.33, 2: 2.67, 3: 3}, [0, 3], {}, [0, 3]),
        (STEADY, [], {}, [0, 4]),
        ({0: 2, 1: 4, 3: 8, 4: 10}, [0, 4], {}, [0, 1, 3, 4]),
        ({**STEADY, 2: 7}, [0, 4], {}, [0, 1, 2, 3, 4]),
        (STEADY, [0, 4], {"occluded": True}, [0, 1, 2, 3, 4]),
        (STEADY, [0, 4], {"age": 4}, [0, 1, 2, 3, 4]),
    ],
    ids=[
        *("between keyframes", "rounded to hundredths", "without its keyframes"),
        *("hidden between them", "one was moved", "one is occluded"),
        "one has another attribute",
    ],
)
def test_what_cvat_interpolated_is_no_keyframe(tmp_path, media, lefts, marked, changed, keyframes):
    """A person marked some frames as keyframes, and changed frame 2."""
    content = small(*pictures(*range(FRAMES)))
    content["annotations"] = [
        {"id": n, "image_id": frame, "category_id": 1, "bbox": [left, 2, 4, 4]}
        | {"attributes": {"occluded": False, "track_id": 3, "keyframe": frame in marked, "age": 3}}
        for n, (frame, left) in enumerate(lefts.items())
    ]
    content["annotations"][2]["attributes"] |= changed
    document, _ = read(tmp_path, content, media)
    (track,) = document.annotations.tracks
    assert [k["frame"] for k in track["shapes"] if not k["outside"]] == keyframes
    write_document(tmp_path / "b.json", document, media)
    before, after = (members((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert elements(after["annotations"]) == elements(before["annotations"])


def test_an_image_is_found_by_its_whole_name_first(tmp_path, folder_of):
    folder = folder_of("1.jpg", "1.png", "2.jpg")
    document, _ = read(tmp_path, small("x/1.png", "1.jpg", "2.png"), open_media(folder))
    assert [s["frame"] for s in document.annotations.shapes] == [1, 0, 2]


def test_an_unknown_image_name_is_not_read_as_a_frame_number(tmp_path, folder_of):
    folder = folder_of(*(f"frame_{n:06d}.png" for n in (0, 2, 4)), folder="export")
    with pytest.raises(ActionError, match="is not a frame of export"):
        read(tmp_path, small("frame_000001.png"), open_media(folder))


def test_two_images_of_equal_name_are_refused(tmp_path, media):
    """Else the annotation of one would be written back to the other (two folders)."""
    with pytest.raises(ActionError, match="are both frame"):
        read(tmp_path, small("sub/pic_1.png", "other/sub/pic_1.png"), media)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "shapes", "tracks"),
    [
        ("annotations/instances_default.json", json.dumps(coco()), 5, 1),
        ("annotations.xml", VIDEO_XML, 1, 2),
    ],
)
def test_the_zip_of_an_export_is_read(tmp_path, media, name, text, shapes, tracks):
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr(name, text)
        archive.writestr("images/pic_1.png", b"")
    found = read_document(tmp_path / "export.zip", media)[0].annotations
    assert (len(found.shapes), len(found.tracks)) == (shapes, tracks)


def test_an_encrypted_or_damaged_zip_is_named(tmp_path, media):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", VIDEO_XML)
    whole = path.read_bytes()
    local, central = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    encrypted, damaged = bytearray(whole), bytearray(whole)
    encrypted[local + 6] |= 1
    encrypted[central + 8] |= 1
    damaged[60:90] = b"x" * 30
    for data in (encrypted, damaged, whole[:-40]):
        path.write_bytes(data)
        with pytest.raises(ActionError, match="cannot be read"):
            read_document(path, media)


def with_segmentation(segmentation):
    content = coco()
    content["annotations"][0]["segmentation"] = segmentation
    content["annotations"][0].pop("bbox", None)
    return json.dumps(content)


COCO_TEXT = json.dumps(coco())
TURNED = '"bbox": [5.0, 6.0, 10.0, 8.0], "attributes": {"rotation": 1e999}'
ROTATED = COCO_TEXT.replace('"bbox": [5.0, 6.0, 10.0, 8.0]', TURNED)
COMPRESSED = coco()["annotations"][2]["segmentation"]["counts"]
BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations>&b;</annotations>'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.xml", "<annotations", "is not XML"),
        ("a.xml", BOMB, "is not XML that can be read"),
        ("a.xml", VIDEO_XML.replace("utf-8", "utf-88"), "unknown encoding"),
        ("a.xml", "<dataset/>", "is not a CVAT annotation file"),
        ("a.xml", "<annotations><image/></annotations>", "CVAT for images"),
        ("a.xml", VIDEO_XML.replace('xtl="5.00"', 'xtl="five"'), "track 1 cannot be read"),
        ("a.xml", VIDEO_XML.replace('frame="3"', 'frame="30"'), "has frame 30"),
        ("a.xml", VIDEO_XML.replace('<mask frame="1"', '<mask frame="-1"'), "frame -1"),
        ("a.xml", VIDEO_XML.replace('<mask frame="1"', f'<mask frame="{FRAMES}"'), "has frame"),
        ("a.xml", VIDEO_XML.replace('width="6"', f'width="{WIDTH}"'), "in a 40x30 image"),
        ("a.xml", VIDEO_XML.replace('rle="3, 2', 'rle="4, 2'), "whose runs do not fill its box"),
        ("a.json", "[]", "is not COCO"),
        ("a.json", "{", "is not JSON"),
        ("a.json", COCO_TEXT.replace("pic_2", "other"), "'other.png' is not a frame"),
        ("a.json", COCO_TEXT.replace('y_id": 9', 'y_id": 1'), "its category_id 1 is not in cat"),
        ("a.json", COCO_TEXT.replace('e_id": 11', 'e_id": 7'), "its image_id 7 is not in images"),
        ("a.json", COCO_TEXT.replace('e_id": 11', 'e_id": [7]'), "its image_id [7] is not in"),
        ("a.json", COCO_TEXT.replace('"image_id": 11', '"x": 7'), "annotation 1 .*it has no image"),
        ("a.json", COCO_TEXT.replace("[3.5, ", "[null, "), "annotation 1 cannot be read"),
        ("a.json", COCO_TEXT.replace(f"[{HEIGHT}, {WIDTH}]", "[9, 9]"), "its RLE is of size"),
        ("a.xml", VIDEO_XML.replace('="30.00"', '="inf"'), "track 1 .*rotation that is not finite"),
        ("a.json", ROTATED, "annotation 4 .*a rotation that is not"),
        ("a.json", with_segmentation([[1, 2], [3, 4]]), "annotation 1 .*a polygon of 2 numbers"),
        ("a.json", with_segmentation([[1, 2, 3, 4, 1e8, 6]]), "annotation 1 .*far outside"),
        ("a.json", with_segmentation([[1, 2, 9, 2, 9, 9], [1, 2, 3, 4, -1e9, 6]]), "far outside"),
        ("a.json", with_segmentation(["ab", 3]), "annotation 1 .*not a list of numbers"),
        ("a.json", with_segmentation([[1, 2, 3, 4, 10**400, 6]]), "annotation 1 .*not finite"),
        ("a.json", COCO_TEXT.replace('"id": 9', '"id": "nine"'), "image or a category is not"),
        ("a.json", COCO_TEXT.replace(COMPRESSED, "0"), "counts do not fill"),
        ("a.json", COCO_TEXT.replace(COMPRESSED, COMPRESSED + "9"), "counts do not fill"),
        ("a.txt", "x", "must be a .json"),
        ("a.zip", "x", "cannot be read as a ZIP: it is damaged, or no ZIP"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(tmp_path, media, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ActionError, match=said.replace("[", r"\[")):
        read_document(tmp_path / name, media)


def test_a_read_only_file_of_results_can_be_written_over(media):
    """By a person who is not the administrator: the folder is what has to be writable."""
    with TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        document, _ = read(folder, coco(), media)
        out = folder / "b.json"
        out.write_text("earlier")
        out.chmod(0o444)
        folder.chmod(0o777)
        os.seteuid(user or 65534)
        try:
            write_document(out, document, media)
        finally:
            os.seteuid(user)
        assert out.read_text() != "earlier"
        assert out.stat().st_mode & 0o777 == 0o444
