// SPDX-License-Identifier: MIT
// Drawings that a person deleted and drew anew, and what becomes of the earlier results beside them.

import { expect, test } from 'vitest';
import { markedScore, markOf, numberOfDrawing } from '../src/ts/identity';
import { shape } from '../standin/core';
import { Bench, createBench, framesFrom, MASK, mask, moving } from './bench';
import { shifted, track, tracked } from './bench';

const REDRAWN = [0, 20, 10, 10, 13, 14];
/** Where the object really is: far from its results. */
const FAR = [0, 16, 50, 50, 53, 53];
const EACH = [2, 3, 4, 5, 6, 7, 8, 9, 10];
/** After results from frame 7 on were kept beside those of a drawing. */
const DOUBLED = [...EACH, 7, 8, 9, 10].sort((a, b) => a - b);
const GROUPED = { group: 3 };

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
async function twoWithoutSix(more: object, second = more): Promise<Bench> {
    const bench = createBench();
    bench.add(mask(2, 0, more), mask(2, 30, second));
    await bench.runAll(2, 10);
    for (const { clientID } of bench.on(6)) bench.store.remove(clientID!);
    return bench;
}

// A result that was drawn anew

test('a second run from it knows what was corrected', async () => {
    const { bench, drawn } = await drawnAnew();
    bench.store.set(on(bench, 8), { points: shifted('mask', MASK, 7), source: 'semi-auto' });
    await bench.runOn([drawn], 6, 10);
    const once = layout(bench);
    await bench.runOn([drawn], 6, 10);
    expect(layout(bench)).toEqual(once);
    expect(bench.frames()).toEqual(EACH);
    expect(bench.asked).toHaveLength(1);
});

test.each([
    ['near its results', undefined],
    ['of an object with a group, which a drawing has not', GROUPED],
])('a second run from a drawing %s goes further without a question', async (_what, more) => {
    const { bench, drawn } = await drawnAnew(undefined, more);
    await bench.runOn([drawn], 6, 8);
    await bench.runOn([drawn], 6, 10);
    expect(bench.frames()).toEqual(EACH);
    expect(bench.asked).toHaveLength(1);
    expect(bench.reports.at(-1)!.title).toBe('Tracking is done');
});

test('a run from before it goes on from it, and nothing is doubled', async () => {
    const { bench, seed, drawn } = await drawnAnew();
    await bench.runOn([drawn], 6, 10);
    const left = bench.shapes().find(({ clientID }) => clientID === drawn);
    await bench.runOn([seed], 2, 10);
    expect(bench.frames()).toEqual(EACH);
    expect(bench.shapes()).toContainEqual(left);
    expect(bench.said()).toContain('tracked on from there: car');
});

test.each([{}, GROUPED])(
    'from the first frame nothing is written over a result that was drawn anew: %j',
    async (more) => {
        const { bench, seed, drawn } = await drawnAnew(undefined, more);
        await bench.runOn([seed], 2, 10);
        const sources = EACH.map((frame) => ([2, 6].includes(frame) ? 'manual' : 'auto'));
        expect(bench.frames()).toEqual(EACH);
        expect(bench.shapes().map(({ source }) => source)).toEqual(sources);
        expect(on(bench, 6)).toBe(drawn);
        expect(bench.reports.at(-1)!.title).toBe('Tracking ended with warnings');
        expect(bench.said()).toContain(`drew a shape in its place: car ${seed} on 6.`);
    },
);

test.each([
    ['from it', undefined],
    ['and far from the results', FAR],
])(
    'backwards %s the first drawing of the object stays, and nothing is doubled',
    async (_, place) => {
        const { bench, seed, drawn } = await drawnAnew(place);
        await bench.runOn([drawn], 6, 0);
        expect(bench.frames()).toEqual([0, 1, ...EACH]);
        const first = bench.shapes().find(({ clientID }) => clientID === seed);
        expect(first?.points).toEqual(MASK);
    },
);

test('who undoes such a run is asked again', async () => {
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
    const { bench, drawn } = await drawnAnew(undefined, GROUPED);
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(bench.said()).toContain('Kept 4 automatic shapes');
});

