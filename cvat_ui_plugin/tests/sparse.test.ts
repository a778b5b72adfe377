// SPDX-License-Identifier: MIT
// The plugin's settings: few keyframes, the memory policy, the search region, the tolerance of polygons.

import { expect, test } from 'vitest';
import { betweenKeyframes } from '../src/ts/interpolation';
import { sparseKeyframes } from '../src/ts/keyframes';
import { PolygonTruth } from '../src/ts/limits';
import { isSigned } from '../src/ts/signature';
import { DEFAULTS, SETTINGS_NAME, settingsFrom } from '../src/ts/settings';
import { Bench, createBench, drawing, framesFrom, mask, Memory, moving } from './bench';
import { polygon, Surroundings, track } from './bench';

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

const outline = drawing('polygon', OUTLINE);

/** A job with sparse keyframes, and what more stands around it; the object turns. */
function open(more: Surroundings = {}): Bench {
    const bench = createBench({
        frames: framesFrom(0, 30, SIZE),
        invoke: moving(turning),
        ...more,
    });
    bench.kept = SPARSE;
    bench.add(outline(0));
    return bench;
}

const bare = (bench: Bench): string => {
    const { clientID: _, ...own } = bench.track();
    return JSON.stringify(own);
};
const framesOf = (bench: Bench): number[] => bench.track().shapes.map(({ frame }) => frame);
const at = (bench: Bench, wanted: number) =>
    bench.track().shapes.find(({ frame }) => frame === wanted)!;

/** `meddle` when frame 9 is tracked. */
function onFrame9(meddle: (bench: Bench) => void, more: Surroundings = {}): Bench {
    const bench: Bench = open({
        ...more,
        intercept: (call, next) => {
            if (call.frame === 9) meddle(bench);
            return next();
        },
    });
    return bench;
}

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
    const bench = createBench({ frames: framesFrom(0, 30, SIZE) });
    bench.kept = SPARSE;
    bench.addTracks(track({ 0: type === 'polygon' ? OUTLINE : [100, 100, 180, 160] }));
    await bench.runAll(0, LAST);
    expect(framesOf(bench)).toEqual([0, LAST, LAST + 1]);
});

test('keyframes that a person made stay; the third run changes nothing', async () => {
    const bench = open();
    await bench.runAll(0, LAST, { convert: true });
    const moved = (frame: number, by: number) => turned(frame).map((value) => value + by);
    bench.store.draw(bench.track().clientID!, 7, moved(7, 30));
    bench.store.draw(bench.track().clientID!, LAST, moved(LAST, 50));
    const byHand = () => {
        const keyframes = bench.track().shapes.filter((keyframe) => !isSigned(keyframe));
        return keyframes.sort((a, b) => a.frame - b.frame);
    };
    const kept = byHand();
    await bench.runAll(0, LAST);
    expect(byHand()).toEqual(kept);
    checkShown(bench, 0, 6);
    checkShown(bench, 7, LAST - 1, 30);
    const second = bare(bench);
    await bench.runAll(0, LAST);
    expect(bare(bench)).toBe(second);
});

test('lost frames are ends of stretches, attributes and flags hold on every frame', async () => {
    const invoke = moving((frame, memory) =>
        frame === 10 || frame === 11 ? { shape: null } : turning(frame, memory),
    );
    const bench = open({ invoke });
    await bench.runAll(0, LAST, { convert: true });
    const own = bench.track();
    expect(framesOf(bench)).toEqual(expect.arrayContaining([9, 10, 12, LAST]));
    expect(at(bench, 10).outside).toBe(true);
    expect(bench.store.get(11)).toEqual([]);
    const change = own.shapes.find(({ frame }) => frame === 12)!;
    Object.assign(change, { attributes: [{ spec_id: 32, value: 'dirty' }], occluded: true });
    bench.store.remove(own.clientID!);
    bench.addTracks(own);
    const occluded = (): (boolean | undefined)[] =>
        Array.from({ length: LAST + 1 }, (_, frame) => bench.store.get(frame)[0]?.occluded);
    const before = occluded();
    expect(new Set(before)).toEqual(new Set([false, true, undefined]));
    await bench.runAll(0, LAST);
    expect(at(bench, 12)).toEqual(change);
    expect(occluded()).toEqual(before);
    expect(bench.track().shapes.filter(({ attributes }) => attributes.length)).toHaveLength(1);
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
    const bench = onFrame9(({ store }) => {
        const [own] = store.export().tracks;
        if (own) store.draw(own.clientID!, 5, OUTLINE);
    });
    await bench.runAll(0, LAST, { convert: true });
    await bench.runAll(0, LAST);
    expect(framesOf(bench)).toHaveLength(LAST + 2);
    expect(at(bench, 5).points).toEqual(OUTLINE);
});

