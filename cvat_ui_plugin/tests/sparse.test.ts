// SPDX-License-Identifier: MIT
// The plugin's settings: few keyframes, the memory policy, the tolerance of polygons.

import { expect, test } from 'vitest';
import { SerializedTrack } from '../src/ts/cvat';
import { betweenKeyframes } from '../src/ts/interpolation';
import { sparseKeyframes } from '../src/ts/keyframes';
import { PolygonTruth } from '../src/ts/limits';
import { isSigned } from '../src/ts/signature';
import { SETTINGS_NAME, settingsFrom } from '../src/ts/settings';
import { shape } from '../standin/core';
import { Bench, createBench, framesFrom, Memory, moving, shifted } from './bench';

const SIZE = { width: 640, height: 480 };
const OUTLINE = [100, 100, 180, 110, 190, 170, 140, 150, 110, 190];
const LAST = 20;
const SPARSE = '{"sparse":0.97}';

/** The object after `steps` frames: it turns a little with each. */
function turned(steps: number): number[] {
    const [cos, sin] = [Math.cos(0.03 * steps), Math.sin(0.03 * steps)];
    return OUTLINE.map((_, at) => {
        const i = at - (at % 2);
        const [x, y] = [OUTLINE[i] - 145, OUTLINE[i + 1] - 145];
        return 145 + (at % 2 ? x * sin + y * cos : x * cos - y * sin);
    });
}

function turning(frame: number, { points, at }: Memory) {
    const shift = points[0] - turned(at)[0]; // where a person moved it to
    return { shape: { type: 'polygon', points: turned(frame).map((value) => value + shift) } };
}

function open(per: Parameters<typeof moving>[0] = turning): Bench {
    const bench = createBench({ frames: framesFrom(0, 30, SIZE), invoke: moving(per) });
    bench.kept = SPARSE;
    bench.store.import({ shapes: [shape('polygon', 0, OUTLINE)] });
    return bench;
}

const own = (bench: Bench): SerializedTrack => bench.store.export().tracks[0];
const bare = (bench: Bench): string => {
    const { clientID: _, ...track } = own(bench);
    return JSON.stringify(track);
};
const framesOf = (bench: Bench): number[] => own(bench).shapes.map(({ frame }) => frame);

/** Every frame as the page shows it is inside the limit. */
function checkShown(bench: Bench, from: number, to: number, by = 0): void {
    for (let frame = from; frame <= to; frame += 1) {
        const [{ points }] = bench.store.get(frame);
        const truth = PolygonTruth.of(turned(frame).map((value) => value + by))!;
        expect(truth.isWithin(points!, { iou: 0.97, distance: 1 }), `frame ${frame}`).toBe(true);
    }
}

test('a track gets the keyframes that are needed, and the message counts them', async () => {
    const bench = open();
    await bench.runAll(0, LAST, { convert: true });
    const frames = framesOf(bench);
    expect(frames.length).toBeLessThan(8);
    expect(frames).toEqual(expect.arrayContaining([0, LAST, LAST + 1]));
    checkShown(bench, 0, LAST);
    expect(bench.reports[0].lines.join('\n')).toMatch(
        new RegExp(`Sparse: ${frames.length - 2} keyframes of \\d+ points in all stand for 20 fr`),
    );
    const once = bare(bench);
    await bench.runAll(0, LAST);
    expect(bare(bench)).toBe(once);
});

test.each(['polygon', 'rectangle'])('a %s that only moves gets two keyframes', async (type) => {
    const bench = createBench({ frames: framesFrom(0, 30, SIZE), invoke: moving() });
    bench.kept = SPARSE;
    const points = type === 'polygon' ? OUTLINE : [100, 100, 180, 160];
    const keyframe = { type, frame: 0, points, occluded: false, outside: false, z_order: 0 };
    const track = { label_id: 1, frame: 0, group: 0, source: 'manual', attributes: [] };
    const shapes = [{ ...keyframe, rotation: 0, attributes: [] }];
    bench.store.import({ tracks: [{ ...track, elements: [], shapes }] });
    await bench.runAll(0, LAST);
    expect(framesOf(bench)).toEqual([0, LAST, LAST + 1]);
});

test('keyframes that a person made stay; the third run changes nothing', async () => {
    const bench = open();
    await bench.runAll(0, LAST, { convert: true });
    const moved = turned(7).map((value) => value + 30);
    bench.store.draw(own(bench).clientID!, 7, moved);
    bench.store.draw(own(bench).clientID!, LAST, turned(LAST).map((value) => value + 50)); // prettier-ignore
    const byHand = (): string =>
        JSON.stringify(
            own(bench)
                .shapes.filter((keyframe) => !isSigned(keyframe))
                .sort((a, b) => a.frame - b.frame),
        );
    const kept = byHand();
    await bench.runAll(0, LAST);
    expect(byHand()).toBe(kept);
    checkShown(bench, 0, 6);
    checkShown(bench, 7, LAST - 1, 30);
    const second = bare(bench);
    await bench.runAll(0, LAST);
    expect(bare(bench)).toBe(second);
});

