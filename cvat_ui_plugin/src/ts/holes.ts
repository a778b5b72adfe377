// SPDX-License-Identifier: MIT
// Results that a person deleted to draw the object anew where it really is, which may be too far from the
// wrong results for an overlap to tell whose they are (docs/identity.md).

import { SerializedShape } from './cvat';
import { addTo } from './groups';
import { isSameKind } from './kinds';
import { markedNumber, Numbers } from './numbers';

/** The numbers of the objects that each drawing may stand for; one or more. */
export type MayBe = ReadonlyMap<SerializedShape, readonly number[]>;

/**
 * Which objects these drawings may stand for: those that have a result of the same kind on the next frame and a
 * shape on the frame before, but none on the frame of the drawings.
 *
 * `drawings`: of one frame, to which nothing belongs so far; `before`, `after`: the shapes on the
 * frames beside it; `owned`: numbers of objects that have a shape there.
 */
export function holesFor(
    drawings: SerializedShape[],
    before: SerializedShape[],
    after: SerializedShape[],
    owned: ReadonlySet<number>,
    numbers: Numbers,
): MayBe {
    const earlier = new Set(before.map((shape) => numbers.of(shape)));
    const results = after.filter((shape) => {
        const number = numbers.certain(shape);
        return number !== null && !owned.has(number) && earlier.has(number);
    });
    const mayBe = new Map<SerializedShape, number[]>();
    for (const drawing of drawings) {
        const fitting = results.filter((result) => isSameKind(drawing, result));
        const found = new Set(fitting.map((result) => numbers.certain(result)!));
        if (found.size) mayBe.set(drawing, [...found]);
    }
    return mayBe;
}

/** The number of the object that a drawing stands for, where it may be only this one, and no other drawing of
 * the frame may be it. */
export function onlyOnes(mayBe: MayBe): Map<SerializedShape, number> {
    const key = ({ frame }: SerializedShape, number: number): string => `${number} on ${frame}`;
    const rivals = new Map<string, SerializedShape[]>();
    for (const [shape, found] of mayBe) {
        for (const number of found) addTo(rivals, key(shape, number), shape);
    }
    const only = new Map<SerializedShape, number>();
    for (const [shape, [number, ...others]] of mayBe) {
        const isOnly = !others.length && rivals.get(key(shape, number))!.length === 1;
        if (isOnly) only.set(shape, number);
    }
    return only;
}

/**
 * Which objects the drawings that a run comes over may stand for: on the frame of the drawing the object has no
 * shape, but on both frames beside it, of which one is a result; type, label and group are the same; and the
 * drawing has no results of its own.
 *
 * `shapes`: of the job; `order`: the frames of the run; `timeline`: with those beside them, ascending.
 */
export function drawnOnTheWay(
    shapes: SerializedShape[],
    order: number[],
    timeline: number[],
    numbers: Numbers,
): MayBe {
    const ofRun = new Set(order);
    const isDrawing = (shape: SerializedShape): boolean =>
        ofRun.has(shape.frame) && shape.source !== 'auto' && numbers.certain(shape) === null;
    const drawings = new Map<number, SerializedShape[]>();
    for (const shape of shapes) if (isDrawing(shape)) addTo(drawings, shape.frame, shape);
    const mayBe = new Map<SerializedShape, readonly number[]>();
    // the shapes of a large job are looked at only where there is a drawing
    if (!drawings.size) return mayBe;
    const byFrame = new Map<number, SerializedShape[]>();
    for (const shape of shapes) addTo(byFrame, shape.frame, shape);
    const marked = new Set(shapes.map(markedNumber));
    const place = new Map(timeline.map((frame, index) => [frame, index]));
    for (const [frame, all] of drawings) {
        const on = (index: number): SerializedShape[] => byFrame.get(timeline[index]) ?? [];
        const index = place.get(frame)!;
        const [before, after] = [on(index - 1), on(index + 1)];
        // to work out the numbers of drawings takes long
        if (![...before, ...after].some((shape) => numbers.certain(shape) !== null)) continue;
        const drawn = all.filter((shape) => !marked.has(numbers.of(shape)));
        const here = new Set(on(index).map((shape) => numbers.of(shape)));
        const onwards = holesFor(drawn, before, after, here, numbers);
        const back = holesFor(drawn, after, before, here, numbers);
        for (const shape of drawn) {
            const found = new Set([...(onwards.get(shape) ?? []), ...(back.get(shape) ?? [])]);
            if (found.size) mayBe.set(shape, [...found]);
        }
    }
    return mayBe;
}
