// SPDX-License-Identifier: MIT
// Results that a person deleted to draw the object anew where it really is, which may be too far from the
// wrong results for an overlap to tell whose they are (docs/identity.md).

import { SerializedShape } from './cvat';
import { addTo } from './groups';
import { isSameKind } from './kinds';
import { Numbers } from './numbers';

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

/** What the job holds of an object. */
interface Held {
    frames: Set<number>;
    first: number;
    last: number;
    /** One of each kind of its results. */
    results: Map<string, SerializedShape>;
}

/** What the job holds of every object that has results, by its number. */
function heldByNumber(shapes: SerializedShape[], numbers: Numbers): ReadonlyMap<number, Held> {
    const held = new Map<number, Held>();
    for (const shape of shapes) {
        const number = numbers.certain(shape);
        if (number === null) continue;
        const one = held.get(number) ?? emptyHeld();
        held.set(number, one);
        const { type, label_id: label, group, source } = shape;
        one.results.set([type, label, group, source].join(), shape);
    }
    for (const shape of shapes) {
        // to work out the number of a drawing takes long
        const isAuto = shape.source === 'auto';
        const number = isAuto ? numbers.certain(shape) : numbers.of(shape);
        const one = held.get(number ?? 0);
        if (!one) continue;
        one.frames.add(shape.frame);
        one.first = Math.min(one.first, shape.frame);
        one.last = Math.max(one.last, shape.frame);
    }
    return held;
}

function emptyHeld(): Held {
    return { frames: new Set(), first: Infinity, last: -Infinity, results: new Map() };
}

/**
 * Which objects the drawings that a run comes over may stand for: those of the same type, label and group that
 * have results, and shapes before and after the frame of the drawing, but none on it. A drawing that has
 * results of its own stands for itself.
 *
 * `shapes`: of the job; `order`: the frames of the run.
 */
export function drawnOnTheWay(shapes: SerializedShape[], order: number[], numbers: Numbers): MayBe {
    const ofRun = new Set(order);
    const drawings = shapes.filter(
        (shape) =>
            ofRun.has(shape.frame) && shape.source !== 'auto' && numbers.certain(shape) === null,
    );
    const mayBe = new Map<SerializedShape, number[]>();
    // the shapes of a large job are looked at only where there is a drawing
    if (!drawings.length) return mayBe;
    const held = heldByNumber(shapes, numbers);
    for (const drawing of drawings) {
        if (held.has(numbers.of(drawing))) continue;
        const { frame } = drawing;
        const fitting = [...held].filter(
            ([, { frames, first, last, results }]) =>
                first < frame &&
                frame < last &&
                !frames.has(frame) &&
                [...results.values()].some((result) => isSameKind(drawing, result)),
        );
        if (fitting.length)
            mayBe.set(
                drawing,
                fitting.map(([number]) => number),
            );
    }
    return mayBe;
}