test('the settings are an action of their own, are kept, and reach the function', async () => {
    const bench = createBench();
    bench.add(polygon(2), mask(2));
    const undoSteps = bench.store.undoSteps;
    await bench.choose({
        'Memory policy': 'anchors',
        'Search region': '3 times the object',
        'Polygon tolerance': '0.05',
        'Keyframes of tracks': 'as few as keep an IoU of 0.95',
        'Between drawn frames': 'track from both ends',
    });
    expect(settingsFrom(bench.kept)).toEqual({
        memory: 'anchors',
        searchRegion: 3,
        tolerance: 0.05,
        sparse: 0.95,
        bothWays: true,
    });
    expect(bench.reports[0].lines[0]).toBe(
        'Memory policy: anchors. Search region: 3 times the object. Polygon tolerance: 0.05. ' +
            'Keyframes of tracks: as few as keep an IoU of 0.95. ' +
            'Between drawn frames: track from both ends.',
    );
    const [action] = (await bench.core.actions.list()).filter(({ name }) => name === SETTINGS_NAME);
    const values = Object.values(action.parameters!).map(({ defaultValue }) => defaultValue);
    expect(values).toEqual([
        'anchors',
        '3 times the object',
        '0.05',
        'as few as keep an IoU of 0.95',
        'track from both ends',
    ]);
    await bench.runAll(2, 4);
    expect(bench.calls[0].shapes).toEqual([
        expect.objectContaining({
            type: 'polygon',
            memory: 'anchors',
            search_region: 3,
            tolerance: 0.05,
        }),
        { type: 'mask', points: mask(2).points, memory: 'anchors', search_region: 3 },
    ]);
    // sparse keyframes are made of exact outlines
    await bench.runAll(2, 4, { convert: true });
    expect(bench.calls[3].shapes![0]).toMatchObject({ type: 'polygon', tolerance: 0 });
    bench.store.undo();
    await bench.choose({ 'Search region': 'the whole image' });
    await bench.runAll(2, 4);
    expect(bench.calls[6].shapes![0]).toMatchObject({ search_region: 0 });
    await bench.choose({});
    await bench.runAll(2, 4);
    expect(Object.keys(bench.calls[9].shapes![0])).toEqual(['type', 'points']);
    expect(bench.store.undoSteps).toBeGreaterThan(undoSteps);
});

test.each([
    ['nothing', null],
    ['no JSON', '{'],
    ['a list', '[3]'],
    ['a word', '"anchors"'],
    ['values that do not exist', '{"memory":"all","searchRegion":1,"tolerance":7,"sparse":"0.9"}'],
])('settings that hold %s are as the function is set', (_what, text) => {
    expect(settingsFrom(text)).toEqual(DEFAULTS);
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

// A shape in the place of a track, which here moves by a pixel a frame

const MOVING = { invoke: moving() };

test('where a person drew a shape in its place a track is hidden, and stays sparse', async () => {
    const bench = open(MOVING);
    bench.add(outline(10, 10));
    await bench.runOn([1], 0, LAST, { convert: true });
    expect(framesOf(bench)).toEqual([0, 9, 10, 11, LAST, LAST + 1]);
    expect(bench.said()).toMatch(/Sparse: 3 keyframes .* stand for 19 frames/);
});

test('a track whose place was drawn on during the run has a keyframe on every frame', async () => {
    const bench = onFrame9(({ add }) => add(outline(5, 5)), MOVING);
    await bench.runAll(0, LAST, { convert: true });
    expect(framesOf(bench)).toHaveLength(LAST + 2);
    expect(at(bench, 5).outside).toBe(true);
});

test('a shape in the place of a track that is deleted during the run does not hide it', async () => {
    const bench = onFrame9(({ store }) => store.remove(2), MOVING);
    bench.add(outline(5, 5));
    await bench.runAll(0, LAST, { convert: true });
    const hidden = bench.track().shapes.filter(({ outside }) => outside);
    expect(hidden.map(({ frame }) => frame)).toEqual([LAST + 1]);
});
