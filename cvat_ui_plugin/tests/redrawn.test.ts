// SPDX-License-Identifier: MIT
// Results that a person deleted and drew anew, and what becomes of the earlier results beside them.

import { expect, test } from 'vitest';
import { markOf, numberOfDrawing } from '../src/ts/identity';
import { shape } from '../standin/core';
import { Bench, createBench, framesFrom, moving, shifted } from './bench';

const MASK = [0, 16, 10, 10, 13, 13];
const REDRAWN = [0, 20, 10, 10, 13, 14];
/** Where the object really is: far from its results. */
const FAR = [0, 16, 50, 50, 53, 53];

/** Frame, source and left edge of every shape, in order. */
function shapesOf(bench: Bench): string[] {
    return bench.store
        .export()
        .shapes.map(({ frame, source, points }) => `${frame} ${source} ${points.at(-4)}`)
        .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

function framesOf(bench: Bench): number[] {
    return bench.store
        .export()
        .shapes.map(({ frame }) => frame)
        .sort((a, b) => a - b);
}

function on(bench: Bench, frame: number): number {
    return bench.store.export().shapes.find((one) => one.frame === frame)!.clientID!;
}

const EACH = [2, 3, 4, 5, 6, 7, 8, 9, 10];

/** A mask tracked from frame 2 to 10, its result on frame 6 deleted and drawn anew. */
async function drawnAnew(
    points = shifted('mask', REDRAWN, 4),
    more = {},
): Promise<{ bench: Bench; seed: number; drawn: number }> {
    const bench = createBench({ invoke: moving() });
    bench.answer = true;
    const [seed] = bench.store.import({ shapes: [shape('mask', 2, MASK, more)] });
    await bench.runAll(2, 10);
    bench.store.remove(on(bench, 6));
    const [drawn] = bench.store.import({ shapes: [shape('mask', 6, points)] });
    return { bench, seed, drawn };
}

test('a second run from it knows what was corrected', async () => {
    const { bench, drawn } = await drawnAnew();
    bench.store.set(on(bench, 8), { points: shifted('mask', MASK, 7), source: 'semi-auto' });
    await bench.runOn([drawn], 6, 10);
    const once = shapesOf(bench);
    await bench.runOn([drawn], 6, 10);
    expect(shapesOf(bench)).toEqual(once);
    expect(framesOf(bench)).toEqual(EACH);
    expect(bench.asked).toHaveLength(1);
});

test('a second run from it goes further without a question, and nothing is doubled', async () => {
    const { bench, drawn } = await drawnAnew();
    await bench.runOn([drawn], 6, 8);
    await bench.runOn([drawn], 6, 10);
    expect(framesOf(bench)).toEqual(EACH);
    expect(bench.asked).toHaveLength(1);
    expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
});

test('a run from before it goes on from it, and nothing is doubled', async () => {
    const { bench, seed, drawn } = await drawnAnew();
    await bench.runOn([drawn], 6, 10);
    const left = bench.store.export().shapes.find(({ clientID }) => clientID === drawn);
    await bench.runOn([seed], 2, 10);
    expect(framesOf(bench)).toEqual(EACH);
    expect(bench.store.export().shapes).toContainEqual(left);
    expect(bench.reports.at(-1)!.lines.join()).toContain('tracked on from there: car');
});

test.each([
    ['from it', undefined],
    ['and far from the results', FAR],
])(
    'backwards %s the first drawing of the object stays, and nothing is doubled',
    async (_, place) => {
        const { bench, seed, drawn } = await drawnAnew(place);
        await bench.runOn([drawn], 6, 0);
        expect(framesOf(bench)).toEqual([0, 1, ...EACH]);
        const first = bench.store.export().shapes.find(({ clientID }) => clientID === seed);
        expect(first?.points).toEqual(MASK);
    },
);

test('a seed that was edited and saved knows its corrections in every later run', async () => {
    const bench = createBench({ invoke: moving() });
    const [seed] = bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 8);
    bench.store.set(on(bench, 6), { points: shifted('mask', MASK, 5), source: 'semi-auto' });
    bench.store.set(seed, { points: REDRAWN });
    const reloaded = createBench({ invoke: moving() });
    reloaded.answer = true;
    const { shapes } = bench.store.export();
    reloaded.store.import({ shapes: shapes.map(({ clientID: _, ...rest }) => rest) });
    await reloaded.runAll(2, 8);
    const once = shapesOf(reloaded);
    await reloaded.runAll(2, 8);
    expect(shapesOf(reloaded)).toEqual(once);
    expect(framesOf(reloaded)).toEqual([2, 3, 4, 5, 6, 7, 8]);
    expect(reloaded.asked).toHaveLength(1);
});

