// SPDX-License-Identifier: MIT
// Which function is used, and how the plugin enters CVAT's page.

import { afterEach, expect, test, vi } from 'vitest';
import { CollectionAction, ComponentBuilder, Model } from '../src/ts/cvat';
import { chooseTracker } from '../src/ts/server';
import { createCore, ServerError, shape } from '../standin/core';
import { createBench, framesFrom, moving } from './bench';

const all = ['mask', 'polygon', 'rectangle'];

test.each([
    [
        'by its name',
        [
            { id: 'a', name: 'Other', kind: 'tracker', supportedShapeTypes: all },
            {
                id: 'b',
                name: 'Segment Anything 2: Tracker',
                kind: 'tracker',
                supportedShapeTypes: all,
            },
        ],
        'b',
    ],
    [
        'by its id',
        [
            { id: 'a', name: 'Other', kind: 'tracker', supportedShapeTypes: all },
            { id: 'my-sam2-large', name: 'mine', kind: 'tracker', supportedShapeTypes: ['mask'] },
        ],
        'my-sam2-large',
    ],
    [
        'else any for masks or polygons',
        [
            { id: 'a', name: 'TransT', kind: 'tracker', supportedShapeTypes: ['rectangle'] },
            { id: 'b', name: 'XMem', kind: 'tracker', supportedShapeTypes: ['polygon'] },
        ],
        'b',
    ],
    [
        'none for boxes only',
        [{ id: 'a', name: 'SiamMask', kind: 'tracker', supportedShapeTypes: ['rectangle'] }],
        undefined,
    ],
    [
        'no interactor',
        [{ id: 'a', name: 'Segment Anything 2', kind: 'interactor', supportedShapeTypes: all }],
        undefined,
    ],
    [
        'by its id where the page tells no types',
        [
            { id: 'other', name: 'x', kind: 'tracker' },
            { id: 'sam2', name: 'x', kind: 'tracker' },
        ],
        'sam2',
    ],
    [
        'none by name with boxes only',
        [
            {
                id: 'sam2',
                name: 'Segment Anything 2: Tracker',
                kind: 'tracker',
                supportedShapeTypes: ['rectangle'],
            },
        ],
        undefined,
    ],
])('the function is chosen %s', (_name, models: Model[], id) => {
    expect(chooseTracker(models)?.id).toBe(id);
});

test('clear words where there is no function, or no list of them', async () => {
    const bench = createBench({ frames: framesFrom(0, 5), invoke: moving() });
    bench.store.import({ shapes: [shape('mask', 2, [0, 4, 30, 30, 31, 31])] });
    const box = { id: 'a', name: 'SiamMask', kind: 'tracker', supportedShapeTypes: ['rectangle'] };
    bench.core.lambda.list = async () => ({ models: [box], count: 1 });
    await expect(bench.runAll(2, 4)).rejects.toThrow('has no tracker for masks or polygons');
    // the page makes an empty list of a 503
    bench.core.lambda.list = async () => ({ models: [], count: 0 });
    await expect(bench.runAll(2, 4)).rejects.toThrow(
        /lists no functions at the moment. Try again in a minute; the page need not be reloaded/,
    );
    bench.core.lambda.list = async () => {
        throw new Error('Not Found');
    };
    await expect(bench.runAll(2, 4)).rejects.toThrow('CVAT did not list its functions (Not Found)');
    bench.core.lambda.list = async () => {
        throw new ServerError('Unauthorized', 401);
    };
    await expect(bench.runAll(2, 4)).rejects.toThrow(/logged out.*in another tab.*do not reload/);
});

test('a type the function does not take is left alone, with the reason', async () => {
    const bench = createBench({ frames: framesFrom(0, 5), invoke: moving() });
    const [, box] = bench.store.import({
        shapes: [shape('mask', 2, [0, 4, 30, 30, 31, 31]), shape('rectangle', 2, [1, 1, 9, 9])],
    });
    bench.core.lambda.list = async () => ({
        models: [
            {
                id: 'pth-facebookresearch-sam2-tracker',
                name: 'x',
                kind: 'tracker',
                supportedShapeTypes: ['mask'],
            },
        ],
        count: 1,
    });
    await bench.runAll(2, 4);
    expect(bench.reports[0].lines).toContain(
        `Left alone: car ${box} (the deployed function takes no rectangles).`,
    );
});

afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
});

/** A page that loads the plugin's file: `isReady` before or after it announces itself. */
async function loadInto(isReady: boolean) {
    let requests = 0;
    const core = createCore(async () => {
        requests += 1;
        return { status: 200, body: [] };
    });
    class RemoveFilteredShapes extends (core.classes.BaseCollectionAction as new () => object) {
        public name = 'Remove filtered shapes';
    }
    await core.actions.register(new RemoveFilteredShapes() as CollectionAction);
    const listeners: Record<string, () => void> = {};
    const plugins: { name: string; destructor(): void }[] = [];
    const cvatUI = {
        registerComponent: (builder: ComponentBuilder) => {
            const args = { core, dispatch: () => {}, actionCreators: {} };
            plugins.push(builder({ ...args, store: { getState: () => ({}) } }));
        },
    };
    const page: Record<string, unknown> = {
        addEventListener: (event: string, listener: () => void, options: object) => {
            expect(options).toEqual({ once: true });
            listeners[event] = listener;
        },
    };
    vi.stubGlobal('window', page);
    if (isReady) page.cvatUI = cvatUI;
    await import('../src/ts/index');
    page.cvatUI = cvatUI;
    listeners['plugins.ready']?.();
    const names = async () => (await core.actions.list()).map(({ name }) => name);
    return { plugins, names, requests: () => requests };
}

test.each([
    ['before', false],
    ['after', true],
])('a file that arrives %s the page is ready registers the actions', async (_name, isReady) => {
    const { plugins, names, requests } = await loadInto(isReady);
    expect(plugins.map(({ name }) => name)).toEqual(['Segment Anything 2: Tracker']);
    // the dialog preselects the first of the list
    expect(await names()).toEqual([
        'Segment Anything 2: Tracker',
        'Remove filtered shapes',
        'Segment Anything 2: Settings',
    ]);
    expect(requests()).toBe(0);
    plugins[0].destructor();
    expect(await names()).toEqual(['Remove filtered shapes']);
});
