// SPDX-License-Identifier: MIT
// The plugin answers the shared cases as the command line does.

import { expect, test } from 'vitest';
import { keptOf } from '../src/ts/bothWays';
import { SerializedKeyframe, SerializedShape, SerializedTrack } from '../src/ts/cvat';
import {
    fnv1a32,
    freeNumber,
    freeRun,
    markedScore,
    markOf,
    numberOfDrawing,
    numbersOf,
} from '../src/ts/identity';
import { betweenKeyframes } from '../src/ts/interpolation';
import { sparseKeyframes } from '../src/ts/keyframes';
import { removedKeyframes } from '../src/ts/removed';
import { outcomeOf } from '../src/ts/results';
import { alignedPoints } from '../src/ts/rings';
import { handmade, isSigned, signedPoints } from '../src/ts/signature';
import { sparseTracks } from '../src/ts/sparse';
import { LABELS } from './bench';
import { casesOf, sourceOf } from './cases';

interface Identity {
    marks: {
        confidence: number | null;
        number: number;
        run: number;
        frame: number;
        score: number;
    }[];
    no_mark: { score: number | null; frame: number; why: string }[];
    numbers: (Shape & { number: number })[];
    objects: {
        why: string;
        shapes: (Shape & { id: number; score?: number })[];
        receipts: [id: number, number: number][];
        numbers: [id: number, number: number][];
    }[];
    fnv1a32: { text: string; hash: number }[];
}

interface Shape {
    type: string;
    frame: number;
    points: number[];
}

const identity = casesOf<Identity>('identity.json');

test.each(identity.marks)('mark $number of run $run on frame $frame', (one) => {
    const mark = { number: one.number, run: one.run };
    expect(markedScore(one.confidence, mark, one.frame)).toBe(one.score);
    expect(markOf(one.score, one.frame)).toEqual(mark);
});

test.each(identity.no_mark)('no mark: $why', ({ score, frame }) => {
    expect(markOf(score, frame)).toBeNull();
});

test.each(identity.numbers)(
    'the number $number of a drawing',
    ({ type, frame, points, number }) => {
        expect(numberOfDrawing(type, frame, points)).toBe(number);
    },
);

test.each(identity.objects)('numbers of objects: $why', ({ shapes, receipts, numbers }) => {
    const here = shapes.map((shape) => ({ ...shape, clientID: 2000 - shape.id }));
    const known = new Map(receipts.map(([id, number]) => [2000 - id, number]));
    const numbered = numbersOf(here, ({ clientID }) => known.get(clientID) ?? null);
    const found = [...numbered].map(([{ id }, number]) => [id, number]);
    expect(found.sort(([a], [b]) => a - b)).toEqual(numbers);
});

test.each(identity.fnv1a32)('FNV-1a of "$text"', ({ text, hash }) => {
    expect(fnv1a32(text)).toBe(hash);
});

test('numbers and runs that are taken are passed over', () => {
    expect(freeNumber(7, new Set([7, 8]))).toBe(9);
    expect(freeNumber(9_999_999, new Set([9_999_999]))).toBe(1);
    const all = new Set(Array.from({ length: 100 }, (_, run) => run));
    expect(freeRun(new Set([...all].filter((run) => run !== 31)), () => 0.999)).toBe(31);
    expect(freeRun(all, () => 0.5)).toBe(50);
});

test("the positions that CVAT's server and page gave", () => {
    type Case = { type: string; share: number } & Record<'left' | 'right' | 'points', number[]>;
    const cases = casesOf<Case[]>('interpolation.json');
    expect(cases.length).toBeGreaterThan(100);
    for (const { type, left, right, share, points } of cases) {
        expect(betweenKeyframes(type, left, right)(share)).toEqual(points);
    }
});

interface Signature extends Shape {
    why: string;
    width: number;
    height: number;
    outside: boolean;
    occluded: boolean;
    z_order: number;
    signed: number[];
}

test.each(casesOf<Signature[]>('signatures.json'))('signature: $why', (one) => {
    const { points, signed, width, height, type, frame, outside, occluded, z_order } = one;
    const flags = { type, frame, outside, occluded, z_order };
    expect(signedPoints(flags, points, { width, height })).toEqual(signed);
    const keyframe = { ...flags, rotation: 0, attributes: [] };
    expect(isSigned({ ...keyframe, points: signed })).toBe(true);
    expect(isSigned({ ...keyframe, points })).toBe(false);
    expect(isSigned({ ...keyframe, points: signed, frame: frame + 1 })).toBe(false);
    expect(isSigned({ ...keyframe, points: signed, occluded: !occluded })).toBe(false);
    expect(isSigned({ ...keyframe, points: signed.map((v, i) => (i ? v : v + 1)) })).toBe(false);
});

