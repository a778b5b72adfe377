// SPDX-License-Identifier: MIT
// What the page knows of objects, and tells of other objects and of the way of a track. Whose a shape is, is
// held by the table of whose.test.ts.

import { expect, test } from 'vitest';
import { SerializedShape } from '../src/ts/cvat';
import { Look, recognise } from '../src/ts/earlier';
import { KnownNumbers } from '../src/ts/known';
import { Source } from '../src/ts/objects';
import { createJob, shape, StandInJob } from '../standin/core';
import { Bench, createBench, drawing, framesFrom, LABELS, mask, moving } from './bench';
import { shifted, timelineOf, track, tracked } from './bench';

const SQUARE = [10, 10, 30, 10, 30, 30, 10, 30];
const BELOW = [10, 50, 30, 50, 30, 70, 10, 70];
const BOX = [10, 10, 50, 50];
const polygon = drawing('polygon', SQUARE);
const below = drawing('polygon', BELOW);
const box = drawing('rectangle', BOX);
const LARGE = { frames: framesFrom(0, 12, { width: 640, height: 480 }) };

/** Frame, source, top edge and label of every shape, in order. */
function shapesOf(job: StandInJob): string[] {
    return job.annotations.store
        .export()
        .shapes.map(({ frame, source, points, label_id }) =>
            [frame, source, points[1], label_id].join(' '),
        )
        .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

/** The shapes as the server keeps them. */
function saved(bench: Bench): SerializedShape[] {
    return bench.shapes().map(({ clientID: _, ...rest }) => rest);
}

/** The shape on this frame; there is one. */
function on(bench: Bench, frame: number): SerializedShape & { clientID: number } {
    return bench.on(frame)[0] as SerializedShape & { clientID: number };
}

/** Small boxes on frame 2, one beside the other. */
function boxes(count: number): SerializedShape[] {
    const small = drawing('rectangle', [0, 0, 5, 5]);
    return Array.from({ length: count }, (_, n) => small(2, 6 * n));
}

/** A polygon tracked from frame 5 to 10. */
async function firstObject(): Promise<{ bench: Bench; seed: number }> {
    const { bench, seed } = await tracked(polygon(5), 10);
    bench.answer = true;
    return { bench, seed };
}

test('in the next job nothing is known of the objects of the last one', async () => {
    const { bench, seed } = await firstObject();
    const [second] = bench.add(below(0));
    await bench.runOn([second], 0, 10);
    // opened again without a reload of the page: clientIDs begin with 1, in the order of the frames
    const opened = createJob({ frames: framesFrom(0, 20), labels: LABELS });
    const [again] = opened.annotations.store.import({ shapes: saved(bench) });
    expect(again).toBe(seed);
    const before = shapesOf(opened);
    const states = await opened.annotations.get(0, false, []);
    expect(states).toMatchObject([{ clientID: again }]);
    const not = (): boolean => false;
    const chosen = { 'Target frame': '10' };
    await bench.core.actions.call(opened, bench.action, chosen, 0, states, () => {}, not);
    expect(shapesOf(opened)).toEqual(before);
    expect(bench.asked).toEqual([]);
});

test('after "Remove annotations" nothing is known of the objects that were there', async () => {
    const { bench, seed } = await firstObject();
    const shapes = saved(bench);
    bench.store.clear();
    const [other] = bench.add(below(0), ...shapes);
    expect(other).toBe(seed);
    const before = shapesOf(bench.job);
    await bench.runOn([other], 0, 4);
    await bench.runOn([other], 0, 10);
    const after = shapesOf(bench.job);
    expect(after.filter((one) => before.includes(one))).toEqual(before);
    expect(after).toHaveLength(before.length + 10);
    expect(bench.asked).toEqual([]);
});

test('after "Remove annotations" another track has no number', async () => {
    const { bench, seed } = await tracked(below(2), 10);
    await bench.runOn([seed], 2, 4, { convert: true });
    const [left, former] = [saved(bench), bench.track().clientID!];
    bench.store.clear();
    bench.add(...Array.from({ length: former - 1 }, () => mask(0)));
    const [other] = bench.addTracks(track({ 4: BOX }));
    expect(other).toBe(former);
    bench.add(...left);
    await bench.runOn([other], 4, 10);
    expect(bench.shapes()).toHaveLength(former - 1 + left.length);
});

test('after "Remove annotations" the message names the objects that are there', async () => {
    const invoke = moving((frame) => (frame === 4 ? { shape: null } : null));
    const { bench } = await tracked(polygon(2), 3, { invoke, convert: true });
    const former = bench.track().clientID!;
    bench.store.clear();
    bench.add(...boxes(former));
    await bench.runAll(2, 5, { filter: (id) => id === 1 });
    expect(bench.reports.at(-1)!.lines).toContain('Not visible: car 1 on 1 frame, first on 4.');
});

test('after "Remove annotations" no object stands in the place of one that was there', async () => {
    const { bench } = await tracked(polygon(2), 6, { convert: true });
    const former = bench.track().clientID!;
    bench.store.clear();
    bench.addTracks(track({ 0: SQUARE, 1: null }));
    const ids = bench.add(...boxes(former - 1));
    expect(ids.at(-1)).toBe(former);
    await bench.runAll(2, 4, { filter: (id) => id <= 2 });
    expect(bench.shapes()).toHaveLength(former - 1 + 2);
});

test('results with the number of a drawing that were kept are not asked about again', async () => {
    const { bench, seed } = await tracked(polygon(2), 5);
    bench.store.set(seed, { label_id: 2 });
    const reloaded = createBench();
    reloaded.add(...saved(bench));
    await reloaded.runAll(2, 5);
    const once = shapesOf(reloaded.job);
    await reloaded.runAll(2, 5);
    expect(reloaded.asked).toHaveLength(1);
    expect(shapesOf(reloaded.job)).toEqual(once);
    expect(reloaded.frames()).toEqual([2, 3, 3, 4, 4, 5, 5]);
});

// What is told of other objects

test('results of an object that was drawn elsewhere are not told as doubled', async () => {
    const { bench } = await tracked(box(5, 25), 10, LARGE);
    const [near] = bench.add(box(0));
    await bench.runOn([near], 0, 10);
    expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
    expect(bench.said()).not.toContain('may be of the same');
    expect(bench.shapes()).toHaveLength(1 + 5 + 1 + 10);
});

test('results of an object that a person drew in this place, too, are told', async () => {
    const { bench } = await tracked(polygon(4, 2), 8);
    bench.store.draw(on(bench, 6).clientID, 6, BELOW);
    bench.store.draw(on(bench, 7).clientID, 7, shifted('polygon', SQUARE, 6));
    const [first] = bench.add(polygon(2));
    await bench.runOn([first], 2, 8);
    expect(bench.said()).toContain(
        'Kept 2 automatic shapes that may be of the same objects, first on frame 5.',
    );
});

test('results of an object of the start frame are not told after its drawing was edited', async () => {
    const bench = createBench(LARGE);
    const [one, other] = bench.add(box(0), box(0, 15));
    await bench.runAll(0, 6);
    bench.store.draw(other, 0, shifted('rectangle', BOX, 18));
    await bench.runOn([one], 0, 6);
    expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
});

// The way of a track

/** A polygon tracked from frame 2 to 10, changed, and converted: the session ends on frame 6. `meddle`
 * is called on frame 6 of a later run. */
async function stoppedConversion(
    change: (bench: Bench, seed: number) => void = () => {},
    meddle: (bench: Bench) => void = () => {},
): Promise<Bench> {
    let ended = false;
    const bench: Bench = createBench({
        intercept: (call, next) => {
            if (ended && call.frame === 6) return { status: 401, body: { detail: 'x' } };
            if (call.frame === 6 && bench.reports.length === 2) meddle(bench);
            return next();
        },
    });
    const [seed] = bench.add(polygon(2));
    await bench.runAll(2, 10);
    change(bench, seed);
    ended = true;
    await bench.runAll(2, 10, { convert: true });
    ended = false;
    return bench;
}

test('a conversion that stopped goes on as its message says, and nothing is doubled', async () => {
    const bench = await stoppedConversion();
    expect(bench.said()).toContain('To go on, open frame 5 and run the action again.');
    expect(bench.said()).not.toContain('undo this run');
    await bench.runAll(5, 10, { convert: true });
    expect(bench.shapes()).toEqual([]);
    expect(timelineOf(bench.track())).toBe('2 3 4 5 6 7 8 9 10 11-');
    expect(bench.reports.at(-1)!.lines).toContain('Replaced 5 shapes of an earlier run.');
});

test('a track does not go over shapes of its object that a person made', async () => {
    const bench = await stoppedConversion();
    bench.store.draw(on(bench, 8).clientID, 8, shifted('polygon', SQUARE, 9));
    const before = JSON.stringify(bench.store.export());
    await expect(bench.runAll(5, 10)).rejects.toThrow(
        'a person made or locked shapes of the same object, on frame 8; unlock or delete these, or undo',
    );
    expect(JSON.stringify(bench.store.export())).toBe(before);
    bench.store.set(on(bench, 9).clientID, { lock: true });
    await expect(bench.runAll(5, 10)).rejects.toThrow('the same object, on frames 8, 9; unlock or');
    await bench.runAll(5, 7);
    expect(bench.frames()).toEqual([8, 9, 10]);
});

/** A polygon tracked from frame 2 to 8; a person gave its result on frame 5 another label. */
async function relabelled(): Promise<{ bench: Bench; seed: number; kept: SerializedShape }> {
    const { bench, seed } = await tracked(polygon(2), 8);
    const five = on(bench, 5);
    // as CVAT's page saves it
    const dog = { ...five, label_id: 2, source: 'semi-auto', attributes: [] };
    const only = (one: SerializedShape) => ({ shapes: [one], tags: [], tracks: [] });
    bench.store.commit(only(dog), only(five));
    return { bench, seed, kept: on(bench, 5) };
}

test('a result with another label stays, and is no drawing of the object', async () => {
    const { bench, seed, kept } = await relabelled();
    bench.calls.length = 0;
    await bench.runOn([seed], 2, 8);
    expect(bench.shapes()).toContainEqual(kept);
    expect(bench.shapes()).toHaveLength(7);
    expect(bench.reports.at(-1)!.lines).toContain(
        `Kept with its label, which is not that of the object: car ${seed} on 5.`,
    );
    expect(bench.said()).not.toContain('Kept as a person made it');
    // it is no drawing that the object stands on before the run comes there
    const frames = bench.calls.map(({ frame }) => frame);
    expect(frames).toEqual([...frames].sort((one, other) => one - other));
});

test('a result with another label is not made a part of a track', async () => {
    const { bench, seed, kept } = await relabelled();
    await bench.runOn([seed], 2, 8, { convert: true });
    expect(bench.shapes()).toEqual([kept]);
    expect(timelineOf(bench.track())).toBe('2 3 4 5 6 7 8 9-');
    expect(bench.said()).toMatch(/with its label, .*: car \d+ on 5\./);
});

test('a locked result stays in a conversion after the label of its object was corrected', async () => {
    const { bench, seed } = await tracked(polygon(2), 8);
    const locked = on(bench, 5);
    bench.store.set(locked.clientID, { lock: true });
    bench.store.set(seed, { label_id: 2 });
    await bench.runOn([seed], 2, 8, { convert: true });
    expect(bench.shapes()).toEqual([locked]);
    expect(bench.store.export().tracks).toHaveLength(1);
    expect(bench.said()).toMatch(/Kept as a person made it.*: dog \d+ on 5\./);
});

test('what changes on the way of a track while it is tracked stays, and the track is hidden there', async () => {
    const attributes = [{ spec_id: 32, value: 'dirty' }];
    const bench = await stoppedConversion(undefined, (changing) => {
        changing.store.draw(on(changing, 8).clientID, 8, shifted('polygon', SQUARE, 7));
        changing.store.set(on(changing, 9).clientID, { attributes });
    });
    await bench.runAll(5, 10);
    expect(bench.shapes()).toMatchObject([
        { frame: 8, source: 'semi-auto', points: shifted('polygon', SQUARE, 7) },
        { frame: 9, source: 'auto', attributes },
    ]);
    expect(timelineOf(bench.track())).toBe('2 3 4 5 6 7 8- 10 11-');
    expect(bench.reports.at(-1)!.title).toBe('Tracking ended with warnings');
    expect(bench.said()).toMatch(/drew a shape in its place: car \d+ on 8, 9\./);
});

test('a keyframe that a person made is not hidden by a shape that changes on its frame', async () => {
    const attributes = [{ spec_id: 32, value: 'dirty' }];
    const bench = await stoppedConversion(undefined, (changed) =>
        changed.store.set(on(changed, 8).clientID, { attributes }),
    );
    bench.store.draw(bench.track().clientID!, 8, shifted('polygon', SQUARE, 7));
    await bench.runAll(5, 10);
    expect(bench.said()).toMatch(/Left hidden, as a person wants it: car \d+ on 8, 9, 10\./);
    expect(bench.said()).not.toContain('in its place');
});

/** How often the page is asked for the objects of each frame from now on. */
function countLooks(bench: Bench): Map<number, number> {
    const looks = new Map<number, number>();
    const { get } = bench.job.annotations;
    bench.job.annotations.get = (frame, ...rest) => {
        looks.set(frame, (looks.get(frame) ?? 0) + 1);
        return get(frame, ...rest);
    };
    return looks;
}

test('the locks of a frame are looked up once for all tracks', async () => {
    const bench = createBench();
    bench.add(polygon(2), below(2));
    await bench.runAll(2, 10);
    await bench.runAll(2, 5, { convert: true });
    const looks = countLooks(bench);
    await bench.runAll(5, 10);
    expect(bench.reports.at(-1)!.lines).toContain('Replaced 10 shapes of an earlier run.');
    expect([7, 8, 9].map((frame) => looks.get(frame))).toEqual([1, 1, 1]);
});

test('the locks of a frame are looked up once for all objects that take over results', async () => {
    const bench = createBench();
    bench.answer = true;
    const seeds = bench.add(polygon(2), below(2));
    await bench.runAll(2, 8);
    for (const seed of seeds) bench.store.remove(seed);
    bench.add(polygon(2, 1), below(2, 1));
    const looks = countLooks(bench);
    await bench.runAll(2, 8);
    expect(bench.reports.at(-1)!.lines).toContain('Replaced 12 shapes of an earlier run.');
    expect([4, 5, 6, 7].map((frame) => looks.get(frame))).toEqual([1, 1, 1, 1]);
});

test('a run of tracks alone does not look at the outlines of drawn shapes', async () => {
    const untouched = new Proxy(shape('mask', 5, []), {
        get: (target, name) => {
            if (name === 'points') throw new Error('It was looked at.');
            return Reflect.get(target, name);
        },
    });
    const source = { shape: null, track: track({ 2: SQUARE }) } as unknown as Source;
    const look = { start: 2, order: [3], known: new KnownNumbers(), random: () => 0 };
    const before = { shapes: [untouched], tracks: [] };
    const done = recognise([source], before, look as unknown as Look);
    await expect(done).resolves.toBeFalsy();
});

test('Cancel ends the look at the locks on the way of a track', async () => {
    const frames = framesFrom(0, 200, { width: 400, height: 80 });
    const { bench } = await tracked(polygon(0), 200, { frames });
    await bench.runAll(0, 5, { convert: true });
    const looks = countLooks(bench);
    bench.calls.length = 0;
    await bench.runAll(5, 200, { cancelled: () => looks.size > 10 }).catch(() => {});
    expect(bench.calls).toEqual([]);
    expect(looks.size).toBeLessThan(100);
});
