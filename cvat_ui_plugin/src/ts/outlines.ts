// SPDX-License-Identifier: MIT
// Outlines of few points, which a person can drag (sam2_tracker/outlines.py is the same rule). A
// ring along pixel edges is a staircase; the outline through the middles of the pixel edges,
// smoothed by a pixel, is what the staircase stands for.

import { ringArea, withoutRepeats } from './rings';

/** Pixels; corners lie on this grid. */
const GRID = 0.25;
/** Distances that are tried, from coarse to fine, in units of what `fewestCorners` is given. */
const DISTANCES = [12, 9, 7, 5.6, 4.6, 3.8, 3.1, 2.5, 2, 1.5];
/** Weights of the neighbours along the ring, from three before to three after. */
const GAUSS = [-3, -2, -1, 0, 1, 2, 3].map((offset) => Math.exp(-(offset ** 2) / 2));
const GAUSS_SUM = GAUSS.reduce((a, b) => a + b);

/** The smooth outline of a ring that runs along pixel edges: one point per pixel edge. */
export function ringToOutline(ring: readonly number[]): number[] {
    const middles: number[] = [];
    for (let i = 0; i < ring.length; i += 2) {
        const next = (i + 2) % ring.length;
        const [dx, dy] = [ring[next] - ring[i], ring[next + 1] - ring[i + 1]];
        for (let along = 0; along < Math.abs(dx) + Math.abs(dy); along += 1) {
            middles.push(
                ring[i] + Math.sign(dx) * (along + 0.5),
                ring[i + 1] + Math.sign(dy) * (along + 0.5),
            );
        }
    }
    const count = middles.length;
    return middles.map((_, at) =>
        GAUSS.reduce((sum, weight, index) => {
            const from = (((at + 2 * (index - 3)) % count) + count) % count;
            return sum + (weight / GAUSS_SUM) * middles[from];
        }, 0),
    );
}

/** The points of an open curve that stay if none may be moved by more than `distance`: the method
 * of Ramer, Douglas and Peucker. `curve` is flat; the answer holds indices of points. */
function staying(curve: Float32Array, distance: number): number[] {
    const kept: number[] = [];
    const open: [number, number][] = [[0, curve.length / 2 - 1]];
    while (open.length) {
        const [first, last] = open.pop()!;
        const [x, y] = [curve[2 * first], curve[2 * first + 1]];
        const [dx, dy] = [curve[2 * last] - x, curve[2 * last + 1] - y];
        let [most, farthest] = [0, first];
        for (let i = first + 1; i < last; i += 1) {
            const off = Math.abs((curve[2 * i + 1] - y) * dx - (curve[2 * i] - x) * dy);
            if (off > most) [most, farthest] = [off, i];
        }
        if (most * most <= distance * distance * (dx * dx + dy * dy)) kept.push(first);
        else open.push([farthest, last], [first, farthest]);
    }
    return [...kept, curve.length / 2 - 1];
}

/** The points without those that lie almost on the line between their neighbours, as OpenCV leaves
 * them out (the command line uses it): the neighbour after such a point stays. */
function withoutAlmostStraight(curve: Float32Array, points: number[], distance: number): number[] {
    const kept = [points[0]];
    let at = 1;
    for (let left = points.length; at < points.length - 1 && left > 2; at += 1) {
        const [from, point, to] = [kept[kept.length - 1], points[at], points[at + 1]];
        const [x, y] = [curve[2 * point], curve[2 * point + 1]];
        const [inX, inY] = [x - curve[2 * from], y - curve[2 * from + 1]];
        const [outX, outY] = [curve[2 * to] - x, curve[2 * to + 1] - y];
        const [dx, dy] = [inX + outX, inY + outY];
        const off = inX * dy - inY * dx;
        const isNear = off * off <= 0.5 * distance * distance * (dx * dx + dy * dy);
        if (isNear && dx !== 0 && dy !== 0 && inX * outX + inY * outY >= 0) {
            kept.push(to);
            left -= 1;
            at += 1;
        } else {
            kept.push(point);
        }
    }
    return [...kept, ...points.slice(at)];
}

/** An open curve with few of its points, without the last one. */
function approximated(curve: readonly number[], distance: number): number[] {
    const single = Float32Array.from(curve);
    const points = withoutAlmostStraight(single, staying(single, distance), distance);
    return points.slice(0, -1).flatMap((point) => [single[2 * point], single[2 * point + 1]]);
}

/** To the nearest whole number, halves to the even one. */
function roundedToEven(value: number): number {
    const low = Math.floor(value);
    if (value - low === 0.5) return low % 2 ? low + 1 : low;
    return Math.floor(value + 0.5);
}

/** Move all corners outwards (inwards) by one distance, at most a pixel, to meet the area. */
function grown(ring: readonly number[], area: number): number[] {
    const count = ring.length;
    const tangents = ring.map((_, at) => ring[(at + 2) % count] - ring[(at + count - 2) % count]);
    const lengths: number[] = [];
    for (let i = 0; i < count; i += 2) lengths.push(Math.hypot(tangents[i], tangents[i + 1]));
    const gain = lengths.reduce((a, b) => a + b, 0) / 2; // of area, by distance
    if (gain === 0) return [...ring];
    const distance = Math.min(Math.max((area - ringArea(ring)) / gain, -1), 1);
    return ring.map((value, at) => {
        const length = Math.max(lengths[at >> 1], 1e-9);
        return value + ((at % 2 ? -tangents[at - 1] : tangents[at + 1]) / length) * distance;
    });
}

/**
 * The outline without the corners that can go without moving it by more than `distance`. What is
 * left lies inside of every bend, so the corners are then moved outwards until the ring has the given
 * area, and put on the grid.
 */
function simplified(outline: readonly number[], distance: number, area: number): number[] {
    let [far, most] = [0, -1];
    for (let i = 0; i < outline.length; i += 2) {
        const away = (outline[i] - outline[0]) ** 2 + (outline[i + 1] - outline[1]) ** 2;
        if (away > most) [far, most] = [i, away];
    }
    // two open curves, because the first corner is to stay
    const closed = [...outline, outline[0], outline[1]];
    const corners = [
        ...approximated(closed.slice(0, far + 2), distance),
        ...approximated(closed.slice(far), distance),
    ];
    const sized = corners.length >= 6 ? grown(corners, area) : corners;
    return withoutRepeats(sized.map((value) => roundedToEven(value / GRID) * GRID));
}

/**
 * The outline with as few corners as `isWithin` allows; null where not even the finest is within.
 *
 * `area`: that the ring shall have, in square pixels; `unit`: distances from 12 of these pixels down
 * to 1.5 are tried. The answer begins at the outline's first point and runs in its direction.
 */
export function fewestCorners(
    outline: readonly number[],
    area: number,
    unit: number,
    isWithin: (ring: number[]) => boolean,
): number[] | null {
    const signed = Math.sign(ringArea(outline)) < 0 ? -area : area;
    // the box of whole pixels, in spite of rounding: growing must not leave it, nor the image
    const bounds = [0, 1].map((axis) => {
        const values = outline.filter((_, index) => index % 2 === axis);
        return [
            Math.floor(values.reduce((a, b) => Math.min(a, b)) + 1e-6),
            Math.ceil(values.reduce((a, b) => Math.max(a, b)) - 1e-6),
        ];
    });
    for (const distance of DISTANCES) {
        const ring = simplified(outline, distance * unit, signed).map((value, index) =>
            Math.min(Math.max(value, bounds[index % 2][0]), bounds[index % 2][1]),
        );
        if (ring.length >= 6 && isWithin(ring)) return ring;
    }
    return null;
}