test('automatic shapes of another group are not asked about', async () => {
    const bench = createBench();
    const beside = [3, 4].map((frame) => mask(frame, 0, { source: 'auto' }));
    bench.add(mask(2, 0, GROUPED), ...beside);
    await bench.runAll(2, 4);
    expect(bench.asked).toEqual([]);
    expect(bench.frames()).toEqual([2, 3, 3, 4, 4]);
});

// The first drawing

test.each([
    ['what was corrected', { points: shifted('mask', MASK, 4), source: 'semi-auto' }],
    ['a locked result', { lock: true }],
])('a seed that was drawn anew takes over %s, and nothing is doubled', async (_what, change) => {
    const { bench, seed } = await tracked(mask(2), 8);
    bench.answer = true; // to "Replace them?"
    const five = on(bench, 5);
    bench.store.set(five, change);
    const kept = bench.on(5);
    bench.store.remove(seed);
    bench.add(redraw(2, REDRAWN));
    await bench.runAll(2, 8);
    expect(bench.asked).toHaveLength(1);
    expect(bench.on(5)).toEqual(kept);
    expect(bench.frames()).toEqual([2, 3, 4, 5, 6, 7, 8]);
});

test('a seed that was edited and saved knows its corrections in every later run', async () => {
    const { bench, seed } = await tracked(mask(2), 8);
    bench.store.set(on(bench, 6), { points: shifted('mask', MASK, 5), source: 'semi-auto' });
    bench.store.set(seed, { points: REDRAWN });
    const reloaded = createBench();
    reloaded.answer = true;
    reloaded.add(...bench.shapes().map(({ clientID: _, ...rest }) => rest));
    await reloaded.runAll(2, 8);
    const once = layout(reloaded);
    await reloaded.runAll(2, 8);
    expect(layout(reloaded)).toEqual(once);
    expect(reloaded.frames()).toEqual([2, 3, 4, 5, 6, 7, 8]);
    expect(reloaded.asked).toHaveLength(1);
});

const LARGE = [0, 400, 10, 10, 29, 29];
const LARGER = [0, 420, 10, 10, 29, 30];

/** A mask tracked from frame 2 to 8. Then a person changed it on frame 3, and the job was loaded anew. */
async function reloaded(
    change: (bench: Bench, three: number) => void,
    invoke = moving(),
): Promise<Bench> {
    const { bench } = await tracked(redraw(2, LARGE), 8, { invoke });
    if (bench.on(3).length) change(bench, on(bench, 3));
    const next = createBench({ invoke });
    next.add(...bench.shapes().map(({ clientID: _, ...rest }) => rest));
    next.answer = true;
    return next;
}

const correct = (bench: Bench, three: number): void =>
    bench.store.draw(three, 3, shifted('mask', LARGE, 2));
const remove = (bench: Bench, three: number): void => bench.store.remove(three);
const nothing = (): void => {};
const hiddenOn3 = moving((frame) => (frame === 3 ? { shape: null } : null));

test.each([
    ['was corrected', correct, moving(), [2, 3, 4, 5, 6, 7, 8]],
    ['was deleted', remove, moving(), [2, 3, 4, 5, 6, 7, 8]],
    ['is missing, for it was hidden there,', nothing, hiddenOn3, [2, 4, 5, 6, 7, 8]],
])(
    'where the first result %s nothing is doubled after the seed was edited and saved',
    async (_what, change, invoke, frames) => {
        const bench = await reloaded(change, invoke);
        const kept = bench.shapes().filter(({ source }) => source === 'semi-auto');
        bench.store.draw(on(bench, 2), 2, LARGER);
        await bench.runAll(2, 8);
        expect(bench.asked).toHaveLength(1);
        expect(bench.frames()).toEqual(frames);
        for (const one of kept) expect(bench.shapes()).toContainEqual(one);
        await bench.runAll(2, 8);
        expect(bench.frames()).toEqual(frames);
        expect(bench.asked).toHaveLength(1);
    },
);

test.each([
    ['whose other results are kept', 8],
    ['that is the only one', 3],
])('after the seed was edited and saved nothing is written over a correction %s', async (_, to) => {
    const bench = await reloaded(correct);
    for (const { clientID } of bench.shapes().filter(({ frame }) => frame > to)) {
        bench.store.remove(clientID!);
    }
    bench.store.draw(on(bench, 2), 2, LARGER);
    const kept = bench.on(3);
    bench.answer = false;
    await bench.runAll(2, 8);
    expect(bench.on(3)).toEqual(kept);
    expect(bench.said()).toMatch(/drew a shape in its place: car \d+ on 3\./);
});

