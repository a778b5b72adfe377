// SPDX-License-Identifier: MIT
// The second hour of work: a person looked, corrected, drew anew and runs again.

import { expect, test, vi } from 'vitest';

import { within } from '../src/ts/waiting';
import { SerializedTrack } from '../src/ts/cvat';
import { shape } from '../standin/core';
import { createBench, framesFrom, moving, shifted } from './bench';

type Bench = ReturnType<typeof createBench>;

const MASK = [0, 16, 10, 10, 13, 13];
const REDRAWN = [0, 20, 10, 10, 13, 14];
const SQUARE = [10, 10, 20, 10, 20, 20, 10, 20];

/** A rectangle track of a person, of frame, points and rotation of its keyframes. */
function boxes(...keyframes: [number, number[], number?][]): SerializedTrack {
    const shapes = keyframes.map(([frame, points, rotation = 0]) => ({
        type: 'rectangle',
        frame,
        points,
        rotation,
        occluded: false,
        outside: false,
        z_order: 0,
        attributes: [],
    }));
    const { frame } = shapes[0];
    const fixed = { label_id: 1, group: 0, source: 'manual', attributes: [], elements: [] };
    return { ...fixed, frame, shapes } as unknown as SerializedTrack;
}

/** Frame, source of every shape, in order. */
function shapesOf(bench: Bench): string[] {
    return bench.store
        .export()
        .shapes.map(({ frame, source }) => `${frame} ${source}`)
        .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

/** A mask tracked from frame 2 to 8, its result on frame 5 changed by `change`, and redrawn on 2. */
async function redrawn(bench: Bench, change: object): Promise<number> {
    bench.answer = true; // to "Replace them?"
    const [seed] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 8);
    const five = bench.store.export().shapes.find(({ frame }) => frame === 5)!.clientID!;
    bench.store.set(five, change);
    bench.store.remove(seed);
    bench.store.import({ shapes: [shape('mask', 2, REDRAWN)] });
    await bench.runAll(2, 8);
    return five;
}

test('a seed that was drawn anew takes over what was corrected, and nothing is doubled', async () => {
    const bench = createBench({ invoke: moving() });
    const points = shifted('mask', MASK, 4);
    const corrected = await redrawn(bench, { points, source: 'semi-auto' });
    expect(bench.asked).toHaveLength(1);
    expect(shapesOf(bench)).toEqual([
        ...['2 manual', '3 auto', '4 auto', '5 semi-auto', '6 auto', '7 auto', '8 auto'],
    ]);
    const kept = bench.store.export().shapes.find(({ clientID }) => clientID === corrected);
    expect(kept?.points).toEqual(points);
});

/** A mask tracked from frame 2 to 10, its result on frame 6 deleted and drawn anew. */
async function drawnAnew(bench: Bench): Promise<{ seed: number; drawn: number }> {
    bench.answer = true;
    const [seed] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 10);
    bench.store.remove(bench.store.export().shapes.find(({ frame }) => frame === 6)!.clientID!);
    const [drawn] = bench.store.import({ shapes: [shape('mask', 6, shifted('mask', REDRAWN, 4))] });
    return { seed, drawn };
}

const ONCE = [2, 3, 4, 5, 6, 7, 8, 9, 10].map((frame) =>
    [2, 6].includes(frame) ? `${frame} manual` : `${frame} auto`,
);

test('from a result that was drawn anew the page asks, and nothing is doubled', async () => {
    const bench = createBench({ invoke: moving() });
    const { drawn } = await drawnAnew(bench);
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(1);
    expect(shapesOf(bench)).toEqual(ONCE);
});

test('from the first frame nothing is written over a result that was drawn anew', async () => {
    const bench = createBench({ invoke: moving() });
    const { seed, drawn } = await drawnAnew(bench);
    await bench.runOn([seed], 2, 10);
    expect(shapesOf(bench)).toEqual(ONCE);
    const { title, lines } = bench.reports.at(-1)!;
    expect(title).toBe('Tracking ended with warnings');
    expect(lines.join()).toContain(`drew a shape in its place: car ${seed} on 6.`);
    expect(bench.store.export().shapes.map(({ clientID }) => clientID)).toContain(drawn);
});

test.each([null, '{"sparse":0.97}'])(
    'a new track is hidden where a person drew a shape in its place, with settings %s',
    async (kept) => {
        const bench = createBench({ invoke: moving() });
        bench.kept = kept;
        bench.store.import({
            shapes: [
                shape('polygon', 2, SQUARE),
                shape('polygon', 4, shifted('polygon', SQUARE, 3)),
                shape('polygon', 5, shifted('polygon', SQUARE, 12)), // another object
            ],
        });
        await bench.runAll(2, 6, { convert: true });
        const { title, lines } = bench.reports[0];
        expect(title).toBe('Tracking ended with warnings');
        const { shapes, tracks } = bench.store.export();
        const [made] = tracks;
        expect(lines.join()).toContain(`drew a shape in its place: car ${made.clientID} on 4.`);
        expect(shapes).toHaveLength(2);
        expect(made.shapes.map(({ frame, outside }) => `${frame}${outside ? '-' : ''}`)).toEqual([
            ...['2', '3', '4-', '5', '6', '7-'],
        ]);
    },
);

