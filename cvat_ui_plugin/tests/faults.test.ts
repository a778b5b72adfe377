// SPDX-License-Identifier: MIT
// Faults that were found with the real page, each as the user would meet it.

import { afterEach, expect, test, vi } from 'vitest';
import { SerializedShape, SerializedTrack } from '../src/ts/cvat';
import { markedScore, markOf } from '../src/ts/identity';
import { CALL_LIMIT_MS } from '../src/ts/track';
import { shape } from '../standin/core';
import { Bench, createBench, framesFrom, moving, shifted } from './bench';

const SQUARE = [10, 10, 20, 10, 20, 20, 10, 20];
const MASK = [0, 16, 10, 10, 13, 13];
const BOX = [10, 10, 30, 30];

function track(keyframes: Record<number, number[]>, more: Partial<SerializedTrack> = {}) {
    const shapes = Object.entries(keyframes).map(([frame, points]) => ({
        type: points.length === 4 ? 'rectangle' : 'polygon',
        frame: +frame,
        points,
        outside: false,
        occluded: false,
        z_order: 0,
        rotation: 0,
        attributes: [],
    }));
    return {
        label_id: 1,
        frame: shapes[0].frame,
        group: 0,
        source: 'manual',
        attributes: [],
        elements: [],
        shapes,
        ...more,
    };
}

function said(bench: Bench): string {
    return bench.reports.at(-1)!.lines.join('\n');
}

function shapesOn(bench: Bench, frame: number): SerializedShape[] {
    return bench.store.export().shapes.filter((one) => one.frame === frame);
}

/** Everything but ids, as text. */
function contents(bench: Bench): string[] {
    const { shapes, tracks } = bench.store.export();
    return [...shapes, ...tracks]
        .map(({ clientID: _c, id: _i, ...rest }) => JSON.stringify(rest))
        .sort();
}

const TRACKER = { id: 'sam2', name: 'Segment Anything 2: Tracker', kind: 'tracker' };

function never(): Promise<never> {
    return new Promise(() => {});
}

afterEach(() => {
    vi.useRealTimers();
});

// Whose a shape is

test('a first run leaves automatic shapes of the same label beside it alone', async () => {
    const bench = createBench({ invoke: moving() });
    const beside = Array.from({ length: 6 }, (_, index) =>
        shape('rectangle', 3 + index, [50, 10, 70, 30], { source: 'auto' }),
    );
    bench.store.import({ shapes: [shape('rectangle', 2, BOX), ...beside] });
    await bench.runAll(2, 8);
    expect(bench.store.export().shapes).toHaveLength(1 + 6 + 6);
    expect(bench.outcome.deleted.shapes).toEqual([]);
    expect([bench.asked, bench.reports[0].kind]).toEqual([[], 'success']);
});

test.each([
    [false, 1 + 6 + 6],
    [true, 1 + 6],
])('results without a mark are replaced only where the user says so (%s)', async (yes, count) => {
    const bench = createBench({ invoke: moving() });
    const older = Array.from({ length: 6 }, (_, index) =>
        shape('rectangle', 3 + index, shifted('rectangle', BOX, index), { source: 'auto' }),
    );
    const [seed] = bench.store.import({ shapes: [shape('rectangle', 2, BOX), ...older] });
    bench.answer = yes;
    await bench.runAll(2, 8);
    expect(bench.asked).toHaveLength(1);
    expect(bench.asked[0]).toContain(`car ${seed}: 6`);
    expect(bench.store.export().shapes).toHaveLength(count);
    expect(said(bench)).toContain(
        yes
            ? 'Replaced 6 shapes of an earlier run.'
            : 'Kept 6 automatic shapes that may be of the same objects, first on frame 3',
    );
    expect(bench.reports[0].kind).toBe(yes ? 'success' : 'warning');
});

