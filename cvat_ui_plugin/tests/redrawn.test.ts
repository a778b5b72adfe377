// SPDX-License-Identifier: MIT
// Drawings that a person deleted and drew anew: what the page asks and says, and what it remembers. Whose
// the results are, is held by the table of whose.test.ts.

import { expect, test } from 'vitest';
import { SerializedShape } from '../src/ts/cvat';
import { shape } from '../standin/core';
import { Bench, createBench, framesFrom, MASK, mask, moving, polygon } from './bench';
import { shifted, SQUARE, timelineOf, track, tracked, whole } from './bench';

const REDRAWN = [0, 20, 10, 10, 13, 14];
/** Where the object really is: far from its results. */
const FAR = [0, 16, 50, 50, 53, 53];
const EACH = [2, 3, 4, 5, 6, 7, 8, 9, 10];
/** After results from frame 7 on were kept beside those of a drawing. */
const DOUBLED = [...EACH, 7, 8, 9, 10].sort((a, b) => a - b);

/** Frame, source and left edge of every shape. */
function layout(bench: Bench): string[] {
    return bench.shapes().map(({ frame, source, points }) => `${frame} ${source} ${points.at(-4)}`);
}

/** A shape of the frame; there is one. */
function on(bench: Bench, frame: number): number {
    return bench.on(frame)[0].clientID!;
}

const redraw = (frame: number, points: number[], more = {}) => shape('mask', frame, points, more);

/** A mask tracked from frame 2 to 10, its result on frame 6 deleted and drawn anew. */
async function drawnAnew(
    points = shifted('mask', REDRAWN, 4),
    more = {},
): Promise<{ bench: Bench; seed: number; drawn: number }> {
    const { bench, seed } = await tracked(mask(2, 0, more), 10);
    bench.answer = true;
    bench.store.remove(on(bench, 6));
    const [drawn] = bench.add(redraw(6, points));
    return { bench, seed, drawn };
}

/** Masks tracked from frame 2 to 10; on frame 6 their results are deleted. */
async function twoWithoutSix(second = {}): Promise<Bench> {
    const bench = createBench();
    bench.add(mask(2), mask(2, 30, second));
    await bench.runAll(2, 10);
    for (const { clientID } of bench.on(6)) bench.store.remove(clientID!);
    return bench;
}

// A result that was drawn anew

test('a second run from a redrawn and corrected object changes nothing and asks nothing', async () => {
    const { bench, drawn } = await drawnAnew();
    bench.store.set(on(bench, 8), { points: shifted('mask', MASK, 7), source: 'semi-auto' });
    await bench.runOn([drawn], 6, 10);
    const once = layout(bench);
    await bench.runOn([drawn], 6, 10);
    expect(layout(bench)).toEqual(once);
    expect(bench.frames()).toEqual(EACH);
    expect(bench.asked).toHaveLength(1);
});

/** The same job after it was saved and the page was reloaded. */
function reloaded(bench: Bench): Bench {
    bench.store.save();
    const { shapes, tracks } = bench.store.export();
    const again = createBench();
    again.add(...shapes);
    again.addTracks(...tracks);
    again.answer = bench.answer;
    return again;
}

test('a run over a frame where the object was drawn far from its deleted result says so', async () => {
    const { bench, seed } = await drawnAnew(FAR);
    bench.answer = false;
    await bench.runOn([seed], 2, 10);
    expect(bench.asked).toHaveLength(1);
    expect(bench.reports.at(-1)!.title).toBe('Tracking ended with warnings');
    expect(bench.said()).toMatch(
        /Kept 1 drawn shape that may be of the same objects, first on frame 6\./,
    );
    // an object that has results of its own is another one
    const { bench: other } = await tracked(mask(2), 10);
    const [second] = other.add(redraw(6, FAR));
    await other.runOn([second], 6, 10);
    other.store.remove(other.on(6).find(({ source }) => source === 'auto')!.clientID!);
    await other.runAll(2, 10);
    expect(other.reports.at(-1)!.title).toBe('Tracking is done');
});

test('results of a redrawn object are asked about also where the next one was deleted, too', async () => {
    const { bench } = await tracked(polygon(2), 10);
    bench.answer = true;
    for (const frame of [6, 7]) bench.store.remove(on(bench, frame));
    bench.add(shape('polygon', 6, shifted('polygon', SQUARE, 5)));
    await bench.runAll(6, 10);
    expect(bench.asked).toHaveLength(1);
    expect(bench.frames()).toEqual(EACH);
});

