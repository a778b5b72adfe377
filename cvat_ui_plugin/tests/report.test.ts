// SPDX-License-Identifier: MIT
// What the user is told during a run and at its end.

import { expect, test } from 'vitest';
import { box, createBench, mask, moving, polygon, tracked } from './bench';

test('the end message: frames, objects, the frame with the lowest confidence', async () => {
    const bench = createBench({
        invoke: moving((frame, { type }) => ({
            score: type === 'mask' && frame === 4 ? 0.31 : 0.8,
        })),
    });
    const [id] = bench.add(mask(2), polygon(2));
    await bench.runAll(2, 6);
    expect(bench.reports).toEqual([
        {
            kind: 'success',
            title: 'Tracking is done',
            lines: ['2 objects tracked over 4 frames (3 to 6).', 'No object was lost.'],
            jumps: [{ frame: 4, text: `Frame 4: car ${id + 3}, confidence 0.31` }],
        },
    ]);
    expect(bench.progress.at(-1)).toEqual({
        message: 'Every frame is tracked. Adding the results to the page',
        percent: 99,
    });
});

test('the message names objects as the page names them on that frame, worst first', async () => {
    const scores: Record<number, number> = { 4: 0.6, 10: 0.2, 11: 0.3, 17: 0.4, 19: 0.79 };
    const bench = createBench({
        invoke: moving((frame, { type }) => ({
            score: type === 'polygon' ? (scores[frame] ?? 0.9) : 0.95,
        })),
    });
    bench.add(mask(2), polygon(2));
    await bench.runAll(2, 20, { convert: true });
    const name = `car ${bench.track().clientID}`;
    expect(bench.reports[0].jumps).toEqual([
        { frame: 10, text: `Frame 10: ${name}, confidence 0.20` },
        { frame: 17, text: `Frame 17: ${name}, confidence 0.40` },
        { frame: 4, text: `Frame 4: ${name}, confidence 0.60` },
    ]);
    expect(bench.said()).not.toContain('undefined');
});

test('to go on, the message names frames on which the objects are visible', async () => {
    const { bench, seed } = await tracked(mask(2), 12, {
        invoke: moving((frame, { type }) =>
            frame >= (type === 'mask' ? 5 : 7) ? { shape: null } : null,
        ),
        intercept: (call, next) => (call.frame === 8 ? { status: 401, body: {} } : next()),
    });
    expect(bench.said()).toContain('To go on, open frame 4 and run the action again.');
    const [second] = bench.add(box(2));
    await bench.runAll(2, 12);
    expect(bench.said()).toContain(
        `To go on, run the action again from frame 4 for car ${seed}, from frame 6 for car ${second}.`,
    );
});

test('no text that an annotator reads speaks of docker, and every sentence ends', async () => {
    for (const status of [400, 404, 408, 410, 413, 429, 500, 502, 503, 504]) {
        const bench = createBench({
            intercept: () => ({ status, body: `${status} Error for url: http://x` }),
        });
        bench.add(mask(2));
        const text = await bench.runAll(2, 4).then(
            () => bench.reports[0].lines[0],
            (raised: Error) => raised.message,
        );
        expect(text).not.toMatch(/docker|nuctl|kubectl|Redis/i);
        expect(text).toMatch(/^Nothing was tracked\. .*\.$|^[A-Z].*\.$/);
        for (const { message } of bench.progress) {
            if (message.includes('Trying')) expect(message).toMatch(/\. Trying again in \d+ s\.$/);
        }
    }
});
