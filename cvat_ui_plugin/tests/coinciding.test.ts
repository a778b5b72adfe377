// SPDX-License-Identifier: MIT
// Objects that end on the same thing: told with the frame to look at.

import { expect, test } from 'vitest';
import { coverTheSame } from '../src/ts/coinciding';
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
    expect(coverTheSame(one, other)).toBe(same);
    expect(coverTheSame(other, one)).toBe(same);
});

const [first, second] = [polygon(2), polygon(2, 40)];

/** The second object goes over to the first one on a frame, and the function is sure of it. */
function goesOver(on: number): Invoke {
    return moving((frame, { points, at }) => {
        if (frame < on || points[0] !== second.points[0]) return { score: 0.75 };
        return { shape: { type: 'polygon', points: shifted('polygon', first.points, frame - at) } };
    });
}

test('two objects that cover the same are told, and their first such frame is the first to look at', async () => {
    const bench = createBench({ invoke: goesOver(6) });
    const ids = bench.add(first, second);
    await bench.runAll(2, 9);
    expect(bench.said()).toContain(
        'Covering the same, as if one went over to the other: ' +
            `car ${ids[0]} and car ${ids[1]} on 4 frames, first on 6.`,
    );
    const [jump, next] = bench.reports[0].jumps;
    expect(jump.frame).toBe(6);
    expect(jump.text).toMatch(/^Frame 6: car \d+ and car \d+ cover the same$/);
    expect(next.text).toContain('confidence 0.75');
});

test('objects beside each other, or drawn on each other, are not told', async () => {
    for (const other of [second, first]) {
        const bench = createBench();
        bench.add(first, { ...other });
        await bench.runAll(2, 9);
        expect(bench.said()).not.toContain('Covering the same');
        expect(bench.reports[0].jumps.map(({ text }) => text).join()).not.toContain('cover');
    }
});
