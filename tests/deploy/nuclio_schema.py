# SPDX-License-Identifier: MIT
"""What Nuclio accepts in a function's configuration, of the fields that are used here.

Names and types as in Nuclio's `pkg/functionconfig/types.go` and, where that embeds them, in the
Kubernetes API; the limits as in its platform code and in Docker. Nuclio itself drops an unknown
field silently, so that a typing error shows only in the behaviour: here it is an error.
"""

import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any, str], None]


class Invalid(Exception):
    pass


def _fail(where: str, value: object, wanted: str) -> None:
    raise Invalid(f"{where} is {value!r}; it must be {wanted}.")


def text(pattern: str = ".*", wanted: str = "a text") -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            _fail(where, value, wanted)

    return check


def whole(low: int, high: int) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            _fail(where, value, f"a whole number from {low} to {high}")

    return check


def flag(value: Any, where: str) -> None:
    if type(value) is not bool:
        _fail(where, value, "true or false")


def optional(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def one_of(*choices: str) -> Check:
    def check(value: Any, where: str) -> None:
        if value not in choices:
            _fail(where, value, "one of " + ", ".join(choices))

    return check


def list_of(check: Check) -> Check:
    def checks(value: Any, where: str) -> None:
        if not isinstance(value, list):
            _fail(where, value, "a list")
        for index, item in enumerate(value):
            check(item, f"{where}[{index}]")

    return checks


def map_of(check: Check, keys: str = ".+") -> Check:
    def checks(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, value, "a mapping")
        for key, item in value.items():
            text(keys, f"a name like {keys}")(key, f"{where}'s key")
            check(item, f"{where}.{key}")

    return checks


def struct(required: dict[str, Check] | None = None, /, **allowed: Check) -> Check:
    required = required or {}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, value, "a mapping")
        for key in required.keys() - value.keys():
            raise Invalid(f"{where} lacks {key!r}.")
        for key, item in value.items():
            field = {**required, **allowed}.get(key)
            if field is None:
                raise Invalid(f"{where} has a field {key!r} that Nuclio does not know.")
            field(item, f"{where}.{key}")

    return check


NAME = text(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "a DNS label: small letters, digits, '-'")
LABEL = text(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", "a Kubernetes label")
DURATION = text(r"([1-9]\d*(\.\d+)?(ms|s|m|h))+", "a Go duration such as 60s")
IMAGE = text(r"[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?", "an image's name")
ENV_NAME = text(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name")
RUNTIME = one_of("python:3.9", "python:3.10", "python:3.11")
HANDLER = text(r"[\w-]+(\.[\w-]+)*:\w+", "module:function")
MAX_WORKERS = 100_000


def quantity(value: Any, where: str) -> None:
    if type(value) is int and value >= 0:
        return
    text(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", "a quantity such as 500m, 2, 3Gi")(value, where)


def _env(value: Any, where: str) -> None:
    source = struct(secretKeyRef=struct({"name": NAME, "key": text(".+", "a key")}))
    struct({"name": ENV_NAME}, value=text(), valueFrom=source)(value, where)
    if ("value" in value) == ("valueFrom" in value):
        raise Invalid(f"{where} needs one of value and valueFrom.")


def _unique_env(value: Any, where: str) -> None:
    list_of(_env)(value, where)
    names = [item["name"] for item in value]
    if len(set(names)) < len(names):
        raise Invalid(f"{where} names a variable twice.")


RESOURCES = struct(limits=map_of(quantity), requests=map_of(quantity))
TOLERATION = struct(
    key=text(),
    operator=one_of("Exists", "Equal"),
    value=text(),
    effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
)
USER = whole(0, 2**31 - 1)
SECURITY_CONTEXT = struct(
    runAsNonRoot=flag,
    runAsUser=USER,
    runAsGroup=USER,
    seccompProfile=struct({"type": one_of("RuntimeDefault", "Unconfined")}),
)
POD_AFFINITY_TERM = struct(
    {"topologyKey": text(), "labelSelector": struct(matchLabels=map_of(LABEL))}
)
AFFINITY = struct(
    podAntiAffinity=struct(
        preferredDuringSchedulingIgnoredDuringExecution=list_of(
            struct({"weight": whole(1, 100), "podAffinityTerm": POD_AFFINITY_TERM})
        )
    )
)
STEP = one_of("ARG", "COPY", "ENV", "RUN", "WORKDIR")
DIRECTIVE = struct({"kind": STEP, "value": text(r"[^\n]*\S[^\n]*", "one line")})
TRIGGER = struct(
    {"kind": one_of("http")},
    numWorkers=whole(1, MAX_WORKERS),
    workerAvailabilityTimeoutMilliseconds=whole(0, 3_600_000),
    workerTerminationTimeout=DURATION,
    attributes=struct(maxRequestBodySize=whole(1, 2**31 - 1), port=whole(1, 65535)),
)
METADATA = struct(
    {"name": NAME},
    namespace=NAME,
    labels=map_of(LABEL, r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"),
    annotations=map_of(optional(text())),
)
SPEC = struct(
    {"runtime": RUNTIME, "handler": HANDLER, "eventTimeout": DURATION},
    description=text(),
    env=_unique_env,
    readinessTimeoutSeconds=whole(1, 3600),
    image=IMAGE,
    build=struct(
        image=IMAGE,
        baseImage=IMAGE,
        directives=struct(preCopy=list_of(DIRECTIVE), postCopy=list_of(DIRECTIVE)),
    ),
    triggers=map_of(TRIGGER),
    resources=RESOURCES,
    nodeSelector=map_of(LABEL),
    tolerations=list_of(TOLERATION),
    securityContext=SECURITY_CONTEXT,
    affinity=AFFINITY,
    platform=struct(
        attributes=struct(
            # Nuclio also knows maximumRetryCount, which counts with on-failure only, and mountMode,
            # which nothing reads any more (1.13).
            restartPolicy=struct({"name": one_of("no", "always", "unless-stopped")}),
            network=text(),
        )
    ),
)
CONFIG = struct({"metadata": METADATA, "spec": SPEC})


def check_config(config: Any) -> None:
    """Raises Invalid, naming the field, for what Nuclio would refuse, drop or misread."""
    CONFIG(config, "function")
    triggers = config["spec"].get("triggers", {})
    if sum(trigger["kind"] == "http" for trigger in triggers.values()) > 1:
        raise Invalid("function.spec.triggers has more than one http trigger.")
