# SPDX-License-Identifier: MIT
"""The errors of the function, as one tree, with their HTTP statuses.

    TrackerError
    ├── ConfigurationError      a setting or a model file is wrong; only at start
    ├── RequestError            the whole request fails
    │   ├── BadRequest          400
    │   ├── NotFound            404
    │   ├── BadMethod           405
    │   ├── AllObjectsFailed    the status of the first object's error
    │   ├── TooLarge            413
    │   ├── StoreUnavailable    503
    │   ├── OutOfMemory         503
    │   └── DeviceFailed        503
    └── ObjectError             one object fails, the others go on
        ├── BadShape            400
        ├── EmptyShape          400
        ├── BadState            400
        ├── SizeChanged         400
        ├── TooManyKeyframes    400
        ├── StateGone           410
        └── ModelFailure        500

The status of an ObjectError is used only if every object of a request failed. Messages are
sentences for the person who sent the request: they contain no key, no path and no traceback.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def in_one_line(error: BaseException) -> str:
    """The errors of hydra, YAML and torch have several lines, some of them hundreds."""
    return " ".join(str(error).split())[:500]


class TrackerError(Exception):
    """Base of all errors that this project raises on purpose."""

    @property
    def message(self) -> str:
        return str(self)


class ConfigurationError(TrackerError):
    """A setting or a model file is wrong, so the function cannot start."""


class RequestError(TrackerError):
    """The request as a whole fails. `code` and `status` go into the answer."""

    code = "internal"
    status = 500
    indexes: list[int] = []
    """The objects that failed, if the error is theirs."""


class BadRequest(RequestError):
    """The body is malformed, or its image cannot be decoded."""

    code = "bad_request"
    status = 400


class NotFound(RequestError):
    """GET knows no such path."""

    code = "not_found"
    status = 404


class BadMethod(RequestError):
    code = "bad_method"
    status = 405


class AllObjectsFailed(RequestError):
    """Every object of the request failed; code, status and message are those of the first one."""

    def __init__(self, failures: "dict[int, ObjectError]") -> None:
        """failures: the error of each failed object, by its index in the request; at least one."""
        first = next(iter(failures.values()))
        super().__init__(first.message)
        self.code = first.code
        self.status = first.status
        self.indexes = list(failures)


@contextmanager
def failing_objects(indexes: Iterable[int]) -> Iterator[None]:
    """An ObjectError in it is that of these objects, and the request as a whole fails."""
    try:
        yield
    except ObjectError as error:
        raise AllObjectsFailed(dict.fromkeys(indexes, error)) from error


class TooLarge(RequestError):
    """The image, the number of objects or the expected time exceeds a limit."""

    code = "too_large"
    status = 413


class StoreUnavailable(RequestError):
    """The store of the tracks does not answer, refuses, or is full."""

    code = "store_unavailable"
    status = 503


class OutOfMemory(RequestError):
    """The device or the process has too little memory for the request."""

    code = "out_of_memory"
    status = 503


class DeviceFailed(RequestError):
    """The GPU refuses all further work of this process."""

    code = "device_failed"
    status = 503
    MESSAGE = "The GPU failed, and the function starts anew; try again in a minute."


class ObjectError(TrackerError):
    """One object fails and the other objects of the request go on."""

    code = "internal"
    status = 500


class BadShape(ObjectError):
    """The shape is malformed, or of a type that cannot be tracked."""

    code = "bad_shape"
    status = 400


class EmptyShape(ObjectError):
    """The shape covers no pixel of the image."""

    code = "empty_shape"
    status = 400


class BadState(ObjectError):
    """The state is malformed, so it cannot be one that this function gave out."""

    code = "bad_state"
    status = 400


class SizeChanged(ObjectError):
    """The image has another size than the frames on which the object was tracked so far."""

    code = "size_changed"
    status = 400


class TooManyKeyframes(ObjectError):
    """The object remembers as many drawn frames as it can."""

    code = "too_many_keyframes"
    status = 400


class ModelFailure(ObjectError):
    """The model gave values that are not finite for this object."""

    code = "model_failure"
    status = 500


class StateGone(ObjectError):
    """The state is well-formed, but its record is unknown, expired, removed or damaged."""

    code = "state_gone"
    status = 410
