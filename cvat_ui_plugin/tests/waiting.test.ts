// SPDX-License-Identifier: MIT
// Cancel, calls that hang, and a job that is closed: every wait ends.

import { afterEach, expect, test, vi } from 'vitest';
import { CALL_LIMIT_MS } from '../src/ts/caller';
import { within } from '../src/ts/waiting';
import { Bench, createBench, framesFrom, mask, polygon, timelineOf, tracked } from './bench';

const TRACKER = { id: 'sam2', name: 'Segment Anything 2: Tracker', kind: 'tracker' };

function never(): Promise<never> {
    return new Promise(() => {});
}

afterEach(() => {
    vi.useRealTimers();
});

// Cancel

test('cancelling keeps what is done, closes tracks there, and draws the frame again', async () => {
    let cancelled = false;
    const bench = createBench({
        intercept: (call, next) => {
            cancelled = call.frame === 4; // clicked while frame 4 is on its way
            return next();
        },
    });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 9, { convert: true, cancelled: () => cancelled });
    expect(bench.frames()).toEqual([2, 3, 4]);
    expect(timelineOf(bench.track())).toBe('2 3 4 5-');
    expect(bench.calls.at(-1)!.frame).toBe(4);
    expect(bench.refreshed).toEqual([2]);
    expect(bench.reports[0].title).toBe('Tracking was cancelled');
    expect(bench.store.undoSteps).toBe(1);
});

test('cancelling during a wait ends at once; before the first frame it changes nothing', async () => {
    const bench = createBench({ intercept: () => ({ status: 503, body: '503 Server Error' }) });
    bench.add(polygon(2));
    await bench.runAll(2, 9, { convert: true, cancelled: () => bench.slept.length >= 3 });
    expect(bench.calls).toHaveLength(1);
    expect(bench.store.export()).toMatchObject({ shapes: [{ frame: 2 }], tracks: [] });
    const lines = ['Nothing was tracked and nothing has changed.']; // and no word of Undo
    const report = { kind: 'info', title: 'Tracking was cancelled', lines, jumps: [] };
    expect(bench.reports).toEqual([report]);
});

test.each(['Choosing keyframes', 'Adding the results'])(
    'CVAT shows the results although Cancel was pressed at "%s"',
    async (step) => {
        const bench = createBench();
        bench.kept = '{"sparse":0.97}';
        bench.add(polygon(2));
        const cancelled = (): boolean =>
            bench.progress.some(({ message }) => message.includes(step));
        await bench.runAll(2, 9, { convert: true, cancelled });
        expect(bench.store.undoSteps).toBe(1);
        expect(bench.refreshed).toEqual([2]);
    },
);

test('Cancel is heard also while the results are compared: CVAT does not draw them then', async () => {
    const bench = createBench();
    bench.add(mask(2), mask(2, 30));
    await bench.runAll(2, 5, { cancelled: () => bench.breaths > 0 });
    expect(bench.frames()).toEqual([2, 2, 3, 3, 4, 4, 5, 5]);
    expect(bench.refreshed).toEqual([2]);
});

test('a run that was cancelled before it wrote anything does not offer to undo it', async () => {
    let cancelled = false;
    const bench = createBench({
        intercept: (call, next) => {
            cancelled = call.frame === 3 && call.type === 'track'; // it goes on from frame 3
            return next();
        },
    });
    bench.add(mask(2));
    await bench.runAll(2, 6);
    bench.store.set(bench.on(3)[0].clientID!, { source: 'semi-auto' });
    const before = bench.contents();
    await bench.runAll(2, 6, { cancelled: () => cancelled });
    expect([bench.contents(), bench.store.undoSteps]).toEqual([before, 1]);
    expect(bench.said()).toContain('Nothing has changed.');
    expect(bench.said()).not.toContain('Undo');
});

// Calls that hang

/** Tracks a mask to frame 6, with fake timers, and cancels after so many ms. */
async function cancelAfter(bench: Bench, ms: number): Promise<void> {
    vi.useFakeTimers();
    let cancelled = false;
    bench.add(mask(2));
    const running = bench.runAll(2, 6, { cancelled: () => cancelled });
    await vi.advanceTimersByTimeAsync(ms);
    cancelled = true;
    await vi.advanceTimersByTimeAsync(400);
    await running;
}

