// SPDX-License-Identifier: MIT
// What the run does when calls fail, and with answers that are not what they should be.

import { expect, test } from 'vitest';
import { box, Call, createBench, framesFrom, MASK, mask, moving, polygon } from './bench';
import { Bench, shifted, SQUARE, Surroundings, timelineOf, tracked } from './bench';
import { HttpAnswer } from '../standin/server';

type Intercept = Surroundings['intercept'];

const FAILED = '500 Server Error: Internal Server Error for url: http://function/';
const REFUSED = { status: 400, body: '400 Client Error: Bad Request for url: http://function/' };
const GATEWAY = '<html><head><title>504 Gateway Time-out</title></head></html>';

function failing(times: number, when: (call: Call) => boolean, answer: HttpAnswer): Intercept {
    let left = times;
    return (call, next) => {
        if (!when(call) || left === 0) return next();
        left -= 1;
        return answer;
    };
}

const waited = ({ slept }: Bench): number => slept.reduce((sum, value) => sum + value, 0);
/** Frame and number of objects of each call; `start` for one that starts them. */
const callsOf = ({ calls }: Bench): string =>
    calls
        .map(({ type, frame, states, shapes }) => {
            const start = type === 'init_tracking' ? 'start ' : '';
            return `${start}${frame}:${(states ?? shapes)!.length}`;
        })
        .join(', ');

test.each([
    ['503', 503, '503 Server Error: Service Unavailable for url: http://function/'],
    ['an HTML 500', 500, '<!doctype html><html lang="en"><body><h1>Server Error (500)</h1></body>'],
    ["the function's own 500", 500, FAILED],
    ['502', 502, '<html><h1>502 Bad Gateway</h1></html>'],
])('%s is repeated with growing waits', async (_name, status, body) => {
    const intercept = failing(3, ({ frame }) => frame === 4, { status, body });
    const { bench } = await tracked(mask(2), 5, { intercept });
    expect(bench.frames()).toEqual([2, 3, 4, 5]);
    expect(waited(bench)).toBe(1000 + 2000 + 4000 + 150);
    expect(bench.reports[0].kind).toBe('success');
    expect(bench.progress.map(({ message }) => message).join()).toContain('Trying again in 4 s');
});

test('an unreachable server is waited for, then what is done is kept', async () => {
    const bench = createBench({
        intercept: async ({ frame }, next) => {
            if (frame >= 5) throw new Error('Network Error');
            return next();
        },
    });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 9, { convert: true });
    expect(bench.frames()).toEqual([2, 3, 4]);
    expect(timelineOf(bench.track())).toBe('2 3 4 5-');
    expect(bench.reports[0].kind).toBe('warning');
    expect(bench.reports[0].lines).toContain(
        "Stopped at frame 5: CVAT's server did not answer (Network Error).",
    );
    expect(bench.reports[0].lines).toContain('To go on, open frame 4 and run the action again.');
    expect(waited(bench)).toBe(31_150);
    expect(bench.store.undoSteps).toBe(1);
});

test.each([
    [403, { detail: 'You do not have permission' }, /You may not call this .*\(403\).*permission/],
    [401, { detail: 'Authentication credentials were not provided.' }, /logged out/],
    [404, '404 Client Error: Not Found for url: x', /not deployed any more/],
    [
        400,
        REFUSED.body,
        /^Nothing was tracked. car \d+: the function refused it \(400\).*log of the function pth-facebookresearch-sam2-tracker/,
    ],
    [400, 'The frame is outside the job range', /CVAT refused the request \(400\): The frame is/],
    [413, '413 Client Error', /the function refused it \(413\)/],
    [200, { shapes: [] }, /not the one of a tracker/],
])('%i is explained; before anything is tracked nothing changes', async (status, body, words) => {
    const bench = createBench({ intercept: () => ({ status, body }) });
    bench.add(mask(2));
    await expect(bench.runAll(2, 9)).rejects.toThrow(words);
    expect(bench.frames()).toEqual([2]);
    expect([bench.store.undoSteps, bench.reports, bench.slept]).toEqual([0, [], []]);
});

test.each([
    [500, FAILED, /The function failed \(500\).*administrator/, 6, 31_000],
    [504, GATEWAY, /took too long \(504\)/, 2, 1000], // each took a minute
])('%i is repeated before it is given up', async (status, body, words, calls, ms) => {
    const bench = createBench({
        intercept: () => {
            if (status === 504) bench.clock.now += 60_000;
            return { status, body };
        },
    });
    const [id] = bench.add(mask(2));
    await bench.runOn([id], 2, 9);
    expect(bench.calls).toHaveLength(calls);
    expect(waited(bench)).toBe(ms);
    // CVAT shows an error for five seconds: whoever has waited may not look any more
    expect(bench.reports).toMatchObject([{ kind: 'warning', title: 'Tracking failed' }]);
    expect(bench.said()).toMatch(words);
    expect(bench.said()).toContain('Nothing has changed.');
    expect(bench.store.undoSteps).toBe(0);
    expect(bench.closed).toBe(false);
});

