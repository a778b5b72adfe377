// SPDX-License-Identifier: MIT
// Objects of a run that lie on each other: the tracker may have taken one for the other, and is sure
// of both (cvat_action/coinciding.py is the same rule).

import { crossingsOf } from './bitmaps';
import { Box, boxOf, iouOf } from './boxes';
import { addTo } from './groups';
import { Tracked } from './tracked';

/** IoU of two outlines above which they are taken for those of one thing. */
const SAME_OUTLINE = 0.5;
/** The same where one of the two is a rectangle: boxes of neighbours overlap more than outlines. */
const SAME_BOX = 0.7;
/** Drawings count as drawn on each other with so much less than these limits, because they may come
 * nearer while they are tracked. */
const DRAWN_SO = 0.2;
/** IoU of the boxes around two outlines from which on the outlines are compared. */
const NEAR = 0.2;

/** The pixels of a mask or polygon: on each row from `top` on the columns where it begins and ends. */
interface Rows {
    top: number;
    rows: number[][];
    area: number;
}

/** The rows of a mask, from its top. */
function rowsOfMask(points: number[]): number[][] {
    const [left, top, right, bottom] = points.slice(-4);
    const width = right - left + 1;
    const rows = Array.from({ length: bottom - top + 1 }, (): number[] => []);
    let at = 0; // among the pixels of the mask's box
    points.slice(0, -4).forEach((run, index) => {
        for (const end = at + run; at < end;) {
            const row = Math.floor(at / width);
            const next = Math.min(end, (row + 1) * width);
            const begin = left - row * width;
            if (index % 2) rows[row].push(begin + at, begin + next);
            at = next;
        }
    });
    return rows;
}

/** The rows of a polygon from `top` to before `bottom`. */
function rowsOfPolygon(points: number[], top: number, bottom: number): number[][] {
    const crossings = crossingsOf(points, top, bottom);
    if (!crossings) return [];
    const rows = Array.from({ length: bottom - top }, (): number[] => []);
    for (let i = 0; i < crossings.length; i += 2) rows[crossings[i] - top].push(crossings[i + 1]);
    for (const row of rows) row.sort((a, b) => a - b);
    return rows;
}

/** A shape to compare with others. */
export class Outline {
    public readonly box: Box;

    private known: Rows | null = null;

    public constructor(
        public readonly type: string,
        private readonly points: number[],
    ) {
        this.box = boxOf(type, points);
    }

    public get pixels(): Rows {
        this.known ??= this.find();
        return this.known;
    }

    private find(): Rows {
        const [top, bottom] = [Math.floor(this.box[1]), Math.ceil(this.box[3])];
        const rows =
            this.type === 'mask'
                ? rowsOfMask(this.points)
                : rowsOfPolygon(this.points, top, bottom);
        let area = 0;
        for (const row of rows) for (let i = 0; i < row.length; i += 2) area += row[i + 1] - row[i];
        return { top, rows, area };
    }
}

function outlinesIou(one: Rows, other: Rows): number {
    let both = 0;
    const end = Math.min(one.top + one.rows.length, other.top + other.rows.length);
    for (let y = Math.max(one.top, other.top); y < end; y += 1) {
        const [a, b] = [one.rows[y - one.top], other.rows[y - other.top]];
        for (let i = 0, j = 0; i < a.length && j < b.length;) {
            both += Math.max(Math.min(a[i + 1], b[j + 1]) - Math.max(a[i], b[j]), 0);
            if (a[i + 1] < b[j + 1]) i += 2;
            else j += 2;
        }
    }
    return both && both / (one.area + other.area - both);
}

/** Whether two outlines cover the same thing. `less` is taken off the limits. */
export function coverTheSame(one: Outline, other: Outline, less = 0): boolean {
    const iou = iouOf(one.box, other.box);
    if (one.type === 'rectangle' || other.type === 'rectangle') return iou > SAME_BOX - less;
    return iou > NEAR && outlinesIou(one.pixels, other.pixels) > SAME_OUTLINE - less;
}

/** Two objects that cover the same thing: on how many frames, and the first of these. */
export interface Coinciding {
    one: Tracked;
    other: Tracked;
    first: number;
    count: number;
}

interface Visible {
    object: Tracked;
    points: number[];
    byHand: boolean;
}

/** What is visible of the objects by frame, in the order of tracking. */
function visibleOn(objects: Tracked[], start: number): [number, Visible[]][] {
    const found = new Map<number, Visible[]>();
    for (const object of objects) {
        for (const { frame, points, byHand, inPlace } of object.results) {
            if (points && !inPlace) addTo(found, frame, { object, points, byHand });
        }
    }
    return [...found].sort(([a], [b]) => Math.abs(a - start) - Math.abs(b - start));
}

/** The pairs of objects that cover the same thing on a frame, those on most frames first.
 *
 * Where a person drew both there, or both nearly as much on each other to begin with, they belong there. `start`: the frame that
 * the objects were tracked from; `breathe` is called after each frame. */
export async function coincidingOf(
    objects: Tracked[],
    start: number,
    breathe: () => Promise<void>,
): Promise<Coinciding[]> {
    const pairs = new Map<Tracked, Map<Tracked, Coinciding>>();
    for (const [frame, visible] of visibleOn(objects, start)) {
        if (visible.length < 2) continue;
        const here = visible.map(({ object, points, byHand }) => {
            return { object, byHand, outline: new Outline(object.source.type, points) };
        });
        for (const [index, a] of here.entries()) {
            for (let next = index + 1; next < here.length; next += 1) {
                const b = here[next];
                if (a.byHand && b.byHand) continue;
                if (!coverTheSame(a.outline, b.outline)) continue;
                const [one, other] = [a.object, b.object];
                const of = pairs.get(one) ?? new Map<Tracked, Coinciding>();
                const pair = of.get(other) ?? { one, other, first: frame, count: 0 };
                pair.count += 1;
                pairs.set(one, of.set(other, pair));
            }
        }
        await breathe();
    }
    const seedOf = ({ source }: Tracked): Outline => new Outline(source.type, source.points);
    return [...pairs.values()]
        .flatMap((of) => [...of.values()])
        .filter(({ one, other }) => !coverTheSame(seedOf(one), seedOf(other), DRAWN_SO))
        .sort((a, b) => b.count - a.count);
}
