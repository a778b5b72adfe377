// SPDX-License-Identifier: MIT
// What the run does when calls fail, are slow, or are cancelled.

import { expect, test } from 'vitest';
import { shape } from '../standin/core';
import { HttpAnswer } from '../standin/server';
import { Call, createBench, framesFrom, moving, shifted } from './bench';

const SQUARE = [10, 10, 20, 10, 20, 20, 10, 20];
const MASK = [0, 4, 30, 30, 31, 31];
const HTML_500 = '<!doctype html><html lang="en"><body><h1>Server Error (500)</h1></body></html>';

function failing(times: number, when: (call: Call) => boolean, answer: HttpAnswer) {
    let left = times;
    return async (call: Call, next: () => Promise<HttpAnswer>): Promise<HttpAnswer> => {
        if (!when(call) || left === 0) return next();
        left -= 1;
        return answer;
    };
}

function framesOf(bench: ReturnType<typeof createBench>): number[] {
    return bench.store
        .export()
        .shapes.map(({ frame }) => frame)
        .sort((a, b) => a - b);
}

test.each([
    [
        '503',
        { status: 503, body: '503 Server Error: Service Unavailable for url: http://function/' },
    ],
    ['an HTML 500', { status: 500, body: HTML_500 }],
    [
        "the function's own 500",
        { status: 500, body: '500 Server Error: Internal Server Error for url: http://function/' },
    ],
    ['502', { status: 502, body: '<html><h1>502 Bad Gateway</h1></html>' }],
])('%s is repeated with growing waits', async (_name, answer) => {
    const bench = createBench({
        invoke: moving(),
        intercept: failing(3, ({ frame }) => frame === 4, answer),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 5);
    expect(framesOf(bench)).toEqual([2, 3, 4, 5]);
    expect(bench.slept.reduce((sum, value) => sum + value, 0)).toBe(1000 + 2000 + 4000 + 150);
    expect(bench.reports[0].kind).toBe('success');
    expect(bench.progress.some(({ message }) => message.includes('Trying again in 4 s'))).toBe(
        true,
    );
});

test('an unreachable server is waited for, then what is done is kept', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: async ({ frame }, next) => {
            if (frame >= 5) throw new Error('Network Error');
            return next();
        },
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9, { convert: true });
    expect(framesOf(bench)).toEqual([2, 3, 4]);
    const [track] = bench.store.export().tracks;
    expect(track.shapes.map(({ frame, outside }) => [frame, outside])).toEqual([
        [2, false],
        [3, false],
        [4, false],
        [5, true],
    ]);
    const [report] = bench.reports;
    expect(report.kind).toBe('warning');
    expect(report.lines).toContain(
        "Stopped at frame 5: CVAT's server did not answer (Network Error).",
    );
    expect(report.lines).toContain('To go on, open frame 4 and run the action again.');
    expect(bench.slept.reduce((sum, value) => sum + value, 0)).toBe(31_150);
    expect(bench.store.undoSteps).toBe(1);
});

test.each([
    [
        403,
        { detail: 'You do not have permission' },
        /You may not call this function \(403\).*permission/,
    ],
    [401, { detail: 'Authentication credentials were not provided.' }, /logged out/],
    [404, '404 Client Error: Not Found for url: x', /not deployed any more/],
    [
        400,
        '400 Client Error: Bad Request for url: http://function/',
        /^Nothing was tracked. car \d+: the function refused it \(400\).*log of the function pth-facebookresearch-sam2-tracker/,
    ],
    [
        400,
        'The frame is outside the job range',
        /CVAT refused the request \(400\): The frame is outside/,
    ],
    [413, '413 Client Error', /the function refused it \(413\)/],
    [200, { shapes: [] }, /not the one of a tracker/],
])('%i is explained; before anything is tracked nothing changes', async (status, body, words) => {
    const bench = createBench({ invoke: moving(), intercept: () => ({ status, body }) });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await expect(bench.runAll(2, 9)).rejects.toThrow(words);
    expect(framesOf(bench)).toEqual([2]);
    expect(bench.store.undoSteps).toBe(0);
    expect(bench.reports).toEqual([]);
    expect(bench.slept).toEqual([]);
});