test('an object that was lost for a while does not take over the results of another', async () => {
    const lost = (frame: number, { points }: { points: number[] }) =>
        points[0] === 10 && (frame === 3 || frame === 4) ? { shape: null } : null;
    const bench = createBench({ invoke: moving(lost) });
    const [first] = bench.store.import({ shapes: [shape('rectangle', 2, BOX)] });
    await bench.runOn([first], 2, 6);
    // a second object of the label comes by where the first one was
    const [second] = bench.store.import({ shapes: [shape('rectangle', 3, [12, 12, 32, 32])] });
    await bench.runOn([second], 3, 6);
    const others = (): string[] =>
        contents(bench).filter((text) => text.includes('12,') && text.includes('32'));
    const before = others();
    await bench.runOn([first], 2, 6);
    expect(others()).toEqual(before);
    expect([3, 4, 5, 6].map((frame) => shapesOn(bench, frame).length)).toEqual([1, 1, 2, 2]);
    // the results on frames 5 and 6 are not next to the second object's frame: they are told
    expect(bench.asked).toEqual([]);
    expect(bench.reports[1].lines.join()).toContain(
        'Kept 2 automatic shapes that may be of the same objects, first on frame 5',
    );
});

test('a seed that is edited and tracked again replaces its results, also after a reload', async () => {
    const bench = createBench({ invoke: moving() });
    const [seed] = bench.store.import({ shapes: [shape('rectangle', 2, BOX)] });
    await bench.runAll(2, 6);
    bench.store.draw(seed, 2, [11, 11, 31, 31]);
    await bench.runAll(2, 6);
    expect(bench.store.export().shapes).toHaveLength(5);
    expect(bench.asked).toEqual([]);

    const { shapes } = bench.store.export();
    const reloaded = createBench({ invoke: moving() });
    const ids = reloaded.store.import({ shapes: shapes.map(({ clientID, ...rest }) => rest) });
    reloaded.store.draw(ids[0], 2, [12, 12, 32, 32]);
    reloaded.answer = true; // nothing proves whose they are: the page asks
    await reloaded.runAll(2, 6);
    expect(reloaded.asked).toHaveLength(1);
    expect(reloaded.store.export().shapes).toHaveLength(5);
});

test('a copy of a result on another frame is not ours', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('rectangle', 2, BOX)] });
    await bench.runAll(2, 4);
    const { clientID: _, ...result } = shapesOn(bench, 4)[0];
    bench.store.import({ shapes: [{ ...result, frame: 5 }] });
    expect(markOf(result.score, 5)).toBeNull();
    await bench.runAll(2, 6);
    expect(shapesOn(bench, 5)).toHaveLength(2);
});

test('the results carry the confidence in the first digits of their score', async () => {
    const bench = createBench({
        invoke: moving((frame) => ({ score: frame === 4 ? 0.3149 : 0.9 })),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 5);
    const scores = [3, 4, 5].map((frame) => shapesOn(bench, frame)[0].score!);
    expect(scores.map((score) => Math.floor(score * 1e4) / 1e4)).toEqual([0.9, 0.3149, 0.9]);
    const marks = [3, 4, 5].map((frame, index) => markOf(scores[index], frame));
    expect(new Set(marks.map((mark) => JSON.stringify(mark))).size).toBe(1);
    expect(markedScore(0.3149, marks[1]!, 4)).toBe(scores[1]);
});

// What a person made

test('corrected shapes stay byte for byte; the run goes on from each; a third run changes nothing', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 10);
    const [wrong] = shapesOn(bench, 5);
    bench.store.draw(wrong.clientID!, 5, shifted('mask', MASK, 20));
    const kept = JSON.stringify(shapesOn(bench, 5));
    await bench.runAll(2, 10);
    expect(JSON.stringify(shapesOn(bench, 5))).toBe(kept);
    const lefts = [3, 4, 5, 6, 7, 8, 9, 10].map((frame) => {
        const here = shapesOn(bench, frame);
        expect(here).toHaveLength(1);
        return here[0].points.at(-4);
    });
    expect(lefts).toEqual([11, 12, 30, 31, 32, 33, 34, 35]);
    expect(said(bench)).toMatch(
        /Kept as a person made it, and tracked on from there: car \d+ on 5\./,
    );
    const second = contents(bench).map((text) => text.replace(/"score":[^,}]*/, ''));
    await bench.runAll(2, 10);
    expect(contents(bench).map((text) => text.replace(/"score":[^,}]*/, ''))).toEqual(second);
});