interface Track {
    why: string;
    source: string;
    deleted_frames: number[];
    keyframes: SerializedKeyframe[];
    hand_made: number[];
    removed: number[];
}

test.each(casesOf<Track[]>('tracks.json'))('keyframes of a track: $why', (one) => {
    const { source, keyframes, deleted_frames: deleted } = one;
    const track = { source, shapes: keyframes } as SerializedTrack;
    expect(handmade(track).map(({ frame }) => frame)).toEqual(one.hand_made);
    const frames = Array.from({ length: 100 }, (_, frame) => frame);
    const there = frames.filter((frame) => !deleted.includes(frame));
    const removed = [...removedKeyframes(keyframes, there)].sort((a, b) => a - b);
    expect(removed).toEqual(one.removed);
});

interface Written {
    why: string;
    object: SerializedShape | SerializedTrack;
    start: number;
    target: number;
    deleted_frames: number[];
    points: number[];
    results: { frame: number; points: number[] | null; by_hand: boolean }[];
    /** Least IoU of sparse keyframes; without it there is a keyframe on every frame. */
    sparse?: number;
    becomes: SerializedTrack | null;
}

/** What a run makes of an object that becomes or is a track; null where it stays as it is. */
async function becomes(one: Written): Promise<SerializedTrack | null> {
    const size = { width: 100, height: 80, deleted: false };
    const source = { ...sourceOf(one.object), points: one.points };
    const results = one.results.map(({ frame, points, by_hand: byHand }) => {
        return { frame, points, byHand, score: null };
    });
    const tracked = {
        source,
        results,
        failure: null,
        changed: false,
        notJoined: null,
        oneEnd: null,
    };
    const deleted = new Set(one.deleted_frames);
    const timeline = Array.from({ length: 12 }, (_, frame) => frame).filter((f) => !deleted.has(f));
    const route = { frames: [], timeline, steps: () => 0, deleted };
    const start = { number: one.start, ...size };
    const labels = [{ ...LABELS[0], id: 7 }];
    const pause = async (): Promise<void> => {};
    const sparse = one.sparse
        ? await sparseTracks(one.sparse, [tracked], start, route, labels, true, pause, [])
        : new Map();
    const { created } = outcomeOf([tracked], start, route, labels, true, sparse, [], []);
    return created.tracks[0] ?? null;
}

const bare = ({ id: _, ...track }: SerializedTrack): unknown => ({
    ...track,
    shapes: track.shapes.map(({ id: __, ...keyframe }) => keyframe),
});

test('what a run makes of a track', async () => {
    const cases = casesOf<Written[]>('results.json');
    expect(cases.length).toBeGreaterThan(80);
    for (const one of cases) {
        const made = await becomes(one);
        // the command line writes nothing that is there already
        const expected = one.becomes ?? (one.object as SerializedTrack);
        expect(made && bare(made), one.why).toEqual(bare(expected));
    }
});

test('a polygon gets the start and the direction of its reference polygon', () => {
    type Case = Record<'points' | 'reference' | 'aligned', number[]>;
    for (const { points, reference, aligned } of casesOf<Case[]>('polygons.json')) {
        expect(alignedPoints(points, reference)).toEqual(aligned);
    }
});

interface Sparse {
    why: string;
    type: string;
    iou: number;
    width: number;
    height: number;
    forced: number[];
    positions: (Omit<Shape, 'type'> & { fixed: boolean; occluded: boolean; z_order: number })[];
    keyframes: { frame: number; points: number[] }[];
}

test.each(casesOf<Sparse[]>('keyframes.json'))('sparse keyframes: a $why', async (one) => {
    const positions = new Map(
        one.positions.map(({ frame, z_order: zOrder, ...rest }) => [frame, { ...rest, zOrder }]),
    );
    const chosen = await sparseKeyframes(
        one.type,
        positions,
        one.iou,
        { width: one.width, height: one.height },
        new Set(one.forced),
        async () => {},
    );
    expect([...chosen].map(([frame, points]) => ({ frame, points }))).toEqual(one.keyframes);
});

interface Gap {
    why: string;
    forward: (number | null)[];
    backward: (number | null)[];
    kept: number;
}

test.each(casesOf<{ gaps: Gap[] }>('both_ways.json').gaps)(
    'a gap between drawn frames: $why',
    ({ forward, backward, kept }) => {
        const scores = (given: (number | null)[]) => given.map((score) => score ?? -1);
        expect(keptOf(scores(forward), scores(backward))).toBe(kept);
    },
);
