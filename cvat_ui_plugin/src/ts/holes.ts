// SPDX-License-Identifier: MIT
// A result that a person deleted to draw the object anew where it really is: too far from the wrong
// results for an overlap to tell whose they are (docs/identity.md).

import { SerializedShape } from './cvat';
import { isSameKind } from './kinds';
import { markedNumber, Numbers } from './numbers';

/**
 * The number of the object that each of these drawings stands for, where only one can be meant: it has
 * results on the next frame and a shape on the frame before, but none on the frame of the drawings.
 *
 * `drawings`: of the start frame, to which nothing belongs so far; `before`, `after`: the shapes on the
 * frames beside it; `owned`: numbers of objects that have a shape there.
 */
export function numbersOfHoles(
    drawings: SerializedShape[],
    before: SerializedShape[],
    after: SerializedShape[],
    owned: ReadonlySet<number>,
    numbers: Numbers,
): Map<SerializedShape, number> {
    const earlier = new Set(before.map((shape) => numbers.of(shape)));
    const results = after.filter((shape) => {
        const number = markedNumber(shape);
        const isOpen = number !== null && !owned.has(number) && earlier.has(number);
        return isOpen && shape.source === 'auto';
    });
    const found = new Map<SerializedShape, number>();
    for (const drawing of drawings) {
        const fitting = results.filter((result) => isSameKind(drawing, result));
        if (fitting.length !== 1) continue;
        const rivals = drawings.filter((other) => isSameKind(other, fitting[0]));
        if (rivals.length === 1) found.set(drawing, markedNumber(fitting[0])!);
    }
    return found;
}
