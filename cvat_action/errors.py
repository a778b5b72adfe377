# SPDX-License-Identifier: MIT
"""What a command may fail with. The messages are sentences for the person at the terminal."""


class ActionError(Exception):
    """The command cannot go on; the message says what is wrong and what to do."""


class NothingToTrack(ActionError):
    """A job has no object on the frame, none of the named ones, or no frame to go to."""
