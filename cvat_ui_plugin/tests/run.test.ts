// SPDX-License-Identifier: MIT
// The table at the top of cvat_action/results.py, in the page: what a run leaves in the job.

import { expect, test } from 'vitest';
import { SerializedTrack } from '../src/ts/cvat';
import { isSigned } from '../src/ts/signature';
import { shape } from '../standin/core';
import { createBench, framesFrom, moving, shifted } from './bench';

const SQUARE = [10, 10, 20, 10, 20, 20, 10, 20];
const MASK = [0, 4, 30, 30, 31, 31];
const BOX = [40, 40, 50, 52];

function polygonTrack(
    frames: Record<number, number[] | null>,
    more: Partial<SerializedTrack> = {},
): SerializedTrack {
    const shapes = Object.entries(frames).map(([frame, points], index) => ({
        type: 'polygon',
        frame: +frame,
        points: points ?? SQUARE,
        outside: points === null,
        occluded: false,
        z_order: 0,
        rotation: 0,
        attributes: [],
        id: 900 + index,
    }));
    return {
        label_id: 1,
        frame: shapes[0].frame,
        group: 0,
        source: 'manual',
        attributes: [],
        elements: [],
        shapes,
        id: 500,
        ...more,
    };
}

function lastTrack(bench: ReturnType<typeof createBench>): SerializedTrack {
    return bench.store.export().tracks.at(-1)!;
}

/** Signed coordinates are moved by up to 0.15 px. */
function whole(points: number[]): number[] {
    return points.map((value) => Math.round(value));
}

function timelineOf(track: SerializedTrack): string {
    return [...track.shapes]
        .sort((a, b) => a.frame - b.frame)
        .map(({ frame, outside }) => `${frame}${outside ? '-' : ''}`)
        .join(' ');
}

test('a mask becomes one mask shape per frame and stays itself', async () => {
    const bench = createBench({ invoke: moving() });
    const attributes = [
        { spec_id: 31, value: 'red' },
        { spec_id: 32, value: 'true' },
    ];
    const [id] = bench.store.import({
        shapes: [
            shape('mask', 5, MASK, {
                group: 3,
                z_order: 2,
                occluded: true,
                attributes,
                id: 77,
            }),
        ],
    });
    await bench.runOn([id], 5, 9, { convert: true });

    const { shapes, tracks } = bench.store.export();
    expect(tracks).toEqual([]);
    expect(shapes.map(({ frame }) => frame).sort()).toEqual([5, 6, 7, 8, 9]);
    expect(shapes.find(({ frame }) => frame === 5)).toMatchObject({
        clientID: id,
        id: 77,
        source: 'manual',
    });
    const { clientID, ...made } = shapes.find(({ frame }) => frame === 8)!;
    expect(made).toEqual({
        type: 'mask',
        frame: 8,
        points: shifted('mask', MASK, 3),
        label_id: 1,
        group: 3,
        source: 'auto',
        occluded: true,
        outside: false,
        z_order: 2,
        rotation: 0,
        attributes,
        elements: [],
        score: 0.900007255394268,
    });
    expect(Math.floor(made.score! * 10_000) / 10_000).toBe(0.9);
    expect(clientID).not.toBe(id);
});

test("one call per frame for all objects, in the server's terms", async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE), shape('rectangle', 2, BOX)],
    });
    await bench.runAll(2, 5);
    expect(bench.calls.map(({ type, frame }) => [type, frame])).toEqual([
        ['init_tracking', 2],
        ['track', 3],
        ['track', 4],
        ['track', 5],
    ]);
    expect(bench.calls[0]).toEqual({
        type: 'init_tracking',
        frame: 2,
        job: 42,
        task: 7,
        shapes: [
            { type: 'mask', points: MASK },
            { type: 'polygon', points: SQUARE },
            { type: 'rectangle', points: BOX },
        ],
    });
    expect(bench.calls.every(({ states }) => !states || states.length === 3)).toBe(true);
    expect(bench.store.export().shapes.filter(({ type }) => type === 'rectangle')).toHaveLength(4);
    expect(bench.progress.map(({ percent }) => percent)).toEqual([0, 0, 0, 0, 33, 66, 99]);
});

test('a polygon shape stays shapes without conversion', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 0, SQUARE)] });
    await bench.runAll(0, 3);
    const { shapes, tracks } = bench.store.export();
    expect(shapes).toHaveLength(4);
    expect(tracks).toEqual([]);
});