test('waiting for the function takes its time, however seldom a browser calls', async () => {
    const bench = createBench({
        intercept: () => ({ status: 503, body: 'away' }),
        lateness: 60_000, // a hidden tab: a timer comes a minute late
    });
    bench.add(mask(2));
    await bench.runAll(2, 7);
    expect(bench.said()).toContain('cannot be reached');
    expect(bench.slept.length).toBeLessThan(10);
});

// How much is asked at once

test.each([
    // more again where a call was quick, but never what was refused for its size
    [408, 'start 2:5, 3:5, 3:2, 3:3, 3:1, 3:2, 4:4, 4:2, 4:3, 4:1, 4:2'],
    [413, 'start 2:5, 3:5, 3:2, 3:2, 3:1, 4:2, 4:2, 4:1'],
])('%i: half the objects per call', async (status, sizes) => {
    const bench = createBench({
        intercept: (call, next) =>
            (call.states ?? []).length > 2 ? { status, body: `${status} Client Error` } : next(),
    });
    bench.add(...Array.from({ length: 5 }, () => mask(2)));
    await bench.runAll(2, 4);
    expect(callsOf(bench)).toBe(sizes);
    expect(bench.frames()).toEqual([2, 3, 4].flatMap((frame) => Array(5).fill(frame)));
});

test('a call near the time budget halves the next ones', async () => {
    const bench: Bench = createBench({
        intercept: (call, next) => {
            bench.clock.now += 10_000 * (call.states ?? []).length;
            return next();
        },
    });
    bench.add(...Array.from({ length: 4 }, () => mask(2)));
    await bench.runAll(2, 4);
    expect(callsOf(bench)).toBe('start 2:4, 3:4, 4:2, 4:2');
});

test('the message for a call that is too slow for one object does not advise fewer objects', async () => {
    const bench = createBench({
        intercept: ({ frame }, next) => (frame === 5 ? { status: 504, body: GATEWAY } : next()),
    });
    bench.add(mask(2), mask(2));
    await bench.runAll(2, 8);
    expect(bench.said()).toContain('One call took too long (504), even for one object.');
    expect(bench.said()).not.toContain('fewer');
});

// An object, or a picture, that is refused

test('an object that is refused even alone is given up, the others go on', async () => {
    const bench = createBench({
        intercept: ({ shapes }, next) =>
            shapes?.some(({ points }) => points[0] === 99) ? REFUSED : next(),
    });
    const [, bad] = bench.add(
        polygon(2),
        { ...polygon(2), points: [99, ...SQUARE.slice(1)] },
        polygon(2),
    );
    await bench.runAll(2, 4);
    expect(bench.frames()).toEqual([2, 2, 2, 3, 3, 4, 4]);
    expect(bench.said()).toContain(
        `Given up: car ${bad} at frame 2: the function refused it (400)`,
    );
});

test.each([
    [
        'that fails',
        {
            shape: null,
            state: null,
            error: { code: 'empty_shape', message: 'the polygon covers no pixel' },
        },
        'the polygon covers no pixel',
    ],
    // a signed null is no state
    ['without a state', { shape: null, state: null }, 'the function did not take it'],
])('one object %s does not stop the others', async (_what, answer, words) => {
    const bench = createBench({
        invoke: moving((frame, { type }) => (type === 'polygon' && frame === 2 ? answer : null)),
    });
    const [, id] = bench.add(mask(2), polygon(2));
    await bench.runAll(2, 4, { convert: true });
    expect(bench.frames()).toEqual([2, 2, 3, 4]); // the polygon stays a shape
    expect(bench.calls[1].states).toHaveLength(1);
    expect(bench.reports[0].lines).toContain(`Given up: car ${id} at frame 2: ${words}.`);
    expect(bench.reports[0].kind).toBe('warning');
});

test('a picture that cannot be used ends the run there and names the frame', async () => {
    const bench = createBench({ intercept: ({ frame }, next) => (frame === 5 ? REFUSED : next()) });
    bench.add(...Array.from({ length: 8 }, () => mask(2)));
    await bench.runAll(2, 9);
    expect(bench.on(4)).toHaveLength(8);
    expect(bench.said()).toContain(
        'Stopped at frame 5: The function cannot use the picture of frame 5',
    );
    expect(bench.said()).toContain('To go on, open frame 4 and run the action again.');
    expect(bench.said()).not.toContain('Given up');
});

test('a frame of another size ends the run before it is sent', async () => {
    const frames = [...framesFrom(0, 4), ...framesFrom(5, 8, { width: 64, height: 64 })];
    const { bench } = await tracked(mask(2), 8, { frames });
    expect(bench.frames()).toEqual([2, 3, 4]);
    expect(bench.calls.at(-1)!.frame).toBe(4);
    const stopped = 'Stopped at frame 5: The picture is 64x64 here, and 100x80 before.';
    const advice = 'To go on, open frame 5, draw the objects there and run the action from it.';
    expect(bench.reports[0].lines).toEqual(expect.arrayContaining([stopped, advice]));
    await expect(bench.runAll(4, 8)).rejects.toThrow(`Nothing was tracked. ${stopped} ${advice}`);
});

