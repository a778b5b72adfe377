// SPDX-License-Identifier: MIT
// The action on the demo clip with what the real function answered (tests/fixtures/demo.json).
// `npm run record` asks the function again: FUNCTION_URL names it, out/ui_plugin holds the clip.
// tests/test_ui_plugin_recording.py holds the recording against the function of today.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test, vi } from 'vitest';
import { shape } from '../standin/core';
import { realFunction } from '../standin/function';
import { Bench, createBench, framesFrom, Surroundings } from './bench';
import { boxOf, iou, pixelsOf } from './raster';
import { Recorded, recording, replaying } from './recorded';

interface Clip {
    width: number;
    height: number;
    frames: number;
    seeds: { type: string; points: number[] }[];
    /** Masks by frame and object; null where it is not visible. */
    truth: (number[] | null)[][];
}

const FIXTURE = fileURLToPath(new URL('./fixtures/demo.json', import.meta.url));
const FOLDER = fileURLToPath(new URL('../../out/ui_plugin/', import.meta.url));
const url = process.env.FUNCTION_URL;

const { clip, answers } = url
    ? {
          clip: JSON.parse(readFileSync(`${FOLDER}clip.json`, 'utf8')) as Clip,
          answers: [],
      }
    : (JSON.parse(readFileSync(FIXTURE, 'utf8')) as { clip: Clip; answers: Recorded[] });
const invoke = url ? recording(realFunction(url, FOLDER), answers) : replaying(answers);

afterAll(() => {
    if (!url) return;
    const lines = answers.map((answer) => JSON.stringify(answer)).join(',\n');
    writeFileSync(FIXTURE, `{"clip": ${JSON.stringify(clip)},\n"answers": [\n${lines}\n]}\n`);
});

const LAST = clip.frames - 1;
vi.setConfig({ testTimeout: url ? 1_800_000 : 120_000 });

/** The clip, with the objects that are drawn on its first frame. */
function openJob(more: Surroundings = {}, seeds = clip.seeds): Bench {
    const size = { width: clip.width, height: clip.height };
    const bench = createBench({ frames: framesFrom(0, LAST, size), invoke, ...more });
    bench.add(...seeds.map(({ type, points }) => shape(type, 0, points)));
    return bench;
}

function truthOf(frame: number, object: number): Set<number> | null {
    const points = clip.truth[frame][object];
    return points && pixelsOf('mask', points, clip.width, clip.height);
}

/** How well the results of one object lie on the truth, over the frames where it is visible. */
function agreement(
    results: { frame: number; type: string; points: number[] }[],
    object: number,
): number {
    const scores = results.flatMap(({ frame, type, points }) => {
        const truth = truthOf(frame, object);
        if (!truth) return [];
        const pixels = pixelsOf(type, points, clip.width, clip.height);
        return [iou(pixels, type === 'rectangle' ? boxOf(truth, clip.width) : truth)];
    });
    return scores.reduce((sum, score) => sum + score, 0) / scores.length;
}

test('all objects of the first frame, forwards', async () => {
    const bench = openJob();
    await bench.runAll(0, LAST);
    expect(bench.calls).toHaveLength(1 + LAST);
    const shapes = bench.shapes();
    clip.seeds.forEach(({ type }, object) => {
        const results = shapes.filter((one) => one.type === type && one.source === 'auto');
        expect(agreement(results, object)).toBeGreaterThan(0.5);
    });
    const hidden = clip.truth.flatMap((masks, frame) => (masks[0] === null ? [frame] : []));
    const found = shapes
        .filter(({ type, source }) => type === 'mask' && source === 'auto')
        .map(({ frame }) => frame);
    expect(found.filter((frame) => hidden.includes(frame)).length).toBeLessThan(hidden.length);
    expect(found.some((frame) => frame > Math.max(...hidden))).toBe(true);
    expect(bench.said()).toMatch(/Not visible: car \d+ on \d+ frames/);
    expect(bench.reports[0].jumps[0].text).toMatch(/Frame \d+: car \d+, confidence 0\.\d\d/);
});

test('the polygon as a track', async () => {
    const bench = openJob();
    await bench.runAll(0, LAST, { convert: true });
    const keyframes = bench.track().shapes;
    expect(keyframes).toHaveLength(clip.frames);
    expect(agreement(keyframes.slice(1), 1)).toBeGreaterThan(0.5);
});

test('a correction on the way and a run from there: the polygon is not doubled', async () => {
    const bench = openJob();
    await bench.runAll(0, LAST);
    const middle = Math.floor(clip.frames / 2);
    const found = bench.on(middle).find(({ type }) => type === 'polygon')!;
    const [x, y, ...rest] = found.points;
    bench.store.set(found.clientID!, { points: [x + 1, y, ...rest], source: 'semi-auto' });
    await bench.runOn([found.clientID!], middle, LAST);
    const polygons = bench.shapes().filter(({ type }) => type === 'polygon');
    expect(polygons.map(({ frame }) => frame)).toEqual(
        Array.from({ length: clip.frames }, (_, frame) => frame),
    );
    expect(agreement(polygons, 1)).toBeGreaterThan(0.5);
});

test('from the last frame backwards', async () => {
    const bench = openJob({}, []);
    bench.add(shape('mask', LAST, clip.truth[LAST][1]!));
    await bench.runAll(LAST, LAST - 6);
    const results = bench.shapes().filter(({ source }) => source === 'auto');
    expect(results).toHaveLength(6);
    expect(agreement(results, 1)).toBeGreaterThan(0.5);
});

test('states that are forgotten half way are started again from the last result', async () => {
    let forgotten = false;
    const bench = openJob({
        intercept: (call, next) => {
            if (call.type !== 'track' || call.frame !== 3 || forgotten) return next();
            forgotten = true;
            return { status: 400, body: 'Invalid or expired tracker state' };
        },
    });
    await bench.runAll(0, 5);
    expect(bench.calls.map(({ type, frame }) => `${type} ${frame}`)).toContain('init_tracking 2');
    const polygons = bench.shapes().filter(({ type }) => type === 'polygon');
    expect(polygons).toHaveLength(6);
    expect(agreement(polygons, 1)).toBeGreaterThan(0.5);
});
