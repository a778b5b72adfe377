// SPDX-License-Identifier: MIT
// Frames between two that a person drew, tracked from both ends.

import { expect, test } from 'vitest';
import {
    Bench,
    BOX,
    box,
    createBench,
    MASK,
    mask,
    moving,
    polygon,
    shifted,
    SQUARE,
} from './bench';
import { Surroundings, tracked, whole } from './bench';

const BOTH = '{"bothWays":true}';
/** The farther from where it was drawn, the less certain. */
const surest = moving((frame, { at }) => ({ score: 1 - Math.abs(frame - at) / 40 }));

/** Draw the object of a type by hand on a frame, so many pixels to the right of where it was drawn first. */
function correct(bench: Bench, type: string, frame: number, by: number): void {
    const own = bench.on(frame).find((one) => one.type === type)!;
    bench.store.draw(own.clientID!, frame, shifted(type, type === 'mask' ? MASK : BOX, by));
}

/** A mask on frame 2, tracked to frame 12, and corrected. */
async function corrected(surroundings: Surroundings = {}, frames = [9]): Promise<Bench> {
    const { bench } = await tracked(mask(2), 12, { invoke: surest, ...surroundings });
    for (const frame of frames) correct(bench, 'mask', frame, 30);
    bench.calls.length = 0;
    bench.progress.length = 0;
    bench.kept = BOTH;
    return bench;
}

const leftsOf = (bench: Bench): number[] => bench.shapes().map(({ points }) => points.at(-4)!);
const FORWARDS = [10, 11, 12, 13, 14, 15, 16, 40, 41, 42, 43];
const BETTER = [10, 11, 12, 13, 37, 38, 39, 40, 41, 42, 43];

test('each frame between drawn ones gets the result of the end that is surer', async () => {
    const bench = await corrected();
    const drawn = JSON.stringify(bench.on(9));
    await bench.runAll(2, 12);
    expect(leftsOf(bench)).toEqual(BETTER);
    expect(JSON.stringify(bench.on(9))).toBe(drawn);
    expect(bench.said()).not.toContain('one end');
    const frames = bench.calls.filter(({ shapes }) => !shapes).map(({ frame }) => frame);
    expect(frames).toEqual([3, 4, 5, 6, 7, 8, 10, 11, 12, 8, 7, 6, 5, 4, 3]);
    // the drawing on frame 9 was started once, and stands on the seed in both directions
    const started = bench.calls.filter(({ type }) => type === 'init_tracking');
    expect(started.map(({ frame }) => frame)).toEqual([2, 9]);
    const joined = bench.calls.filter(({ type, shapes }) => type === 'track' && shapes);
    const distances = joined.map(({ shapes }) => (shapes![0] as { adopt?: unknown }).adopt);
    expect(distances).toEqual([7, -7, 7].map((distance) => [{ index: 1, distance }]));
    expect(bench.progress.map(({ message }) => message)).toContainEqual(
        expect.stringMatching(/^Frame 8 \(1 of 6, from the other end\), 1 object/),
    );

    const second = bench.contents();
    await bench.runAll(2, 12);
    expect(bench.contents().map((text) => text.replace(/"score":[^,}]*/, ''))).toEqual(
        second.map((text) => text.replace(/"score":[^,}]*/, '')),
    );
});

test('without the setting, or without a drawing on the way, nothing is tracked twice', async () => {
    const bench = await corrected();
    bench.kept = '{}';
    await bench.runAll(2, 12);
    expect(leftsOf(bench)).toEqual(FORWARDS);
    const { bench: other } = await tracked(mask(2), 6, { invoke: surest });
    other.kept = BOTH;
    other.calls.length = 0;
    await other.runAll(2, 6);
    expect(other.calls.map(({ frame }) => frame)).toEqual([2, 3, 4, 5, 6]);
});

test('a run backwards is tracked from the other end, too', async () => {
    const { bench } = await tracked(mask(12), 2, { invoke: surest });
    bench.store.draw(bench.on(5)[0].clientID!, 5, shifted('mask', MASK, -5));
    bench.kept = BOTH;
    await bench.runAll(12, 2);
    const onFrames = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    expect(leftsOf(bench)).toEqual(onFrames.map((frame) => (frame < 9 ? frame : frame - 2)));
});