test('keyframes that a person dragged, added or hid stay; a third run changes nothing', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 14, { convert: true });
    const own = (): SerializedTrack => bench.store.export().tracks[0];
    bench.store.draw(own().clientID!, 5, shifted('polygon', SQUARE, 40));
    bench.store.hide(own().clientID!, 9);
    const at = (frame: number): string =>
        JSON.stringify(own().shapes.find((keyframe) => keyframe.frame === frame));
    const kept = [at(2), at(5), at(9)];
    await bench.runAll(2, 14);
    expect([at(2), at(5), at(9)]).toEqual(kept);
    expect(
        bench.calls.filter(({ type }) => type === 'init_tracking').map(({ frame }) => frame),
    ).toEqual([2, 2, 5]);
    const lefts = own().shapes.map(({ frame, points, outside }) => [
        frame,
        outside ? null : Math.round(points[0]),
    ]);
    expect(lefts).toEqual([
        [2, 10], [3, 11], [4, 12], [5, 50], [6, 51], [7, 52], [8, 53], [9, null],
        [10, 55], [11, 56], [12, 57], [13, 58], [14, 59], [15, null],
    ]); // prettier-ignore
    const second = contents(bench);
    await bench.runAll(2, 14);
    expect(contents(bench)).toEqual(second);
});

test('a conversion of a part says what stays a shape', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9);
    await bench.runAll(2, 6, { convert: true });
    expect(said(bench)).toMatch(/car \d+ is a track now .* polygon shape on 3 other frames\./);
});

test('a conversion takes corrected polygons into the track', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 6);
    const drawn = shifted('polygon', SQUARE, 30);
    bench.store.draw(shapesOn(bench, 4)[0].clientID!, 4, drawn);
    await bench.runAll(2, 6, { convert: true });
    const { shapes, tracks } = bench.store.export();
    expect(shapes).toEqual([]);
    expect(tracks[0].shapes.find(({ frame }) => frame === 4)!.points).toEqual(drawn);
    expect(Math.round(tracks[0].shapes.find(({ frame }) => frame === 5)!.points[0])).toBe(41);
});

