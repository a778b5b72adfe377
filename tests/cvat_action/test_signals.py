# SPDX-License-Identifier: MIT
"""Signals that end a process, sent to this one."""

import os
import signal
from collections.abc import Iterator

import pytest

from cvat_action.signals import ending_signals, stop_on_signals

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """A signal that nothing catches does not end the tests."""
    before = {number: signal.signal(number, lambda *_: None) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_work_as_ctrl_c_does(number: int) -> None:
    stop_on_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_terminal_that_closes_ends_the_work_once() -> None:
    stop_on_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """As SIGHUP is under `nohup`."""
    signal.signal(number, signal.SIG_IGN)
    stop_on_signals()
    assert signal.getsignal(number) is signal.SIG_IGN
    assert ending_signals() == [other for other in ALL if other != number]