test.each([
    [
        500,
        '500 Server Error: Internal Server Error for url: http://function/',
        /The function failed \(500\).*administrator/,
    ],
    [504, '<html><head><title>504 Gateway Time-out</title></head></html>', /took too long \(504\)/],
])('%i is repeated for half a minute before it is given up', async (status, body, words) => {
    const bench = createBench({ invoke: moving(), intercept: () => ({ status, body }) });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await expect(bench.runAll(2, 9)).rejects.toThrow(words);
    expect(bench.calls).toHaveLength(6);
    expect(bench.slept.reduce((sum, value) => sum + value, 0)).toBe(31_000);
});

function sizesOf(bench: ReturnType<typeof createBench>): [number, number][] {
    return bench.calls.map(({ frame, states, shapes }) => [frame, (states ?? shapes)!.length]);
}

test.each([
    // more again where a call was quick, but never what was refused for its size
    [
        408,
        [
            [2, 5],
            [3, 5],
            [3, 2],
            [3, 3],
            [3, 1],
            [3, 2],
            [4, 4],
            [4, 2],
            [4, 3],
            [4, 1],
            [4, 2],
        ],
    ],
    [
        413,
        [
            [2, 5],
            [3, 5],
            [3, 2],
            [3, 2],
            [3, 1],
            [4, 2],
            [4, 2],
            [4, 1],
        ],
    ],
])('%i: half the objects per call', async (status, sizes) => {
    const bench = createBench({
        invoke: moving(),
        intercept: (call, next) =>
            (call.states ?? []).length > 2 ? { status, body: `${status} Client Error` } : next(),
    });
    bench.store.import({ shapes: Array.from({ length: 5 }, () => shape('mask', 2, MASK)) });
    await bench.runAll(2, 4);
    expect(sizesOf(bench)).toEqual(sizes);
    expect(framesOf(bench)).toEqual([2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]);
});

test('an object that is refused even alone is given up, the others go on', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: ({ shapes }, next) =>
            shapes?.some(({ points }) => points[0] === 99)
                ? { status: 400, body: '400 Client Error: Bad Request for url: http://function/' }
                : next(),
    });
    const [, bad] = bench.store.import({
        shapes: [
            shape('polygon', 2, SQUARE),
            shape('polygon', 2, [99, ...SQUARE.slice(1)]),
            shape('polygon', 2, SQUARE),
        ],
    });
    await bench.runAll(2, 4);
    expect(framesOf(bench)).toEqual([2, 2, 2, 3, 3, 4, 4]);
    expect(bench.reports[0].lines.join('\n')).toContain(
        `Given up: car ${bad} at frame 2: the function refused it (400)`,
    );
});

test('a call near the time budget halves the next ones', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: (call, next) => {
            bench.clock.now += 10_000 * (call.states ?? []).length;
            return next();
        },
    });
    bench.store.import({ shapes: Array.from({ length: 4 }, () => shape('mask', 2, MASK)) });
    await bench.runAll(2, 4);
    expect(sizesOf(bench)).toEqual([
        [2, 4],
        [3, 4],
        [4, 2],
        [4, 2],
    ]);
});

test('one object that fails does not stop the others', async () => {
    const bench = createBench({
        invoke: moving((frame, { type }) =>
            type === 'polygon' && frame === 2
                ? {
                      shape: null,
                      state: null,
                      error: { code: 'empty_shape', message: 'the polygon covers no pixel' },
                  }
                : null,
        ),
    });
    const [mask, polygon] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)],
    });
    await bench.runAll(2, 4, { convert: true });
    expect(framesOf(bench)).toEqual([2, 2, 3, 4]); // the polygon stays a shape
    expect(bench.calls[1].states).toHaveLength(1);
    expect(bench.reports[0].lines).toContain(
        `Given up: car ${polygon} at frame 2: the polygon covers no pixel.`,
    );
    expect(bench.reports[0].kind).toBe('warning');
    expect(mask).not.toBe(polygon);
});

