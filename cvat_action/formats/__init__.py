# SPDX-License-Identifier: MIT
"""Annotation files in and out: COCO and CVAT for video 1.1, plain or in the ZIP of an export."""

import zipfile
from pathlib import Path, PurePosixPath

from cvat_action.errors import ActionError
from cvat_action.formats import coco, cvat_video
from cvat_action.formats.document import Document
from cvat_action.media import Media

SUFFIXES = (".json", ".xml")
MOST_BYTES = 1 << 30


def read_document(path: Path, media: Media) -> Document:
    """Raises ActionError, naming what is wrong with the file."""
    name, data = _content(path)
    if name.lower().endswith(".json"):
        return coco.read(data, str(path), media)
    return cvat_video.read(data, str(path), media)


def write_document(path: Path, document: Document, media: Media) -> None:
    """In the format that the path's suffix says."""
    text = (coco if path.suffix.lower() == ".json" else cvat_video).write(document, media)
    path.write_text(text, encoding="utf-8")


def check_output(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        raise ActionError(
            f"{path} must end in .json (COCO) or .xml (CVAT for video 1.1) and lie in a folder "
            "that exists."
        )


def _content(path: Path) -> tuple[str, bytes]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = [
                    i for i in archive.infolist() if PurePosixPath(i.filename).suffix in SUFFIXES
                ]
                if len(inside) != 1:
                    found = ", ".join(i.filename for i in inside) or "none"
                    raise ActionError(f"{path} must hold one annotation file, not: {found}.")
                if inside[0].file_size > MOST_BYTES:
                    raise ActionError(f"{inside[0].filename} in {path} is larger than 1 GiB.")
                return inside[0].filename, archive.read(inside[0])
        if path.suffix.lower() not in SUFFIXES:
            raise ActionError(f"{path} must be a .json (COCO), a .xml (CVAT for video) or a .zip.")
        return path.name, path.read_bytes()
    except (OSError, zipfile.BadZipFile) as error:
        raise ActionError(f"The annotations {path} cannot be read: {error}.") from None