/** A mask tracked from frame 2 to 10 and lost on some frames; another one drawn on frame 5 where it
 * passes later. */
async function passing(lost: number[], by: number): Promise<{ bench: Bench; drawn: number }> {
    const bench = createBench({
        invoke: moving((frame, { at }) =>
            at === 2 && lost.includes(frame) ? { shape: null } : null,
        ),
    });
    bench.answer = true;
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 10);
    const [drawn] = bench.store.import({ shapes: [shape('mask', 5, shifted('mask', MASK, by))] });
    return { bench, drawn };
}

test('of an object that passes a drawing only later nothing is taken for its results', async () => {
    const { bench, drawn } = await passing([4, 5, 6], 5);
    await bench.runOn([drawn], 5, 10);
    expect(bench.asked).toEqual([]);
    expect(shapesOf(bench).filter((one) => one === '9 auto')).toHaveLength(2);
});

test('of two drawings one takes the results of a number', async () => {
    const { bench, drawn } = await passing([5], 3);
    const [other] = bench.store.import({ shapes: [shape('mask', 5, shifted('mask', MASK, 5))] });
    const six = bench.store.export().shapes.find(({ frame }) => frame === 6)!;
    bench.store.import({ shapes: [{ ...six, points: shifted('mask', six.points, 1) }] });
    await bench.runOn([drawn, other], 5, 10);
    expect(bench.asked).toHaveLength(1);
    expect(bench.asked[0]).toMatch(/\(car \d+: 6\)/);
});

test('one outline with two labels is two objects in two runs', async () => {
    const bench = createBench({ invoke: moving() });
    const [car, dog] = bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('mask', 2, MASK, { label_id: 2 })],
    });
    for (const one of [dog, car, dog]) await bench.runOn([one], 2, 5);
    const labels = bench.store.export().shapes.map(({ frame, label_id }) => [frame, label_id]);
    expect(labels.sort()).toEqual([2, 3, 4, 5].flatMap((frame) => [1, 2].map((n) => [frame, n])));
    expect(bench.asked).toEqual([]);
});

/** A polygon tracked from frame 2 to 9 and converted from frame 5 on. */
async function convertedLate(bench: Bench): Promise<number> {
    const [seed] = bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9);
    const five = bench.store.export().shapes.find(({ frame }) => frame === 5)!.clientID!;
    await bench.runOn([five], 5, 9, { convert: true });
    return seed;
}

test('who converts a part is told how to have one track', async () => {
    const bench = createBench({ invoke: moving() });
    const seed = await convertedLate(bench);
    expect(bench.reports.at(-1)!.lines.join()).toContain(
        'stays a polygon shape on 3 other frames. To have one track, undo this run, then convert ' +
            'from frame 2 to frame 9.',
    );
    bench.store.undo();
    await bench.runOn([seed], 2, 9, { convert: true });
    expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
    expect(bench.store.export()).toMatchObject({ shapes: [], tracks: [{ frame: 2 }] });
});

test('results that lie on a track of the same object are told', async () => {
    const bench = createBench({ invoke: moving() });
    const seed = await convertedLate(bench);
    await bench.runOn([seed], 2, 9);
    const { title, lines } = bench.reports.at(-1)!;
    expect(title).toBe('Tracking ended with warnings');
    expect(lines.join()).toContain(
        'Kept 1 track that may be of the same objects, first on frame 5. Delete what is doubled.',
    );
});

test('a locked result stays when a person lets earlier results be replaced', async () => {
    const bench = createBench({ invoke: moving() });
    const locked = await redrawn(bench, { lock: true });
    expect(bench.store.export().shapes.map(({ clientID }) => clientID)).toContain(locked);
    expect(shapesOf(bench).filter((one) => one.startsWith('5'))).toHaveLength(1);
});

test('a polygon whose last frame was drawn is closed after it when it becomes a track', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 8);
    const eight = bench.store.export().shapes.find(({ frame }) => frame === 8)!.clientID!;
    bench.store.set(eight, { points: shifted('polygon', SQUARE, 7), source: 'semi-auto' });
    await bench.runAll(2, 8, { convert: true });
    const [made] = bench.store.export().tracks;
    expect(made.shapes.map(({ frame, outside }) => [frame, outside]).slice(-2)).toEqual([
        [8, false],
        [9, true],
    ]);
});

test('results beside those of a drawing from later on are told', async () => {
    const lost = moving((frame, m) =>
        m.at === 2 && (frame === 5 || frame === 6) ? { shape: null } : null,
    );
    const bench = createBench({ invoke: lost });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 9);
    const [drawn] = bench.store.import({
        shapes: [shape('mask', 5, shifted('mask', MASK, 3))],
    });
    await bench.runOn([drawn], 5, 9);
    const { title, lines } = bench.reports.at(-1)!;
    expect(title).toContain('warnings');
    expect(lines.join(' ')).toContain('Kept 3 automatic shapes that may be of the same objects');
    expect(lines.join(' ')).toContain('first on frame 7');
});

