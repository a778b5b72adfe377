# SPDX-License-Identifier: MIT
"""Videos and folders of images as frames."""

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from cvat_action.errors import ActionError
from cvat_action.media import open_media


def test_an_image_that_disappears_is_named(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "pic_3.png")
    media = open_media(tmp_path)
    (tmp_path / "pic_3.png").unlink()
    with pytest.raises(ActionError, match=r"pic_3.png cannot be read"):
        media.encoded(0)


def test_a_folder_of_an_images_name_is_no_frame_and_a_broken_link_is_named(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "001.png")
    (tmp_path / "002.png").mkdir()
    assert open_media(tmp_path).frame_names == ("001.png",)
    (tmp_path / "003.png").symlink_to("nothing")
    with pytest.raises(ActionError, match=r"003.png is not an image"):
        open_media(tmp_path)


def test_a_sideways_picture_with_a_damaged_part_is_named(tmp_path):
    path = tmp_path / "001.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (20, 10)).save(path, exif=exif)
    before, pixels = path.read_bytes().split(b"IDAT")
    path.write_bytes(before[:-4] + b"\0\0\0\4IDAT" + pixels)  # it is said to be 4 bytes long
    with pytest.raises(ActionError, match=r"001.png is not an image"):
        open_media(tmp_path)


def test_a_video_is_read_forwards_and_backwards(grey_clip):
    media = open_media(grey_clip)
    assert len(media.frame_names) == 50
    assert media.sizes == ((40, 30),)
    assert media.fps == 12
    for frame in (0, 1, 7, 49, 48, 12, 11, 49, 0):
        assert abs(int(media.picture(frame).mean()) - frame * 5) <= 3
    encoded = cv2.imdecode(np.frombuffer(media.encoded(9), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(encoded, media.picture(9))


TURNED = b"Exif\0\0II*\0\x08\0\0\0\2\0" + b"\x12\1\3\0\1\0\0\0\6\0\0\0"
"""that the camera was turned; a second tag follows"""


@pytest.mark.parametrize(
    "tag",
    [b"\x28\1\3\0\1\0\0\0\2\0\0\0", b"\x1a\1\2\0\4\0\0\0abc\0"],
    ids=["a right tag", "a resolution that is text"],
)
def test_images_keep_their_bytes_and_turned_ones_their_size(tmp_path, tag):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=TURNED + tag + bytes(4))
    media = open_media(tmp_path)
    assert media.sizes == ((10, 20),)
    assert media.picture(0).shape == (20, 10, 3)
    assert media.encoded(0) == (tmp_path / "a.jpg").read_bytes()


@pytest.mark.parametrize(
    ("name", "said"), [("a.mp4", "not a video"), ("b.mp4", "no video"), ("empty", "no images")]
)
def test_what_is_no_video_is_said(tmp_path, name, said):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ActionError, match=said):
        open_media(tmp_path / name)