test('a call that never ends can be cancelled, and is repeated after a limit', async () => {
    const bench: Bench = createBench({
        intercept: ({ frame }, next) => (frame === 4 ? never() : next()),
    });
    await cancelAfter(bench, CALL_LIMIT_MS + 1000);
    expect(bench.calls.filter(({ frame }) => frame === 4)).toHaveLength(2);
    expect(bench.progress.map(({ message }) => message)).toContain(
        "CVAT's server did not answer within 130 s. Trying again in 1 s.",
    );
    expect(bench.reports[0].title).toBe('Tracking was cancelled');
    expect(bench.frames()).toEqual([2, 3]);
});

test.each([
    ['the list of functions', never],
    ['the frames', (bench: Bench) => Object.assign(bench.job.frames, { frameNumbers: never })],
    ['a frame', (bench: Bench) => Object.assign(bench.job.frames, { get: never })],
    ['the annotations', (bench: Bench) => Object.assign(bench.job.annotations, { export: never })],
    ['the objects', (bench: Bench) => Object.assign(bench.job.annotations, { get: never })],
])('Cancel works while CVAT does not give %s', async (_what, hang) => {
    const bench = createBench();
    bench.core.lambda.list = async () => {
        await hang(bench);
        return { models: [TRACKER], count: 1 };
    };
    await cancelAfter(bench, 1000);
    expect(bench.said()).toBe('Nothing was tracked and nothing has changed.');
    expect(bench.calls).toEqual([]);
});

test('Cancel works while CVAT does not give a frame after a question', async () => {
    const bench = createBench();
    bench.add(mask(3, 1, { source: 'auto' }));
    Object.defineProperty(bench, 'answer', {
        get: () => {
            bench.job.frames.frameNumbers = never;
            return true;
        },
    });
    const ended = vi.fn();
    void cancelAfter(bench, 1000).then(ended);
    await vi.advanceTimersByTimeAsync(2000);
    expect(ended).toHaveBeenCalled();
    expect(bench.said()).toBe('Nothing was tracked and nothing has changed.');
});

test('a call that hangs is given up by the clock', async () => {
    vi.useFakeTimers();
    const late = within(never(), 130_000, () => {}, () => new Error('late')); // prettier-ignore
    const given = expect(late).rejects.toThrow('late');
    vi.setSystemTime(Date.now() + 140_000); // no timer came meanwhile
    await vi.advanceTimersByTimeAsync(200);
    await given;
});

test('looking at shapes and choosing keyframes wait for no timer', async () => {
    const frames = framesFrom(0, 90, { width: 400, height: 80 });
    const { bench } = await tracked(polygon(2), 90, { frames });
    bench.kept = '{"sparse":0.97}';
    let now = 0;
    Object.defineProperty(bench.clock, 'now', { get: () => (now += 20), set: () => {} });
    await bench.runAll(2, 90, { convert: true });
    expect(bench.breaths).toBeGreaterThan(2);
    expect(bench.slept).toEqual([150, 150]); // what is done is shown once before each end
});

// A job that is closed

test('a run that goes on in a job that was left ends when another one begins', async () => {
    vi.useFakeTimers();
    let answers = false;
    const bench = createBench({
        intercept: ({ frame }, next) => (frame === 4 && !answers ? never() : next()),
    });
    bench.add(mask(2));
    const first = expect(bench.runAll(2, 9)).rejects.toThrow(/because the job was closed/);
    await vi.advanceTimersByTimeAsync(100);
    answers = true;
    const second = bench.runAll(2, 6);
    await vi.advanceTimersByTimeAsync(400);
    await first;
    await second;
    expect(bench.frames()).toEqual([2, 3, 4, 5, 6]);
    expect(bench.reports.map(({ title }) => title)).toEqual(['Tracking is done']);
});

test('leaving the job ends the run, and says that nothing is left of it', async () => {
    vi.useFakeTimers();
    const bench = createBench({ intercept: ({ frame }, next) => (frame === 5 ? never() : next()) });
    bench.add(mask(2));
    const running = expect(bench.runAll(2, 9)).rejects.toThrow(
        /stopped because the job was closed, and nothing of it is left/,
    );
    await vi.advanceTimersByTimeAsync(1000);
    bench.open = false;
    await vi.advanceTimersByTimeAsync(400);
    await running;
    expect(bench.calls).toHaveLength(4);
    expect([bench.reports, bench.store.undoSteps]).toEqual([[], 0]);
});
