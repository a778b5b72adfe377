# SPDX-License-Identifier: MIT
"""Everything that can go wrong, as one tree.

    TrackerError
    ├── ConfigurationError      a setting or a model file is wrong; only at start
    ├── RequestError            the whole request fails
    │   ├── BadRequest          400
    │   ├── AllObjectsFailed    that of its first object
    │   ├── TooLarge            413
    │   ├── StoreUnavailable    503
    │   └── OutOfMemory         503
    └── ObjectError             one object fails, the others go on
        ├── BadShape            400
        ├── EmptyShape          400
        ├── BadState            400
        ├── SizeChanged         400
        ├── TooManyKeyframes    400
        ├── StateGone           410
        └── ModelFailure        500

The status of an ObjectError counts only where every object of a request failed. Messages are
sentences for the person who sent the request: no key, no path, no traceback.
"""


class TrackerError(Exception):
    @property
    def message(self) -> str:
        return str(self)


class ConfigurationError(TrackerError):
    pass


class RequestError(TrackerError):
    code = "internal"
    status = 500
    indexes: list[int] = []


class BadRequest(RequestError):
    code = "bad_request"
    status = 400


class AllObjectsFailed(RequestError):
    def __init__(self, failures: "dict[int, ObjectError]") -> None:
        """failures: the error of each failed object, by its index in the request; at least one."""
        first = next(iter(failures.values()))
        super().__init__(first.message)
        self.code = first.code
        self.status = first.status
        self.indexes = list(failures)


class TooLarge(RequestError):
    code = "too_large"
    status = 413


class StoreUnavailable(RequestError):
    code = "store_unavailable"
    status = 503


class OutOfMemory(RequestError):
    code = "out_of_memory"
    status = 503


class ObjectError(TrackerError):
    code = "internal"
    status = 500


class BadShape(ObjectError):
    code = "bad_shape"
    status = 400


class EmptyShape(ObjectError):
    code = "empty_shape"
    status = 400


class BadState(ObjectError):
    code = "bad_state"
    status = 400


class SizeChanged(ObjectError):
    code = "size_changed"
    status = 400


class TooManyKeyframes(ObjectError):
    code = "too_many_keyframes"
    status = 400


class ModelFailure(ObjectError):
    code = "model_failure"
    status = 500


class StateGone(ObjectError):
    code = "state_gone"
    status = 410