test('results that a converted track passes over later are replaced', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 9);
    await bench.runAll(2, 5, { convert: true });
    const [made] = bench.store.export().tracks;
    await bench.runOn([made.clientID!], 5, 9);
    expect(bench.reports.at(-1)!.lines).toContain('Replaced 4 shapes of an earlier run.');
    expect(bench.store.export().shapes).toEqual([]);
});

test('a track that is lost at the end of a run is visible after it as before', async () => {
    const bench = createBench({ invoke: moving((frame) => (frame >= 5 ? { shape: null } : null)) });
    const box = (left: number): number[] => [left, 10, left + 10, 20];
    bench.store.import({ tracks: [boxes([2, box(10)], [18, box(42)])] });
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
    const bench = createBench({ invoke: moving((frame) => (frame >= 5 ? { shape: null } : null)) });
    const box = [10, 10, 50, 20];
    bench.store.import({ tracks: [boxes([2, box], [6, box, 80], [18, box, 20])] });
    const turned = (): (number | null)[] =>
        [8, 12, 18].map((frame) => bench.store.get(frame)[0].rotation);
    const before = turned();
    expect(before).toEqual([70, 50, 20]);
    await bench.runAll(2, 7);
    expect(turned()).toEqual(before);
});

test('a track that a person drew on every frame of the run is left alone', async () => {
    const bench = createBench({ invoke: moving() });
    const box = [10, 10, 50, 20];
    const [track] = bench.store.import({ tracks: [boxes([2, box], [3, box], [4, box])] });
    const before = JSON.stringify(bench.store.export());
    const drawn =
        'it has a keyframe that a person made, or an older version, on every frame of the run';
    await expect(bench.runAll(2, 4)).rejects.toThrow(`(car ${track}: ${drawn}`);
    expect(JSON.stringify(bench.store.export())).toBe(before);

    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 4);
    expect(bench.reports[0].lines.join()).toContain(`Left alone: car ${track} (${drawn}`);
});

test('a keyframe outside of the job stops no run', async () => {
    const bench = createBench({ invoke: moving() });
    const { frames } = bench.job;
    const { get } = frames;
    frames.frameNumbers = async () => Array.from({ length: 11 }, (_, frame) => frame);
    frames.get = async (frame) => {
        if (frame > 10) throw new Error(`The frame ${frame} is out of the job`);
        return get(frame);
    };
    const box = [10, 10, 50, 20];
    bench.store.import({ tracks: [boxes([2, box], [14, box])] });
    await bench.runAll(2, 6);
    const { shapes } = bench.store.export().tracks[0];
    expect(shapes.map(({ frame }) => frame)).toEqual([2, 3, 4, 5, 6, 14]);
});

test('from a box that was turned the object goes on in the box around it', async () => {
    const bench = createBench({ invoke: moving() });
    const box = [10, 10, 50, 20];
    bench.store.import({ tracks: [boxes([2, box], [3, box], [6, box, 90])] });
    await bench.runAll(2, 8);
    const sent = bench.calls
        .filter(({ frame }) => frame === 6)
        .flatMap(({ shapes = [] }) => shapes);
    expect(sent.map((one) => one?.points)).toContainEqual([25, -5, 35, 35]);
    const six = bench.store.export().tracks[0].shapes.find(({ frame }) => frame === 6)!;
    expect([six.points, six.rotation]).toEqual([box, 90]);
});

test('looking at shapes and choosing keyframes wait for no timer', async () => {
    const frames = framesFrom(0, 90, { width: 400, height: 80 });
    const bench = createBench({ frames, invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 90);
    bench.kept = '{"sparse":0.97}';
    let now = 0;
    Object.defineProperty(bench.clock, 'now', { get: () => (now += 20), set: () => {} });
    await bench.runAll(2, 90, { convert: true });
    expect(bench.breaths).toBeGreaterThan(2);
    expect(bench.slept).toEqual([150, 150]); // what is done is shown once before each end
});

test('waiting for the function takes its time, however seldom a browser calls', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: () => ({ status: 503, body: 'away' }),
        // a hidden tab: a timer comes a minute late
        lateness: 60_000,
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await expect(bench.runAll(2, 7)).rejects.toThrow('cannot be reached');
    expect(bench.slept.length).toBeLessThan(10);
});

test('a call that hangs is given up by the clock', async () => {
    vi.useFakeTimers();
    const late = within(
        new Promise(() => {}),
        130_000,
        () => {},
        () => new Error('late'),
    );
    const given = expect(late).rejects.toThrow('late');
    vi.setSystemTime(Date.now() + 140_000); // no timer came meanwhile
    await vi.advanceTimersByTimeAsync(200);
    await given;
    vi.useRealTimers();
});
