// SPDX-License-Identifier: MIT
// The table at the top of cvat_action/results.py, in the page: what a run makes of tracks, and of
// polygons that it converts to tracks.

import { expect, test } from 'vitest';
import { isSigned, keyframesByHand } from '../src/ts/signature';
import { Bench, BOX, box, createBench, framesFrom, mask, moving, polygon } from './bench';
import { shifted, SQUARE, timelineOf, track, tracked, whole } from './bench';

const WIDE = [10, 10, 50, 20];
const lostFrom5 = moving((frame) => (frame >= 5 ? { shape: null } : null));
const dirty = [{ spec_id: 32, value: 'true' }];

// Tracks

test('an existing track keeps its id, its start and what lies beyond the target', async () => {
    const bench = createBench();
    const far = shifted('polygon', SQUARE, 40);
    bench.addTracks(track({ 0: SQUARE, 10: far, 15: SQUARE }, { id: 500 }));
    await bench.runAll(5, 12);
    const own = bench.track();
    expect(timelineOf(own)).toBe('0 5 6 7 8 9 10 11 12 15');
    expect(own).toMatchObject({ id: 500, source: 'auto' });
    const at = (wanted: number) => own.shapes.find(({ frame }) => frame === wanted)!;
    // half way from frame 0 to frame 10, where the user saw it
    expect(whole(at(5).points)).toEqual(shifted('polygon', SQUARE, 20));
    expect(isSigned(at(5))).toBe(true);
    expect(whole(at(9).points)).toEqual(shifted('polygon', SQUARE, 24));
    // a person's keyframe stays, and the run goes on from it
    expect(at(10).points).toEqual(far);
    expect(whole(at(12).points)).toEqual(shifted('polygon', SQUARE, 42));
    expect(at(15).points).toEqual(SQUARE);
    const saved = bench.store.save();
    expect(saved.updated.map(({ id }) => id)).toEqual([500]);
    expect([...saved.created, ...saved.deleted]).toEqual([]);
});

test.each([
    ['without later keyframes is closed', { 3: SQUARE }, [], '3 4 5 6-'],
    // they neither keep it open nor close it
    ['with keyframes on deleted frames is closed', { 3: SQUARE, 8: SQUARE }, [8], '3 4 5 6- 8'],
])('an existing track %s', async (_what, keyframes, deleted, timeline) => {
    const bench = createBench({ frames: framesFrom(0, 9, undefined, deleted) });
    bench.addTracks(track(keyframes));
    await bench.runAll(3, 5);
    expect(timelineOf(bench.track())).toBe(timeline);
});

test('a track that ends with a keyframe of a person is not closed', async () => {
    const bench = createBench({ invoke: lostFrom5 });
    bench.addTracks(track({ 3: SQUARE, 7: SQUARE, 8: SQUARE }));
    await bench.runAll(3, 8);
    expect(timelineOf(bench.track())).toBe('3 4 5- 7 8');
});

test('occluded, z-order and mutable attributes of overwritten keyframes hold', async () => {
    const bench = createBench();
    const three = { points: SQUARE, occluded: true, z_order: 4, attributes: dirty };
    bench.addTracks(track({ 0: SQUARE, 3: three }));
    await bench.runAll(0, 5);
    const flags = bench
        .track()
        .shapes.map(({ occluded, z_order, attributes }) => [occluded, z_order, attributes.length]);
    expect(flags).toEqual([
        ...Array(3).fill([false, 0, 0]),
        [true, 4, 1],
        ...Array(3).fill([true, 4, 0]),
    ]);
});

test('lost objects: nothing for shapes, one outside keyframe for tracks, and they come back', async () => {
    const gone = (frame: number) => (frame >= 4 && frame <= 6 ? { shape: null, score: 0.1 } : null);
    const bench = createBench({ invoke: moving(gone) });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 8, { convert: true });
    expect(bench.frames()).toEqual([2, 3, 7, 8]);
    const own = bench.track();
    expect(timelineOf(own)).toBe('2 3 4- 7 8 9-');
    expect(whole(own.shapes[2].points)).toEqual(whole(own.shapes[1].points));
    expect(bench.said()).toMatch(/Not visible: .*on 3 frames, first on 4/);
    expect(bench.said()).not.toMatch(/Seen on no frame/);
});

