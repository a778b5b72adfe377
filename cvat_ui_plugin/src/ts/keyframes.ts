// SPDX-License-Identifier: MIT
// The fewest keyframes from which CVAT's interpolation gives a track within a limit
// (cvat_action/keyframes.py is the same rule; tests/action_cases/keyframes.json holds both to it).
//
// For every frame a keyframe is made that could stand there: an outline of few points whose own loss
// is a part of the limit, begun and directed like the one before, signed. Of these the shortest path
// from the first frame to the last is chosen, over pairs of keyframes between which every frame is
// inside the limit as CVAT interpolates. So no frame is ever outside of it: where nothing fits, every
// frame is a keyframe. A person's keyframes are taken as they are, and are never left out.

import { bitmapToRing } from './bitmaps';
import { betweenKeyframes } from './interpolation';
import {
    drawnIn,
    Limit,
    limitFor,
    partOf,
    pixelBox,
    PolygonTruth,
    RectangleTruth,
    Truth,
} from './limits';
import { fewestCorners, ringToOutline } from './outlines';
import { alignedOutline, meanOf, outlineSamples, ringLength, Samples } from './rings';
import { signedPoints } from './signature';

/** Of the limit, that a keyframe's own simplification may use up; the rest is interpolation's. */
const OWN_SHARE = 0.35;
/** Of the limit, that a polygon may use up which is taken over from the keyframe before. */
const CARRIED_SHARE = 0.6;
/** Frames from one keyframe to the next. */
const LONGEST = 100;
/** Pairs in a row that fail before longer ones from the same keyframe are given up. */
const PATIENCE = 10;

/** An object on one frame of a run, where it is visible. */
export interface Position {
    points: readonly number[];
    /** A keyframe that stays as it is: a person's, or the seed. */
    fixed: boolean;
    occluded: boolean;
    zOrder: number;
}

type Positions = ReadonlyMap<number, Position>;

/** Called after each frame that is worked out: the page may draw. */
export type Pause = () => Promise<void>;

function ascending(frames: Iterable<number>): number[] {
    return [...frames].sort((a, b) => a - b);
}

/** The smooth outline of a polygon's pixels; the polygon itself where it covers none. */
function outlineOf(points: readonly number[]): number[] {
    const box = pixelBox(points);
    const bitmap = drawnIn(points, box);
    if (!bitmap) return [...points];
    return ringToOutline(bitmapToRing(bitmap)).map((value, index) =>
        index % 2 ? value + box[1] : value + box[0],
    );
}

/** The outline of each frame, begun and directed like that of the frame before. Fixed keyframes
 * hand on their own start and direction, the first one also to the frames before. */
function alignedOutlines(positions: Positions, frames: number[]): Map<number, readonly number[]> {
    const firstFixed = frames.findIndex((frame) => positions.get(frame)!.fixed);
    const middle = Math.max(firstFixed, 0);
    const outlines = new Map<number, readonly number[]>();
    for (const order of [frames.slice(middle), frames.slice(0, middle + 1).reverse()]) {
        let reference: readonly number[] | null = null;
        for (const frame of order) {
            let ring = outlines.get(frame);
            if (!ring) {
                const { points, fixed } = positions.get(frame)!;
                ring = fixed ? points : outlineOf(points);
                if (!fixed && reference) ring = alignedOutline(ring, reference);
            }
            outlines.set(frame, ring);
            reference = ring;
        }
    }
    return outlines;
}

/** The ring moved, turned and scaled as best takes the samples `before` to those `after`. */
function moved(ring: readonly number[], before: Samples, after: Samples): number[] {
    const [startX, startY] = [meanOf(before.x), meanOf(before.y)];
    const [endX, endY] = [meanOf(after.x), meanOf(after.y)];
    let [spread, re, im] = [0, 0, 0];
    before.x.forEach((value, i) => {
        const [x, y] = [value - startX, before.y[i] - startY];
        const [u, v] = [after.x[i] - endX, after.y[i] - endY];
        spread += x * x + y * y;
        re += x * u + y * v;
        im += x * v - y * u;
    });
    const [cos, sin] = spread ? [re / spread, im / spread] : [1, 0];
    return ring.map((_, at) => {
        const i = at - (at % 2);
        const [x, y] = [ring[i] - startX, ring[i + 1] - startY];
        return at % 2 ? x * sin + y * cos + endY : x * cos - y * sin + endX;
    });
}

