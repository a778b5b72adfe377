# SPDX-License-Identifier: MIT
"""Annotation files in and out: COCO and CVAT for video 1.1, plain or in the ZIP of an export."""

import lzma
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from cvat_action.errors import ActionError
from cvat_action.formats import coco, coco_detections, cvat_video
from cvat_action.formats.coco_detections import Result
from cvat_action.formats.document import Document
from cvat_action.media import Media
from cvat_action.put_in_place import check_can_put, put_in_place

SUFFIXES = (".json", ".xml")
MOST_BYTES = 1 << 30
# What zipfile raises for a damaged, encrypted (RuntimeError) or strangely named ZIP.
UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def read_document(path: Path, media: Media) -> tuple[Document, Media]:
    """The annotations, and the media with the frame numbers that they use.

    Raises ActionError, naming what is wrong with the file.
    """
    name, data = _content(path)
    if name.lower().endswith(".json"):
        return coco.read(data, str(path), media), media
    media = cvat_video.numbered(data, str(path), media)
    return cvat_video.read(data, str(path), media), media


def read_results(path: Path, document: Document, media: Media) -> list[Result]:
    """What a detector found, in a file. Raises ActionError, naming what is wrong with it."""
    name, data = _content(path)
    return coco_detections.read_results(data, name, document, media)


def write_document(path: Path, document: Document, media: Media, *, dry: bool = False) -> None:
    """Writes in the format of the path's suffix. A file that is there is replaced in one step.

    Its mode stays, and so does a link to it. dry: everything but the file. Raises ActionError where
    it cannot be written.
    """
    try:
        text = (coco if path.suffix.lower() == ".json" else cvat_video).write(document, media)
    except (LookupError, ValueError, TypeError) as error:
        raise ActionError(f"{path} cannot be written from these annotations: {error}.") from None
    if dry:
        return
    try:
        with put_in_place(path) as part:
            part.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a label that is no text in UTF-8
        raise ActionError(f"{path} cannot be written: {_why(error)}.") from None


def check_output(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        raise ActionError(
            f"{path} must end in .json (COCO) or .xml (CVAT for video 1.1) and lie in a folder "
            "that exists."
        )
    try:
        check_can_put(path)
    except OSError as error:
        raise ActionError(f"{path} cannot be written: {_why(error)}.") from None


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
        if path.suffix.lower() == ".zip":
            path.open("rb").close()  # where it cannot be read at all, that is said
            raise ActionError(f"{path} cannot be read as a ZIP: it is damaged, or no ZIP.")
        if path.suffix.lower() not in SUFFIXES:
            raise ActionError(f"{path} must be a .json (COCO), a .xml (CVAT for video) or a .zip.")
        return path.name, path.read_bytes()
    except UNREADABLE as error:
        raise ActionError(f"The annotations {path} cannot be read: {_why(error)}.") from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