test('a frame counts when every object was answered: the run can go on from there', async () => {
    const bench: Bench = createBench({
        intercept: (call, next) => {
            if ((call.states ?? []).length > 1) return { status: 413, body: '413' };
            return call.frame === 5 && bench.calls.filter(({ frame }) => frame === 5).length > 1
                ? { status: 401, body: {} }
                : next();
        },
    });
    bench.add(mask(2), mask(2, 20));
    await bench.runAll(2, 6);
    expect(bench.frames()).toEqual([2, 2, 3, 3, 4, 4]);
    expect(bench.said()).toContain('To go on, open frame 4 and run the action again.');
});

// States that are gone

const GONE = { shape: null, state: null, error: { code: 'state_gone', message: 'unknown state' } };

test('a state that is gone is started again from its last good frame', async () => {
    let lost = true;
    const bench = createBench({
        invoke: moving((frame, { type, at }) => {
            if (type !== 'mask' || frame !== 5 || at !== 2 || !lost) return null;
            lost = false;
            return GONE;
        }),
    });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 6);
    expect(callsOf(bench)).toBe('start 2:2, 3:2, 4:2, 5:2, start 4:1, 5:1, 6:2');
    expect(bench.calls[4].shapes).toEqual([{ type: 'mask', points: shifted('mask', MASK, 2) }]);
    const masks = bench.shapes().filter(({ type }) => type === 'mask');
    expect(masks.map(({ frame, points }) => [frame, points.at(-4)])).toEqual(
        [2, 3, 4, 5, 6].map((frame) => [frame, 8 + frame]),
    );
    expect(bench.reports[0].kind).toBe('success');
});

test('a state that stays gone ends that object, and says where', async () => {
    const bench = createBench({
        invoke: moving((frame, { type }) => (type === 'mask' && frame >= 5 ? GONE : null)),
    });
    const [id] = bench.add(mask(2), polygon(2));
    await bench.runAll(2, 7);
    expect(bench.frames()).toEqual([2, 2, 3, 3, 4, 4, 5, 6, 7]);
    expect(bench.reports[0].lines).toContain(`Given up: car ${id} at frame 5: unknown state.`);
});

test.each([
    [400, 'Invalid or expired tracker state'],
    [410, '410 Client Error: Gone for url: http://function/'],
])('%i: all objects are started again', async (status, body) => {
    const fifth = ({ type, frame }: Call): boolean => type === 'track' && frame === 5;
    const bench = createBench({ intercept: failing(1, fifth, { status, body }) });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 6);
    expect(callsOf(bench)).toBe('start 2:2, 3:2, 4:2, 5:2, start 4:2, 5:2, 6:2');
    expect(bench.frames()).toEqual([2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
});

test('states that are refused again and again end the run with what is done', async () => {
    const late = ({ type, frame }: Call): boolean => type === 'track' && frame >= 5;
    const body = 'Invalid or expired tracker state';
    const intercept = failing(99, late, { status: 400, body });
    const { bench } = await tracked(mask(2), 8, { intercept });
    expect(bench.frames()).toEqual([2, 3, 4]);
    expect(bench.calls.length).toBeLessThan(8);
    expect(bench.reports[0].lines).toContain(
        'Stopped at frame 5: The tracker states have expired (400).',
    );
});

// Answers that CVAT would choke on

test.each([
    ['another type', { type: 'polygon', points: SQUARE }, 'a polygon instead of a mask'],
    ['a text', { type: 'mask', points: [0, 4, 'a', 1, 1, 1] }, 'points that are not all numbers'],
    ['nothing', { type: 'mask', points: [1, 0, 0, 0, 0] }, 'a malformed mask'],
    [
        'wrong runs',
        { type: 'mask', points: [0, 5, 30, 30, 31, 31] },
        'a mask whose runs do not fit its box',
    ],
    [
        'a mask outside the image',
        { type: 'mask', points: [0, 4, 99, 30, 100, 31] },
        'a mask that does not fit the image',
    ],
    ['no points', { type: 'mask' }, 'points that are not all numbers'],
    [
        'a rectangle far away',
        { type: 'rectangle', points: [1e9, 10, 1e9 + 5, 30] },
        'points far outside the image',
    ],
    [
        'a rectangle beside the image',
        { type: 'rectangle', points: [-30, 10, -5, 30] },
        'a rectangle smaller than a pixel',
    ],
])('an answer with %s ends that object only', async (_name, answered, words) => {
    const asked = answered.type === 'rectangle' ? 'rectangle' : 'mask';
    const bench = createBench({
        invoke: moving((frame, { type }) =>
            type === asked && frame === 4 ? { shape: answered } : null,
        ),
    });
    bench.add(asked === 'mask' ? mask(2) : box(2), polygon(2));
    await bench.runAll(2, 5);
    expect(bench.frames()).toEqual([2, 2, 3, 3, 4, 5]);
    expect(bench.said()).toContain(`the function answered ${words}`);
});