test('conversion turns a polygon into a closed track and splits its attributes', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({
        shapes: [
            shape('polygon', 4, SQUARE, {
                id: 70,
                group: 2,
                z_order: 1,
                attributes: [
                    { spec_id: 31, value: 'red' },
                    { spec_id: 32, value: 'true' },
                ],
            }),
        ],
    });
    await bench.runAll(4, 7, { convert: true });
    const { shapes, tracks } = bench.store.export();
    expect(shapes).toEqual([]);
    expect(tracks).toHaveLength(1);
    const [track] = tracks;
    expect(timelineOf(track)).toBe('4 5 6 7 8-');
    expect(track).toMatchObject({
        frame: 4,
        group: 2,
        source: 'auto',
        label_id: 1,
        elements: [],
        attributes: [{ spec_id: 31, value: 'red' }],
    });
    expect(track.id).toBeUndefined();
    expect(track.shapes.some(({ id }) => id !== undefined)).toBe(false);
    expect(track.shapes.map(({ attributes }) => attributes)).toEqual([
        [{ spec_id: 32, value: 'true' }],
        [],
        [],
        [],
        [],
    ]);
    expect(whole(track.shapes[2].points)).toEqual(shifted('polygon', SQUARE, 2));
    expect(whole(track.shapes[4].points)).toEqual(whole(track.shapes[3].points));
    expect(track.shapes.map(isSigned)).toEqual([false, true, true, true, true]);
    expect(track.shapes.every(({ z_order }) => z_order === 1)).toBe(true);
    expect(bench.store.save()).toMatchObject({
        deleted: [70],
        created: [{ frame: 4 }],
        updated: [],
    });
});

test('nothing is closed at the end of the job, nor on deleted frames', async () => {
    const bench = createBench({ frames: framesFrom(0, 9, undefined, [5, 6]), invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 4, { convert: true });
    expect(timelineOf(lastTrack(bench))).toBe('2 3 4 7-');
    bench.store.undo();
    await bench.runAll(2, 9, { convert: true });
    expect(timelineOf(lastTrack(bench))).toBe('2 3 4 7 8 9');
    expect(bench.calls.map(({ frame }) => frame)).not.toContain(5);
});

test('an existing track keeps its id, its start and what lies beyond the target', async () => {
    const bench = createBench({ invoke: moving() });
    const far = shifted('polygon', SQUARE, 40);
    bench.store.import({ tracks: [polygonTrack({ 0: SQUARE, 10: far, 15: SQUARE })] });
    await bench.runAll(5, 12);
    const track = lastTrack(bench);
    expect(timelineOf(track)).toBe('0 5 6 7 8 9 10 11 12 15');
    expect(track).toMatchObject({ id: 500, source: 'auto' });
    // half way from frame 0 to frame 10, where the user saw it
    const here = track.shapes.find(({ frame }) => frame === 5)!;
    expect(whole(here.points)).toEqual(shifted('polygon', SQUARE, 20));
    expect(isSigned(here)).toBe(true);
    expect(whole(track.shapes.find(({ frame }) => frame === 9)!.points)).toEqual(
        shifted('polygon', SQUARE, 24),
    );
    // a person's keyframe stays, and the run goes on from it
    expect(track.shapes.find(({ frame }) => frame === 10)!.points).toEqual(far);
    expect(whole(track.shapes.find(({ frame }) => frame === 12)!.points)).toEqual(
        shifted('polygon', SQUARE, 42),
    );
    expect(track.shapes.find(({ frame }) => frame === 15)!.points).toEqual(SQUARE);
    const saved = bench.store.save();
    expect(saved.updated.map(({ id }) => id)).toEqual([500]);
    expect([...saved.created, ...saved.deleted]).toEqual([]);
});

test('an existing track without later keyframes is closed', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ tracks: [polygonTrack({ 3: SQUARE })] });
    await bench.runAll(3, 5);
    expect(timelineOf(lastTrack(bench))).toBe('3 4 5 6-');
});

test('keyframes on deleted frames neither keep a track open nor close it', async () => {
    const bench = createBench({ frames: framesFrom(0, 9, undefined, [8]), invoke: moving() });
    bench.store.import({ tracks: [polygonTrack({ 3: SQUARE, 8: SQUARE })] });
    await bench.runAll(3, 5);
    expect(timelineOf(lastTrack(bench))).toBe('3 4 5 6- 8');
});