test("what changes during the run is a person's and stays", async () => {
    let bench: Bench;
    const edit = (): void => {
        const [result] = shapesOn(bench, 4);
        bench.store.draw(result.clientID!, 4, shifted('mask', MASK, 50));
        const own = bench.store.export().tracks[0];
        bench.store.draw(own.clientID!, 4, shifted('polygon', SQUARE, 50));
    };
    let runs = 0;
    bench = createBench({
        invoke: moving(),
        intercept: (call, next) => {
            if (runs === 1 && call.frame === 5) edit();
            return next();
        },
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 6, { convert: true });
    bench.store.save();
    runs = 1;
    await bench.runAll(2, 6);
    expect(shapesOn(bench, 4).map(({ points }) => points.at(-4))).toEqual([60]);
    const [own] = bench.store.export().tracks;
    expect(own.shapes.find(({ frame }) => frame === 4)!.points[0]).toBe(60);
    bench.store.save();
});

/** A bench in which `change` happens once `armed`, when frame 4 is tracked. */
function changing(change: (bench: Bench) => void): Bench & { armed: boolean } {
    const bench: Bench = createBench({
        invoke: moving(),
        intercept: (call, next) => {
            if (call.frame === 4 && armed.armed) change(bench);
            return next();
        },
    });
    const armed = Object.assign(bench, { armed: false });
    return armed;
}

test('what seems to be an earlier result and is changed during the run stays, alone', async () => {
    const bench = changing((own) =>
        own.store.draw(shapesOn(own, 5)[0].clientID!, 5, shifted('mask', MASK, 9)),
    );
    bench.answer = true;
    const older = [3, 4, 5, 6].map((frame) =>
        shape('mask', frame, shifted('mask', MASK, frame - 2), { source: 'auto' }),
    );
    bench.store.import({ shapes: [shape('mask', 2, MASK), ...older] });
    bench.armed = true;
    await bench.runAll(2, 6);
    expect(bench.asked).toHaveLength(1);
    expect(shapesOn(bench, 5).map(({ points }) => points.at(-4))).toEqual([19]);
});

test.each(['semi-auto', 'auto'])(
    'a %s polygon that changes during a conversion goes into the track as it is then',
    async (source) => {
        const drawn = shifted('polygon', SQUARE, 30);
        const bench = changing((own) => own.store.draw(shapesOn(own, 5)[0].clientID!, 5, drawn));
        bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
        await bench.runAll(2, 8);
        const points = shifted('polygon', SQUARE, 7);
        bench.store.set(shapesOn(bench, 5)[0].clientID!, { points, source });
        bench.armed = true;
        await bench.runAll(2, 8, { convert: true });
        const { shapes, tracks } = bench.store.export();
        expect(shapes).toEqual([]);
        expect(tracks[0].shapes.find(({ frame }) => frame === 5)!.points).toEqual(drawn);
    },
);

test('label, group and attributes that a person set on a result are taken over', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 6);
    const attributes = [{ spec_id: 31, value: 'red' }];
    const changed = { label_id: 1, group: 7, attributes };
    const [result] = shapesOn(bench, 4);
    bench.store.remove(result.clientID!);
    bench.store.import({ shapes: [{ ...result, ...changed }] });
    await bench.runAll(2, 6);
    expect(shapesOn(bench, 4)).toEqual([expect.objectContaining({ ...changed, source: 'auto' })]);
    expect(shapesOn(bench, 5)).toEqual([expect.objectContaining({ group: 0, attributes: [] })]);
});

test('an object that is deleted during the run gets no results', async () => {
    const bench: Bench = createBench({
        invoke: moving(),
        intercept: (call, next) => {
            if (call.frame === 5) bench.store.remove(ids[0]);
            return next();
        },
    });
    const ids = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('rectangle', 2, BOX)],
    });
    await bench.runAll(2, 6);
    expect(bench.store.export().shapes.map(({ type }) => type)).toEqual(Array(5).fill('rectangle'));
    expect(said(bench)).toContain('it was deleted during the run');
});

test('the shapes that a person drew of an object join where it is started', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('rectangle', 2, BOX)] });
    await bench.runAll(2, 12);
    const mask = (frame: number): SerializedShape =>
        shapesOn(bench, frame).find(({ type }) => type === 'mask')!;
    bench.store.draw(mask(5).clientID!, 5, shifted('mask', MASK, 20));
    bench.store.draw(mask(9).clientID!, 9, shifted('mask', MASK, 30));
    bench.calls.length = 0;
    // the correction on frame 5 stands on the seed and on the later correction, too
    await bench.runOn([mask(5).clientID!], 5, 12);
    const sent = bench.calls.map(({ type, frame, shapes }) => [
        type,
        frame,
        (shapes as ({ adopt?: unknown } | null)[] | undefined)?.map((one) => one?.adopt ?? null),
    ]);
    expect(sent.slice(0, 4)).toEqual([
        ['init_tracking', 5, [null]],
        ['init_tracking', 2, [null]],
        ['init_tracking', 9, [null]],
        [
            'track',
            5,
            [
                [
                    { index: 1, distance: -3 },
                    { index: 2, distance: 4 },
                ],
                null,
                null,
            ],
        ],
    ]);
    expect(sent.slice(4)).toEqual([
        ...[6, 7, 8].map((frame) => ['track', frame, undefined]),
        [
            'track',
            9,
            [
                [
                    { index: 1, distance: -4 },
                    { index: 2, distance: -7 },
                ],
                null,
                null,
            ],
        ],
        ...[10, 11, 12].map((frame) => ['track', frame, undefined]),
    ]);
    const joining = bench.calls[3];
    expect(joining.shapes![0]).toMatchObject({ type: 'mask', points: mask(5).points });
    expect(joining.states).toHaveLength(3);
    expect([3, 6, 10].map((frame) => shapesOn(bench, frame).length)).toEqual([2, 2, 2]);
});

