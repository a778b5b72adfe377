// SPDX-License-Identifier: MIT
// What a person made stays, also where it was made during the run, and the run goes on from it.

import { expect, test } from 'vitest';
import { SerializedShape } from '../src/ts/cvat';
import { Bench, box, createBench, framesFrom, MASK, mask, moving, polygon } from './bench';
import { shifted, SQUARE, track, tracked } from './bench';

test('corrected shapes stay byte for byte; the run goes on from each; a third run changes nothing', async () => {
    const { bench } = await tracked(mask(2), 10);
    bench.store.draw(bench.on(5)[0].clientID!, 5, shifted('mask', MASK, 20));
    const kept = JSON.stringify(bench.on(5));
    await bench.runAll(2, 10);
    expect(JSON.stringify(bench.on(5))).toBe(kept);
    const lefts = bench.shapes().map(({ frame, points }) => [frame, points.at(-4)]);
    expect(lefts).toEqual([
        ...[2, 3, 4].map((frame) => [frame, 8 + frame]),
        ...[5, 6, 7, 8, 9, 10].map((frame) => [frame, 25 + frame]),
    ]);
    expect(bench.said()).toMatch(
        /Kept as a person made it, and tracked on from there: car \d+ on 5\./,
    );
    const unscored = () => bench.contents().map((text) => text.replace(/"score":[^,}]*/, ''));
    const second = unscored();
    await bench.runAll(2, 10);
    expect(unscored()).toEqual(second);
});

test('keyframes that a person dragged, added or hid stay; a third run changes nothing', async () => {
    const { bench } = await tracked(polygon(2), 14, { convert: true });
    bench.store.draw(bench.track().clientID!, 5, shifted('polygon', SQUARE, 40));
    bench.store.hide(bench.track().clientID!, 9);
    const byHand = () => bench.track().shapes.filter(({ frame }) => [2, 5, 9].includes(frame));
    const kept = byHand();
    await bench.runAll(2, 14);
    expect(byHand()).toEqual(kept);
    const starts = bench.calls.filter(({ type }) => type === 'init_tracking');
    expect(starts.map(({ frame }) => frame)).toEqual([2, 2, 5]);
    const lefts = bench
        .track()
        .shapes.map(({ frame, points, outside }) => [frame, outside || Math.round(points[0])]);
    expect(lefts).toEqual([
        [2, 10], [3, 11], [4, 12], [5, 50], [6, 51], [7, 52], [8, 53], [9, true],
        [10, 55], [11, 56], [12, 57], [13, 58], [14, 59], [15, true],
    ]); // prettier-ignore
    const second = bench.contents();
    await bench.runAll(2, 14);
    expect(bench.contents()).toEqual(second);
});

test('automatic keyframes that were deleted come back only where that is asked for', async () => {
    const { bench } = await tracked(polygon(2), 12, {
        convert: true,
        frames: framesFrom(0, 20, undefined, [9]),
        invoke: moving((frame) => (frame === 11 ? { shape: null } : null)),
    });
    const framesOf = () => bench.track().shapes.map(({ frame }) => frame);
    const dense = framesOf();
    const cut = (gone: number[]): void => {
        const own = bench.track();
        bench.store.remove(own.clientID!);
        const shapes = own.shapes.filter(({ frame }) => !gone.includes(frame));
        bench.addTracks({ ...own, source: 'semi-auto', shapes });
    };
    cut([4, 8, 12]);
    const left = dense.filter((frame) => ![4, 8].includes(frame));
    for (const run of [1, 2]) {
        await bench.runAll(2, 12);
        expect(framesOf()).toEqual(left);
        expect(bench.asked[run - 1]).toMatch(/missing on frames of this run.*\(car \d+ on 4, 8\)/);
        expect(bench.said()).toMatch(/Without keyframes.*: car \d+ on 4, 8\./);
    }

    // every frame of a run
    await bench.runAll(7, 8);
    expect(framesOf()).toEqual(left);
    expect(bench.reports[3].lines).toHaveLength(1);
    expect(bench.said()).toMatch(/Without keyframes.*: car \d+ on 8\./);

    // with few keyframes, their limit tells; else the person
    bench.answer = true;
    await bench.runAll(2, 12);
    expect(framesOf()).toEqual(dense);
    cut([4]);
    bench.kept = '{"sparse":0.97}';
    const asked = bench.asked.length;
    await bench.runAll(2, 12);
    expect(bench.asked).toHaveLength(asked);
    expect(bench.said()).not.toContain('deleted');
});

