// SPDX-License-Identifier: MIT
// What a run takes, what it leaves in the job as shapes, and what its dialog offers.

import { expect, test } from 'vitest';
import { markOf } from '../src/ts/identity';
import { shape } from '../standin/core';
import { BOX, box, createBench, framesFrom, MASK, mask, moving } from './bench';
import { polygon, SQUARE, track, tracked } from './bench';

test('a mask becomes one mask shape per frame and stays itself', async () => {
    const bench = createBench();
    const attributes = [
        { spec_id: 31, value: 'red' },
        { spec_id: 32, value: 'true' },
    ];
    const more = { group: 3, z_order: 2, occluded: true, attributes };
    const [id] = bench.add(mask(5, 0, { ...more, id: 77 }));
    await bench.runOn([id], 5, 9, { convert: true });

    expect(bench.store.export().tracks).toEqual([]);
    expect(bench.frames()).toEqual([5, 6, 7, 8, 9]);
    expect(bench.on(5)).toMatchObject([{ clientID: id, id: 77, source: 'manual' }]);
    const [{ clientID, score, ...made }] = bench.on(8);
    expect(made).toEqual(mask(8, 3, { ...more, source: 'auto' }));
    expect(clientID).not.toBe(id);
    expect(markOf(score, 8)).not.toBeNull();
});

test('the results carry the confidence in the first digits of their score', async () => {
    const invoke = moving((frame) => ({ score: frame === 4 ? 0.3149 : 0.9 }));
    const { bench } = await tracked(mask(2), 5, { invoke });
    const results = bench.shapes().slice(1);
    expect(results.map(({ score }) => Math.floor(score! * 1e4) / 1e4)).toEqual([0.9, 0.3149, 0.9]);
    const marks = results.map(({ score, frame }) => JSON.stringify(markOf(score, frame)));
    expect(new Set(marks).size).toBe(1);
});

test("one call per frame for all objects, in the server's terms", async () => {
    const bench = createBench();
    bench.add(mask(2), polygon(2), box(2));
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
    expect(bench.shapes().filter(({ type }) => type === 'rectangle')).toHaveLength(4);
    expect(bench.progress.map(({ percent }) => percent)).toEqual([0, 0, 0, 0, 33, 66, 99]);
});

test.each([null, '{"sparse":0.97}'])(
    'a polygon shape stays shapes without conversion, with settings %s',
    async (kept) => {
        const bench = createBench();
        bench.kept = kept;
        bench.add(polygon(0));
        await bench.runAll(0, 3);
        expect(bench.frames()).toEqual([0, 1, 2, 3]);
        expect(bench.store.export().tracks).toEqual([]);
    },
);

test('a rectangle that sticks out is cut at the border', async () => {
    const { bench } = await tracked(shape('rectangle', 2, [75, 10, 98, 30]), 5);
    expect(bench.on(5)[0].points).toEqual([78, 10, 100, 30]);
});

test('nothing created carries a clientID, and only an edited track an id', async () => {
    const bench = createBench();
    bench.add(mask(2, 0, { id: 1 }), polygon(2, 0, { id: 2 }));
    bench.addTracks(track({ 0: SQUARE }, { id: 500 }));
    await bench.runAll(2, 4, { convert: true });
    const { created, deleted } = bench.outcome;
    const made = [...created.shapes, ...created.tracks];
    expect(made.filter((object) => 'clientID' in object)).toEqual([]);
    expect(made.map(({ id }) => id).filter((id) => id !== undefined)).toEqual([500]);
    const removed = [...deleted.shapes, ...deleted.tracks];
    expect(removed.every(({ clientID }) => Number.isInteger(clientID))).toBe(true);
    const types = created.tracks.flatMap(({ shapes }) => shapes.map(({ type }) => type));
    expect(types).not.toContain('mask');
    expect([created.tags, deleted.tags]).toEqual([[], []]);
});

// What is taken

