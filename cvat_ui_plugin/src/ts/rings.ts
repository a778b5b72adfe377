// SPDX-License-Identifier: MIT
// Closed outlines as CVAT's flat lists, and where a polygon begins and in which direction it runs
// (cvat_action/polygons.py is the same rule; tests/action_cases/polygons.json holds both to it).
//
// CVAT matches the points of two keyframes by the share of the outline before them, and takes both
// to begin at the same place and to run in the same direction. So every polygon of a track, and of
// a series of shapes that may become one, takes over the start and the direction of the one before.

/** Places along an outline, equally far from each other, that are compared; a power of two. */
const SAMPLES = 1024;

/** Complex numbers x + iy. */
export interface Samples {
    readonly x: Float64Array;
    readonly y: Float64Array;
}

/** The signed area; above 0 where the ring runs clockwise as seen on the screen. */
export function ringArea(ring: readonly number[]): number {
    let sum = 0;
    for (let i = 0; i < ring.length; i += 2) {
        const next = (i + 2) % ring.length;
        sum += ring[i] * ring[next + 1] - ring[next] * ring[i + 1];
    }
    return sum / 2;
}

/** How far each point lies along the outline from its start, and the length of the outline. */
function distanceAlong(ring: readonly number[]): { along: number[]; length: number } {
    const along: number[] = [];
    let length = 0;
    for (let i = 0; i < ring.length; i += 2) {
        const next = (i + 2) % ring.length;
        along.push(length);
        length += Math.hypot(ring[next] - ring[i], ring[next + 1] - ring[i + 1]);
    }
    return { along, length };
}

/** The length of a closed ring. */
export function ringLength(ring: readonly number[]): number {
    return distanceAlong(ring).length;
}

/** The same points in the other direction. */
function reversed(ring: readonly number[]): number[] {
    const result: number[] = [];
    for (let i = ring.length - 2; i >= 0; i -= 2) result.push(ring[i], ring[i + 1]);
    return result;
}

/** The ring begun at its point number `first`. */
function begunAt(ring: readonly number[], first: number): number[] {
    return [...ring.slice(2 * first), ...ring.slice(0, 2 * first)];
}

/** The outline at equally spaced places from its start on. */
export function outlineSamples(ring: readonly number[]): Samples {
    const { along, length } = distanceAlong(ring);
    const [x, y] = [new Float64Array(SAMPLES), new Float64Array(SAMPLES)];
    let edge = 0;
    for (let i = 0; i < SAMPLES; i += 1) {
        const place = i * (length / SAMPLES);
        while (edge + 1 < along.length && along[edge + 1] <= place) edge += 1;
        const span = (along[edge + 1] ?? length) - along[edge];
        const share = span > 0 ? (place - along[edge]) / span : 0;
        const [from, to] = [2 * edge, (2 * edge + 2) % ring.length];
        x[i] = ring[from] + (ring[to] - ring[from]) * share;
        y[i] = ring[from + 1] + (ring[to + 1] - ring[from + 1]) * share;
    }
    return { x, y };
}

const COSINES = Float64Array.from({ length: SAMPLES / 2 }, (_, k) =>
    Math.cos((2 * Math.PI * k) / SAMPLES),
);
const SINES = Float64Array.from({ length: SAMPLES / 2 }, (_, k) =>
    Math.sin((2 * Math.PI * k) / SAMPLES),
);

/** The discrete Fourier transform, in place. */
function transform(x: Float64Array, y: Float64Array): void {
    const swap = (values: Float64Array, i: number, j: number): void => {
        const value = values[i];
        values[i] = values[j];
        values[j] = value;
    };
    for (let i = 1, j = 0; i < SAMPLES; i += 1) {
        let bit = SAMPLES >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) {
            swap(x, i, j);
            swap(y, i, j);
        }
    }
    for (let half = 1; half < SAMPLES; half *= 2) {
        for (let k = 0; k < half; k += 1) {
            const cos = COSINES[(k * SAMPLES) / (2 * half)];
            const sin = -SINES[(k * SAMPLES) / (2 * half)];
            for (let even = k; even < SAMPLES; even += 2 * half) {
                const odd = even + half;
                const re = x[odd] * cos - y[odd] * sin;
                const im = x[odd] * sin + y[odd] * cos;
                x[odd] = x[even] - re;
                y[odd] = y[even] - im;
                x[even] += re;
                y[even] += im;
            }
        }
    }
}