test('of an object that is seen on no frame, the message says what may help', async () => {
    const bench = createBench({ invoke: moving(() => ({ shape: null, score: 0.1 })) });
    bench.add(mask(2));
    await bench.runAll(2, 5);
    expect(bench.said()).toMatch(/Seen on no frame: .* For small objects choose a search region/);
});

test('a lost rectangle is the box marked outside, which is never drawn', async () => {
    const gone = { shape: { type: 'rectangle', points: BOX, outside: true } };
    const bench = createBench({ invoke: moving((frame) => (frame === 4 ? gone : null)) });
    bench.add(box(3));
    bench.addTracks(track({ 3: BOX }));
    await bench.runAll(3, 5, { convert: true });
    expect(bench.frames()).toEqual([3, 5]); // rectangles stay shapes
    expect(timelineOf(bench.track())).toBe('3 4- 5 6-');
});

test('a track that ends lost is not closed twice; old results do not shine through', async () => {
    let lost = false;
    const invoke = moving((frame) => (lost && frame >= 5 ? { shape: null } : null));
    const { bench } = await tracked(polygon(3), 8, { invoke, convert: true });
    lost = true;
    for (const _again of [1, 2]) {
        await bench.runAll(3, 8);
        expect(timelineOf(bench.track())).toBe('3 4 5- 9-');
    }
});

test('backwards: shapes, a converted track closed after its start, an existing one extended', async () => {
    const bench = createBench({
        invoke: moving((frame) => (frame === 3 ? { shape: null } : null)),
    });
    bench.add(mask(6), polygon(6, 0, { attributes: dirty }));
    bench.addTracks(track({ 5: SQUARE, 9: SQUARE }, { id: 500 }));
    await bench.runAll(6, 2, { convert: true });
    expect(bench.calls.map(({ frame }) => frame)).toEqual([6, 5, 9, 6, 5, 5, 4, 3, 2]);
    expect(bench.frames()).toEqual([2, 4, 5, 6]);
    const { tracks } = bench.store.export();
    const [converted, extended] = [undefined, 500].map((id) =>
        tracks.find((own) => own.id === id)!,
    );
    expect(timelineOf(converted)).toBe('2 3- 4 5 6 7-');
    expect(whole(converted.shapes[0].points)).toEqual(shifted('polygon', SQUARE, -4));
    expect(converted.shapes[0]).toMatchObject({ attributes: dirty });
    expect(converted.shapes[4].points).toEqual(SQUARE);
    expect(timelineOf(extended)).toBe('2 3- 4 5 6 9');
    expect(extended.frame).toBe(2);
});

test('backwards, lost before the object appears: the track starts where it is first seen', async () => {
    const invoke = moving((frame) => (frame <= 3 ? { shape: null } : null));
    const { bench } = await tracked(polygon(6), 1, { invoke, convert: true });
    expect(timelineOf(bench.track())).toBe('4 5 6 7-');
});

// Around the run

test('backwards, lost at the low end: frames before the run stay as they were', async () => {
    const bench = createBench({ invoke: moving((frame) => (frame <= 5 ? { shape: null } : null)) });
    bench.addTracks(track({ 0: [0, 10, 20, 30], 9: [90, 10, 110, 30] }));
    const positions = () => [0, 1, 2, 3, 4].flatMap((frame) => bench.store.get(frame)[0].points!);
    const before = positions();
    await bench.runAll(9, 5);
    positions().forEach((value, index) => expect(value).toBeCloseTo(before[index], 0));
    expect(bench.store.get(5)[0].outside).toBe(true);
});

test('a track that is lost at the end of a run is visible after it as before', async () => {
    const bench = createBench({ invoke: lostFrom5 });
    bench.addTracks(track({ 2: [10, 10, 20, 20], 18: [42, 10, 52, 20] }));
    const seen = (): number[] =>
        Array.from({ length: 19 }, (_, frame) => frame).filter((frame) =>
            bench.store.get(frame).some(({ outside }) => !outside),
        );
    const left = (): number => bench.store.get(10)[0].points![0];
    const before = left();
    await bench.runAll(2, 7);
    expect(seen()).toEqual([2, 3, 4, ...Array.from({ length: 11 }, (_, n) => 8 + n)]);
    expect(Math.abs(left() - before)).toBeLessThan(0.2); // the signature moves a keyframe by less
});

