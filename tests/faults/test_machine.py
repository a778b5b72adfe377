# SPDX-License-Identifier: MIT
"""The state machine of machine.py, always the same runs; `make faults` has a hundred times more."""

from hypothesis import HealthCheck, settings

from faults.machine import TrackersOnOneStore

TrackersOnOneStore.TestCase.settings = settings(
    max_examples=settings.default.max_examples * 6 // 10,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
TestTrackersOnOneStore = TrackersOnOneStore.TestCase