test('a state that is gone is started again from its last good frame', async () => {
    let lost = true;
    const bench = createBench({
        invoke: moving((frame, { type, at }) => {
            if (type === 'mask' && frame === 5 && at === 2 && lost) {
                lost = false;
                return {
                    shape: null,
                    state: null,
                    error: { code: 'state_gone', message: 'unknown' },
                };
            }
            return null;
        }),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 6);
    expect(
        bench.calls.map(({ type, frame, states, shapes }) => [
            type,
            frame,
            (states ?? shapes)!.length,
        ]),
    ).toEqual([
        ['init_tracking', 2, 2],
        ['track', 3, 2],
        ['track', 4, 2],
        ['track', 5, 2],
        ['init_tracking', 4, 1],
        ['track', 5, 1],
        ['track', 6, 2],
    ]);
    expect(bench.calls[4].shapes).toEqual([{ type: 'mask', points: shifted('mask', MASK, 2) }]);
    expect(
        bench.store
            .export()
            .shapes.filter(({ type }) => type === 'mask')
            .map(({ frame, points }) => [frame, points[points.length - 4]]),
    ).toEqual([
        [2, 30],
        [3, 31],
        [4, 32],
        [5, 33],
        [6, 34],
    ]);
    expect(bench.reports[0].kind).toBe('success');
});

test('a state that stays gone ends that object, and says where', async () => {
    const bench = createBench({
        invoke: moving((frame, { type }) =>
            type === 'mask' && frame >= 5
                ? {
                      shape: null,
                      state: null,
                      error: { code: 'state_gone', message: 'unknown state' },
                  }
                : null,
        ),
    });
    const [mask] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)],
    });
    await bench.runAll(2, 7);
    expect(
        bench.store
            .export()
            .shapes.filter(({ type }) => type === 'mask')
            .map(({ frame }) => frame),
    ).toEqual([2, 3, 4]);
    expect(bench.store.export().shapes.filter(({ type }) => type === 'polygon')).toHaveLength(6);
    expect(bench.reports[0].lines).toContain(`Given up: car ${mask} at frame 5: unknown state.`);
});

test.each([
    ['400', { status: 400, body: 'Invalid or expired tracker state' }],
    ['410', { status: 410, body: '410 Client Error: Gone for url: http://function/' }],
])('%s: all objects are started again', async (_name, answer) => {
    const bench = createBench({
        invoke: moving(),
        intercept: failing(1, ({ type, frame }) => type === 'track' && frame === 5, answer),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 6);
    expect(bench.calls.map(({ type, frame }) => [type, frame])).toEqual([
        ['init_tracking', 2],
        ['track', 3],
        ['track', 4],
        ['track', 5],
        ['init_tracking', 4],
        ['track', 5],
        ['track', 6],
    ]);
    expect(framesOf(bench)).toEqual([2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
});

test('states that are refused again and again end the run with what is done', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: failing(99, ({ type, frame }) => type === 'track' && frame >= 5, {
            status: 400,
            body: 'Invalid or expired tracker state',
        }),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 8);
    expect(framesOf(bench)).toEqual([2, 3, 4]);
    expect(bench.calls.length).toBeLessThan(8);
    expect(bench.reports[0].lines).toContain(
        'Stopped at frame 5: The tracker states have expired (400).',
    );
});

test('a signed null is no state', async () => {
    const bench = createBench({
        invoke: moving((_frame, { type }) =>
            type === 'mask' ? { shape: null, state: null } : null,
        ),
    });
    const [mask] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)],
    });
    await bench.runAll(2, 4);
    expect(bench.calls[1].states).toHaveLength(1);
    expect(bench.reports[0].lines).toContain(
        `Given up: car ${mask} at frame 2: the function did not take it.`,
    );
});

