// SPDX-License-Identifier: MIT
// What CVAT's page is given to show: messages and questions.

import { afterEach, expect, test, vi } from 'vitest';
import { shape } from '../standin/core';
import { Bench, createBench, framesFrom, moving, shifted } from './bench';

const MASK = [0, 16, 10, 10, 13, 13];
const WIDE = { width: 400, height: 80 };

const { notices, questions } = vi.hoisted(() => ({
    notices: [] as { message: string; duration: number }[],
    questions: [] as { keyboard: boolean; autoFocusButton: string | null; onOk(): void }[],
}));

vi.mock('antd/lib/notification', () => {
    const show = (notice: (typeof notices)[0]): unknown => notices.push(notice);
    return { default: { success: show, warning: show, info: show, error: show } };
});
vi.mock('antd/lib/modal', () => ({
    default: { confirm: (question: (typeof questions)[0]) => questions.push(question) },
}));
vi.mock('react', () => ({ createElement: () => ({}), Fragment: '' }));

afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
    notices.length = 0;
    questions.length = 0;
});

/** Load the plugin as CVAT's page does, in the job of a bench; answers how to run it from frame 2. */
async function load(
    { core, job }: Bench,
    hidden: boolean,
): Promise<(target: number) => Promise<void>> {
    let build: ((args: object) => unknown) | null = null;
    vi.stubGlobal('window', {
        cvatUI: { registerComponent: (one: typeof build) => (build = one) },
    });
    vi.stubGlobal('document', { hidden });
    vi.stubGlobal('localStorage', { getItem: () => null });
    await import('../src/ts/index');
    for (const one of await core.actions.list()) await core.actions.unregister!(one);
    const state = { annotation: { job: { instance: job } } };
    build!({ core, dispatch: () => {}, store: { getState: () => state }, actionCreators: {} });
    return async (target) => {
        const [action] = await core.actions.list();
        const parameters = { 'Target frame': `${target}` };
        const not = (): boolean => false;
        await core.actions.run(job, action, parameters, 2, () => true, () => {}, not); // prettier-ignore
    };
}

test.each([
    ['a hidden tab', true, 2, 0],
    ['a tab that is seen', false, 2, 30],
    ['a tab that is seen where it names frames', false, 90, 0],
])('how long a message stays in %s', async (_where, hidden, target, seconds) => {
    const bench = createBench({ frames: framesFrom(0, 90, WIDE), invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, MASK)] });
    const run = await load(bench, hidden);
    await run(target);
    await run(target);
    expect(notices.map(({ duration }) => duration)).toEqual([seconds, seconds]);
});

test('neither Esc nor Enter answers a question', async () => {
    const bench = createBench({ invoke: moving() });
    const older = shape('mask', 3, shifted('mask', MASK, 1), { source: 'auto' });
    bench.store.import({ shapes: [shape('mask', 2, MASK), older] });
    const running = (await load(bench, false))(5);
    await vi.waitFor(() => expect(questions).toHaveLength(1));
    expect(questions[0]).toMatchObject({ keyboard: false, autoFocusButton: null });
    questions[0].onOk();
    await running;
    expect(bench.store.export().shapes).toHaveLength(4);
});