test('lost frames are ends of stretches, attributes and flags hold on every frame', async () => {
    const bench = open((frame, memory) =>
        frame === 10 || frame === 11 ? { shape: null } : turning(frame, memory),
    );
    await bench.runAll(0, LAST, { convert: true });
    const track = own(bench);
    expect(framesOf(bench)).toEqual(expect.arrayContaining([9, 10, 12, LAST]));
    expect(track.shapes.find(({ frame }) => frame === 10)!.outside).toBe(true);
    expect(bench.store.get(11)).toEqual([]);
    const change = track.shapes.find(({ frame }) => frame === 12)!;
    change.attributes = [{ spec_id: 32, value: 'dirty' }];
    change.occluded = true;
    bench.store.remove(track.clientID!);
    bench.store.import({ tracks: [track] });
    const occluded = (): (boolean | undefined)[] =>
        Array.from({ length: LAST + 1 }, (_, frame) => bench.store.get(frame)[0]?.occluded);
    const before = occluded();
    expect(new Set(before)).toEqual(new Set([false, true, undefined]));
    await bench.runAll(0, LAST);
    expect(own(bench).shapes.find(({ frame }) => frame === 12)).toEqual(change);
    expect(occluded()).toEqual(before);
    expect(own(bench).shapes.filter(({ attributes }) => attributes.length)).toHaveLength(1);
});

test('cancelled while keyframes are chosen: every frame has one, nothing is lost', async () => {
    const bench = open();
    const isChoosing = (): boolean =>
        bench.progress.some(({ message }) => message.includes('Choosing keyframes'));
    await bench.runAll(0, LAST, { convert: true, cancelled: isChoosing });
    expect(framesOf(bench)).toHaveLength(LAST + 2);
    expect(bench.reports[0].lines.join()).toContain('Cancelled while keyframes were chosen');
});

test('a track that changes during the run gets a keyframe on every frame', async () => {
    const bench: Bench = createBench({
        frames: framesFrom(0, 30, SIZE),
        invoke: moving(turning),
        intercept: (call, next) => {
            const [track] = bench.store.export().tracks;
            if (track && call.frame === 9) bench.store.draw(track.clientID!, 5, OUTLINE);
            return next();
        },
    });
    bench.kept = SPARSE;
    bench.store.import({ shapes: [shape('polygon', 0, OUTLINE)] });
    await bench.runAll(0, LAST, { convert: true });
    await bench.runAll(0, LAST);
    expect(framesOf(bench)).toHaveLength(LAST + 2);
    expect(own(bench).shapes.find(({ frame }) => frame === 5)!.points).toEqual(OUTLINE);
});

test('the settings are an action of their own, are kept, and reach the function', async () => {
    const bench = createBench({ invoke: moving() });
    bench.store.import({
        shapes: [shape('polygon', 2, [10, 10, 30, 10, 30, 30]), shape('mask', 2, [0, 4, 5, 5, 6, 6])],
    }); // prettier-ignore
    const undoSteps = bench.store.undoSteps;
    await bench.choose({
        'Memory policy': 'anchors',
        'Polygon tolerance': '0.05',
        'Keyframes of tracks': 'as few as keep an IoU of 0.95',
    });
    expect(settingsFrom(bench.kept)).toEqual({ memory: 'anchors', tolerance: 0.05, sparse: 0.95 });
    expect(bench.reports[0].lines[0]).toBe(
        'Memory policy: anchors. Polygon tolerance: 0.05. ' +
            'Keyframes of tracks: as few as keep an IoU of 0.95.',
    );
    const [action] = (await bench.core.actions.list()).filter(({ name }) => name === SETTINGS_NAME);
    const values = Object.values(action.parameters!).map(({ defaultValue }) => defaultValue);
    expect(values).toEqual(['anchors', '0.05', 'as few as keep an IoU of 0.95']);
    await bench.runAll(2, 4);
    expect(bench.calls[0].shapes).toEqual([
        expect.objectContaining({ type: 'polygon', memory: 'anchors', tolerance: 0.05 }),
        { type: 'mask', points: [0, 4, 5, 5, 6, 6], memory: 'anchors' },
    ]);
    // sparse keyframes are made of exact outlines
    await bench.runAll(2, 4, { convert: true });
    expect(bench.calls[3].shapes![0]).toMatchObject({ type: 'polygon', tolerance: 0 });
    bench.store.undo();
    await bench.choose({});
    await bench.runAll(2, 4);
    expect(Object.keys(bench.calls[6].shapes![0])).toEqual(['type', 'points']);
    expect(bench.store.undoSteps).toBeGreaterThan(undoSteps);
});