test('occluded, z-order and mutable attributes of overwritten keyframes hold', async () => {
    const bench = createBench({ invoke: moving() });
    const track = polygonTrack({ 0: SQUARE, 3: SQUARE });
    Object.assign(track.shapes[1], {
        occluded: true,
        z_order: 4,
        attributes: [{ spec_id: 32, value: 'x' }],
    });
    bench.store.import({ tracks: [track] });
    await bench.runAll(0, 5);
    expect(
        lastTrack(bench).shapes.map(({ occluded, z_order, attributes }) => [
            occluded,
            z_order,
            attributes.length,
        ]),
    ).toEqual([
        [false, 0, 0],
        [false, 0, 0],
        [false, 0, 0],
        [true, 4, 1],
        [true, 4, 0],
        [true, 4, 0],
        [true, 4, 0],
    ]);
});

test('lost objects: nothing for shapes, one outside keyframe for tracks, and they come back', async () => {
    const gone = (frame: number) => (frame >= 4 && frame <= 6 ? { shape: null, score: 0.1 } : null);
    const bench = createBench({ invoke: moving(gone) });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 8, { convert: true });
    expect(bench.store.export().shapes.map(({ frame }) => frame)).toEqual([2, 3, 7, 8]);
    const track = lastTrack(bench);
    expect(timelineOf(track)).toBe('2 3 4- 7 8 9-');
    expect(whole(track.shapes[2].points)).toEqual(whole(track.shapes[1].points));
    expect(bench.reports[0].lines.join('\n')).toMatch(/Not visible: .*on 3 frames, first on 4/);
});

test('a lost rectangle is the box marked outside, which is never drawn', async () => {
    const gone = (frame: number) =>
        frame === 4 ? { shape: { type: 'rectangle', points: BOX, outside: true } } : null;
    const bench = createBench({ invoke: moving(gone) });
    bench.store.import({
        shapes: [shape('rectangle', 3, BOX)],
        tracks: [
            {
                ...polygonTrack({ 3: BOX }),
                shapes: [{ ...polygonTrack({ 3: BOX }).shapes[0], type: 'rectangle' }],
            },
        ],
    });
    await bench.runAll(3, 5, { convert: true });
    expect(bench.store.export().shapes.map(({ frame }) => frame)).toEqual([3, 5]); // rectangles stay shapes
    expect(timelineOf(lastTrack(bench))).toBe('3 4- 5 6-');
});

test('a track that ends lost is not closed twice; old results do not shine through', async () => {
    let lost = false;
    const bench = createBench({
        invoke: moving((frame) => (lost && frame >= 5 ? { shape: null } : null)),
    });
    bench.store.import({ shapes: [shape('polygon', 3, SQUARE)] });
    await bench.runAll(3, 8, { convert: true });
    lost = true;
    await bench.runAll(3, 8);
    expect(timelineOf(lastTrack(bench))).toBe('3 4 5- 9-');
    await bench.runAll(3, 8);
    expect(timelineOf(lastTrack(bench))).toBe('3 4 5- 9-');
});

test('a track that ends with a keyframe of a person is not closed', async () => {
    const bench = createBench({ invoke: moving((frame) => (frame >= 5 ? { shape: null } : null)) });
    bench.store.import({ tracks: [polygonTrack({ 3: SQUARE, 7: SQUARE, 8: SQUARE })] });
    await bench.runAll(3, 8);
    expect(timelineOf(lastTrack(bench))).toBe('3 4 5- 7 8');
});

