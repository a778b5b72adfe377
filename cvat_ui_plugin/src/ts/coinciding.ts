// SPDX-License-Identifier: MIT
// Objects of a run that lie on each other: the tracker may have taken one for the other, and is sure
// of both (cvat_action/coinciding.py is the same rule).

import { Box, boxOf, iouOf } from './boxes';
import { addTo } from './groups';
import { drawnIn } from './limits';
import { Tracked } from './track';

/** IoU of two outlines above which they are taken for those of one thing. */
const SAME_OUTLINE = 0.5;
/** The same where one of the two is a rectangle: boxes of neighbours overlap more than outlines. */
const SAME_BOX = 0.7;
/** IoU of the boxes around two outlines from which on the outlines are compared. */
const NEAR = 0.2;

interface Shape {
    type: string;
    points: number[];
}

export interface Coinciding {
    one: Tracked;
    other: Tracked;
    frames: number[];
}

/** The pixels of a mask or polygon inside a box of whole pixels; null where it covers none. */
function pixelsIn({ type, points }: Shape, [left, top, right, bottom]: Box): Uint8Array | null {
    if (type !== 'mask') return drawnIn(points, { left, top, right, bottom })?.pixels ?? null;
    const [x, y, last] = points.slice(-4);
    const [own, width] = [last - x + 1, right - left];
    const pixels = new Uint8Array(width * (bottom - top));
    let at = 0; // among the pixels of the mask's own box
    points.slice(0, -4).forEach((run, index) => {
        for (const end = at + run; at < end; at += 1) {
            const [row, column] = [Math.floor(at / own), at % own];
            pixels[(y - top + row) * width + x - left + column] = index % 2;
        }
    });
    return pixels;
}

function outlinesIou(one: Shape, other: Shape, boxes: [Box, Box]): number {
    const [a, b] = boxes;
    const around: Box = [
        Math.floor(Math.min(a[0], b[0])),
        Math.floor(Math.min(a[1], b[1])),
        Math.ceil(Math.max(a[2], b[2])),
        Math.ceil(Math.max(a[3], b[3])),
    ];
    const [first, second] = [pixelsIn(one, around), pixelsIn(other, around)];
    if (!first || !second) return 0;
    let [both, either] = [0, 0];
    for (let at = 0; at < first.length; at += 1) {
        both += first[at] & second[at];
        either += first[at] | second[at];
    }
    return either ? both / either : 0;
}

export function coverTheSame(one: Shape, other: Shape, boxes?: [Box, Box]): boolean {
    const both: [Box, Box] = boxes ?? [
        boxOf(one.type, one.points),
        boxOf(other.type, other.points),
    ];
    const iou = iouOf(...both);
    if (one.type === 'rectangle' || other.type === 'rectangle') return iou > SAME_BOX;
    return iou > NEAR && outlinesIou(one, other, both) > SAME_OUTLINE;
}

interface Here {
    object: Tracked;
    byHand: boolean;
    shape: Shape;
    box: Box;
}

function visibleOn(objects: Tracked[]): Map<number, Here[]> {
    const found = new Map<number, Here[]>();
    for (const object of objects) {
        const { type } = object.source;
        for (const { frame, points, byHand, inPlace } of object.results) {
            if (!points || inPlace) continue;
            const here = { object, byHand, shape: { type, points }, box: boxOf(type, points) };
            addTo(found, frame, here);
        }
    }
    return found;
}

/** The pairs of objects that cover the same on a frame, those on most frames first.
 *
 * Where a person drew both, or one on the other to begin with, they belong there. */
export function coincidingOf(objects: Tracked[]): Coinciding[] {
    const pairs = new Map<Tracked, Map<Tracked, Coinciding>>();
    for (const [frame, here] of visibleOn(objects)) {
        here.forEach((a, index) => {
            for (const b of here.slice(index + 1)) {
                if (a.byHand && b.byHand) continue;
                if (!coverTheSame(a.shape, b.shape, [a.box, b.box])) continue;
                const [one, other] = [a.object, b.object];
                const of = pairs.get(one) ?? new Map<Tracked, Coinciding>();
                const pair = of.get(other) ?? { one, other, frames: [] };
                pair.frames.push(frame);
                pairs.set(one, of.set(other, pair));
            }
        });
    }
    return [...pairs.values()]
        .flatMap((of) => [...of.values()])
        .filter(({ one, other }) => !coverTheSame(one.source, other.source))
        .sort((a, b) => b.frames.length - a.frames.length);
}
