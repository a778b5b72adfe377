// SPDX-License-Identifier: MIT
// Running again: nothing is doubled, and neighbours stay as they are.

import { expect, test } from 'vitest';
import { shape } from '../standin/core';
import { createBench, framesFrom, moving, shifted } from './bench';

const MASK = [0, 16, 10, 10, 13, 13];
const OTHER = [0, 16, 15, 10, 18, 13]; // a neighbour of the same label, type and group
const SQUARE = [10, 10, 20, 10, 20, 20, 10, 20];

function layout(bench: ReturnType<typeof createBench>): string[] {
    return bench.store
        .export()
        .shapes.map(
            ({ frame, points, source }) => `${frame}:${points[points.length - 4]}:${source}`,
        )
        .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

test('running twice gives the same shapes', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({
        shapes: [shape('mask', 2, MASK), shape('mask', 2, OTHER), shape('polygon', 2, SQUARE)],
    });
    await bench.runAll(2, 7);
    const once = layout(bench);
    await bench.runAll(2, 7);
    expect(layout(bench)).toEqual(once);
    expect(once).toHaveLength(18);
    expect(bench.reports[1].lines).toContain('Replaced 15 shapes of an earlier run.');
    expect(bench.store.undoSteps).toBe(2);
    bench.store.undo();
    expect(layout(bench)).toEqual(once);
});

test('running twice gives the same track', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 6, { convert: true });
    bench.store.save();
    const strip = (): unknown => bench.store.export().tracks.map(({ clientID, ...track }) => track);
    const once = strip();
    await bench.runAll(2, 6, { convert: true });
    expect(strip()).toEqual(once);
    expect(bench.store.save()).toEqual({ created: [], updated: [], deleted: [] });
    await bench.runAll(2, 9);
    expect(
        bench.store
            .export()
            .tracks[0].shapes.map(({ frame, outside }) => `${frame}${outside ? '-' : ''}`)
            .join(' '),
    ).toBe('2 3 4 5 6 7 8 9 10-');
});

test('automatic keyframes that were deleted come back only where that is asked for', async () => {
    const bench = createBench({
        frames: framesFrom(0, 20, { width: 100, height: 80 }, [9]),
        invoke: moving((frame) => (frame === 11 ? { shape: null } : null)),
    });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 12, { convert: true });
    const own = () => bench.store.export().tracks[0];
    const framesOf = () => own().shapes.map(({ frame }) => frame);
    const dense = framesOf();
    const cut = (gone: number[]): void => {
        const track = own();
        bench.store.remove(track.clientID!);
        const shapes = track.shapes.filter(({ frame }) => !gone.includes(frame));
        bench.store.import({ tracks: [{ ...track, source: 'semi-auto', shapes }] });
    };
    cut([4, 8, 12]);
    const left = dense.filter((frame) => ![4, 8].includes(frame));
    for (const run of [1, 2]) {
        await bench.runAll(2, 12);
        expect(framesOf()).toEqual(left);
        expect(bench.asked[run - 1]).toMatch(/frames of this run \(car \d+: 2\)/);
        expect(bench.reports[run].lines.join()).toMatch(/stay deleted.*: car \d+ on 4, 8\./);
    }

    // every frame of a run
    await bench.runAll(7, 8);
    expect(framesOf()).toEqual(left);
    expect(bench.reports[3].lines).toHaveLength(1);
    expect(bench.reports[3].lines[0]).toMatch(/stay deleted.*: car \d+ on 8\./);

    // with few keyframes, their limit tells; else the person
    bench.answer = true;
    await bench.runAll(2, 12);
    expect(framesOf()).toEqual(dense);
    cut([4]);
    bench.kept = '{"sparse":0.97}';
    const asked = bench.asked.length;
    await bench.runAll(2, 12);
    expect(bench.asked).toHaveLength(asked);
    expect(bench.reports.at(-1)!.lines.join()).not.toContain('deleted');
});