test.each([true, false])(
    'nothing is written over corrected results of an object that was drawn anew (answer: %s)',
    async (answer) => {
        const { bench } = await tracked(mask(2), 10);
        bench.answer = answer;
        const corrected = [7, 9].map((frame) => on(bench, frame));
        for (const id of corrected) bench.store.set(id, { source: 'semi-auto' });
        for (const frame of [6, 8, 10]) bench.store.remove(on(bench, frame));
        bench.add(redraw(6, shifted('mask', REDRAWN, 4)));
        await bench.runAll(6, 10);
        expect(bench.frames()).toEqual(EACH);
        expect([7, 9].map((frame) => on(bench, frame))).toEqual(corrected);
        expect(bench.reports.at(-1)!.kind).toBe('warning');
    },
);

test('where nothing is written over a result that was drawn anew the message says so', async () => {
    const { bench, seed } = await drawnAnew();
    bench.answer = false;
    await bench.runOn([seed], 2, 10);
    expect(bench.frames()).toEqual(EACH);
    expect(bench.reports.at(-1)!.title).toBe('Tracking ended with warnings');
    expect(bench.said()).toContain(`drew a shape in its place: car ${seed} on 6.`);
    // the answer holds until a reload
    await bench.runOn([on(bench, 5)], 5, 10);
    expect([bench.asked.length, bench.frames()]).toEqual([1, EACH]);
    const again = reloaded(bench);
    await again.runOn([on(again, 2)], 2, 10);
    expect([again.asked.length, again.frames()]).toEqual([1, EACH]);
});

test('after an undo the next run from a redrawn result asks again', async () => {
    const { bench, drawn } = await drawnAnew();
    await bench.runOn([drawn], 6, 10);
    bench.store.undo();
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(2);
    expect(bench.frames()).toEqual(DOUBLED);
    bench.store.undo();
    bench.answer = true;
    await bench.runOn([drawn], 6, 10);
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(3);
    expect(bench.frames()).toEqual(EACH);
});

test('results with a group that lie beside those of a drawing are told', async () => {
    const { bench, drawn } = await drawnAnew(undefined, { group: 3 });
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(bench.said()).toContain('Kept 4 automatic shapes');
});

// A drawing that a run comes over

test.each([
    ['near its result', shifted('mask', REDRAWN, 4)],
    ['far from its result', FAR],
])(
    'a run asks about an object that was drawn anew %s, and goes on from there',
    async (_, points) => {
        const { bench, seed } = await drawnAnew(points);
        await bench.runOn([seed], 2, 10);
        expect(bench.asked).toEqual([
            'Objects of this run have no result on frames where a person drew a shape of the same kind ' +
                `(car ${seed} on 6). Your shapes stay as they are in any case. If they show the same ` +
                'objects, tracking goes on from them.',
        ]);
        const left = points.at(-4)!;
        expect(layout(bench).slice(3)).toEqual([
            ...['5 auto 13', `6 manual ${left}`, `7 auto ${left + 1}`, `8 auto ${left + 2}`],
            ...[`9 auto ${left + 3}`, `10 auto ${left + 4}`],
        ]);
        expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
        // from then on it is the same object, also from the drawing
        const once = layout(bench);
        for (const frame of [2, 6]) await bench.runOn([on(bench, frame)], frame, 10);
        expect([bench.asked.length, layout(bench)]).toEqual([1, once]);
        // after a reload the page asks again
        for (const frame of [2, 6]) {
            const again = reloaded(bench);
            await again.runOn([on(again, frame)], frame, 10);
            expect([again.asked.length, layout(again)]).toEqual([1, once]);
        }
    },
);

test('one undo takes back what was said of a drawing on the way', async () => {
    const { bench, seed, drawn } = await drawnAnew(FAR);
    const before = bench.contents();
    await bench.runOn([seed], 2, 10);
    bench.store.undo();
    expect([bench.contents(), on(bench, 6)]).toEqual([before, drawn]);
});

