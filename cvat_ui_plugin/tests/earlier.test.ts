// SPDX-License-Identifier: MIT
// Running again: nothing is doubled, and what is not of the object stays as it is.

import { expect, test } from 'vitest';
import { Bench, BOX, box, createBench, mask, moving } from './bench';
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

test('a second run removes earlier results on frames where it loses the object', async () => {
    let visible = true;
    const invoke = moving((frame) => (frame === 4 && !visible ? { shape: null } : null));
    const { bench } = await tracked(mask(2), 5, { invoke });
    visible = false;
    await bench.runAll(2, 5);
    expect(layout(bench)).toEqual(['2:10:manual', '3:11:auto', '5:13:auto']);
});

test('a backward run that breaks replaces earlier results only on the frames it tracked', async () => {
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

// Results without a mark

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