test('an object that was clicked on or found later is not asked about', async () => {
    const bench = createBench();
    const number = numberOfDrawing('mask', 4, MASK);
    const found = [4, 5, 6].map((frame) =>
        mask(frame, frame - 4, {
            source: 'auto',
            score: markedScore(0.9, { number, run: 7 }, frame),
        }),
    );
    bench.add(mask(2), ...found);
    await bench.runAll(2, 6);
    expect(bench.asked).toEqual([]);
    expect(bench.frames()).toEqual([2, 3, 4, 4, 5, 5, 6, 6]);
});

// Of which object a drawing is

test('of two drawings only one takes over the number of an earlier object', async () => {
    const { bench } = await tracked(mask(2), 10);
    bench.answer = true;
    const results = bench.shapes().filter(({ frame }) => frame > 6);
    bench.store.remove(on(bench, 6));
    // and results of another one without a mark
    const others = results.map(({ frame }) => mask(frame, frame - 1, { source: 'auto', score: 1 }));
    bench.add(mask(6, 4), mask(6, 5), ...others);
    await bench.runAll(6, 10);
    const numbers = bench.on(7).map(({ score, frame }) => markOf(score, frame)?.number);
    expect(new Set(numbers).size).toBe(2);
    expect(numbers).not.toContain(undefined);
});

/** A mask tracked from frame 2 to 10 and lost on some frames; another one is drawn on frame 5, where it
 * passes later. */
async function passing(lost: number[], by: number): Promise<{ bench: Bench; drawn: number }> {
    const isLost = (frame: number, at: number): boolean => at === 2 && lost.includes(frame);
    const invoke = moving((frame, { at }) => (isLost(frame, at) ? { shape: null } : null));
    const { bench } = await tracked(mask(2), 10, { invoke });
    bench.answer = true;
    const [drawn] = bench.add(mask(5, by));
    return { bench, drawn };
}

test('of an object that passes a drawing only later nothing is taken for its results', async () => {
    const { bench, drawn } = await passing([4, 5, 6], 5);
    await bench.runOn([drawn], 5, 10);
    expect(bench.asked).toEqual([]);
    expect(bench.on(9)).toHaveLength(2);
});

test('of two drawings one takes the results of a number', async () => {
    const { bench, drawn } = await passing([5], 3);
    const [other] = bench.add(mask(5, 5));
    const [six] = bench.on(6);
    bench.add({ ...six, points: shifted('mask', six.points, 1) });
    await bench.runOn([drawn, other], 5, 10);
    expect(bench.asked).toHaveLength(1);
    expect(bench.asked[0]).toMatch(/\(car \d+: 6\)/);
});

test('results beside those of a drawing from later on are told', async () => {
    const { bench, drawn } = await passing([5, 6], 3);
    await bench.runOn([drawn], 5, 9);
    expect(bench.reports.at(-1)!.title).toContain('warnings');
    expect(bench.said()).toContain(
        'Kept 3 automatic shapes that may be of the same objects, first on frame 7',
    );
});

test('an object that was first drawn later is another one', async () => {
    const { bench } = await tracked(mask(5, 3), 10);
    bench.answer = true;
    const [first] = bench.add(mask(2, 2));
    await bench.runOn([first], 2, 10);
    expect(bench.asked).toEqual([]);
    const numbers = bench.shapes().map(({ score, frame }) => markOf(score, frame)?.number);
    const later = numberOfDrawing('mask', 5, shifted('mask', MASK, 3));
    expect(numbers.filter((number) => number === later)).toHaveLength(5);
});

test('an object that was not there before the drawing is another one', async () => {
    const bench = createBench();
    const [later] = bench.add(mask(8));
    await bench.runOn([later], 8, 7);
    const [drawn] = bench.add(redraw(6, FAR));
    await bench.runOn([drawn], 6, 10);
    expect(bench.asked).toEqual([]);
});