test('objects that are drawn on different frames, one of them hidden on the way', async () => {
    const bench = createBench({ invoke: surest });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 10, { convert: true });
    bench.store.draw(bench.on(6)[0].clientID!, 6, shifted('mask', MASK, 30));
    bench.store.draw(bench.track().clientID!, 10, shifted('polygon', SQUARE, 40));
    bench.store.hide(bench.track().clientID!, 7);
    bench.kept = BOTH;
    bench.calls.length = 0;
    await bench.runAll(2, 10);
    const asked = bench.calls.filter(({ shapes }) => !shapes);
    const back = asked.slice(asked.findIndex(({ frame }) => frame === 10) + 1);
    expect(back.map(({ frame, states }) => [frame, states!.length])).toEqual([
        [9, 1], [8, 1], [6, 1], [5, 2], [4, 2], [3, 2],
    ]); // prettier-ignore
    const masks = bench.shapes().filter(({ type }) => type === 'mask');
    expect(masks.map(({ points }) => points.at(-4))).toEqual([10, 11, 38, 39, 40, 41, 42, 43, 44]);
    const keyframes = bench.track().shapes.filter(({ outside }) => !outside);
    expect(keyframes.map(({ frame, points }) => [frame, whole(points)[0]])).toEqual([
        [2, 10], [3, 11], [4, 12], [5, 13], [6, 46], [8, 48], [9, 49], [10, 50],
    ]); // prettier-ignore
    expect(bench.track().shapes.find(({ frame }) => frame === 7)!.outside).toBe(true);
});

test('the polygons of both ends begin at the same corner', async () => {
    const turned = [...SQUARE.slice(4), ...SQUARE.slice(0, 4)];
    const { bench } = await tracked(polygon(2), 10, { invoke: surest, convert: true });
    bench.store.draw(bench.track().clientID!, 9, shifted('polygon', turned, 20));
    bench.kept = BOTH;
    await bench.runAll(2, 10);
    const corners = bench.track().shapes.map(({ frame, points }) => [frame, whole(points)[0]]);
    expect(corners.slice(0, 7)).toEqual([
        [2, 10], [3, 11], [4, 12], [5, 13], [6, 27], [7, 28], [8, 29],
    ]); // prettier-ignore
});

test('cancelled on the way back: what was tracked is kept, and the message says so', async () => {
    const bench = await corrected();
    const isBack = (): boolean => bench.calls.filter(({ frame }) => frame === 7).length > 1;
    await bench.runAll(2, 12, { cancelled: isBack });
    expect(leftsOf(bench)).toEqual([10, 11, 12, 13, 14, 38, 39, 40, 41, 42, 43]);
    expect(bench.said()).toMatch(
        /drawn on both sides: car \d+ on 3 to 6 \(cancelled\)\. For both ends run again from frame 2\./,
    );
    expect(bench.said()).toContain('What is done is kept. Undo takes it back in one step.');
    expect(bench.reports.at(-1)!.title).toBe('Tracking was cancelled');
});