test('a polygon that was drawn anew becomes a keyframe of the track', async () => {
    const { bench, seed } = await tracked(polygon(2), 10);
    bench.answer = true;
    bench.store.remove(on(bench, 6));
    bench.add(shape('polygon', 6, shifted('polygon', SQUARE, 40)));
    await bench.runOn([seed], 2, 10, { convert: true });
    expect(bench.asked).toHaveLength(1);
    expect([bench.frames(), timelineOf(bench.track())]).toEqual([[], '2 3 4 5 6 7 8 9 10 11-']);
    expect(whole(bench.track().shapes[5].points)).toEqual(shifted('polygon', SQUARE, 41));
});

test('where two objects or two drawings may be meant a run over them does not ask', async () => {
    const bench = await twoWithoutSix();
    bench.answer = true;
    bench.add(redraw(6, FAR));
    await bench.runAll(2, 10);
    const { bench: second, seed } = await drawnAnew(FAR);
    second.add(redraw(6, shifted('mask', FAR, 20)));
    await second.runOn([seed], 2, 10);
    expect([bench.asked, second.asked]).toEqual([[], []]);
    // the message names what was written beside them
    expect(bench.said()).toMatch(/Kept 1 drawn shape that may be .* first on frame 6\./);
    expect(second.said()).toMatch(/Kept 2 drawn shapes that may be .* first on frame 6\./);
});

test.each([5, 7])(
    'a run asks about a drawing on frame %s, right beside the first one',
    async (frame) => {
        const { bench, seed } = await tracked(mask(6), 10);
        await bench.runOn([seed], 6, 2);
        bench.store.remove(on(bench, frame));
        bench.add(redraw(frame, FAR));
        bench.answer = true;
        for (const [from, to] of [
            [2, 10],
            [6, frame],
        ]) {
            const again = reloaded(bench);
            await again.runOn([on(again, from)], from, to);
            expect([again.asked.length, again.frames()]).toEqual([1, EACH]);
        }
    },
);

test.each([
    ['of several deleted results', [5, 6, 7, 8], 7, 1],
    ['behind the last result', [7, 8, 9, 10], 8, 0],
])('a run asks about a drawing in place %s', async (_, deleted, frame, asked) => {
    const { bench, seed } = await tracked(mask(2), 10);
    bench.answer = true;
    for (const one of deleted) bench.store.remove(on(bench, one));
    bench.add(redraw(frame, FAR));
    await bench.runOn([seed], 2, 10);
    expect(bench.asked).toHaveLength(asked);
    expect(bench.frames()).toEqual(asked ? EACH : [...EACH, frame].sort((a, b) => a - b));
});

test('a run does not ask about a drawing that has results of its own, nor where nothing is missing', async () => {
    const { bench, seed, drawn } = await drawnAnew(FAR);
    bench.answer = false;
    await bench.runOn([drawn], 6, 8);
    await bench.runOn([seed], 2, 10);
    expect(bench.asked).toHaveLength(1);
    expect(bench.asked[0]).toContain('has no shape on frame 6');
    const { bench: other } = await tracked(mask(2), 10);
    other.add(redraw(6, FAR));
    await other.runOn([on(other, 2)], 2, 10);
    expect(other.asked).toEqual([]);
});

// Far from the results

test('far from the results the page asks about those of the one object without a shape there', async () => {
    const { bench, drawn } = await drawnAnew(FAR);
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toEqual([
        'The object with results from frame 7 on has no shape on frame 6: is the drawing this object ' +
            `(car ${drawn}: 4)? Kept, they lie beside the new results.`,
    ]);
    expect(bench.frames()).toEqual(EACH);
    expect(layout(bench).slice(4)).toEqual([
        ...['6 manual 50', '7 auto 51', '8 auto 52', '9 auto 53', '10 auto 54'],
    ]);
});

test('where two drawings may be meant the page tells it and does not ask', async () => {
    const { bench, drawn } = await drawnAnew(FAR);
    bench.add(redraw(6, shifted('mask', FAR, 20)));
    await bench.runOn([drawn], 6, 10);
    expect(bench.reports.at(-1)!.lines).toContain(
        'An object that has results on frame 7 has no shape on frame 6. If you drew it anew, delete ' +
            'its results from frame 7 on; if it is only hidden there, leave them.',
    );
    expect(bench.asked).toEqual([]);
});

test('backwards the page names the frames in their order', async () => {
    const { bench } = await tracked(mask(8), 0);
    bench.store.remove(on(bench, 4));
    const [drawn] = bench.add(redraw(4, FAR));
    await bench.runOn([drawn], 4, 0);
    expect(bench.asked[0]).toContain('The object with results from frame 3 back has no shape');
});