/** 0 to count - 1 from the middle on, halving: where a pair fails, it mostly fails there. */
function middleFirst(count: number): number[] {
    const order: number[] = [];
    const stretches: [number, number][] = [[0, count]];
    for (const [low, high] of stretches) {
        if (low >= high) continue;
        const middle = (low + high) >> 1;
        order.push(middle);
        stretches.push([low, middle], [middle + 1, high]);
    }
    return order;
}

/** What would be written on each frame if it were a keyframe, and which pairs will do. */
class Candidates {
    public readonly points = new Map<number, readonly number[]>();

    public readonly truths: Map<number, Truth | null>;

    private readonly outlines: Map<number, readonly number[]>;

    private readonly sampled = new Map<number, Samples>();

    public constructor(
        private readonly type: string,
        private readonly positions: Positions,
        private readonly frames: number[],
        private readonly limit: Limit,
        private readonly size: { width: number; height: number },
    ) {
        this.truths = new Map(
            frames.map((frame) => {
                const { points } = positions.get(frame)!;
                return [
                    frame,
                    type === 'polygon' ? PolygonTruth.of(points) : new RectangleTruth(points),
                ];
            }),
        );
        this.outlines = type === 'polygon' ? alignedOutlines(positions, frames) : new Map();
    }

    /** Make the candidate of a frame. */
    public make(frame: number): void {
        this.points.set(frame, this.candidate(frame));
    }

    /**
     * Whether every frame between is inside the limit if `left` and `right` are keyframes. If the
     * left polygon, moved and turned, will do on `right`, it becomes the candidate there: points that
     * belong together are matched then, and a person finds the same corners again.
     */
    public fits(left: number, right: number): boolean {
        const carried = this.carried(left, right);
        if (carried && this.allWithin(left, right, carried)) {
            this.points.set(right, carried);
            return true;
        }
        return this.allWithin(left, right, this.points.get(right)!);
    }

    private allWithin(left: number, right: number, rightPoints: readonly number[]): boolean {
        const between = this.frames.filter((frame) => frame > left && frame < right);
        const at = betweenKeyframes(this.type, this.points.get(left)!, rightPoints);
        return middleFirst(between.length).every((index) => {
            const frame = between[index];
            const truth = this.truths.get(frame);
            return !truth || truth.isWithin(at((frame - left) / (right - left)), this.limit);
        });
    }

    private candidate(frame: number): readonly number[] {
        const { fixed, points } = this.positions.get(frame)!;
        const truth = this.truths.get(frame);
        if (fixed) return points;
        if (!(truth instanceof PolygonTruth)) return this.signed(frame, points);
        const outline = this.outlines.get(frame)!;
        for (const ring of [this.simplified(outline, truth), outline]) {
            const signed = ring && this.signed(frame, ring);
            if (signed && truth.isWithin(signed, this.limit)) return signed;
        }
        return this.signed(frame, points);
    }

    /** The outline with few points inside `OWN_SHARE` of the limit, if that can be. */
    private simplified(outline: readonly number[], truth: PolygonTruth): number[] | null {
        const part = partOf(this.limit, OWN_SHARE);
        const length = ringLength(outline);
        const unit = Math.max(((1 - part.iou) * truth.area) / length, part.distance / 4);
        return fewestCorners(outline, truth.area, unit, (ring) => truth.isWithin(ring, part));
    }

    /** The polygon of `left`, moved and turned to `right`; null where it does not fit there. */
    private carried(left: number, right: number): readonly number[] | null {
        const truth = this.truths.get(right);
        if (this.positions.get(right)!.fixed || !(truth instanceof PolygonTruth)) return null;
        const ring = moved(this.points.get(left)!, this.samples(left), this.samples(right));
        const signed = this.signed(right, ring);
        return truth.isWithin(signed, partOf(this.limit, CARRIED_SHARE)) ? signed : null;
    }

