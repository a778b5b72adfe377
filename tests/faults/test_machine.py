# SPDX-License-Identifier: MIT
"""The state machine of machine.py, always the same runs; `make faults` has a hundred times more."""

from hypothesis import HealthCheck, settings

from faults.machine import TrackersOnOneStore

TrackersOnOneStore.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
TestTrackersOnOneStore = TrackersOnOneStore.TestCase