test.each([
    ['nothing', null],
    ['no JSON', '{'],
    ['a list', '[3]'],
    ['a word', '"anchors"'],
    ['values that do not exist', '{"memory":"all","tolerance":7,"sparse":"0.9"}'],
])('settings that hold %s are as the function is set', (_what, text) => {
    expect(settingsFrom(text)).toEqual({ memory: null, tolerance: null, sparse: null });
});

test('shapes stay a shape per frame with every setting', async () => {
    const bench = open();
    await bench.runAll(0, 6);
    expect(bench.store.export().shapes.map(({ frame }) => frame)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(shifted('polygon', OUTLINE, 0)).toEqual(bench.store.export().shapes[0].points);
});

/** A circle of so many points. */
function circle(count: number, x: number): number[] {
    const angle = (2 * Math.PI) / count;
    return Array.from({ length: count }, (_, i) => [
        x + 100 * Math.cos(i * angle),
        200 + 100 * Math.sin(i * angle),
    ]).flat();
}

test('an outline of 200,000 points becomes keyframes of few, in the same place', async () => {
    const shown = new Map(
        [0, 1, 2].map((frame) => {
            const points = circle(200_000, 150 + 10 * frame);
            return [frame, { points, fixed: false, occluded: false, zOrder: 0 }];
        }),
    );
    const none = new Set<number>();
    const pause = (): Promise<void> => Promise.resolve();
    const chosen = await sparseKeyframes('polygon', shown, 0.97, SIZE, none, pause);
    expect([...chosen.keys()]).toEqual([0, 2]);
    for (const [frame, points] of chosen) {
        expect(points.length).toBeLessThan(100);
        const truth = PolygonTruth.of(circle(400, 150 + 10 * frame))!;
        expect(truth.isWithin(points, { iou: 0.97, distance: 1 })).toBe(true);
    }
});

test('more points than a call takes arguments may belong to one corner of the next keyframe', () => {
    const left = circle(600_000, 150);
    // the first corner is the first point of the circle; the others are halfway along, far away
    const right = [250, 200, 1e9, 0, 1e9, 1];
    const moved = betweenKeyframes('polygon', left, right)(0.25);
    expect(moved.slice(0, 2)).toEqual([250, 200]);
    expect(moved.length).toBeGreaterThan(600_000);
});

/** The outline drawn by hand where the object is on a frame. */
const drawnOn = (frame: number) => shape('polygon', frame, shifted('polygon', OUTLINE, frame));

test('where a person drew a shape in its place a track is hidden, and stays sparse', async () => {
    const bench = open(() => null);
    bench.store.import({ shapes: [drawnOn(10)] });
    await bench.runOn([1], 0, LAST, { convert: true });
    expect(framesOf(bench)).toEqual([0, 9, 10, 11, LAST, LAST + 1]);
    expect(bench.reports[0].lines.join()).toMatch(/Sparse: 3 keyframes .* stand for 19 frames/);
});

test('a track whose place was drawn on during the run has a keyframe on every frame', async () => {
    const bench: Bench = createBench({
        frames: framesFrom(0, 30, SIZE),
        invoke: moving(),
        intercept: (call, next) => {
            if (call.frame === 9) bench.store.import({ shapes: [drawnOn(5)] });
            return next();
        },
    });
    bench.kept = SPARSE;
    bench.store.import({ shapes: [shape('polygon', 0, OUTLINE)] });
    await bench.runAll(0, LAST, { convert: true });
    expect(framesOf(bench)).toHaveLength(LAST + 2);
    expect(own(bench).shapes.find(({ frame }) => frame === 5)!.outside).toBe(true);
});

test('a shape in the place of a track that is deleted during the run does not hide it', async () => {
    const bench: Bench = createBench({
        frames: framesFrom(0, 30, SIZE),
        invoke: moving(),
        intercept: (call, next) => {
            if (call.frame === 9) bench.store.remove(2);
            return next();
        },
    });
    bench.kept = SPARSE;
    bench.store.import({ shapes: [shape('polygon', 0, OUTLINE), drawnOn(5)] });
    await bench.runAll(0, LAST, { convert: true });
    expect(
        own(bench)
            .shapes.map(({ outside }) => outside)
            .indexOf(true),
    ).toBe(LAST + 1);
});