test('of two drawings only one takes over the number of an earlier object', async () => {
    const bench = createBench({ invoke: moving() });
    bench.answer = true;
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 10);
    const mine = (frame: number) => shape('mask', frame, shifted('mask', MASK, frame - 2));
    const { shapes } = bench.store.export();
    const other = shapes.map(({ clientID: _, ...rest }) => ({ ...rest, score: 1 }));
    bench.store.remove(on(bench, 6));
    bench.store.import({
        shapes: [
            mine(6),
            shape('mask', 6, shifted('mask', MASK, 5)),
            // results of another one without a mark
            ...other
                .filter(({ frame }) => frame > 6)
                .map((one) => ({ ...one, points: shifted('mask', one.points, 1) })),
        ],
    });
    await bench.runAll(6, 10);
    const numbers = bench.store
        .export()
        .shapes.filter(({ frame }) => frame === 7)
        .map(({ score, frame }) => markOf(score, frame)?.number);
    expect(new Set(numbers).size).toBe(2);
    expect(numbers).not.toContain(undefined);
});

test('who undoes such a run is asked again', async () => {
    const { bench, drawn } = await drawnAnew();
    await bench.runOn([drawn], 6, 10);
    bench.store.undo();
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(2);
    expect(framesOf(bench)).toEqual([2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 9, 10, 10]);
    bench.store.undo();
    bench.answer = true;
    await bench.runOn([drawn], 6, 10);
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(3);
    expect(framesOf(bench)).toEqual(EACH);
});

test('an object that was first drawn later is another one', async () => {
    const bench = createBench({ invoke: moving() });
    bench.answer = true;
    const drawing = shifted('mask', MASK, 3);
    bench.store.import({ shapes: [shape('mask', 5, drawing)] });
    await bench.runAll(5, 10);
    const [first] = bench.store.import({ shapes: [shape('mask', 2, shifted('mask', MASK, 2))] });
    await bench.runOn([first], 2, 10);
    expect(bench.asked).toEqual([]);
    const numbers = bench.store
        .export()
        .shapes.flatMap(({ score, frame }) => markOf(score, frame)?.number ?? []);
    const later = numberOfDrawing('mask', 5, drawing);
    expect(numbers.filter((number) => number === later)).toHaveLength(5);
});

test('far from the results the page asks about those of the one object without a shape there', async () => {
    const { bench, drawn } = await drawnAnew(FAR);
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(1);
    expect(bench.asked[0]).toBe(
        'The object with results from frame 7 on has no shape on frame 6: is the drawing this object ' +
            `(car ${drawn}: 4)? Kept, they lie beside the new results.`,
    );
    expect(framesOf(bench)).toEqual(EACH);
    expect(shapesOf(bench).slice(4)).toEqual([
        ...['6 manual 50', '7 auto 51', '8 auto 52', '9 auto 53', '10 auto 54'],
    ]);
});

test('an object that was not there before the drawing is another one', async () => {
    const bench = createBench({ invoke: moving() });
    const [later] = bench.store.import({ shapes: [shape('mask', 8, MASK)] });
    await bench.runOn([later], 8, 7);
    const [drawn] = bench.store.import({ shapes: [shape('mask', 6, FAR)] });
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toEqual([]);
});

