# SPDX-License-Identifier: MIT
import json
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scripted_function import HEIGHT, WIDTH, ScriptedFunction, frame_picture
from standin_cvat import StandinCvat, StandinFunction, StandinJob
from standin_detector import ScriptedDetector
from wire import MASK, POLYGON, mask_at, shape

from cvat_action.cli import main
from cvat_action.errors import ActionError
from cvat_action.journal import Journal
from cvat_action.media import ImageFolder
from cvat_action.server import OURS

CONVERT = "--convert-polygon-shapes-to-tracks"

SPECS = ((31, "colour", False), (32, "moving", True))
ATTRIBUTES = [{"id": spec, "name": name, "mutable": mutable} for spec, name, mutable in SPECS]
LABELS = [
    {"id": 7, "name": "car", "type": "any", "attributes": ATTRIBUTES},
    {"id": 8, "name": "person", "type": "any", "attributes": []},
]
COLOUR = {"spec_id": 31, "value": "red"}
MOVING = {"spec_id": 32, "value": "true"}


def recorded(name: str) -> Any:
    """Cases that the plugin is tested with too."""
    return json.loads((Path(__file__).parents[1] / "action_cases" / f"{name}.json").read_text())


def ctrl_c(*_: object) -> None:
    """Stands for what a person interrupts."""
    raise KeyboardInterrupt


@contextmanager
def fails_from(owner: type, method: str, first: int) -> Iterator[None]:
    """Meanwhile this method fails from this frame on."""
    whole = getattr(owner, method)

    def broken(self: Any, frame: int, *more: Any) -> Any:
        if frame >= first:
            raise ActionError("The disk is away.")
        return whole(self, frame, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, broken)
        yield


unreadable_from = partial(fails_from, ImageFolder, "encoded")
"""(first frame): meanwhile no picture can be read from this frame on"""
journal_full_from = partial(fails_from, Journal, "frame")
"""(first frame): meanwhile the journal has no room from this frame on"""


@contextmanager
def disk_with(free_bytes: int) -> Iterator[None]:
    """No file may become longer than this."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def write_clip(path: Path, pictures: Iterable[Any]) -> Path:
    """A video of these pictures."""
    pictures = list(pictures)
    height, width, _ = pictures[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12, (width, height))
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


@pytest.fixture
def grey_clip(tmp_path: Path) -> Path:
    """50 frames, on which each pixel is five times the frame's number."""
    pictures = (np.full((30, 40, 3), n * 5, np.uint8) for n in range(50))
    return write_clip(tmp_path / "clip.mp4", pictures)


@pytest.fixture
def function() -> Iterator[ScriptedFunction]:
    function = ScriptedFunction()
    yield function
    function.close()


@pytest.fixture
def cvat(function: ScriptedFunction) -> Iterator[StandinCvat]:
    cvat = StandinCvat()
    cvat.functions[OURS] = StandinFunction(function.url)
    yield cvat
    cvat.close()


@pytest.fixture
def detector(cvat: StandinCvat) -> Iterator[ScriptedDetector]:
    """Another function, `det`, which finds cars."""
    detector = ScriptedDetector()
    cvat.functions["det"] = StandinFunction(detector.url, "det", "detector", labels=(LABELS[0],))
    yield detector
    detector.close()


@pytest.fixture
def job(cvat: StandinCvat) -> StandinJob:
    """Frames 5 to 29 of a video; nothing is annotated yet."""
    return cvat.add_job(
        StandinJob(
            source=[frame_picture(n) for n in range(30)],
            sizes=[(WIDTH, HEIGHT)],
            labels=LABELS,
            start_frame=5,
            stop_frame=29,
        )
    )


@pytest.fixture
def one_mask(job: StandinJob) -> None:
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]


@pytest.fixture
def one_polygon(job: StandinJob) -> None:
    job.shapes = [shape("polygon", POLYGON, id=900, score=1.0)]


@pytest.fixture
def masks(job: StandinJob) -> list[dict[str, Any]]:
    """Three masks that the scripted function and the groups call 20, 30 and 40."""
    job.shapes = [shape("mask", mask_at(4, y), id=y, group=y) for y in (20, 30, 40)]
    return job.shapes


@pytest.fixture
def long_job(cvat: StandinCvat) -> StandinJob:
    """256 frames, more than are written at once."""
    size = (640, HEIGHT)
    pictures = [frame_picture(n, size) for n in range(256)]
    return cvat.add_job(StandinJob(pictures, [size], LABELS, stop_frame=255))


@dataclass
class Result:
    out: str
    log: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def journal(self) -> Path:
        """Of a run that can go on."""
        return Path(self.log.split("--resume ")[-1].split()[0].rstrip(","))


def objects_of(result: Result) -> list[str]:
    """What was tracked, by the summary in JSON."""
    return [o["object"] for o in result.json["objects"]]


@pytest.fixture
def act(
    cvat: StandinCvat,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Result]:
    """Runs the command with a token that may write; it ends with this code, and does not crash."""
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "may-write")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    monkeypatch.setattr("cvat_action.calls.LONGEST_PAUSE", 0.01)

    def run(*arguments: object, code: int = 0) -> Result:
        try:
            ended = main(["--server-host", cvat.url, *map(str, arguments)])
        except SystemExit as usage:
            ended = int(str(usage.code))
        captured = capsys.readouterr()
        assert ended == code, captured.err
        assert "Traceback" not in captured.err
        return Result(captured.out, captured.err)

    return run


@pytest.fixture
def track_to(act: Callable[..., Result]) -> Callable[..., Result]:
    """Tracks what is on a frame of job 42 to a target frame, also backwards."""

    def run(target: int, *options: object, start: int = 10, code: int = 0) -> Result:
        back = ("--backward",) if target < start else ()
        frames = ("--frame", start, "--target-frame", target, *back)
        return act("track", "--job", 42, *frames, *options, code=code)

    return run


@pytest.fixture
def resume(act: Callable[..., Result]) -> Callable[..., Result]:
    """Goes on with a run that ended early."""
    return lambda ended, *options, code=0: act(
        "track", "--resume", ended.journal, *options, code=code
    )


@pytest.fixture
def cut_off(track_to: Callable[..., Result], function: ScriptedFunction) -> Callable[..., Result]:
    """Tracks until the function is away on a frame. Afterwards it is there again."""

    def cut_off(away_on: int, target: int, *options: object, start: int = 10) -> Result:
        function.refuse = lambda frame, count: 503 if frame == away_on else None
        ended = track_to(target, *options, "--wait", 0, start=start, code=4)
        function.refuse = lambda frame, count: None
        return ended

    return cut_off


@pytest.fixture
def receipts(act: Callable[..., Result]) -> Callable[[], list[Path]]:
    """Of all runs, oldest first."""

    def receipts() -> list[Path]:
        paths = [Path(r["receipt"]) for r in act("runs", "--json").json["receipts"]]
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns)

    return receipts
