// SPDX-License-Identifier: MIT
// Lists by a key.

/** Add an item to the list of this key. */
export function addTo<Key, Item>(groups: Map<Key, Item[]>, key: Key, item: Item): void {
    const list = groups.get(key);
    if (list) list.push(item);
    else groups.set(key, [item]);
}
