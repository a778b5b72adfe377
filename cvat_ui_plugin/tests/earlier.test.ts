// SPDX-License-Identifier: MIT
// Running again: nothing is doubled, and what is not of the object stays as it is.

import { expect, test } from 'vitest';
import { markOf } from '../src/ts/identity';
import { shape } from '../standin/core';
import { Bench, BOX, box, createBench, MASK, mask, moving } from './bench';
import { polygon, shifted, timelineOf, tracked } from './bench';

// a neighbour of the same label, type and group
const other = (frame: number) => mask(frame, 5);

/** Frame, left edge and source of every shape. */
function layout(bench: Bench): string[] {
    return bench
        .shapes()
        .map(({ frame, points, source }) => `${frame}:${points.at(-4)}:${source}`)
        .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

test('running twice gives the same shapes', async () => {
    const bench = createBench();
    bench.add(mask(2), other(2), polygon(2));
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
    const { bench } = await tracked(polygon(2), 6, { convert: true });
    bench.store.save();
    const strip = (): unknown => bench.store.export().tracks.map(({ clientID, ...own }) => own);
    const once = strip();
    await bench.runAll(2, 6, { convert: true });
    expect(strip()).toEqual(once);
    expect(bench.store.save()).toEqual({ created: [], updated: [], deleted: [] });
    await bench.runAll(2, 9);
    expect(timelineOf(bench.track())).toBe('2 3 4 5 6 7 8 9 10-');
});

test('a correction and re-run of one object leaves its twin alone', async () => {
    // the first object drifts away from frame 5 on
    const drift = (frame: number, { points, at }: { points: number[]; at: number }) =>
        at === 2 && points.at(-4) === 10 && frame >= 5
            ? { shape: { type: 'mask', points: shifted('mask', MASK, 20 + frame) } }
            : null;
    const bench = createBench({ invoke: moving(drift) });
    bench.add(mask(2), other(2));
    await bench.runAll(2, 8);
    const twins = (): string[] =>
        layout(bench).filter((line) => {
            const [frame, left] = line.split(':').map(Number);
            return left === 15 + frame - 2;
        });
    const before = twins();
    expect(before).toHaveLength(7);

    const wrong = bench.on(5).find(({ points }) => points.at(-4) === 35)!.clientID!;
    bench.store.set(wrong, { points: shifted('mask', MASK, 3), source: 'semi-auto' });
    await bench.runOn([wrong], 5, 8);
    expect(twins()).toEqual(before);
    expect(layout(bench).filter((line) => !before.includes(line))).toEqual([
        ...['2:10:manual', '3:11:auto', '4:12:auto', '5:13:semi-auto'],
        ...['6:14:auto', '7:15:auto', '8:16:auto'],
    ]);
    expect(bench.reports[1].lines).toContain('Replaced 3 shapes of an earlier run.');
});

test('shapes made by hand, of other labels, types or groups, and locked ones stay', async () => {
    const bench = createBench();
    const auto = { source: 'auto' };
    const [, , , , , locked] = bench.add(
        mask(2),
        mask(3, 1), // manual: no result is written there
        mask(3, 1, { ...auto, label_id: 2 }),
        mask(3, 1, { ...auto, group: 5 }),
        polygon(3, 0, auto),
        mask(4, 2, auto),
        mask(5, 60, auto), // somewhere else altogether
        mask(6, 4, auto), // beyond the target
    );
    bench.store.set(locked, { lock: true });
    await bench.runAll(2, 5);
    expect(bench.shapes()).toHaveLength(8 + 2);
    expect(bench.outcome.deleted.shapes).toEqual([]);
    expect(bench.said()).not.toContain('Replaced');
});

test('an object that was tracked from a later frame keeps its shapes', async () => {
    const bench = createBench();
    const [first, second] = bench.add(mask(2), mask(6, 10));
    await bench.runOn([second], 6, 10);
    await bench.runOn([first], 2, 10);
    expect(bench.shapes()).toHaveLength(1 + 8 + 1 + 4);
    await bench.runAll(2, 10);
    await bench.runAll(6, 10);
    expect(bench.shapes()).toHaveLength(1 + 8 + 1 + 4);
});

test('what an earlier run found where this one loses the object goes too', async () => {
    let visible = true;
    const invoke = moving((frame) => (frame === 4 && !visible ? { shape: null } : null));
    const { bench } = await tracked(mask(2), 5, { invoke });
    visible = false;
    await bench.runAll(2, 5);
    expect(layout(bench)).toEqual(['2:10:manual', '3:11:auto', '5:13:auto']);
});

test('backwards too, and only on frames that were tracked', async () => {
    let loggedOut = false;
    const { bench } = await tracked(mask(6), 1, {
        intercept: ({ frame }, next) =>
            loggedOut && frame === 3 ? { status: 401, body: {} } : next(),
    });
    const once = layout(bench);
    loggedOut = true;
    await bench.runAll(6, 1); // breaks at frame 3: the older shapes on 3 to 1 stay
    expect(layout(bench)).toEqual(once);
    expect(bench.reports[1].lines).toContain('Replaced 2 shapes of an earlier run.');
});

test('a seed that is edited and tracked again replaces its results', async () => {
    const { bench, seed } = await tracked(box(2), 6);
    bench.store.draw(seed, 2, shifted('rectangle', BOX, 1));
    await bench.runAll(2, 6);
    expect(bench.frames()).toEqual([2, 3, 4, 5, 6]);
    expect(bench.asked).toEqual([]);
});

test('a copy of a result on another frame is not ours', async () => {
    const { bench } = await tracked(box(2), 4);
    const { clientID: _, ...result } = bench.on(4)[0];
    bench.add({ ...result, frame: 5 });
    expect(markOf(result.score, 5)).toBeNull();
    await bench.runAll(2, 6);
    expect(bench.on(5)).toHaveLength(2);
});

test('an object that was lost for a while does not take over the results of another', async () => {
    const lost = (frame: number, { points }: { points: number[] }) =>
        points[0] === 10 && (frame === 3 || frame === 4) ? { shape: null } : null;
    const { bench, seed } = await tracked(box(2), 6, { invoke: moving(lost) });
    // a second object of the label comes by where the first one was
    const [second] = bench.add(shape('rectangle', 3, [12, 12, 32, 32]));
    await bench.runOn([second], 3, 6);
    const others = (): string[] =>
        bench.contents().filter((text) => text.includes('12,') && text.includes('32'));
    const before = others();
    await bench.runOn([seed], 2, 6);
    expect(others()).toEqual(before);
    expect(bench.frames()).toEqual([2, 3, 4, 5, 5, 6, 6]);
    // the results on frames 5 and 6 are not next to the second object's frame: they are told
    expect(bench.asked).toEqual([]);
    expect(bench.reports[1].lines.join()).toContain(
        'Kept 2 automatic shapes that may be of the same objects, first on frame 5',
    );
});

// Results without a mark

test('a first run leaves automatic shapes of the same label beside it alone', async () => {
    const bench = createBench();
    const beside = [3, 4, 5].map((frame) => box(frame, 40, { source: 'auto' }));
    bench.add(box(2), ...beside);
    await bench.runAll(2, 5);
    expect(bench.frames()).toEqual([2, 3, 3, 4, 4, 5, 5]);
    expect([bench.asked, bench.reports[0].kind]).toEqual([[], 'success']);
});

test.each([
    [false, 1 + 6 + 6],
    [true, 1 + 6],
])('results without a mark are replaced only where the user says so (%s)', async (yes, count) => {
    const bench = createBench();
    const older = [3, 4, 5, 6, 7, 8].map((frame) => box(frame, frame - 3, { source: 'auto' }));
    const [seed] = bench.add(box(2), ...older);
    bench.answer = yes;
    await bench.runAll(2, 8);
    expect(bench.asked).toHaveLength(1);
    expect(bench.asked[0]).toContain(`car ${seed}: 6`);
    expect(bench.shapes()).toHaveLength(count);
    expect(bench.said()).toContain(
        yes
            ? 'Replaced 6 shapes of an earlier run.'
            : 'Kept 6 automatic shapes that may be of the same objects, first on frame 3',
    );
    expect(bench.reports[0].kind).toBe(yes ? 'success' : 'warning');
});

test.each([
    ['mask', MASK, 2, 'a third', 1],
    ['mask', MASK, 3, 'a seventh', 0],
    ['rectangle', [10, 10, 20, 20], 5, 'a third', 1],
    ['rectangle', [10, 10, 20, 20], 6, 'a quarter', 0],
] as const)(
    'an unmarked %s, %j moved by %i, overlaps by %s: %i questions',
    async (type, points, by, _share, questions) => {
        const bench = createBench();
        const beside = shifted(type, [...points], by);
        bench.add(shape(type, 2, [...points]), shape(type, 3, beside, { source: 'auto' }));
        await bench.runAll(2, 3);
        expect(bench.asked).toHaveLength(questions);
    },
);