test('far from the results they stay where the user keeps them', async () => {
    const { bench, drawn } = await drawnAnew(FAR);
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(framesOf(bench)).toEqual([2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 9, 10, 10]);
});

test('a drawing beside objects that are all there is a new one, and the page does not ask', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    await bench.runAll(2, 10);
    const [drawn] = bench.store.import({ shapes: [shape('mask', 6, FAR)] });
    await bench.runOn([drawn], 6, 10);
    // tracked from the first frame on; it is not there before
    const [first] = bench.store.import({ shapes: [shape('mask', 1, shifted('mask', FAR, 20))] });
    await bench.runOn([first], 1, 10);
    expect(bench.asked).toEqual([]);
});

test('where two objects or two drawings may be meant the page tells it and does not ask', async () => {
    const bench = createBench({ invoke: moving() });
    const second = shifted('mask', MASK, 30);
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('mask', 2, second)] });
    await bench.runAll(2, 10);
    bench.store.remove(on(bench, 6));
    const drawings = [shape('mask', 6, FAR), shape('mask', 6, shifted('mask', FAR, 20))];
    const [one, other] = bench.store.import({ shapes: drawings });
    const told =
        'An object that has results on frame 7 has no shape on frame 6. If you drew it anew, delete ' +
        'its results from frame 7 on; if it is only hidden there, leave them.';
    await bench.runOn([one], 6, 10); // the other drawing may be meant
    expect(bench.reports.at(-1)!.lines).toContain(told);
    bench.store.undo();
    bench.store.remove(other);
    bench.store.remove(on(bench, 6));
    await bench.runOn([one], 6, 10); // two objects have no shape there
    expect(bench.reports.at(-1)!.lines).toContain(told);
    expect(bench.asked).toEqual([]);
});

test('of other drawings that an object without a shape may be nothing is told', async () => {
    const bench = createBench({ invoke: moving() });
    const second = shape('mask', 2, shifted('mask', MASK, 30), { group: 3 });
    bench.store.import({ shapes: [shape('mask', 2, MASK, { group: 3 }), second] });
    await bench.runAll(2, 10);
    bench.store.remove(on(bench, 6));
    bench.store.remove(on(bench, 6));
    const [, other] = bench.store.import({
        shapes: [shape('mask', 6, FAR), shape('mask', 6, FAR, { group: 5 })],
    });
    await bench.runOn([other], 6, 10); // it is in a group of its own
    expect(bench.reports.at(-1)!.lines.join()).not.toContain('no shape on frame 6');
});

test('backwards the page names the frames in their order', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 8, MASK)] });
    await bench.runAll(8, 0);
    bench.store.remove(on(bench, 4));
    const [drawn] = bench.store.import({ shapes: [shape('mask', 4, FAR)] });
    await bench.runOn([drawn], 4, 0);
    expect(bench.asked[0]).toContain('The object with results from frame 3 back has no shape');
});

test('the page asks at once about results that overlap and results that do not', async () => {
    const bench = createBench({ invoke: moving() });
    const second = shifted('mask', MASK, 30);
    bench.store.import({ shapes: [shape('mask', 2, MASK), shape('mask', 2, second)] });
    await bench.runAll(2, 10);
    bench.store.remove(on(bench, 6));
    bench.store.remove(on(bench, 6));
    const [near, far] = bench.store.import({
        shapes: [shape('mask', 6, shifted('mask', REDRAWN, 4)), shape('mask', 6, FAR)],
    });
    await bench.runOn([near, far], 6, 10);
    expect(bench.asked).toEqual([
        'Automatic shapes on the frames of this run seem to belong to these objects, but do not say ' +
            `so (car ${near}: 4). The object with results from frame 7 on has no shape on frame ` +
            `6: is the drawing this object (car ${far}: 4)? Kept, they lie beside the new results.`,
    ]);
});