test.each([
    ['another type', { type: 'polygon', points: SQUARE }, 'a polygon instead of a mask'],
    [
        'no numbers',
        { type: 'mask', points: [0, 4, 'a', 1, 1, 1] },
        'points that are not all numbers',
    ],
    ['nothing', { type: 'mask', points: [1, 0, 0, 0, 0] }, 'a malformed mask'],
    [
        'wrong runs',
        { type: 'mask', points: [0, 5, 30, 30, 31, 31] },
        'a mask whose runs do not fit its box',
    ],
    [
        'outside the image',
        { type: 'mask', points: [0, 4, 99, 30, 100, 31] },
        'a mask that does not fit the image',
    ],
    ['no points', { type: 'mask' }, 'points that are not all numbers'],
])(
    'an answer that CVAT would choke on (%s) ends that object only',
    async (_name, answered, words) => {
        const bench = createBench({
            invoke: moving((frame, { type }) =>
                type === 'mask' && frame === 4 ? { shape: answered } : null,
            ),
        });
        bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
        await bench.runAll(2, 5);
        expect(framesOf(bench)).toEqual([2, 2, 3, 3, 4, 5]);
        expect(bench.reports[0].lines.join('\n')).toContain(`the function answered ${words}`);
    },
);

test('cancelling keeps what is done, closes tracks there, and draws the frame again', async () => {
    let cancelled = false;
    const bench = createBench({
        invoke: moving(),
        intercept: (call, next) => {
            cancelled = call.frame === 4; // clicked while frame 4 is on its way
            return next();
        },
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9, { convert: true, cancelled: () => cancelled });
    expect(framesOf(bench)).toEqual([2, 3, 4]);
    expect(
        bench.store.export().tracks[0].shapes.map(({ frame, outside }) => [frame, outside]),
    ).toEqual([
        [2, false],
        [3, false],
        [4, false],
        [5, true],
    ]);
    expect(bench.calls.at(-1)!.frame).toBe(4);
    expect(bench.refreshed).toEqual([2]);
    expect(bench.reports[0].title).toBe('Tracking was cancelled');
    expect(bench.store.undoSteps).toBe(1);
});

test('cancelling during a wait ends at once; before the first frame it changes nothing', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: () => ({ status: 503, body: '503 Server Error' }),
    });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9, { convert: true, cancelled: () => bench.slept.length >= 3 });
    expect(bench.calls).toHaveLength(1);
    expect(bench.store.export()).toMatchObject({ shapes: [{ frame: 2 }], tracks: [] });
    expect(bench.reports[0].title).toBe('Tracking was cancelled');
});

test('a frame of another size ends the run before it is sent', async () => {
    const frames = [...framesFrom(0, 4), ...framesFrom(5, 8, { width: 64, height: 64 })];
    const bench = createBench({ frames, invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 8);
    expect(framesOf(bench)).toEqual([2, 3, 4]);
    expect(bench.calls.at(-1)!.frame).toBe(4);
    expect(bench.reports[0].lines).toContain(
        'Stopped at frame 5: The picture is 64x64 here, and 100x80 before.',
    );
    expect(bench.reports[0].lines).toContain(
        'To go on, open frame 5, draw the objects there and run the action from it.',
    );
});

test('a frame counts when every object was answered: the run can go on from there', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: (call, next) => {
            if ((call.states ?? []).length > 1) return { status: 413, body: '413' };
            return call.frame === 5 && bench.calls.filter(({ frame }) => frame === 5).length > 1
                ? { status: 401, body: {} }
                : next();
        },
    });
    bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('mask', 2, shifted('mask', MASK, 20))],
    });
    await bench.runAll(2, 6);
    expect(framesOf(bench)).toEqual([2, 2, 3, 3, 4, 4]);
    expect(bench.reports[0].lines).toContain('To go on, open frame 4 and run the action again.');
});