test('an object whose drawings cannot join is tracked all the same, and the message says so', async () => {
    const refused = {
        shape: null,
        state: null,
        error: { code: 'bad_shape', message: 'It is bad.' },
    };
    let again = false;
    const bench = createBench({
        invoke: moving((frame) => (again && frame === 8 ? refused : null)),
    });
    const [id] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 10);
    bench.store.draw(shapesOn(bench, 8)[0].clientID!, 8, shifted('mask', MASK, 9));
    again = true;
    await bench.runAll(2, 6);
    expect(bench.store.export().shapes).toHaveLength(9);
    expect(said(bench)).toContain('Replaced 4 shapes of an earlier run.');
    expect(said(bench)).toContain(
        `Tracked without what was drawn by hand on other frames: car ${id}: It is bad.`,
    );
    expect(bench.reports.at(-1)!.kind).toBe('warning');
});

// Losing a run

test('results are committed although earlier ones cannot be looked at', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 6);
    const broken = new Proxy(shape('mask', 3, MASK), {
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
    expect(said(bench)).toContain('a broken shape');
    expect(bench.reports.at(-1)!.kind).toBe('warning');
    expect(bench.store.export().shapes).toHaveLength(9);
});

test('a run that replaces 130,000 shapes is committed', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 3);
    const [result] = shapesOn(bench, 3);
    const all = await bench.job.annotations.export();
    const many = Array.from({ length: 130_000 }, () => result);
    bench.job.annotations.export = async () => ({ ...all, shapes: [...all.shapes, ...many] });
    await bench.runAll(2, 3);
    expect(bench.outcome.deleted.shapes).toHaveLength(130_001);
});

test('a picture that cannot be used ends the run there and names the frame', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: ({ frame }, next) =>
            frame === 5
                ? { status: 400, body: '400 Client Error: Bad Request for url: http://function/' }
                : next(),
    });
    bench.store.import({ shapes: Array.from({ length: 8 }, () => shape('mask', 2, MASK)) });
    await bench.runAll(2, 9);
    expect(shapesOn(bench, 4)).toHaveLength(8);
    expect(said(bench)).toContain(
        'Stopped at frame 5: The function cannot use the picture of frame 5',
    );
    expect(said(bench)).toContain('To go on, open frame 4 and run the action again.');
    expect(said(bench)).not.toContain('Given up');
});

test('backwards, lost at the low end: frames before the run stay as they were', async () => {
    const bench = createBench({ invoke: moving((frame) => (frame <= 5 ? { shape: null } : null)) });
    bench.store.import({ tracks: [track({ 0: [0, 10, 20, 30], 9: [90, 10, 110, 30] })] });
    const position = async (frame: number): Promise<number[]> =>
        (await bench.job.annotations.get(frame, false, []))[0].points!;
    const before = await Promise.all([0, 1, 2, 3, 4].map(position));
    await bench.runAll(9, 5);
    const after = await Promise.all([0, 1, 2, 3, 4].map(position));
    after.flat().forEach((value, index) => expect(value).toBeCloseTo(before.flat()[index], 0));
    expect((await bench.job.annotations.get(5, false, []))[0].outside).toBe(true);
});

