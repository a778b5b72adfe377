# SPDX-License-Identifier: MIT
"""The mark in the score: docs/identity.md, held by the table that the plugin is tested with too."""

import json

import pytest
from conftest import recorded
from hypothesis import given
from hypothesis import strategies as st

from cvat_action.identity import (
    Mark,
    fnv1a32,
    free_number,
    mark_of,
    marked_score,
    number_of_drawing,
    numbers_of,
)

CASES = recorded("identity")


@pytest.mark.parametrize("case", CASES["marks"], ids=lambda c: str(c["number"]))
def test_a_score_carries_confidence_and_mark(case):
    mark = Mark(case["number"], case["run"])
    assert marked_score(case["confidence"], mark, case["frame"]) == case["score"]
    assert mark_of(case["score"], case["frame"]) == mark


@pytest.mark.parametrize("case", CASES["no_mark"], ids=lambda c: c["why"])
def test_a_score_that_is_not_ours_has_no_mark(case):
    assert mark_of(case["score"], case["frame"]) is None


@pytest.mark.parametrize("case", CASES["numbers"])
def test_the_number_comes_from_the_drawing(case):
    assert number_of_drawing(case["type"], case["frame"], case["points"]) == case["number"]


@pytest.mark.parametrize("case", CASES["objects"], ids=lambda c: c["why"])
def test_the_numbers_of_the_objects_of_shapes(case):
    assert numbers_of(case["shapes"], dict(case["receipts"])) == dict(case["numbers"])


@pytest.mark.parametrize("case", CASES["fnv1a32"], ids=lambda c: c["text"] or "empty")
def test_fnv1a32(case):
    assert fnv1a32(case["text"]) == case["hash"]


@given(
    confidence=st.floats(0, 1),
    number=st.integers(1, 9_999_999),
    run=st.integers(0, 99),
    frame=st.integers(0, 10**7),
)
def test_every_mark_survives_json_and_keeps_four_digits(confidence, number, run, frame):
    score = json.loads(json.dumps(marked_score(confidence, Mark(number, run), frame)))
    assert 0 <= score <= 1
    assert mark_of(score, frame) == Mark(number, run)
    assert abs(score - confidence) <= 1.0001e-4


def test_a_number_that_is_taken_gives_way_to_the_next():
    assert free_number(5, [1, 2]) == 5
    assert free_number(5, [5, 6]) == 7
    assert free_number(9_999_999, [9_999_999]) == 1
