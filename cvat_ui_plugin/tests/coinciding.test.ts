// SPDX-License-Identifier: MIT
// Objects that end on the same thing: told with the frame to look at.

import { expect, test } from 'vitest';
import { coverTheSame, Outline } from '../src/ts/coinciding';
import { Invoke } from '../standin/server';
import { createBench, moving, polygon, shifted } from './bench';
import { casesOf } from './cases';

interface Shape {
    type: string;
    points: number[];
}

interface Case {
    why: string;
    one: Shape;
    other: Shape;
    same: boolean;
}

test.each(casesOf<Case[]>('coinciding.json'))('$why', ({ one, other, same }) => {
    const [a, b] = [one, other].map(({ type, points }) => new Outline(type, points));
    expect(coverTheSame(a, b)).toBe(same);
    expect(coverTheSame(b, a)).toBe(same);
});

const [first, second] = [polygon(2), polygon(2, 40)];

/** The second object goes over to the first one on a frame, and the function is sure of it. */
function goesOver(on: number): Invoke {
    return moving((frame, { points, at }) => {
        if (frame < on || points[0] !== second.points[0]) return { score: 0.75 };
        return { shape: { type: 'polygon', points: shifted('polygon', first.points, frame - at) } };
    });
}

test('two objects that cover the same thing are told, and their first such frame is the first to look at', async () => {
    const bench = createBench({ invoke: goesOver(6) });
    const ids = bench.add(first, second);
    await bench.runAll(2, 9);
    expect(bench.said()).toContain(
        'Covering the same thing, as if one went over to the other: ' +
            `car ${ids[0]} and car ${ids[1]} on 4 frames, first on 6.`,
    );
    expect(bench.reports[0].title).toBe('Tracking ended with warnings');
    const [jump, next] = bench.reports[0].jumps;
    expect(jump.frame).toBe(6);
    expect(jump.text).toBe(`Frame 6: car ${ids[0]} and car ${ids[1]} cover the same thing`);
    expect(next.text).toContain('confidence 0.75');
});

test('objects beside each other, or drawn on each other, are not told', async () => {
    for (const other of [second, first]) {
        const bench = createBench();
        bench.add(first, { ...other });
        await bench.runAll(2, 9);
        expect(bench.said()).not.toContain('Covering the same thing');
        expect(bench.reports[0].jumps.map(({ text }) => text).join()).not.toContain('cover');
    }
});

test('what was drawn nearly on each other may come nearer', async () => {
    // an IoU of 0.43 where they are drawn, then of 0.54
    const [left, right] = [polygon(2), polygon(2, 4)];
    const nearer = shifted('polygon', right.points, -1);
    const bench = createBench({
        invoke: moving((frame, { points, at }) =>
            points[0] === right.points[0] && frame > 4
                ? { shape: { type: 'polygon', points: shifted('polygon', nearer, frame - at) } }
                : null,
        ),
    });
    bench.add(left, right);
    await bench.runAll(2, 9);
    expect(bench.said()).not.toContain('Covering the same thing');
});

test('the first frame is that of the run, also where another object is not visible on it', async () => {
    for (const backwards of [false, true]) {
        const [start, target, away] = backwards ? [9, 2, 5] : [2, 9, 6];
        const [lost, near, far] = [polygon(start, 70), polygon(start), polygon(start, 40)];
        const bench = createBench({
            invoke: moving((frame, { points, at }) => {
                if (points[0] === lost.points[0]) return frame === away ? { shape: null } : null;
                const isOver = backwards ? frame <= away : frame >= away;
                if (points[0] !== far.points[0] || !isOver) return null;
                return {
                    shape: { type: 'polygon', points: shifted('polygon', near.points, frame - at) },
                };
            }),
        });
        bench.add(lost, near, far);
        await bench.runAll(start, target);
        expect(bench.said()).toContain(`first on ${away}.`);
        expect(bench.reports[0].jumps[0].frame).toBe(away);
    }
});

test('a frame to look at is named once, and the page can draw while objects are compared', async () => {
    const bench = createBench({
        invoke: moving((frame, { at }) => {
            const points = shifted('polygon', first.points, frame - at);
            const score = frame === 12 ? 0.3 : 0.9;
            return frame < 6 ? { score } : { score, shape: { type: 'polygon', points } };
        }),
    });
    bench.add(...[0, 20, 40, 60].map((by) => polygon(2, by)));
    await bench.runAll(2, 15);
    expect(bench.said()).toContain('; and 1 more.');
    expect(bench.reports[0].jumps.map(({ frame }) => frame)).toEqual([6, 12]);
    expect(bench.breaths).toBeGreaterThanOrEqual(13);
});