test('one outline with two labels is two objects in two runs', async () => {
    const bench = createBench();
    const [car, dog] = bench.add(mask(2), mask(2, 0, { label_id: 2 }));
    for (const one of [dog, car, dog]) await bench.runOn([one], 2, 5);
    const labels = bench.shapes().map(({ frame, label_id }) => [frame, label_id]);
    expect(labels.sort()).toEqual([2, 3, 4, 5].flatMap((frame) => [1, 2].map((n) => [frame, n])));
    expect(bench.asked).toEqual([]);
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

test('far from the results they stay where the user keeps them', async () => {
    const { bench, drawn } = await drawnAnew(FAR);
    bench.answer = false;
    await bench.runOn([drawn], 6, 10);
    expect(bench.frames()).toEqual(DOUBLED);
});

test('a drawing beside objects that are all there is a new one, and the page does not ask', async () => {
    const { bench } = await tracked(mask(2), 10);
    const [drawn] = bench.add(redraw(6, FAR));
    await bench.runOn([drawn], 6, 10);
    // tracked from the first frame on; it is not there before
    const [first] = bench.add(redraw(1, shifted('mask', FAR, 20)));
    await bench.runOn([first], 1, 10);
    expect(bench.asked).toEqual([]);
});

test('where two objects or two drawings may be meant the page tells it and does not ask', async () => {
    const bench = createBench();
    bench.add(mask(2), mask(2, 30));
    await bench.runAll(2, 10);
    bench.store.remove(on(bench, 6));
    const [one, other] = bench.add(redraw(6, FAR), redraw(6, shifted('mask', FAR, 20)));
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
    const bench = await twoWithoutSix(GROUPED);
    const [, other] = bench.add(redraw(6, FAR), redraw(6, FAR, { group: 5 }));
    await bench.runOn([other], 6, 10); // it is in a group of its own
    expect(bench.said()).not.toContain('no shape on frame 6');
});

test('backwards the page names the frames in their order', async () => {
    const { bench } = await tracked(mask(8), 0);
    bench.store.remove(on(bench, 4));
    const [drawn] = bench.add(redraw(4, FAR));
    await bench.runOn([drawn], 4, 0);
    expect(bench.asked[0]).toContain('The object with results from frame 3 back has no shape');
});

test('the page asks at once about results that overlap and results that do not', async () => {
    const bench = await twoWithoutSix({});
    const [near, far] = bench.add(redraw(6, shifted('mask', REDRAWN, 4)), redraw(6, FAR));
    await bench.runOn([near, far], 6, 10);
    expect(bench.asked).toEqual([
        'Automatic shapes on the frames of this run seem to belong to these objects, but do not say ' +
            `so (car ${near}: 4). The object with results from frame 7 on has no shape on frame ` +
            `6: is the drawing this object (car ${far}: 4)? Kept, they lie beside the new results.`,
    ]);
});

test('of each label one drawing may be the object that has no shape there', async () => {
    const bench = await twoWithoutSix({}, { label_id: 2 });
    const [car, dog] = bench.add(redraw(6, FAR), redraw(6, FAR, { label_id: 2 }));
    await bench.runOn([car, dog], 6, 10);
    expect(bench.asked[0]).toBe(
        'Objects with results from frame 7 on have no shape on frame 6: are the drawings these ' +
            `objects (car ${car}: 4, dog ${dog}: 4)? Kept, they lie beside the new results.`,
    );
});

// Rectangles that are turned

const BOX = [100, 100, 150, 150];
/** Turned by 45 degrees it fills the box that was tracked. */
const TURNED = shape('rectangle', 3, [95, 118, 155, 132], { rotation: 45 });
const STILL = {
    frames: framesFrom(0, 10, { width: 640, height: 480 }),
    invoke: moving((_, { type, points }) => ({ shape: { type, points } })),
};

test('nothing is written in the place of a rectangle that is turned', async () => {
    const { bench, seed } = await tracked(shape('rectangle', 0, BOX), 5, STILL);
    bench.store.remove(on(bench, 3));
    bench.add(TURNED);
    await bench.runOn([seed], 0, 5);
    expect(bench.frames()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(bench.said()).toContain(`in its place: car ${seed} on 3.`);
});

test('a turned rectangle in the place of a track is told', async () => {
    const bench = createBench(STILL);
    bench.add(TURNED);
    bench.addTracks(track({ 0: BOX }));
    await bench.runAll(0, 5);
    expect(bench.said()).toContain('Kept 1 drawn shape that may be of the same');
});
