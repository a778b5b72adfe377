# SPDX-License-Identifier: MIT
"""Automatic keyframes are known by the digits of their coordinates, and every edit shows."""

import json
from typing import Any

import numpy as np
import pytest
from conftest import recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from cvat_action.interpolation import polygon_between
from cvat_action.signature import is_signed, sign
from sam2_tracker.shapes import bitmap_to_polygon, polygon_to_bitmap

CASES: list[dict[str, Any]] = recorded("signatures")
WIDTH, HEIGHT = 64, 48

numbers = st.floats(0, 48)
polygons = st.lists(numbers, min_size=6, max_size=40).filter(lambda points: len(points) % 2 == 0)
rectangles = st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(2, 34), st.floats(2, 28)).map(
    lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
)
drawn = st.one_of(
    st.tuples(st.just("polygon"), polygons), st.tuples(st.just("rectangle"), rectangles)
)
flags = st.fixed_dictionaries(
    {"outside": st.booleans(), "occluded": st.booleans(), "z_order": st.integers(-3, 3)}
)


def keyframe(kind: str, points: list[float], frame: int = 5, **more: Any) -> dict[str, Any]:
    return {"type": kind, "points": points, "frame": frame, "rotation": 0, **more}


def signed(kind: str, points: list[float], frame: int = 5, **more: Any) -> dict[str, Any]:
    written = sign(kind, points, frame, width=WIDTH, height=HEIGHT, **more)
    return keyframe(kind, written, frame, **more)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_the_recorded_cases(case):
    size = {"width": case["width"], "height": case["height"]}
    drawn = {name: case[name] for name in ("outside", "occluded", "z_order")}
    assert sign(case["type"], case["points"], case["frame"], **size, **drawn) == case["signed"]
    found = keyframe(case["type"], case["signed"], case["frame"], **drawn)
    assert is_signed(found)
    assert not is_signed(keyframe(case["type"], case["points"], case["frame"], **drawn))


@given(drawn, st.integers(0, 10**6), flags)
def test_a_signature_survives_json_and_the_hundredths_of_cvats_xml(shape, frame, flags):
    found = signed(*shape, frame, **flags)
    assert is_signed(found)
    assert is_signed(json.loads(json.dumps(found)))
    assert is_signed({**found, "points": [float(f"{value:.2f}") for value in found["points"]]})


@given(drawn, flags)
def test_signing_stays_in_the_image_and_near(shape, flags):
    kind, points = shape
    after = np.array(sign(kind, points, 5, width=WIDTH, height=HEIGHT, **flags)).reshape(-1, 2)
    assert (after >= 0).all()
    assert (after <= (WIDTH, HEIGHT)).all()
    assert np.abs(after.ravel() - points).max() <= 0.4
    if kind == "rectangle":
        assert (after[1] - after[0] >= 1).all()


@given(polygons.filter(lambda points: len(points) >= 12), flags)
def test_signing_again_changes_nothing(points, flags):
    once = signed("polygon", points, **flags)
    assert signed("polygon", once["points"], **flags) == once


@given(drawn, flags, st.data())
def test_another_number_frame_or_flag_breaks_the_signature(shape, flags, data):
    found = signed(*shape, **flags)
    index = data.draw(st.integers(0, len(found["points"]) - 1))
    hundredths = data.draw(st.integers(-500, 500).filter(bool))
    points = list(found["points"])
    points[index] = round(points[index] + hundredths / 100, 2)
    assert not is_signed({**found, "points": points})
    frames_on = data.draw(st.integers(1, 10**6))
    assert not is_signed({**found, "frame": found["frame"] + frames_on})
    assert not is_signed({**found, "outside": not found["outside"]})
    assert not is_signed({**found, "occluded": not found["occluded"]})
    assert not is_signed({**found, "z_order": found["z_order"] + 1})
    assert not is_signed({**found, "rotation": 10.0})


@given(polygons, st.floats(-5, 5), st.floats(-5, 5), st.data())
def test_a_drag_a_point_added_or_removed_or_another_start_breaks_the_signature(
    points, dx, dy, data
):
    found = signed("polygon", points)
    ring = found["points"]
    at = 2 * data.draw(st.integers(0, len(ring) // 2 - 1))
    dragged = [value + (dx, dy)[index % 2] for index, value in enumerate(ring)]
    changed = [ring[:at] + ring[at : at + 2] + ring[at:], ring[:at] + ring[at + 2 :]]
    changed += [other for other in (dragged, ring[at:] + ring[:at]) if other != ring]
    for points in changed:
        assert not is_signed({**found, "points": points})


@given(polygons, polygons, st.integers(1, 9))
def test_an_interpolated_keyframe_carries_no_signature(left, right, frame):
    before, after = signed("polygon", left, 0), signed("polygon", right, 10)
    born = polygon_between(before["points"], after["points"], frame / 10)
    assert not is_signed(keyframe("polygon", born, frame))


def test_what_is_drawn_on_whole_pixels_and_strange_numbers_are_not_signed():
    assert not is_signed(keyframe("polygon", [4.0, 2.0, 10.0, 2.0, 10.0, 6.0, 4.0, 6.0]))
    assert not is_signed(keyframe("rectangle", [4, 2, 10, 6]))
    for strange in (float("nan"), float("inf"), 1e300, -0.01):
        assert not is_signed(keyframe("polygon", [strange] * 12))
    assert not is_signed(keyframe("polygon", []))


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000))
@settings(max_examples=50)
def test_signing_an_exact_outline_changes_no_pixel(seed, frame):
    random = np.random.default_rng(seed)
    bitmap = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for _ in range(4):
        x, y = random.integers(0, 50), random.integers(0, 35)
        bitmap[y : y + random.integers(1, 14), x : x + random.integers(1, 15)] = True
    points = bitmap_to_polygon(bitmap)
    before = polygon_to_bitmap(points, width=WIDTH, height=HEIGHT)
    after = polygon_to_bitmap(
        sign("polygon", points, frame, width=WIDTH, height=HEIGHT), width=WIDTH, height=HEIGHT
    )
    assert (before == after).all()
