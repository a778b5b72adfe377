# SPDX-License-Identifier: MIT
"""Which shapes may be of one object by their label, type and group."""

from cvat_action.job import Wire

Kind = tuple[int, str, int]
"""label id, type and group: what the results of one object have in common"""

ANY_GROUP = -1


def kind_of(shape: Wire) -> Kind:
    return int(shape["label_id"]), str(shape["type"]), int(shape.get("group") or 0)


def compared_kind(kind: Kind, *, auto: bool) -> Kind:
    """The kind by which a shape is compared with others.

    CVAT puts all that a person draws into group 0; results carry the group of their seed. So a
    shape in group 0 whose source is not `auto` may be of any group.
    """
    label, shape_type, group = kind
    return label, shape_type, group if auto or group else ANY_GROUP


def compared_kind_of(shape: Wire) -> Kind:
    return compared_kind(kind_of(shape), auto=shape.get("source") == "auto")


def same_kind(one: Kind, other: Kind) -> bool:
    """Both as `compared_kind` gives them."""
    return one[:2] == other[:2] and (one[2] == other[2] or ANY_GROUP in (one[2], other[2]))
