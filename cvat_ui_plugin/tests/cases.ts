// SPDX-License-Identifier: MIT
// What the plugin and the command line are both tested with.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SerializedShape, SerializedTrack } from '../src/ts/cvat';
import { Source } from '../src/ts/objects';

/** What a file of cases holds. */
export function casesOf<T>(name: string): T {
    const path = fileURLToPath(new URL(`../../tests/action_cases/${name}`, import.meta.url));
    return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** An object to track, of which nothing is known. */
export function sourceOf(object: SerializedShape | SerializedTrack): Source {
    const [shape, track] = 'shapes' in object ? [null, object] : [object, null];
    const { type, points } = shape ?? track!.shapes[0];
    const { clientID = 1, label_id: labelID } = object;
    return {
        ...{ clientID, name: `car ${clientID}`, labelID, type, points },
        ...{ shape, track, mark: null, claimed: [], inHole: false, inTheWay: [] },
        ...{ byHand: new Map(), drawn: new Map(), relabelled: new Set(), removed: new Set() },
    };
}