export function meanOf(values: Float64Array): number {
    return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function spectrumOf(ring: readonly number[]): Samples {
    const { x, y } = outlineSamples(ring);
    const [meanX, meanY] = [meanOf(x), meanOf(y)];
    const [re, im] = [x.map((value) => value - meanX), y.map((value) => value - meanY)];
    transform(re, im);
    return { x: re, y: im };
}

/** Where `ring` should begin to fit `reference`, as a share (0 to below 1) of its outline. Both run
 * in the same direction. The best place is found by cyclic cross-correlation. */
function alignedStart(ring: readonly number[], reference: readonly number[]): number {
    const [ours, theirs] = [spectrumOf(ring), spectrumOf(reference)];
    const [re, im] = [new Float64Array(SAMPLES), new Float64Array(SAMPLES)];
    for (let i = 0; i < SAMPLES; i += 1) {
        re[i] = ours.x[i] * theirs.x[i] + ours.y[i] * theirs.y[i];
        // conjugated: transforming this forwards gives the way back
        im[i] = -(ours.y[i] * theirs.x[i] - ours.x[i] * theirs.y[i]);
    }
    transform(re, im);
    const best = re.reduce((most, value, index) => (value > re[most] ? index : most), 0);
    const before = re[(best + SAMPLES - 1) % SAMPLES];
    const after = re[(best + 1) % SAMPLES];
    // the top of the parabola through the best place and its neighbours
    const bend = before - 2 * re[best] + after;
    const between = bend < 0 ? (before - after) / (2 * bend) : 0;
    return (((best + between) / SAMPLES) % 1) + (best + between < 0 ? 1 : 0);
}

function directedLike(ring: readonly number[], reference: readonly number[]): readonly number[] {
    return ringArea(ring) * ringArea(reference) < 0 ? reversed(ring) : ring;
}

/**
 * A polygon with its points in another order: begun and directed like `reference`. The start is the
 * corner next to the place from where on the two outlines, moved onto each other by their centres,
 * fit best.
 */
export function alignedPoints(points: readonly number[], reference: readonly number[]): number[] {
    const ring = directedLike(points, reference);
    const { along, length } = distanceAlong(ring);
    if (length === 0) return [...ring];
    const place = alignedStart(ring, reference) * length;
    let first = 0;
    let nearest = Infinity;
    along.forEach((one, index) => {
        const off = Math.abs(one - place);
        const away = Math.min(off, length - off);
        if (away < nearest) [first, nearest] = [index, away];
    });
    return begunAt(ring, first);
}

/** Like `alignedPoints`, but begun at just the best place, where a point is put in: for outlines
 * that are simplified later, where the errors of many frames would add up. */
export function alignedOutline(outline: readonly number[], reference: readonly number[]): number[] {
    const ring = directedLike(outline, reference);
    const { along, length } = distanceAlong(ring);
    if (length === 0) return [...ring];
    const place = alignedStart(ring, reference) * length;
    const next = along.findIndex((one) => one >= place);
    const after = next < 0 ? along.length : next;
    const edge = Math.max(after - 1, 0);
    const span = (along[edge + 1] ?? length) - along[edge];
    const share = span > 0 ? (place - along[edge]) / span : 0;
    const [from, to] = [2 * edge, (2 * edge + 2) % ring.length];
    const begun = [
        ring[from] + (ring[to] - ring[from]) * share,
        ring[from + 1] + (ring[to + 1] - ring[from + 1]) * share,
        ...begunAt(ring, after),
    ];
    return withoutRepeats(begun);
}

/** The ring without points that repeat the one before. */
export function withoutRepeats(ring: readonly number[]): number[] {
    const result: number[] = [];
    for (let i = 0; i < ring.length; i += 2) {
        const before = (i + ring.length - 2) % ring.length;
        if (ring[i] !== ring[before] || ring[i + 1] !== ring[before + 1]) {
            result.push(ring[i], ring[i + 1]);
        }
    }
    return result;
}
