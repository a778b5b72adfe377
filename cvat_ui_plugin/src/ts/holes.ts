// SPDX-License-Identifier: MIT
// Results that a person deleted to draw the object anew where it really is, which may be too far from the
// wrong results for an overlap to tell whose they are (docs/identity.md).

import { SerializedShape } from './cvat';
import { addTo } from './groups';
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
        const number = numbers.certain(shape);
        return number !== null && !owned.has(number) && earlier.has(number);
    });
    const holes: Holes = { numbers: new Map(), unclear: [] };
    for (const drawing of drawings) {
        const fitting = results.filter((result) => isSameKind(drawing, result));
        const rivals = drawings.filter((other) => fitting.some((one) => isSameKind(other, one)));
        if (fitting.length === 1 && rivals.length === 1) {
            holes.numbers.set(drawing, numbers.certain(fitting[0])!);
        } else if (fitting.length) {
            holes.unclear.push(drawing);
        }
    }
    return holes;
}

/**
 * Drawings that a run comes over, by the number of the object that each may show: on its frame the object has
 * no shape, but on both frames beside it; type, label and group are the same; the drawing has no results of its
 * own; and no other such object or drawing is there.
 *
 * `shapes`: of the job; `order`: the frames of the run; `timeline`: with those beside them, ascending.
 */
export function drawnOnTheWay(
    shapes: SerializedShape[],
    order: number[],
    timeline: number[],
    numbers: Numbers,
): Map<number, SerializedShape[]> {
    const found = new Map<number, SerializedShape[]>();
    const ofRun = new Set(order);
    const isDrawing = (shape: SerializedShape): boolean =>
        ofRun.has(shape.frame) && shape.source !== 'auto' && numbers.certain(shape) === null;
    const drawings = new Map<number, SerializedShape[]>();
    for (const shape of shapes) if (isDrawing(shape)) addTo(drawings, shape.frame, shape);
    // the shapes of a large job are looked at only where there is a drawing
    if (!drawings.size) return found;
    const byFrame = new Map<number, SerializedShape[]>();
    for (const shape of shapes) addTo(byFrame, shape.frame, shape);
    const marked = new Set(shapes.map(markedNumber));
    const place = new Map(timeline.map((frame, index) => [frame, index]));
    for (const [frame, all] of drawings) {
        const on = (index: number): SerializedShape[] => byFrame.get(timeline[index]) ?? [];
        const index = place.get(frame)!;
        // to work out the numbers of drawings takes long
        if (!on(index + 1).some((shape) => numbers.certain(shape) !== null)) continue;
        const drawn = all.filter((shape) => !marked.has(numbers.of(shape)));
        const here = new Set(on(index).map((shape) => numbers.of(shape)));
        const { numbers: meant } = holesFor(drawn, on(index - 1), on(index + 1), here, numbers);
        for (const [shape, number] of meant) addTo(found, number, shape);
    }
    return found;
}