test.each([
    ['far outside the image', [1e9, 10, 1e9 + 5, 30], 'points far outside the image'],
    ['nothing inside the image', [-30, 10, -5, 30], 'a rectangle smaller than a pixel'],
])('a rectangle that is %s ends that object', async (_name, points, words) => {
    const bench = createBench({
        invoke: moving((frame) => (frame === 4 ? { shape: { type: 'rectangle', points } } : null)),
    });
    bench.store.import({ shapes: [shape('rectangle', 2, BOX)] });
    await bench.runAll(2, 6);
    expect(said(bench)).toContain(`the function answered ${words}`);
    expect(bench.store.export().shapes.map(({ frame }) => frame)).toEqual([2, 3]);
});

test('a rectangle that sticks out is cut at the border', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('rectangle', 2, [75, 10, 98, 30])] });
    await bench.runAll(2, 5);
    expect(shapesOn(bench, 5)[0].points).toEqual([78, 10, 100, 30]);
});

// Calls that hang, and a job that is closed

/** Tracks a mask to frame 6, with fake timers, and cancels after so many ms. */
async function cancelAfter(bench: Bench, ms: number): Promise<void> {
    vi.useFakeTimers();
    let cancelled = false;
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    const running = bench.runAll(2, 6, { cancelled: () => cancelled });
    await vi.advanceTimersByTimeAsync(ms);
    cancelled = true;
    await vi.advanceTimersByTimeAsync(400);
    await running;
}

test('a call that never ends can be cancelled, and is repeated after a limit', async () => {
    let hanging = 0;
    const bench = createBench({
        invoke: moving(),
        intercept: ({ frame }, next) => {
            if (frame !== 4) return next();
            hanging += 1;
            return never();
        },
    });
    await cancelAfter(bench, CALL_LIMIT_MS + 1000);
    expect(hanging).toBe(2);
    expect(bench.progress.map(({ message }) => message)).toContain(
        "CVAT's server did not answer within 130 s. Trying again in 1 s.",
    );
    expect(bench.reports[0].title).toBe('Tracking was cancelled');
    expect(bench.store.export().shapes.map(({ frame }) => frame)).toEqual([2, 3]);
});

test.each([
    ['the list of functions', never],
    ['the frames', (bench: Bench) => Object.assign(bench.job.frames, { frameNumbers: never })],
    ['a frame', (bench: Bench) => Object.assign(bench.job.frames, { get: never })],
    ['the annotations', (bench: Bench) => Object.assign(bench.job.annotations, { export: never })],
    ['the objects', (bench: Bench) => Object.assign(bench.job.annotations, { get: never })],
])('Cancel works while CVAT does not give %s', async (_what, hang) => {
    const bench = createBench({ invoke: moving() });
    bench.core.lambda.list = async () => {
        await hang(bench);
        return { models: [TRACKER], count: 1 };
    };
    await cancelAfter(bench, 1000);
    expect(said(bench)).toBe('Nothing was tracked and nothing has changed.');
    expect(bench.calls).toEqual([]);
});

