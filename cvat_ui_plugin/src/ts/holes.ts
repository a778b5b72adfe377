// SPDX-License-Identifier: MIT
// A result that a person deleted to draw the object anew where it really is: too far from the wrong
// results for an overlap to tell whose they are (docs/identity.md).

import { SerializedShape } from './cvat';
import { isSameKind } from './kinds';
import { markedNumber, Numbers } from './numbers';

export interface Holes {
    /** The number of the object that a drawing stands for, where only one can be meant. */
    numbers: Map<SerializedShape, number>;
    /** The drawings that may stand for one, where it cannot be told for which. */
    unclear: SerializedShape[];
}

/**
 * The objects that have results on the next frame and a shape on the frame before, but none on the frame
 * of these drawings: a drawing may stand for one of them.
 *
 * `drawings`: of the start frame, to which nothing belongs so far; `before`, `after`: the shapes on the
 * frames beside it; `owned`: numbers of objects that have a shape there.
 */
export function holesFor(
    drawings: SerializedShape[],
    before: SerializedShape[],
    after: SerializedShape[],
    owned: ReadonlySet<number>,
    numbers: Numbers,
): Holes {
    const earlier = new Set(before.map((shape) => numbers.of(shape)));
    const results = after.filter((shape) => {
        const number = markedNumber(shape);
        const isOpen = number !== null && !owned.has(number) && earlier.has(number);
        return isOpen && shape.source === 'auto';
    });
    const holes: Holes = { numbers: new Map(), unclear: [] };
    for (const drawing of drawings) {
        const fitting = results.filter((result) => isSameKind(drawing, result));
        const rivals = drawings.filter((other) => fitting.some((one) => isSameKind(other, one)));
        if (fitting.length === 1 && rivals.length === 1) {
            holes.numbers.set(drawing, markedNumber(fitting[0])!);
        } else if (fitting.length) {
            holes.unclear.push(drawing);
        }
    }
    return holes;
}
