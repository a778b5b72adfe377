// SPDX-License-Identifier: MIT
// Which shapes may be of one object by their type, label and group.

import { SerializedShape } from './cvat';

export type Kind = Pick<SerializedShape, 'type' | 'label_id' | 'group' | 'source'>;

/** CVAT puts all that a person draws into group 0; results carry the group of their seed. */
function mayBeOfAnyGroup({ source, group }: Kind): boolean {
    return source !== 'auto' && group === 0;
}

export function isSameKind(a: Kind, b: Kind): boolean {
    const sameGroup = a.group === b.group || mayBeOfAnyGroup(a) || mayBeOfAnyGroup(b);
    return a.type === b.type && a.label_id === b.label_id && sameGroup;
}
