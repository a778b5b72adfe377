// SPDX-License-Identifier: MIT
// How far a keyframe, and what CVAT makes between two, may be from the tracker's result
// (cvat_action/limits.py is the same rule).

import { Bitmap, countOf, polygonToBitmap } from './bitmaps';
import { Box, boxOf } from './boxes';

/** Pixels; the picture's shorter side that a distance of 1 is meant for. */
const REFERENCE_SIDE = 480;
/** Times the largest mean distance: outlines that are that far apart are not measured. */
const FAR = 2;
/** Least IoU of rectangles. */
const BOX_IOU = 0.95;

/** A polygon is inside the limit if either holds; a rectangle if the first does. */
export interface Limit {
    /** Least IoU, 0 to 1. */
    iou: number;
    /** Largest mean distance of the two outlines, in pixels. */
    distance: number;
}

/** The limit for objects of a type in a picture of this size. */
export function limitFor(type: string, iou: number, width: number, height: number): Limit {
    return type === 'rectangle'
        ? { iou: Math.min(iou, BOX_IOU), distance: 0 }
        : { iou, distance: Math.min(width, height) / REFERENCE_SIDE };
}

/** The limit that uses up only `share` of what this one allows. */
export function partOf({ iou, distance }: Limit, share: number): Limit {
    return { iou: 1 - (1 - iou) * share, distance: distance * share };
}

/** The tracker's result on one frame, to measure others against. */
export interface Truth {
    isWithin(points: readonly number[], limit: Limit): boolean;
}

/** The whole pixels that a polygon lies in. */
export function pixelBox(ring: readonly number[]): Box {
    const [left, top, right, bottom] = boxOf('polygon', ring);
    return [Math.floor(left), Math.floor(top), Math.ceil(right), Math.ceil(bottom)];
}

/** The pixels of a polygon inside a box; null where it covers none. */
export function drawnIn(ring: readonly number[], [left, top, right, bottom]: Box): Bitmap | null {
    return polygonToBitmap(
        ring.map((value, index) => value - (index % 2 ? top : left)),
        Math.max(right - left, 1),
        Math.max(bottom - top, 1),
    );
}

/** The places of the pixels with a neighbour above, below or beside that is not set. */
function edgeOf({ width, height, pixels }: Bitmap): number[] {
    const edge: number[] = [];
    for (let at = 0, y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1, at += 1) {
            if (!pixels[at]) continue;
            const isInner =
                x > 0 &&
                x < width - 1 &&
                y > 0 &&
                y < height - 1 &&
                pixels[at - 1] &&
                pixels[at + 1] &&
                pixels[at - width] &&
                pixels[at + width];
            if (!isInner) edge.push(at);
        }
    }
    return edge;
}

/** For each pixel the square of the distance to the nearest of `places` (Felzenszwalb and
 * Huttenlocher, "Distance Transforms of Sampled Functions"). */
function squaredDistances(places: number[], width: number, height: number): Float64Array {
    const far = (width + height) ** 2;
    const squares = new Float64Array(width * height).fill(far);
    for (const place of places) squares[place] = 0;
    const longest = Math.max(width, height);
    const [values, vertices] = [new Float64Array(longest), new Int32Array(longest)];
    const borders = new Float64Array(longest + 1);
    const line = (start: number, step: number, count: number): void => {
        for (let i = 0; i < count; i += 1) values[i] = squares[start + i * step];
        let last = 0;
        vertices[0] = 0;
        [borders[0], borders[1]] = [-Infinity, Infinity];
        for (let i = 1; i < count; i += 1) {
            let crossing: number;
            do {
                const vertex = vertices[last];
                crossing =
                    (values[i] + i * i - values[vertex] - vertex * vertex) / (2 * (i - vertex));
                last -= 1;
            } while (crossing <= borders[last + 1]);
            last += 2;
            vertices[last] = i;
            [borders[last], borders[last + 1]] = [crossing, Infinity];
        }
        for (let i = 0, lowest = 0; i < count; i += 1) {
            while (borders[lowest + 1] < i) lowest += 1;
            squares[start + i * step] = (i - vertices[lowest]) ** 2 + values[vertices[lowest]];
        }
    };
    for (let x = 0; x < width; x += 1) line(x, width, height);
    for (let y = 0; y < height; y += 1) line(y * width, 1, width);
    return squares;
}

/** The mean distance from these places to the nearest of the others. */
function meanDistance(from: number[], squares: Float64Array): number {
    return from.reduce((sum, place) => sum + Math.sqrt(squares[place]), 0) / from.length;
}

export class PolygonTruth implements Truth {
    public readonly area: number;

    private readonly box: Box;

    private readonly bitmap: Bitmap;

    private readonly edge: number[];

    private constructor(box: Box, bitmap: Bitmap) {
        [this.box, this.bitmap] = [box, bitmap];
        this.area = countOf(bitmap);
        this.edge = edgeOf(bitmap);
    }

    /** null: the polygon covers no pixel, so that nothing can be measured against it. */
    public static of(ring: readonly number[]): PolygonTruth | null {
        const box = pixelBox(ring);
        const bitmap = drawnIn(ring, box);
        return bitmap && new PolygonTruth(box, bitmap);
    }

    public isWithin(ring: readonly number[], limit: Limit): boolean {
        const theirs = pixelBox(ring);
        const { width, height, pixels } = this.bitmap;
        const [left, top] = this.box;
        const box: Box = [
            Math.min(left, theirs[0]),
            Math.min(top, theirs[1]),
            Math.max(left + width, theirs[2]),
            Math.max(top + height, theirs[3]),
        ];
        const drawn = drawnIn(ring, box);
        if (!drawn) return false;
        const [x, y] = [left - box[0], top - box[1]];
        let both = 0;
        for (let row = 0; row < height; row += 1) {
            const at = (row + y) * drawn.width + x;
            for (let column = 0; column < width; column += 1) {
                both += drawn.pixels[at + column] & pixels[row * width + column];
            }
        }
        const either = this.area + countOf(drawn) - both;
        if (both >= limit.iou * either) return true;
        // The area between two outlines is about their mean distance times the outline's length,
        // or less; far beyond the limit the distances need not be measured.
        if (either - both > FAR * limit.distance * this.edge.length) return false;
        const ours = this.edge.map(
            (place) => (Math.floor(place / width) + y) * drawn.width + (place % width) + x,
        );
        const other = edgeOf(drawn);
        const toOurs = squaredDistances(ours, drawn.width, drawn.height);
        if (meanDistance(other, toOurs) > limit.distance) return false;
        const toOther = squaredDistances(other, drawn.width, drawn.height);
        return meanDistance(ours, toOther) <= limit.distance;
    }
}

export class RectangleTruth implements Truth {
    public constructor(private readonly points: readonly number[]) {}

    public isWithin(other: readonly number[], limit: Limit): boolean {
        const size = ([left, top, right, bottom]: readonly number[]): number =>
            Math.max(right - left, 0) * Math.max(bottom - top, 0);
        const both = size(
            this.points.map((value, index) =>
                index < 2 ? Math.max(value, other[index]) : Math.min(value, other[index]),
            ),
        );
        return both >= limit.iou * (size(this.points) + size(other) - both) && both > 0;
    }
}
