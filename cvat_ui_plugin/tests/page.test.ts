// SPDX-License-Identifier: MIT
// What CVAT's page is given to show: messages and questions.

import { afterEach, expect, test, vi } from 'vitest';
import { Bench, createBench, endInDialog, framesFrom, mask, tracked } from './bench';

const WIDE = { width: 400, height: 80 };

const { notices, questions, open } = vi.hoisted(() => ({
    notices: [] as Notice[],
    questions: [] as Question[],
    /** The job that the page shows. */
    open: { instance: null as object | null },
}));

interface Question {
    content: Element;
    keyboard: boolean;
    autoFocusButton: string | null;
    onOk(): void;
}

interface Notice {
    key?: string;
    message: string;
    duration: number;
    description: Element | string;
}

/** What the page makes of createElement. */
interface Element {
    properties: { onClick(): void; style?: Record<string, string> };
    children: Element[];
}

vi.mock('antd/lib/notification', () => {
    const show = (notice: Notice): unknown => notices.push(notice);
    return { default: { success: show, warning: show, info: show, error: show } };
});
vi.mock('antd/lib/modal', () => ({
    default: {
        confirm: (question: Question) => {
            questions.push(question);
            return { destroy: () => questions.pop() };
        },
    },
}));
vi.mock('react', () => ({
    createElement: (_type: string, properties: object, ...children: unknown[]) => {
        return { properties, children };
    },
    Fragment: '',
}));

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
    workspace = 'Standard',
): Promise<(target: number) => Promise<void>> {
    let build: ((args: object) => unknown) | null = null;
    vi.stubGlobal('window', {
        cvatUI: { registerComponent: (one: typeof build) => (build = one) },
    });
    vi.stubGlobal('document', { hidden });
    vi.stubGlobal('localStorage', { getItem: () => null });
    await import('../src/ts/index');
    for (const one of await core.actions.list()) await core.actions.unregister!(one);
    open.instance = job;
    const state = { annotation: { job: open, workspace } };
    build!({ core, dispatch: () => {}, store: { getState: () => state }, actionCreators: {} });
    return async (target) => {
        const [action] = await core.actions.list();
        const parameters = { 'Target frame': `${target}` };
        const not = (): boolean => false;
        await endInDialog(core.actions.run(job, action, parameters, 2, () => true, () => {}, not)); // prettier-ignore
    };
}

test.each([
    ['a hidden tab', true, 2, 0],
    ['a tab that is seen', false, 2, 30],
    ['a tab that is seen where it names frames', false, 90, 0],
])('how long a message stays in %s', async (_where, hidden, target, seconds) => {
    const bench = createBench({ frames: framesFrom(0, 90, WIDE) });
    bench.add(mask(2));
    const run = await load(bench, hidden);
    await run(target);
    await run(target);
    expect(notices.map(({ duration }) => duration)).toEqual([seconds, seconds]);
});

function described({ description }: Notice): Element {
    return description as Element;
}

test('a link of a message whose job was left says which job it is of', async () => {
    const bench = createBench();
    bench.add(mask(2));
    const run = await load(bench, false);
    await run(5);
    open.instance = null;
    const links = described(notices[0]).children.filter(({ properties }) => properties?.onClick);
    links[0].properties.onClick();
    expect(notices[1]).toMatchObject({
        message: 'This job is no longer open',
        description: `Open job ${bench.job.id}, and go to frame 3.`,
    });
});

test('what does not fit into the window is scrolled to', async () => {
    const bench = createBench();
    bench.add(mask(2));
    const run = await load(bench, false);
    await run(5);
    const { style } = described(notices[0]).properties ?? {};
    expect(style).toMatchObject({ overflowY: 'auto', maxHeight: expect.stringContaining('vh') });
});

test("the message of a run takes the place of the last run's", async () => {
    const bench = createBench();
    bench.add(mask(2));
    const run = await load(bench, false);
    await run(5);
    await run(6);
    expect(new Set(notices.map(({ key }) => key)).size).toBe(1);
    expect(notices[0].key).toBeTruthy();
});

test('in the Review workspace nothing is tracked, for all objects are locked there', async () => {
    const { bench } = await tracked(mask(2), 5);
    const before = bench.contents();
    bench.calls.length = 0;
    const run = await load(bench, false, 'Review');
    await expect(run(8)).rejects.toThrow('In the Review workspace all objects are locked');
    expect(bench.contents()).toEqual(before);
    expect(bench.calls).toEqual([]);
    vi.resetModules();
    const elsewhere = await load(bench, false, 'Attribute annotation');
    await elsewhere(8);
    expect(bench.frames()).toEqual([2, 3, 4, 5, 6, 7, 8]);
});

/** A run that asks whether to replace an earlier result on frame 3, up to the question. */
async function untilAsked(): Promise<{ bench: Bench; running: Promise<void> }> {
    const bench = createBench();
    bench.add(mask(2), mask(3, 1, { source: 'auto' }));
    const running = (await load(bench, false))(5);
    await vi.waitFor(() => expect(questions).toHaveLength(1));
    return { bench, running };
}

test('a run is cancelled from its question', async () => {
    const { bench, running } = await untilAsked();
    questions[0].content.children[1].properties.onClick();
    await running;
    expect(questions).toEqual([]);
    expect(notices.map(({ message }) => message)).toEqual(['Tracking was cancelled']);
    expect([bench.calls, bench.store.undoSteps]).toEqual([[], 0]);
});

test('neither Esc nor Enter answers a question', async () => {
    const { bench, running } = await untilAsked();
    expect(questions[0]).toMatchObject({ keyboard: false, autoFocusButton: null });
    questions[0].onOk();
    await running;
    expect(bench.store.export().shapes).toHaveLength(4);
});