test('a run that goes on in a job that was left ends when another one begins', async () => {
    vi.useFakeTimers();
    let answers = false;
    const bench = createBench({
        invoke: moving(),
        intercept: ({ frame }, next) => (frame === 4 && !answers ? never() : next()),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    const first = expect(bench.runAll(2, 9)).rejects.toThrow(/because the job was closed/);
    await vi.advanceTimersByTimeAsync(100);
    answers = true;
    const second = bench.runAll(2, 6);
    await vi.advanceTimersByTimeAsync(400);
    await first;
    await second;
    expect(bench.store.export().shapes.map(({ frame }) => frame)).toEqual([2, 3, 4, 5, 6]);
    expect(bench.reports.map(({ title }) => title)).toEqual(['Tracking is done']);
});

test('leaving the job ends the run, and says that nothing is left of it', async () => {
    vi.useFakeTimers();
    const bench = createBench({
        invoke: moving(),
        intercept: ({ frame }, next) => (frame === 5 ? never() : next()),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    const running = expect(bench.runAll(2, 9)).rejects.toThrow(
        /stopped because the job was closed, and nothing of it is left/,
    );
    await vi.advanceTimersByTimeAsync(1000);
    bench.open = false;
    await vi.advanceTimersByTimeAsync(400);
    await running;
    expect(bench.calls).toHaveLength(4);
    expect(bench.reports).toEqual([]);
    expect(bench.store.undoSteps).toBe(0);
});

test.each([
    ['mask', MASK],
    ['polygon', SQUARE],
])('a run whose first result is a %s ends with a message', async (type, points) => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape(type, 2, points)] });
    await bench.runAll(2, 5);
    expect(bench.reports.map(({ title }) => title)).toEqual(['Tracking is done']);
});

test('results that CVAT does not show again end with a warning', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
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
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    bench.store.commit = () => {
        throw new Error('Session has not been initialized yet');
    };
    await expect(bench.runAll(2, 5)).rejects.toThrow('Session has not been initialized yet');
    expect(bench.reports.map(({ title }) => title)).toEqual(['The results were not added']);
});

// The dialog

test('a target in the other direction is refused until the switch says so', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 14, MASK)] });
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
    expect(said(bench)).toContain('1 object tracked over 4 frames (backwards, 13 to 10).');
});

test.each([['a track'], ['a polygon that became one']])(
    'cancelled and run again in the still open dialog: %s',
    async (name) => {
        let cancelled = false;
        let runs = 0;
        const bench = createBench({
            invoke: moving(),
            intercept: (call, next) => {
                cancelled = runs === 0 && call.frame === 4;
                return next();
            },
        });
        const [id] = bench.store.import(
            name === 'a track'
                ? { tracks: [track({ 2: SQUARE })] }
                : { shapes: [shape('polygon', 2, SQUARE)] },
        );
        // the dialog holds the state that it was opened for
        const [state] = await bench.job.annotations.get(2, false, []);
        const run = (): Promise<void> =>
            bench.runHeld([state], 2, 6, { convert: true, cancelled: () => cancelled });
        await run();
        runs = 1;
        cancelled = false;
        await run();
        expect(bench.store.export().tracks).toHaveLength(1);
        expect(bench.store.export().shapes).toEqual([]);
        const [own] = bench.store.export().tracks;
        expect(own.clientID).not.toBe(id);
        expect(own.shapes.map(({ frame }) => frame)).toEqual([2, 3, 4, 5, 6, 7]);
    },
);

test.each(['Choosing keyframes', 'Adding the results'])(
    'CVAT shows the results although Cancel was pressed at "%s"',
    async (step) => {
        const bench = createBench({ invoke: moving() });
        bench.kept = '{"sparse":0.97}';
        bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
        const cancelled = (): boolean =>
            bench.progress.some(({ message }) => message.includes(step));
        await bench.runAll(2, 9, { convert: true, cancelled });
        expect(bench.store.undoSteps).toBe(1);
        expect(bench.refreshed).toEqual([2]);
    },
);

test('cancelled before the first frame: no word of Undo', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: () => ({ status: 503, body: '503 Server Error' }),
    });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9, { cancelled: () => bench.slept.length >= 3 });
    expect(bench.reports).toEqual([
        {
            kind: 'info',
            title: 'Tracking was cancelled',
            lines: ['Nothing was tracked and nothing has changed.'],
            jumps: [],
        },
    ]);
});

test('a single object that is locked says so when the action is run on it', async () => {
    const bench = createBench({ invoke: moving() });
    const [id] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    bench.store.set(id, { lock: true });
    await expect(bench.runOn([id], 2, 6)).rejects.toThrow(`(car ${id}: it is locked)`);
});