    private samples(frame: number): Samples {
        const known = this.sampled.get(frame) ?? outlineSamples(this.outlines.get(frame)!);
        this.sampled.set(frame, known);
        return known;
    }

    private signed(frame: number, points: readonly number[]): readonly number[] {
        const { occluded, zOrder } = this.positions.get(frame)!;
        const flags = { type: this.type, frame, outside: false, occluded, z_order: zOrder };
        return signedPoints(flags, points, this.size);
    }
}

/** The shortest path from the first to the last frame, without the first: breadth first search. */
async function shortestPath(
    frames: number[],
    fits: (left: number, right: number) => boolean,
    pause: Pause,
): Promise<number[]> {
    const last = frames.length - 1;
    const before = new Map([[0, 0]]);
    const isNear = (left: number, right: number): boolean =>
        frames[right] - frames[left] <= LONGEST;
    if (isNear(0, last) && fits(frames[0], frames[last])) before.set(last, 0);
    for (let level = [0]; !before.has(last);) {
        const reached: number[] = [];
        // the farthest first: it reaches the farthest
        for (const left of [...level].reverse()) {
            let failures = 0;
            for (let right = left + 1; right <= last; right += 1) {
                if (before.has(right)) continue;
                if (!isNear(left, right) || failures === PATIENCE) break;
                if (right === left + 1 || fits(frames[left], frames[right])) {
                    before.set(right, left);
                    reached.push(right);
                    failures = 0;
                } else {
                    failures += 1;
                }
                await pause();
            }
            if (before.has(last)) break;
        }
        level = ascending(reached);
    }
    const path = [];
    for (let at = last; at; at = before.get(at)!) path.unshift(frames[at]);
    return path;
}

/**
 * The shortest path from the first to the last of `frames`, ascending, that leaves out none of
 * `forced`. `fits` says whether all frames between two are right if these two are keyframes; it is
 * not asked of neighbours, nor of frames that are more than LONGEST apart, nor, after PATIENCE failures
 * in a row, of frames that are still farther.
 */
async function fewestKeyframes(
    frames: number[],
    forced: ReadonlySet<number>,
    fits: (left: number, right: number) => boolean,
    pause: Pause,
): Promise<number[]> {
    const path = [frames[0]];
    let start = 0;
    for (let end = 1; end < frames.length; end += 1) {
        if (!forced.has(frames[end]) && end < frames.length - 1) continue;
        path.push(...(await shortestPath(frames.slice(start, end + 1), fits, pause)));
        start = end;
    }
    return path;
}

/**
 * The keyframes to write for a run of frames on which an object is visible: points by frame.
 *
 * `type`: polygon or rectangle; `positions`: at least one. Frames that are missing between the
 * first and the last are deleted ones: they count in CVAT's interpolation, and nothing is asked of
 * them. `iou`: the least of a polygon on each frame; `forced`: frames that must be keyframes,
 * besides the first, the last, the fixed ones, and those on which occluded or z-order change.
 */
export async function sparseKeyframes(
    type: string,
    positions: Positions,
    iou: number,
    size: { width: number; height: number },
    forced: ReadonlySet<number>,
    pause: Pause,
): Promise<Map<number, readonly number[]>> {
    const frames = ascending(positions.keys());
    const limit = limitFor(type, iou, size.width, size.height);
    const candidates = new Candidates(type, positions, frames, limit, size);
    for (const frame of frames) {
        candidates.make(frame);
        await pause();
    }
    const must = new Set(
        frames.filter((frame, index) => {
            const [here, before] = [frame, frames[Math.max(index - 1, 0)]].map((one) =>
                positions.get(one)!,
            );
            return (
                forced.has(frame) ||
                here.fixed ||
                candidates.truths.get(frame) === null ||
                here.occluded !== before.occluded ||
                here.zOrder !== before.zOrder
            );
        }),
    );
    const fits = (left: number, right: number): boolean => candidates.fits(left, right);
    const chosen = await fewestKeyframes(frames, must, fits, pause);
    return new Map(chosen.map((frame) => [frame, candidates.points.get(frame)!]));
}
