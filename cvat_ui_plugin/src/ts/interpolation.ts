// SPDX-License-Identifier: MIT
// What CVAT shows between two keyframes of a track, number for number (cvat_action/interpolation.py
// is the same rule). Lengths are added in CVAT's order: where two points are equally near, the last
// bit decides.

interface Point {
    x: number;
    y: number;
}

/** A polygon's points with the first one again at the end. */
function closedRing(points: readonly number[]): Point[] {
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
 * Two polygon keyframes, matched once: the polygon at any share (0 to 1) of the way from left to
 * right. Both are taken to begin at the same place and to turn the same way. The number of points may
 * differ from both.
 */
function polygonsBetween(
    left: readonly number[],
    right: readonly number[],
): (share: number) => number[] {
    const [from, to] = [closedRing(left), closedRing(right)];
    const partners = partnersOf(from, to);
    /** Neighbouring points that are thinned together: one with several partners, or several that
     * have one and the same partner. */
    const runs: { first: number; last: number; threshold: number }[] = [];
    for (let first = 0; first < from.length;) {
        const list = partners[first];
        let last = first;
        let threshold: number;
        if (list.length > 1) {
            const [start, end] = [list[0], list[list.length - 1]];
            threshold = lengthOf(to, start, end) / (2 * (end - start + 1));
        } else {
            while (partners[last + 1]?.length === 1 && partners[last + 1][0] === list[0]) last += 1;
            threshold = lengthOf(from, first, last) / (2 * (last - first + 1));
        }
        runs.push({ first, last, threshold });
        first = last + 1;
    }
    return (share) => {
        if (share === 0) return [...left];
        const moved = (index: number): Point[] =>
            partners[index].map((partner) => ({
                x: from[index].x + (to[partner].x - from[index].x) * share,
                y: from[index].y + (to[partner].y - from[index].y) * share,
            }));
        const result: Point[] = [];
        for (const { first, last, threshold } of runs) {
            const run: Point[] = [];
            for (let index = first; index <= last; index += 1) {
                for (const point of moved(index)) run.push(point);
            }
            for (const point of thinned(run, threshold)) result.push(point);
        }
        return result.slice(0, -1).flatMap(({ x, y }) => [x, y]);
    };
}

/** The positions of a polygon or rectangle between two keyframes, by the share of the way. */
export function betweenKeyframes(
    type: string,
    left: readonly number[],
    right: readonly number[],
): (share: number) => number[] {
    return type === 'polygon'
        ? polygonsBetween(left, right)
        : (share) => left.map((value, index) => value + (right[index] - value) * share);
}

/** The rotation in degrees between two keyframes, along the shorter arc; clockwise where they are 180
 * degrees apart. */
export function rotationBetween(left: number, right: number, share: number): number {
    const turned = (right - left + 180) % 360;
    const difference = (turned < 0 ? turned + 360 : turned) - 180;
    return (left + (difference === -180 ? 180 : difference) * share + 360) % 360;
}