test('backwards: shapes, a converted track closed after its start, an existing one extended', async () => {
    const bench = createBench({
        invoke: moving((frame) => (frame === 3 ? { shape: null } : null)),
    });
    bench.store.import({
        shapes: [
            shape('mask', 6, MASK),
            shape('polygon', 6, SQUARE, { attributes: [{ spec_id: 32, value: 'a' }] }),
        ],
        tracks: [polygonTrack({ 5: SQUARE, 9: SQUARE })],
    });
    await bench.runAll(6, 2, { convert: true });
    expect(bench.calls.map(({ frame }) => frame)).toEqual([6, 5, 9, 6, 5, 5, 4, 3, 2]);
    const { shapes, tracks } = bench.store.export();
    expect(shapes.map(({ frame }) => frame).sort()).toEqual([2, 4, 5, 6]);
    const [converted, extended] = [undefined, 500].map((id) =>
        tracks.find((track) => track.id === id)!,
    );
    expect(timelineOf(converted)).toBe('2 3- 4 5 6 7-');
    expect(whole(converted.shapes[0].points)).toEqual(shifted('polygon', SQUARE, -4));
    expect(converted.shapes[0]).toMatchObject({
        attributes: [{ value: 'a' }],
    });
    expect(converted.shapes[4].points).toEqual(SQUARE);
    expect(timelineOf(extended)).toBe('2 3- 4 5 6 9');
    expect(extended.frame).toBe(2);
});

test('backwards, lost before the object appears: the track starts where it is first seen', async () => {
    const bench = createBench({ invoke: moving((frame) => (frame <= 3 ? { shape: null } : null)) });
    bench.store.import({ shapes: [shape('polygon', 6, SQUARE)] });
    await bench.runAll(6, 1, { convert: true });
    expect(timelineOf(lastTrack(bench))).toBe('4 5 6 7-');
});

test('one undo step takes a whole run back; redo brings it again', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)],
        tracks: [polygonTrack({ 0: SQUARE })],
    });
    const before = JSON.stringify(bench.store.export());
    await bench.runAll(2, 6, { convert: true });
    const after = JSON.stringify(bench.store.export());
    expect(bench.store.undoSteps).toBe(1);
    bench.store.undo();
    expect(JSON.stringify(bench.store.export())).toBe(before);
    bench.store.redo();
    expect(JSON.parse(JSON.stringify(bench.store.export()))).toMatchObject(JSON.parse(after));
});

test('nothing created carries a clientID, and only an edited track an id', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({
        shapes: [shape('mask', 2, MASK, { id: 1 }), shape('polygon', 2, SQUARE, { id: 2 })],
        tracks: [polygonTrack({ 0: SQUARE })],
    });
    await bench.runAll(2, 4, { convert: true });
    const { created, deleted } = bench.outcome;
    expect([...created.shapes, ...created.tracks].filter((object) => 'clientID' in object)).toEqual(
        [],
    );
    expect(
        [...created.shapes, ...created.tracks].map(({ id }) => id).filter((id) => id !== undefined),
    ).toEqual([500]);
    expect(
        [...deleted.shapes, ...deleted.tracks].every(({ clientID }) => Number.isInteger(clientID)),
    ).toBe(true);
    expect(created.tracks.some(({ shapes }) => shapes.some(({ type }) => type === 'mask'))).toBe(
        false,
    );
    expect([created.tags, deleted.tags]).toEqual([[], []]);
});

test('locked, hidden, ground-truth, outside, rotated and foreign objects are left alone', async () => {
    const bench = createBench({ invoke: moving() });
    const [locked, hidden] = bench.store.import({
        shapes: [
            shape('mask', 2, MASK),
            shape('mask', 2, MASK),
            shape('polygon', 2, SQUARE, { label_id: 2 }),
            shape('rectangle', 2, BOX, { rotation: 30 }),
            shape('ellipse', 2, BOX),
            shape('points', 2, [1, 1]),
            shape('mask', 3, MASK),
        ],
        tracks: [polygonTrack({ 0: SQUARE, 2: null })],
    });
    bench.store.set(locked, { lock: true });
    bench.store.set(hidden, { hidden: true });
    await bench.runAll(2, 4);
    expect(bench.calls[0].shapes).toEqual([{ type: 'polygon', points: SQUARE }]);
    const said = bench.reports[0].lines.join('\n');
    expect(said).toContain(`car ${locked} (it is locked)`);
    expect(said).toContain(`car ${hidden} (it is hidden)`);
    expect(said).toContain('(it is rotated)');

    const [state] = await bench.job.annotations.get(3, false, []);
    expect(bench.action.isApplicableForObject(state)).toBe(true);
    // listed all the same, so that a run can say why it does nothing
    for (const change of [{ lock: true }, { hidden: true }, { outside: true }, { rotation: 3 }]) {
        expect(bench.action.isApplicableForObject({ ...state, ...change })).toBe(true);
    }
    for (const change of [
        { isGroundTruth: true },
        { shapeType: 'ellipse' },
        { objectType: 'tag', shapeType: null },
        { parentID: 4 },
        { objectType: 'track' }, // of a mask
    ]) {
        expect(bench.action.isApplicableForObject({ ...state, ...change })).toBe(false);
    }
});

