# SPDX-License-Identifier: MIT
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripted_function import HEIGHT, WIDTH, ScriptedFunction, frame_picture
from standin_cvat import StandinCvat, StandinFunction, StandinJob

from cvat_action.cli import main
from cvat_action.signature import sign

LABELS = [
    {
        "id": 7,
        "name": "car",
        "type": "any",
        "attributes": [
            {"id": 31, "name": "colour", "mutable": False},
            {"id": 32, "name": "moving", "mutable": True},
        ],
    },
    {"id": 8, "name": "person", "type": "any", "attributes": []},
]
COLOUR = {"spec_id": 31, "value": "red"}
MOVING = {"spec_id": 32, "value": "true"}

POLYGON = [4.0, 2.0, 10.0, 2.0, 10.0, 6.0, 4.0, 6.0]
MASK = [0, 3, 1, 4, 4, 20, 7, 21]  # 1110 over 1111 at (4, 20)
RECTANGLE = [4.0, 30.0, 12.0, 38.0]


def shape(kind: str, points: list[float], **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "frame": 10,
        "label_id": 7,
        "group": 0,
        "source": "manual",
        "points": points,
        "occluded": False,
        "outside": False,
        "z_order": 0,
        "rotation": 0.0,
        "attributes": [],
        "elements": [],
        **more,
    }


def keyframe(frame: int, points: list[float], **more: Any) -> dict[str, Any]:
    kind = "rectangle" if len(points) == 4 else "polygon"
    return {
        "type": kind,
        "frame": frame,
        "points": points,
        "outside": False,
        "occluded": False,
        "z_order": 0,
        "rotation": 0.0,
        "attributes": [],
        **more,
    }


def automatic(
    frame: int, points: list[float], size: tuple[int, int] = (WIDTH, HEIGHT), **more: Any
) -> dict[str, Any]:
    """A keyframe as an earlier run wrote it: signed."""
    k = keyframe(frame, points, **more)
    flags = {name: k[name] for name in ("outside", "occluded", "z_order")}
    return {**k, "points": sign(k["type"], points, frame, width=size[0], height=size[1], **flags)}


def track(*keyframes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "label_id": 7,
        "frame": keyframes[0]["frame"],
        "group": 0,
        "source": "manual",
        "attributes": [],
        "elements": [],
        "shapes": list(keyframes),
        **more,
    }


def shifted(points: list[float], by: float) -> list[float]:
    """A polygon or rectangle, `by` pixels to the right, as the scripted function moves it."""
    return [p + by if i % 2 == 0 else p for i, p in enumerate(points)]


@pytest.fixture
def function() -> Iterator[ScriptedFunction]:
    function = ScriptedFunction()
    yield function
    function.close()


@pytest.fixture
def cvat(function: ScriptedFunction) -> Iterator[StandinCvat]:
    cvat = StandinCvat()
    cvat.functions["pth-facebookresearch-sam2-tracker"] = StandinFunction(function.url)
    yield cvat
    cvat.close()


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


@dataclass
class Result:
    code: int
    out: str
    log: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def act(
    cvat: StandinCvat,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Result]:
    """Runs the command with a token that may write."""
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "may-write")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    monkeypatch.setattr("cvat_action.tracking.LONGEST_PAUSE", 0.01)

    def run(*arguments: object) -> Result:
        try:
            code = main(["--server-host", cvat.url, *map(str, arguments)])
        except SystemExit as usage:
            code = int(str(usage.code))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