test('the page asks at once about results that overlap and results that do not', async () => {
    const bench = await twoWithoutSix();
    const [near, far] = bench.add(redraw(6, shifted('mask', REDRAWN, 4)), redraw(6, FAR));
    await bench.runOn([near, far], 6, 10);
    expect(bench.asked).toEqual([
        'Automatic shapes on the frames of this run seem to belong to these objects, but do not say ' +
            `so (car ${near}: 4). The object with results from frame 7 on has no shape on frame ` +
            `6: is the drawing this object (car ${far}: 4)? Kept, they lie beside the new results.`,
    ]);
});

test('of each label one drawing may be the object that has no shape there', async () => {
    const bench = await twoWithoutSix({ label_id: 2 });
    const [car, dog] = bench.add(redraw(6, FAR), redraw(6, FAR, { label_id: 2 }));
    await bench.runOn([car, dog], 6, 10);
    expect(bench.asked[0]).toBe(
        'Objects with results from frame 7 on have no shape on frame 6: are the drawings these ' +
            `objects (car ${car}: 4; dog ${dog}: 4)? Kept, they lie beside the new results.`,
    );
});

test('a track is hidden where a person drew a rectangle in its place, a turned one too', async () => {
    const still = moving((_, { type, points }) => ({ shape: { type, points } }));
    const large = framesFrom(0, 10, { width: 640, height: 480 });
    const bench = createBench({ frames: large, invoke: still });
    bench.addTracks(track({ 0: [100, 100, 150, 150] }));
    // turned by 45 degrees it fills the box that was tracked
    bench.add(shape('rectangle', 3, [95, 118, 155, 132], { rotation: 45 }));
    await bench.runAll(0, 5);
    expect(timelineOf(bench.track())).toBe('0 1 2 3- 4 5 6-');
    expect(bench.said()).toMatch(/drew a shape in its place: car \d+ on 3\./);
});

test('a run asks also where the result of the next frame was corrected', async () => {
    const { bench, seed } = await drawnAnew(FAR);
    bench.store.set(on(bench, 7), { source: 'semi-auto' });
    await bench.runOn([seed], 2, 10);
    expect(bench.asked).toHaveLength(1);
    expect(layout(bench).slice(4, 7)).toEqual(['6 manual 50', '7 semi-auto 15', '8 auto 16']);
});

test('no object is doubled or lost that is drawn anew again and again, on random ways', async () => {
    const last = 10;
    let state = 7;
    // the same numbers whenever this test runs
    const upTo = (most: number): number => {
        state = (state * 48271) % 2147483647;
        return state % (most + 1);
    };
    const columnOf = ({ points }: SerializedShape): number => Math.floor(points.at(-4)! / 300);
    for (let round = 0; round < 60; round += 1) {
        const frames = framesFrom(0, last, { width: 1000, height: 80 });
        const bench = createBench({ frames });
        const columns = Array.from({ length: 1 + upTo(2) }, (_, column) => column);
        bench.add(...columns.map((column) => mask(0, 300 * column)));
        await bench.runAll(0, last);
        for (let step = 0; step < 5; step += 1) {
            const what = `round ${round}, step ${step}`;
            const [frame, column] = [1 + upTo(last - 2), upTo(columns.length - 1)];
            const own = (wanted: number): SerializedShape =>
                bench.on(wanted).find((one) => columnOf(one) === column)!;
            const points = shifted('mask', [0, 16, 10, 30, 13, 33], 300 * column + upTo(200));
            const near = upTo(2);
            for (let one = Math.max(frame - near, 1); one <= frame + near && one < last; one += 1) {
                if (one === frame || own(one).source === 'auto') {
                    bench.store.remove(own(one).clientID!);
                }
            }
            bench.add(redraw(frame, points));
            bench.answer = true;
            // a run from a drawing asks only about an untouched result of the next frame
            const way = upTo(3) ? 1 : -1;
            const isNext = own(frame + way)?.source === 'auto' && !near;
            const start = upTo(1) && isNext ? frame : 0;
            const target = start && way < 0 ? 0 : last;
            if (upTo(1)) await bench.runAll(start, target);
            else await bench.runOn([own(start).clientID!], start, target);
            for (let one = 0; one <= last; one += 1) {
                expect(bench.on(one).map(columnOf).sort(), what).toEqual(columns);
            }
            expect(own(frame).points, what).toEqual(points);
        }
    }
});