test('a track that is lost in the run is turned after it as before', async () => {
    const bench = createBench({ invoke: lostFrom5 });
    const [six, last] = [80, 20].map((rotation) => ({ points: WIDE, rotation }));
    bench.addTracks(track({ 2: WIDE, 6: six, 18: last }));
    const turned = () => [8, 12, 18].map((frame) => bench.store.get(frame)[0].rotation);
    expect(turned()).toEqual([70, 50, 20]);
    await bench.runAll(2, 7);
    expect(turned()).toEqual([70, 50, 20]);
});

test('a keyframe outside of the job stops no run', async () => {
    const bench = createBench();
    const { frames } = bench.job;
    const { get } = frames;
    frames.frameNumbers = async () => Array.from({ length: 11 }, (_, frame) => frame);
    frames.get = async (frame) => {
        if (frame > 10) throw new Error(`The frame ${frame} is out of the job`);
        return get(frame);
    };
    bench.addTracks(track({ 2: WIDE, 14: WIDE }));
    await bench.runAll(2, 6);
    expect(timelineOf(bench.track())).toBe('2 3 4 5 6 14');
});

test('from a box that was turned the object goes on in the box around it', async () => {
    const bench = createBench();
    bench.addTracks(track({ 2: WIDE, 3: WIDE, 6: { points: WIDE, rotation: 90 } }));
    await bench.runAll(2, 8);
    const sent = bench.calls
        .filter(({ frame }) => frame === 6)
        .flatMap(({ shapes = [] }) => shapes);
    expect(sent.map((one) => one?.points)).toContainEqual([25, -5, 35, 35]);
    const six = bench.track().shapes.find(({ frame }) => frame === 6)!;
    expect([six.points, six.rotation]).toEqual([WIDE, 90]);
});

// Conversion

test('conversion turns a polygon into a closed track and splits its attributes', async () => {
    const attributes = [{ spec_id: 31, value: 'red' }, ...dirty];
    const given = { id: 70, group: 2, z_order: 1, attributes };
    const { bench } = await tracked(polygon(4, 0, given), 7, { convert: true });
    const { shapes, tracks } = bench.store.export();
    expect([shapes.length, tracks.length]).toEqual([0, 1]);
    const own = bench.track();
    expect(timelineOf(own)).toBe('4 5 6 7 8-');
    expect(own).toMatchObject({
        ...{ frame: 4, group: 2, source: 'auto', label_id: 1, elements: [] },
        attributes: [{ spec_id: 31, value: 'red' }],
    });
    expect(own.id).toBeUndefined();
    expect(own.shapes.some(({ id }) => id !== undefined)).toBe(false);
    expect(own.shapes.map((keyframe) => keyframe.attributes)).toEqual([dirty, [], [], [], []]);
    expect(whole(own.shapes[2].points)).toEqual(shifted('polygon', SQUARE, 2));
    expect(whole(own.shapes[4].points)).toEqual(whole(own.shapes[3].points));
    expect(own.shapes.map(isSigned)).toEqual([false, true, true, true, true]);
    expect(own.shapes.every(({ z_order }) => z_order === 1)).toBe(true);
    const saved = { deleted: [70], created: [{ frame: 4 }], updated: [] };
    expect(bench.store.save()).toMatchObject(saved);
});

test('nothing is closed at the end of the job, nor on deleted frames', async () => {
    const frames = framesFrom(0, 9, undefined, [5, 6]);
    const { bench } = await tracked(polygon(2), 4, { frames, convert: true });
    expect(timelineOf(bench.track())).toBe('2 3 4 7-');
    bench.store.undo();
    await bench.runAll(2, 9, { convert: true });
    expect(timelineOf(bench.track())).toBe('2 3 4 7 8 9');
    expect(bench.calls.map(({ frame }) => frame)).not.toContain(5);
});

/** A polygon tracked from frame 2 to 9 and converted from frame 5 on. */
async function convertedLate(): Promise<{ bench: Bench; seed: number }> {
    const { bench, seed } = await tracked(polygon(2), 9);
    await bench.runOn([bench.on(5)[0].clientID!], 5, 9, { convert: true });
    return { bench, seed };
}