test('a correction and re-run of one object leaves its twin alone', async () => {
    // the first object drifts away from frame 5 on
    const drift = (frame: number, { points, at }: { points: number[]; at: number }) =>
        at === 2 && points.at(-4) === 10 && frame >= 5
            ? { shape: { type: 'mask', points: shifted('mask', MASK, 20 + frame) } }
            : null;
    const bench = createBench({ invoke: moving(drift) });
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('mask', 2, OTHER)] });
    await bench.runAll(2, 8);
    const twins = (): string[] =>
        layout(bench).filter((line) => {
            const [frame, left] = line.split(':').map(Number);
            return left === 15 + frame - 2;
        });
    const before = twins();
    expect(before).toHaveLength(7);

    const wrong = bench.store
        .export()
        .shapes.find(({ frame, points }) => frame === 5 && points.at(-4) === 35)!;
    bench.store.set(wrong.clientID!, { points: shifted('mask', MASK, 3), source: 'semi-auto' });
    await bench.runOn([wrong.clientID!], 5, 8);
    expect(twins()).toEqual(before);
    expect(layout(bench).filter((line) => !before.includes(line))).toEqual([
        '2:10:manual',
        '3:11:auto',
        '4:12:auto',
        '5:13:semi-auto',
        '6:14:auto',
        '7:15:auto',
        '8:16:auto',
    ]);
    expect(bench.reports[1].lines).toContain('Replaced 3 shapes of an earlier run.');
});

test('shapes made by hand, of other labels, types or groups, and locked ones stay', async () => {
    const bench = createBench({ invoke: moving() });
    const at3 = shifted('mask', MASK, 1);
    const [, , , , , locked] = bench.store.import({
        shapes: [
            shape('mask', 2, MASK),
            shape('mask', 3, at3), // manual: no result is written there
            shape('mask', 3, at3, { source: 'auto', label_id: 2 }),
            shape('mask', 3, at3, { source: 'auto', group: 5 }),
            shape('polygon', 3, SQUARE, { source: 'auto' }),
            shape('mask', 4, shifted('mask', MASK, 2), { source: 'auto' }),
            shape('mask', 5, [0, 4, 90, 70, 91, 71], { source: 'auto' }), // somewhere else altogether
            shape('mask', 6, shifted('mask', MASK, 4), { source: 'auto' }), // beyond the target
        ],
    });
    bench.store.set(locked, { lock: true });
    await bench.runAll(2, 5);
    expect(bench.store.export().shapes).toHaveLength(8 + 2);
    expect(bench.reports[0].lines.join()).not.toContain('Replaced');
});

test('an object that was tracked from a later frame keeps its shapes', async () => {
    const bench = createBench({ invoke: moving() });
    const [first] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    const [second] = bench.store.import({ shapes: [shape('mask', 6, [0, 16, 20, 10, 23, 13])] });
    await bench.runOn([second], 6, 10);
    await bench.runOn([first], 2, 10);
    expect(bench.store.export().shapes).toHaveLength(1 + 8 + 1 + 4);
    await bench.runAll(2, 10);
    await bench.runAll(6, 10);
    expect(bench.store.export().shapes).toHaveLength(1 + 8 + 1 + 4);
});

test('what an earlier run found where this one loses the object goes too', async () => {
    let visible = true;
    const bench = createBench({
        invoke: moving((frame) => (frame === 4 && !visible ? { shape: null } : null)),
    });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 5);
    visible = false;
    await bench.runAll(2, 5);
    expect(layout(bench)).toEqual(['2:10:manual', '3:11:auto', '5:13:auto']);
});

test('a conversion replaces the polygons of an earlier run', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('polygon', 2, SQUARE)] });
    await bench.runAll(2, 6);
    await bench.runAll(2, 6, { convert: true });
    expect(bench.store.export().shapes).toEqual([]);
    expect(bench.store.export().tracks).toHaveLength(1);
});

test('backwards too, and only on frames that were tracked', async () => {
    const bench = createBench({
        invoke: moving(),
        intercept: (call, next) =>
            bench.calls.length > 8 && call.frame === 3 ? { status: 401, body: {} } : next(),
    });
    bench.store.import({ shapes: [shape('mask', 6, MASK)] });
    await bench.runAll(6, 1);
    const once = layout(bench);
    await bench.runAll(6, 1); // breaks at frame 3: the older shapes on 3 to 1 stay
    expect(layout(bench)).toEqual(once);
    expect(bench.reports[1].lines).toContain('Replaced 2 shapes of an earlier run.');
});

test.each([
    ['mask', MASK, 2, 'a third', 1],
    ['mask', MASK, 3, 'a seventh', 0],
    ['rectangle', [10, 10, 20, 20], 5, 'a third', 1],
    ['rectangle', [10, 10, 20, 20], 6, 'a quarter', 0],
] as const)(
    'an unmarked %s, %j moved by %i, overlaps by %s: %i questions',
    async (type, points, by, _share, questions) => {
        const bench = createBench({ invoke: moving() });
        const beside = shifted(type, [...points], by);
        bench.store.import({
            shapes: [shape(type, 2, [...points]), shape(type, 3, beside, { source: 'auto' })],
        });
        await bench.runAll(2, 3);
        expect(bench.asked).toHaveLength(questions);
    },
);
