// SPDX-License-Identifier: MIT
// What CVAT shows between two keyframes of a track, number for number (cvat_action/interpolation.py
// is the same rule). Lengths are added in CVAT's order: where two points are equally near, the last
// bit decides.

interface Point {
    x: number;
    y: number;
}

/** The rectangle at `share` (0 to 1) of the way from `left` to `right`. */
export function rectangleBetween(left: number[], right: number[], share: number): number[] {
    return left.map((value, index) => value + (right[index] - value) * share);
}

/** A polygon's points with the first one again at the end. */
function closedRing(points: number[]): Point[] {
    const ring: Point[] = [];
    for (let i = 0; i + 1 < points.length; i += 2) ring.push({ x: points[i], y: points[i + 1] });
    return [...ring, ring[0]];
}

function distance(a: Point, b: Point): number {
    return Math.sqrt((b.x - a.x) ** 2 + (b.y - a.y) ** 2);
}

/** The length of the curve from point `first` to point `last`. */
function lengthOf(curve: Point[], first: number, last: number): number {
    let length = 0;
    for (let i = first; i < last; i += 1) length += distance(curve[i], curve[i + 1]);
    return length;
}

/** How far along the curve each point lies, from 0 to 1. */
function sharesOf(curve: Point[]): number[] {
    const whole = lengthOf(curve, 0, curve.length - 1);
    let length = 0;
    return curve.map((point, index) => {
        if (index === 0) return 0;
        length += distance(curve[index - 1], point);
        return length / whole;
    });
}

/** The first of the nearest values. */
function nearest(value: number, others: number[]): number {
    let best = 0;
    others.forEach((other, index) => {
        if (Math.abs(value - other) < Math.abs(value - others[best])) best = index;
    });
    return best;
}

/** For each point of the left curve its partners on the right one, ascending. */
function partnersOf(left: Point[], right: Point[]): number[][] {
    const [along, across] = [sharesOf(left), sharesOf(right)];
    const partners = along.map((share) => [nearest(share, across)]);
    const taken = new Set(partners.flat());
    across.forEach((share, index) => {
        if (!taken.has(index)) partners[nearest(share, along)].push(index);
    });
    return partners.map((list) => list.sort((a, b) => a - b));
}

/** Leave out the points of `run` that are nearer than `threshold` to the last one that stays. */
function thinned(run: Point[], threshold: number): Point[] {
    if (run.length === 1) return run;
    const kept = [run[0]];
    for (const point of run.slice(1, -1)) {
        if (distance(kept[kept.length - 1], point) >= threshold) kept.push(point);
    }
    kept.push(run[run.length - 1]);
    if (kept.length === 2 && distance(kept[0], kept[1]) < threshold) {
        return [{ x: (kept[0].x + kept[1].x) / 2, y: (kept[0].y + kept[1].y) / 2 }];
    }
    return kept;
}

/**
 * The polygon at `share` (0 to 1) of the way from `left` to `right`. Both are taken to begin at the
 * same place and to turn the same way. The number of points may differ from both.
 */
export function polygonBetween(left: number[], right: number[], share: number): number[] {
    if (share === 0) return [...left];
    const [from, to] = [closedRing(left), closedRing(right)];
    const partners = partnersOf(from, to);
    const moved = partners.map((list, index) =>
        list.map((partner) => ({
            x: from[index].x + (to[partner].x - from[index].x) * share,
            y: from[index].y + (to[partner].y - from[index].y) * share,
        })),
    );
    const result: Point[] = [];
    for (let first = 0; first < from.length;) {
        const list = partners[first];
        if (list.length > 1) {
            const [start, end] = [list[0], list[list.length - 1]];
            const threshold = lengthOf(to, start, end) / (2 * (end - start + 1));
            result.push(...thinned(moved[first], threshold));
            first += 1;
            continue;
        }
        // neighbours that have one and the same partner are thinned together
        let last = first;
        while (partners[last + 1]?.length === 1 && partners[last + 1][0] === list[0]) last += 1;
        const run = moved.slice(first, last + 1).map(([point]) => point);
        result.push(...thinned(run, lengthOf(from, first, last) / (2 * (last - first + 1))));
        first = last + 1;
    }
    return result.slice(0, -1).flatMap(({ x, y }) => [x, y]);
}

/** The position of a polygon or rectangle between two keyframes. */
export function between(type: string, left: number[], right: number[], share: number): number[] {
    return type === 'polygon'
        ? polygonBetween(left, right, share)
        : rectangleBetween(left, right, share);
}