test("the sidebar's filter is respected", async () => {
    const bench = createBench({ invoke: moving() });
    const [first] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('mask', 2, MASK)],
    });
    await bench.runAll(2, 3, { filter: (clientID) => clientID === first });
    expect(bench.calls[0].shapes).toHaveLength(1);
});

test('a target frame remembered from another job is clamped, and the message says so', async () => {
    const bench = createBench({ frames: framesFrom(10, 14), invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 12, MASK)] });
    await bench.runAll(12, 900);
    expect(bench.calls.map(({ frame }) => frame)).toEqual([12, 13, 14]);
    expect(bench.reports[0].lines).toContain('Frame 900 is not in this job: 14 was used.');
    bench.store.undo();
    await bench.runAll(12, -3);
    expect(bench.calls.slice(3).map(({ frame }) => frame)).toEqual([12, 11, 10]);
});

test('no number as target frame means the end of the job, as the default does', async () => {
    const bench = createBench({ frames: framesFrom(0, 3), invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 1, MASK)] });
    await bench.runAll(1, 'NaN');
    expect(bench.calls.map(({ frame }) => frame)).toEqual([1, 2, 3]);
});

test('the current frame as target changes nothing', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    const before = JSON.stringify(bench.store.export());
    await bench.runAll(2, 2, { convert: true });
    expect(JSON.stringify(bench.store.export())).toBe(before);
    expect(bench.calls).toEqual([]);
    expect(bench.reports[0].title).toBe('Nothing to track');
});

test('the frames of a job need not be in a row', async () => {
    const frames = [3, 8, 9, 20].map((number) => framesFrom(number, number)[0]);
    const bench = createBench({ frames, invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 3, MASK)] });
    await bench.runAll(3, 19);
    expect(bench.calls.map(({ frame }) => frame)).toEqual([3, 8, 9]);
});

test('the end message: frames, objects, the frame with the lowest confidence', async () => {
    const bench = createBench({
        invoke: moving((frame, { type }) => ({
            score: type === 'mask' && frame === 4 ? 0.31 : 0.8,
        })),
    });
    const [mask] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)],
    });
    await bench.runAll(2, 6);
    expect(bench.reports).toEqual([
        {
            kind: 'success',
            title: 'Tracking is done',
            lines: [
                '2 objects tracked over 4 frames (3 to 6).',
                'No object was lost.',
                'Look here first:',
            ],
            jumps: [{ frame: 4, text: `Frame 4: car ${mask + 3}, confidence 0.31` }],
        },
    ]);
});

test('clear words where there is nothing to track', async () => {
    const bench = createBench({ frames: framesFrom(0, 5, undefined, [1, 4, 5]), invoke: moving() });
    const [id] = bench.store.import({
        shapes: [shape('rectangle', 2, BOX, { rotation: 10 }), shape('mask', 3, MASK)],
    });
    await expect(bench.runAll(2, 4)).rejects.toThrow(
        `There is no mask, polygon or rectangle to track on frame 2 (car ${id}: it is rotated).`,
    );
    await expect(bench.runAll(1, 4)).rejects.toThrow('Frame 1 is deleted');
    await expect(bench.runAll(3, 5)).rejects.toThrow('All frames from 3 to 5 are deleted.');
});

test("the parameters are CVAT's, by name and order", () => {
    const { action, job } = createBench({ frames: framesFrom(10, 14), invoke: moving() });
    const { parameters } = action;
    expect(action.name).toBe('Segment Anything 2: Tracker');
    expect(Object.keys(parameters!)).toEqual([
        'Target frame',
        'Convert polygon shapes to tracks',
        'Track backwards',
    ]);
    const target = parameters!['Target frame'];
    expect((target.values as (_: object) => string[])({ instance: job })).toEqual([
        '10',
        '14',
        '1',
    ]);
    expect((target.defaultValue as (_: object) => string)({ instance: job })).toBe('14');
    for (const name of ['Convert polygon shapes to tracks', 'Track backwards']) {
        expect(parameters![name]).toMatchObject({
            type: 'checkbox',
            values: ['true', 'false'],
            defaultValue: 'false',
        });
    }
});