test('an error on the way back loses nothing, and the message names it', async () => {
    let calls = 0;
    const bench = await corrected({
        intercept: (call, next) => {
            calls += call.frame === 6 ? 1 : 0; // in the first run, in the second, and on its way back
            return calls < 3 ? next() : { status: 401, body: {} };
        },
    });
    await bench.runAll(2, 12);
    expect(leftsOf(bench)).toEqual([10, 11, 12, 13, 14, 38, 39, 40, 41, 42, 43]);
    expect(bench.said()).toMatch(/drawn on both sides: car \d+ on 3 to 6 \(.*logged out/);
    expect(bench.reports.at(-1)!.kind).toBe('warning');
});

test('an object that fails on the way back keeps its results; the others go on', async () => {
    const error = { code: 'state_gone', message: 'It is gone.' };
    let back = false;
    const { bench } = await tracked(mask(2), 8, {
        invoke: moving((frame, memory) => {
            const score = 1 - Math.abs(frame - memory.at) / 40;
            const isGone = back && memory.type === 'mask' && memory.at > 5 && frame === 5;
            return isGone ? { shape: null, state: null, score: 0, error } : { score };
        }),
    });
    bench.add(box(2));
    await bench.runAll(2, 8);
    for (const { clientID, type, points } of bench.on(8)) {
        bench.store.draw(clientID!, 8, shifted(type, points, 20));
    }
    bench.kept = BOTH;
    back = true;
    await bench.runAll(2, 8);
    const lefts = (wanted: string): number[] =>
        bench
            .shapes()
            .filter(({ type }) => type === wanted)
            .map(({ points }) => whole(points).at(-4)!);
    expect(lefts('rectangle')).toEqual([10, 11, 12, 33, 34, 35, 36]);
    expect(lefts('mask')).toEqual([10, 11, 12, 13, 34, 35, 36]);
    expect(bench.said()).toMatch(/drawn on both sides: car \d+ on 3 to 5 \(It is gone\)\./);
});

test('the message names the frames of each object that were tracked from one end only', async () => {
    const bench = createBench({ invoke: surest });
    const [one, other] = bench.add(mask(2), box(2));
    await bench.runAll(2, 12);
    correct(bench, 'mask', 12, 30);
    correct(bench, 'rectangle', 5, 9);
    bench.kept = BOTH;
    const isBack = (): boolean => bench.calls.filter(({ frame }) => frame === 9).length > 2;
    await bench.runAll(2, 12, { cancelled: isBack });
    expect(bench.said()).toContain(
        `car ${one} on 3 to 8; car ${other} on 3 to 4 (cancelled). For both`,
    );
});

test('an object that is refused alone on the way back does not stop the others', async () => {
    let back = false;
    const { bench } = await tracked(mask(2), 12, {
        invoke: surest,
        intercept: (call, next) => {
            const isRefused = back && !call.shapes && call.frame === 8;
            return isRefused && call.states!.length === 1 ? { status: 413, body: '' } : next();
        },
    });
    bench.add(box(2));
    await bench.runAll(2, 12);
    correct(bench, 'mask', 9, 30);
    correct(bench, 'rectangle', 6, 30);
    bench.kept = BOTH;
    back = true;
    await bench.runAll(2, 12);
    const boxes = bench.shapes().filter(({ type }) => type === 'rectangle');
    expect(boxes.slice(0, 5).map(({ points }) => whole(points)[0])).toEqual([10, 11, 38, 39, 40]);
    expect(bench.said()).toMatch(/both sides: car \d+ on 3 to 8 \([^;]*\)\. For both/);
});

test('a run that stopped before its way back names what has one end only', async () => {
    let [armed, reached] = [false, 0];
    const bench = await corrected({
        intercept: (call, next) => {
            reached += armed && call.frame === 11 ? 1 : 0;
            return reached ? { status: 401, body: {} } : next();
        },
    });
    armed = true;
    await bench.runAll(2, 12);
    expect(bench.said()).toMatch(/both sides: car \d+ on 3 to 8 \(the run stopped before\)/);
});

test('an object that fails behind its last drawn frame gets both ends before', async () => {
    let armed = false;
    const error = { code: 'size_changed', message: 'no' };
    const bench = await corrected({
        invoke: moving((frame, { at }) =>
            armed && frame === 11
                ? { shape: null, state: null, error }
                : { score: 1 - Math.abs(frame - at) / 40 },
        ),
    });
    armed = true;
    await bench.runAll(2, 12);
    expect(leftsOf(bench).slice(0, 8)).toEqual(BETTER.slice(0, 8));
    expect(bench.said()).not.toContain('one end');
});

test('drawn frames are not said to be tracked from one end', async () => {
    const bench = await corrected({}, [3, 4, 9]);
    const isPast = (): boolean =>
        bench.progress.at(-1)?.message.startsWith('Frame 4 (5 of 6') ?? false;
    await bench.runAll(2, 12, { cancelled: isPast });
    expect(bench.reports.at(-1)!.title).toBe('Tracking was cancelled');
    expect(bench.said()).not.toContain('one end');
});

test('drawings that do not join on the way back are told', async () => {
    let joins = 0;
    const bench = await corrected({
        intercept: (call, next) => {
            joins += call.type === 'track' && call.shapes ? 1 : 0;
            return joins === 3 ? { status: 410, body: '' } : next();
        },
    });
    await bench.runAll(2, 12);
    expect(bench.said()).toContain('Tracked without what was drawn by hand on other frames');
});

test('of an object that is deleted on the way back no ends are told', async () => {
    let [armed, asked] = [false, 0];
    const bench = await corrected({
        intercept: (call, next) => {
            asked += armed && call.frame === 5 ? 1 : 0;
            if (asked < 2) return next();
            bench.store.remove(bench.on(2)[0].clientID!);
            return { status: 401, body: {} };
        },
    });
    armed = true;
    await bench.runAll(2, 12);
    expect(bench.said()).toContain('it was deleted during the run');
    expect(bench.said()).not.toContain('one end');
});