test('label, group and attributes that a person set on a result are taken over', async () => {
    const { bench } = await tracked(mask(2), 6);
    const changed = { label_id: 1, group: 7, attributes: [{ spec_id: 31, value: 'red' }] };
    const [result] = bench.on(4);
    bench.store.remove(result.clientID!);
    bench.add({ ...result, ...changed });
    await bench.runAll(2, 6);
    expect(bench.on(4)).toEqual([expect.objectContaining({ ...changed, source: 'auto' })]);
    expect(bench.on(5)).toEqual([expect.objectContaining({ group: 0, attributes: [] })]);
});

test('attributes that a person set on all results of a part stay when the part is tracked again', async () => {
    const valued = (value: string) => [
        { spec_id: 31, value: 'red' },
        { spec_id: 32, value },
    ];
    const { bench } = await tracked(mask(0, 0, { attributes: valued('standing') }), 8);
    for (const frame of [5, 6, 7, 8]) {
        bench.store.set(bench.on(frame)[0].clientID!, { attributes: valued('walking') });
    }
    bench.store.set(bench.on(4)[0].clientID!, { source: 'semi-auto' });
    await bench.runAll(4, 8);
    expect(bench.shapes().map(({ attributes }) => attributes[1].value)).toEqual([
        ...Array(5).fill('standing'),
        ...Array(4).fill('walking'),
    ]);
});

test.each(['{}', '{"sparse":0.97}'])(
    'a track has the attributes that a person set on the results it replaces (settings: %s)',
    async (settings) => {
        const valued = (value: string) => [
            { spec_id: 31, value: 'red' },
            { spec_id: 32, value },
        ];
        const { bench } = await tracked(polygon(0, 0, { attributes: valued('standing') }), 8);
        for (const frame of [5, 6, 7, 8]) {
            bench.store.set(bench.on(frame)[0].clientID!, { attributes: valued('walking') });
        }
        bench.kept = settings;
        await bench.runAll(0, 8, { convert: true });
        const keyframes = [...bench.track().shapes].sort((a, b) => a.frame - b.frame);
        const said = keyframes.filter(({ attributes }) => attributes.length);
        expect(said.map(({ frame, attributes }) => [frame, attributes[0].value])).toEqual([
            [0, 'standing'],
            [5, 'walking'],
        ]);
    },
);

test('a run backwards writes nothing over a drawing of which a person corrected the label', async () => {
    const { bench, seed } = await tracked(mask(3), 8);
    bench.store.set(seed, { label_id: 2, attributes: [] });
    bench.store.set(bench.on(6)[0].clientID!, { source: 'semi-auto' });
    await bench.runAll(6, 0);
    expect(bench.on(3).map(({ clientID, label_id }) => [clientID, label_id])).toEqual([[seed, 2]]);
});

test('a track that a person drew on every frame of the run is left alone', async () => {
    const bench = createBench();
    const [id] = bench.addTracks(track({ 2: SQUARE, 3: SQUARE, 4: SQUARE }));
    const before = bench.contents();
    const drawn = 'a person, or an older version, made or hid it on every frame of the run';
    await expect(bench.runAll(2, 4)).rejects.toThrow(`(car ${id}: ${drawn}`);
    expect(bench.contents()).toEqual(before);

    bench.add(mask(2));
    await bench.runAll(2, 4);
    expect(bench.said()).toContain(`Left alone: car ${id} (${drawn}`);
});

// What a person drew of an object joins

test('the shapes that a person drew of an object join where it is started', async () => {
    const bench = createBench();
    bench.add(mask(2), box(2));
    await bench.runAll(2, 12);
    const own = (wanted: number): SerializedShape =>
        bench.on(wanted).find(({ type }) => type === 'mask')!;
    bench.store.draw(own(5).clientID!, 5, shifted('mask', MASK, 20));
    bench.store.draw(own(9).clientID!, 9, shifted('mask', MASK, 30));
    bench.calls.length = 0;
    // the correction on frame 5 stands on the seed and on the later correction, too
    await bench.runOn([own(5).clientID!], 5, 12);
    const sent = bench.calls.map(({ type, frame, shapes }) => {
        const adopt = (one: unknown) => (one as { adopt?: unknown } | null)?.adopt ?? null;
        return [type, frame, shapes?.map(adopt)];
    });
    const joining = (...distances: number[]) => [
        distances.map((distance, index) => ({ index: index + 1, distance })),
        null,
        null,
    ];
    expect(sent).toEqual([
        ...[5, 2, 9].map((frame) => ['init_tracking', frame, [null]]),
        ['track', 5, joining(-3, 4)],
        ...[6, 7, 8].map((frame) => ['track', frame, undefined]),
        ['track', 9, joining(-4, -7)],
        ...[10, 11, 12].map((frame) => ['track', frame, undefined]),
    ]);
    const { shapes, states } = bench.calls[3];
    expect(shapes![0]).toMatchObject({ type: 'mask', points: own(5).points });
    expect(states).toHaveLength(3);
    expect([3, 6, 10].map((frame) => bench.on(frame).length)).toEqual([2, 2, 2]);
});