// The message

test('the message names objects as the page names them on that frame, worst first', async () => {
    const scores: Record<number, number> = { 4: 0.6, 10: 0.2, 11: 0.3, 17: 0.4, 19: 0.79 };
    const bench = createBench({
        invoke: moving((frame, { type }) => ({
            score: type === 'polygon' ? (scores[frame] ?? 0.9) : 0.95,
        })),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 20, { convert: true });
    const [own] = bench.store.export().tracks;
    expect(bench.reports[0].jumps).toEqual([
        { frame: 10, text: `Frame 10: car ${own.clientID}, confidence 0.20` },
        { frame: 17, text: `Frame 17: car ${own.clientID}, confidence 0.40` },
        { frame: 4, text: `Frame 4: car ${own.clientID}, confidence 0.60` },
    ]);
    expect(said(bench)).not.toContain('undefined');
});

test('to go on, the message names frames on which the objects are visible', async () => {
    const bench = createBench({
        invoke: moving((frame, { type }) =>
            frame >= (type === 'mask' ? 5 : 7) ? { shape: null } : null,
        ),
        intercept: (call, next) => (call.frame === 8 ? { status: 401, body: {} } : next()),
    });
    const [mask] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 12);
    expect(said(bench)).toContain('To go on, open frame 4 and run the action again.');
    const [box] = bench.store.import({ shapes: [shape('rectangle', 2, BOX)] });
    await bench.runAll(2, 12);
    expect(said(bench)).toContain(
        `To go on, run the action again from frame 4 for car ${mask}, from frame 6 for car ${box}.`,
    );
});

test('a first frame of another size is named, with what to do', async () => {
    const frames = [...framesFrom(0, 2), ...framesFrom(3, 8, { width: 64, height: 64 })];
    const bench = createBench({ frames, invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await expect(bench.runAll(2, 8)).rejects.toThrow(
        'Nothing was tracked. Stopped at frame 3: The picture is 64x64 here, and 100x80 before. ' +
            'To go on, open frame 3, draw the objects there and run the action from it.',
    );
});

test('objects of other types are left alone, with the reason', async () => {
    const bench = createBench({ invoke: moving() });
    const [, ellipse] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('ellipse', 2, [10, 10, 30, 5])],
    });
    await bench.runAll(2, 4);
    expect(said(bench)).toContain(`Left alone: car ${ellipse} (it is of the type ellipse;`);
});

test('a call that takes too long for one object is no matter of how many there are', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: (call, next) =>
            call.frame === 5 ? { status: 504, body: '<html>504</html>' } : next(),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('mask', 2, MASK)] });
    await bench.runAll(2, 8);
    expect(said(bench)).toContain('One call took too long (504), even for one object.');
    expect(said(bench)).not.toContain('fewer');
});

test('no text that an annotator reads speaks of docker, and every sentence ends', async () => {
    for (const status of [400, 404, 408, 410, 413, 429, 500, 502, 503, 504]) {
        const bench = createBench({
            invoke: moving(),
            intercept: () => ({ status, body: `${status} Error for url: http://x` }),
        });
        bench.store.import({ shapes: [shape('mask', 2, MASK)] });
        const error = await bench.runAll(2, 4).then(
            () => new Error('it ran'),
            (raised: Error) => raised,
        );
        expect(error.message).not.toMatch(/docker|nuctl|kubectl|Redis/i);
        expect(error.message).toMatch(/^Nothing was tracked\. .*\.$|^[A-Z].*\.$/);
        for (const { message } of bench.progress) {
            if (message.includes('Trying')) expect(message).toMatch(/\. Trying again in \d+ s\.$/);
        }
    }
});

test('after the last frame the progress says what is done', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 5);
    expect(bench.progress.at(-1)).toEqual({
        message: 'Every frame is tracked. Adding the results to the page',
        percent: 99,
    });
});