test('locked, hidden, ground-truth, outside, rotated and foreign objects are left alone', async () => {
    const bench = createBench();
    const [locked, hidden, , , ellipse] = bench.add(
        mask(2),
        mask(2),
        polygon(2, 0, { label_id: 2 }),
        box(2, 0, { rotation: 30 }),
        shape('ellipse', 2, BOX),
        shape('points', 2, [1, 1]),
        mask(3),
    );
    bench.addTracks(track({ 0: SQUARE, 2: null }));
    bench.store.set(locked, { lock: true });
    bench.store.set(hidden, { hidden: true });
    await bench.runAll(2, 4);
    expect(bench.calls[0].shapes).toEqual([{ type: 'polygon', points: SQUARE }]);
    expect(bench.said()).toContain(`car ${locked} (it is locked)`);
    expect(bench.said()).toContain(`car ${hidden} (it is hidden)`);
    expect(bench.said()).toContain('(it is rotated)');
    expect(bench.said()).toContain(`car ${ellipse} (it is of the type ellipse;`);

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

test('clear words where there is nothing to track', async () => {
    const bench = createBench({ frames: framesFrom(0, 5, undefined, [1, 4, 5]) });
    const [turned, locked] = bench.add(box(2, 0, { rotation: 10 }), mask(3));
    await expect(bench.runAll(2, 4)).rejects.toThrow(
        `There is no mask, polygon or rectangle to track on frame 2 (car ${turned}: it is rotated).`,
    );
    bench.add(...[1, 2, 3, 4, 5].map((by) => box(2, by, { rotation: 10 })));
    await expect(bench.runAll(2, 4)).rejects.toThrow('it is rotated; and 1 more).');
    await expect(bench.runAll(1, 4)).rejects.toThrow('Frame 1 is deleted');
    await expect(bench.runAll(3, 5)).rejects.toThrow('All frames from 3 to 5 are deleted.');
    bench.store.set(locked, { lock: true });
    await expect(bench.runOn([locked], 3, 0)).rejects.toThrow(`(car ${locked}: it is locked)`);
});

// The dialog

test.each([
    ['900', [12, 13, 14], 'Frame 900 is not in this job: 14 was used.'],
    ['-3', [12, 11, 10], 'Frame -3 is not in this job: 10 was used.'],
    ['NaN', [12, 13, 14], 'No frame was given: 14 was used.'], // as the default does
])('a target frame %s that is not in the job becomes its end', async (target, frames, hint) => {
    const bench = createBench({ frames: framesFrom(10, 14) });
    bench.add(mask(12));
    await bench.runAll(12, target);
    expect(bench.calls.map(({ frame }) => frame)).toEqual(frames);
    expect(bench.said()).toContain(hint);
});

test('the current frame as target changes nothing', async () => {
    const bench = createBench();
    const [id] = bench.add(polygon(2));
    const before = bench.contents();
    await bench.runOn([id], 2, 2, { convert: true });
    expect(bench.contents()).toEqual(before);
    expect(bench.calls).toEqual([]);
    expect(bench.reports[0].title).toBe('Nothing to track');
    expect(bench.closed).toBe(false);
    await bench.runOn([id], 2, 3);
    expect(bench.closed).toBe(true);
});

test('the frames of a job need not be in a row', async () => {
    const bench = createBench({
        frames: [3, 8, 9, 20].map((number) => framesFrom(number, number)[0]),
    });
    bench.add(mask(3));
    await bench.runAll(3, 19);
    expect(bench.calls.map(({ frame }) => frame)).toEqual([3, 8, 9]);
});

test('a target in the other direction is refused until the switch says so', async () => {
    const bench = createBench();
    bench.add(mask(14));
    await expect(bench.runAll(14, 10, { backwards: false })).rejects.toThrow(
        'The target frame 10 is before the current frame 14. Choose a later target, or switch on ' +
            '"Track backwards".',
    );
    await expect(bench.runAll(14, 18, { backwards: true })).rejects.toThrow(
        '"Track backwards" is on, but the target frame 18 is after the current frame 14.',
    );
    expect(bench.calls).toEqual([]);
    await bench.runAll(14, 10, { backwards: true });
    expect(bench.progress.map(({ message }) => message)).toContain(
        'Frame 13 (1 of 4 backwards), 1 object',
    );
    expect(bench.said()).toContain('1 object tracked over 4 frames (backwards, 13 to 10).');
});

test("the parameters are CVAT's, by name and order", () => {
    const { action, job } = createBench({ frames: framesFrom(10, 14) });
    const parameters = action.parameters!;
    const switches = ['Convert polygon shapes to tracks', 'Track backwards'];
    expect(action.name).toBe('Segment Anything 2: Tracker');
    expect(Object.keys(parameters)).toEqual(['Target frame', ...switches]);
    const target = parameters['Target frame'];
    const shown = (target.values as (_: object) => string[])({ instance: job });
    expect(shown).toEqual(['10', '14', '1']);
    expect((target.defaultValue as (_: object) => string)({ instance: job })).toBe('14');
    const off = { type: 'checkbox', values: ['true', 'false'], defaultValue: 'false' };
    for (const name of switches) expect(parameters[name]).toMatchObject(off);
});

// Losing a run

test('results are committed although earlier ones cannot be looked at', async () => {
    const { bench } = await tracked(mask(2), 6);
    const broken = new Proxy(mask(3), {
        get: (target, name) => {
            if (name === 'score' && bench.calls.length > 9) throw new Error('a broken shape');
            return Reflect.get(target, name);
        },
    });
    const { export: real } = bench.job.annotations;
    bench.job.annotations.export = async () => {
        const all = await real();
        return { ...all, shapes: [...all.shapes, broken] };
    };
    await bench.runAll(2, 6);
    expect(bench.store.undoSteps).toBe(2);
    expect(bench.said()).toContain('a broken shape');
    expect(bench.reports.at(-1)!.kind).toBe('warning');
    expect(bench.shapes()).toHaveLength(9);
});

test('a run that replaces 130,000 shapes is committed', async () => {
    const { bench } = await tracked(mask(2), 3);
    const [result] = bench.on(3);
    const all = await bench.job.annotations.export();
    const many = Array.from({ length: 130_000 }, () => result);
    bench.job.annotations.export = async () => ({ ...all, shapes: [...all.shapes, ...many] });
    await bench.runAll(2, 3);
    expect(bench.outcome.deleted.shapes).toHaveLength(130_001);
});

test('results that CVAT does not show again end with a warning', async () => {
    const bench = createBench();
    bench.add(mask(2));
    const { commit } = bench.store;
    bench.store.commit = (created, deleted) => {
        commit.call(bench.store, created, deleted);
        bench.job.annotations.get = () => Promise.reject(new Error('a broken track'));
    };
    await bench.runAll(2, 5);
    expect(bench.reports.map(({ title }) => title)).toEqual(['Tracking ended with warnings']);
    expect(bench.reports[0].lines[0]).toMatch(/CVAT did not show the results .*a broken track/);
});

test('where CVAT cannot commit, the message says that nothing was added', async () => {
    const bench = createBench();
    bench.add(mask(2));
    bench.store.commit = () => {
        throw new Error('Session has not been initialized yet');
    };
    await expect(bench.runAll(2, 5)).rejects.toThrow('Session has not been initialized yet');
    expect(bench.reports.map(({ title }) => title)).toEqual(['The results were not added']);
});