test('of each label one drawing may be the object that has no shape there', async () => {
    const bench = createBench({ invoke: moving() });
    const second = shape('mask', 2, shifted('mask', MASK, 30), { label_id: 2 });
    bench.store.import({ shapes: [shape('mask', 2, MASK), second] });
    await bench.runAll(2, 10);
    bench.store.remove(on(bench, 6));
    bench.store.remove(on(bench, 6));
    const [car, dog] = bench.store.import({
        shapes: [shape('mask', 6, FAR), shape('mask', 6, FAR, { label_id: 2 })],
    });
    await bench.runOn([car, dog], 6, 10);
    expect(bench.asked[0]).toBe(
        'Objects with results from frame 7 on have no shape on frame 6: are the drawings these ' +
            `objects (car ${car}: 4, dog ${dog}: 4)? Kept, they lie beside the new results.`,
    );
});

const GROUPED = { group: 3 };

test('a drawing, which has no group, is asked about with results that have one', async () => {
    const { bench, drawn } = await drawnAnew(undefined, GROUPED);
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toHaveLength(1);
    expect(framesOf(bench)).toEqual(EACH);
});

test('nothing is written in the place of a drawing without a group', async () => {
    const { bench, seed } = await drawnAnew(undefined, GROUPED);
    await bench.runOn([seed], 2, 10);
    expect(framesOf(bench)).toEqual(EACH);
    expect(bench.reports.at(-1)!.lines.join()).toContain('drew a shape in its place');
});

test('results with a group that lie beside those of a drawing are told', async () => {
    const { bench, drawn } = await drawnAnew(undefined, GROUPED);
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(bench.reports.at(-1)!.lines.join()).toContain('Kept 4 automatic shapes');
});

test('automatic shapes of another group are not asked about', async () => {
    const bench = createBench({ invoke: moving() });
    const beside = [3, 4].map((frame) => shape('mask', frame, MASK, { source: 'auto' }));
    bench.store.import({ shapes: [shape('mask', 2, MASK, GROUPED), ...beside] });
    await bench.runAll(2, 4);
    expect(bench.asked).toEqual([]);
    expect(framesOf(bench)).toEqual([2, 3, 3, 4, 4]);
});

const BOX = [100, 100, 150, 150];
/** Turned by 45 degrees it fills the box that was tracked. */
const TURNED = [95, 118, 155, 132];

test('nothing is written in the place of a rectangle that is turned', async () => {
    const frames = framesFrom(0, 10, { width: 640, height: 480 });
    const still = moving((_, { type, points }) => ({ shape: { type, points } }));
    const bench = createBench({ frames, invoke: still });
    const [seed] = bench.store.import({ shapes: [shape('rectangle', 0, BOX)] });
    await bench.runAll(0, 5);
    bench.store.remove(on(bench, 3));
    bench.store.import({ shapes: [shape('rectangle', 3, TURNED, { rotation: 45 })] });
    await bench.runOn([seed], 0, 5);
    expect(framesOf(bench)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(bench.reports.at(-1)!.lines.join()).toContain(`in its place: car ${seed} on 3.`);
});

test('a turned rectangle in the place of a track is told', async () => {
    const frames = framesFrom(0, 10, { width: 640, height: 480 });
    const still = moving((_, { type, points }) => ({ shape: { type, points } }));
    const bench = createBench({ frames, invoke: still });
    const keyframe = {
        ...{ type: 'rectangle', frame: 0, points: BOX, occluded: false, outside: false },
        ...{ z_order: 0, rotation: 0, attributes: [] },
    };
    const track = { label_id: 1, frame: 0, group: 0, source: 'manual', attributes: [] };
    bench.store.import({
        shapes: [shape('rectangle', 3, TURNED, { rotation: 45 })],
        tracks: [{ ...track, elements: [], shapes: [keyframe] }],
    });
    await bench.runAll(0, 5);
    expect(bench.reports[0].lines.join()).toContain('Kept 1 drawn shape that may be of the same');
});