test('an object whose drawings cannot join is tracked all the same, and the message says so', async () => {
    const error = { code: 'bad_shape', message: 'It is bad.' };
    let again = false;
    const { bench, seed } = await tracked(mask(2), 10, {
        invoke: moving((frame) =>
            again && frame === 8 ? { shape: null, state: null, error } : null,
        ),
    });
    bench.store.draw(bench.on(8)[0].clientID!, 8, shifted('mask', MASK, 9));
    again = true;
    await bench.runAll(2, 6);
    expect(bench.shapes()).toHaveLength(9);
    expect(bench.said()).toContain('Replaced 4 shapes of an earlier run.');
    expect(bench.said()).toContain(
        `Tracked without what was drawn by hand on other frames: car ${seed}: It is bad.`,
    );
    expect(bench.reports.at(-1)!.kind).toBe('warning');
});

// What changes during the run

/** A bench in which `change` happens once `armed`, when this frame is tracked. */
function changing(when: number, change: (bench: Bench) => void): Bench & { armed: boolean } {
    const bench: Bench = createBench({
        intercept: (call, next) => {
            if (call.frame === when && armed.armed) change(bench);
            return next();
        },
    });
    const armed = Object.assign(bench, { armed: false });
    return armed;
}

test("what changes during the run is a person's and stays", async () => {
    const bench = changing(5, (own) => {
        own.store.draw(own.on(4)[0].clientID!, 4, shifted('mask', MASK, 50));
        own.store.draw(own.track().clientID!, 4, shifted('polygon', SQUARE, 50));
    });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 6, { convert: true });
    bench.store.save();
    bench.armed = true;
    await bench.runAll(2, 6);
    expect(bench.on(4).map(({ points }) => points.at(-4))).toEqual([60]);
    const four = bench.track().shapes.find(({ frame }) => frame === 4)!;
    expect(four.points[0]).toBe(60);
    bench.store.save();
});

test('what seems to be an earlier result and is changed during the run stays, alone', async () => {
    const bench = changing(4, (own) =>
        own.store.draw(own.on(5)[0].clientID!, 5, shifted('mask', MASK, 9)),
    );
    bench.answer = true;
    bench.add(mask(2), ...[3, 4, 5, 6].map((frame) => mask(frame, frame - 2, { source: 'auto' })));
    bench.armed = true;
    await bench.runAll(2, 6);
    expect(bench.asked).toHaveLength(1);
    expect(bench.on(5).map(({ points }) => points.at(-4))).toEqual([19]);
});

test.each(['semi-auto', 'auto'])(
    'a %s polygon that changes during a conversion goes into the track as it is then',
    async (source) => {
        const drawn = shifted('polygon', SQUARE, 30);
        const bench = changing(4, (own) => own.store.draw(own.on(5)[0].clientID!, 5, drawn));
        bench.add(polygon(2));
        await bench.runAll(2, 8);
        const points = shifted('polygon', SQUARE, 7);
        bench.store.set(bench.on(5)[0].clientID!, { points, source });
        bench.armed = true;
        await bench.runAll(2, 8, { convert: true });
        expect(bench.shapes()).toEqual([]);
        const five = bench.track().shapes.find(({ frame }) => frame === 5)!;
        expect(five.points).toEqual(drawn);
    },
);

test('an object that is deleted during the run gets no results', async () => {
    const bench = changing(5, ({ store }) => store.remove(ids[0]));
    bench.armed = true;
    const ids = bench.add(mask(2), box(2));
    await bench.runAll(2, 6);
    expect(bench.shapes().map(({ type }) => type)).toEqual(Array(5).fill('rectangle'));
    expect(bench.said()).toContain('it was deleted during the run');
});