test('who converts a part is told how to have one track', async () => {
    const { bench, seed } = await convertedLate();
    expect(bench.said()).toMatch(
        /car \d+ is a track now .*stays a polygon shape on 3 other frames\. To have one track, undo this run, then convert from frame 2 to frame 9\./,
    );
    bench.store.undo();
    await bench.runOn([seed], 2, 9, { convert: true });
    expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
    expect(bench.store.export()).toMatchObject({ shapes: [], tracks: [{ frame: 2 }] });
});

test('results that lie on a track of the same object are told', async () => {
    const { bench, seed } = await convertedLate();
    await bench.runOn([seed], 2, 9);
    expect(bench.reports.at(-1)!.title).toBe('Tracking ended with warnings');
    expect(bench.said()).toContain(
        'Kept 1 track that may be of the same objects, first on frame 5. Delete what is doubled.',
    );
});

test('a conversion takes corrected polygons into the track', async () => {
    const { bench } = await tracked(polygon(2), 6);
    const drawn = shifted('polygon', SQUARE, 30);
    bench.store.draw(bench.on(4)[0].clientID!, 4, drawn);
    await bench.runAll(2, 6, { convert: true });
    expect(bench.shapes()).toEqual([]);
    const { shapes } = bench.track();
    expect(shapes.find(({ frame }) => frame === 4)!.points).toEqual(drawn);
    expect(Math.round(shapes.find(({ frame }) => frame === 5)!.points[0])).toBe(41);
});

test('a polygon whose last frame was drawn is closed after it when it becomes a track', async () => {
    const { bench } = await tracked(polygon(2), 8);
    const points = shifted('polygon', SQUARE, 7);
    bench.store.set(bench.on(8)[0].clientID!, { points, source: 'semi-auto' });
    await bench.runAll(2, 8, { convert: true });
    expect(timelineOf(bench.track())).toBe('2 3 4 5 6 7 8 9-');
});

test.each([null, '{"sparse":0.97}'])(
    'a new track is hidden where a person drew a shape in its place, with settings %s',
    async (kept) => {
        const bench = createBench();
        bench.kept = kept;
        bench.add(polygon(2), polygon(4, 3), polygon(5, 12)); // the last is another object
        await bench.runAll(2, 6, { convert: true });
        expect(bench.reports[0].title).toBe('Tracking ended with warnings');
        const own = bench.track();
        expect(bench.said()).toContain(`drew a shape in its place: car ${own.clientID} on 4.`);
        expect(bench.shapes()).toHaveLength(2);
        expect(timelineOf(own)).toBe('2 3 4- 5 6 7-');
    },
);

test.each(['a track', 'a polygon that became one'])(
    'cancelled and run again in the still open dialog: %s',
    async (name) => {
        let [cancelled, runs] = [false, 0];
        const bench = createBench({
            intercept: (call, next) => {
                cancelled = runs === 0 && call.frame === 4;
                return next();
            },
        });
        const [id] =
            name === 'a track' ? bench.addTracks(track({ 2: SQUARE })) : bench.add(polygon(2));
        // the dialog holds the state that it was opened for
        const [state] = await bench.job.annotations.get(2, false, []);
        for (runs = 0; runs < 2; runs += 1) {
            cancelled = false;
            await bench.runHeld([state], 2, 6, { convert: true, cancelled: () => cancelled });
        }
        expect(bench.store.export().tracks).toHaveLength(1);
        expect(bench.shapes()).toEqual([]);
        expect(bench.track().clientID).not.toBe(id);
        expect(timelineOf(bench.track())).toBe('2 3 4 5 6 7-');
    },
);

test('the frames are looked at once, also where a person hid a track on every other one', () => {
    const frames = Array.from({ length: 2000 }, (_, frame) => frame);
    const own = track(Object.fromEntries(frames.map((frame) => [frame, frame % 2 ? null : BOX])));
    let looked = 0;
    const counting = Object.assign([...frames], {
        *[Symbol.iterator]() {
            for (const frame of frames) {
                looked += 1;
                yield frame;
            }
        },
    });
    const byHand = keyframesByHand(own, counting, new Set());
    const hidden = [...byHand].filter(([, { points }]) => points === null);
    expect(hidden.map(([frame]) => frame)).toEqual(frames.filter((frame) => frame % 2));
    expect([byHand.size, looked]).toEqual([2000, 2000]);
});
