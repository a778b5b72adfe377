// SPDX-License-Identifier: MIT
// Which function is used, and how the plugin enters CVAT's page.

import { afterEach, expect, test, vi } from 'vitest';
import { CollectionAction, ComponentBuilder, Model } from '../src/ts/cvat';
import { chooseTracker } from '../src/ts/server';
import { createCore, ServerError } from '../standin/core';
import { Bench, box, createBench, framesFrom, mask } from './bench';

const ALL = ['mask', 'polygon', 'rectangle'];
const NAME = 'Segment Anything 2: Tracker';

function tracker(id: string, name: string, supportedShapeTypes?: string[]): Model {
    return { id, name, kind: 'tracker', supportedShapeTypes };
}

test.each<[string, Model[], string | undefined]>([
    ['by its name', [tracker('a', 'Other', ALL), tracker('b', NAME, ALL)], 'b'],
    ['by its id', [tracker('a', 'Other', ALL), tracker('my-sam2', 'mine', ['mask'])], 'my-sam2'],
    [
        'else any for masks or polygons',
        [tracker('a', 'TransT', ['rectangle']), tracker('b', 'XMem', ['polygon'])],
        'b',
    ],
    ['none for boxes only', [tracker('a', 'SiamMask', ['rectangle'])], undefined],
    ['no interactor', [{ ...tracker('a', NAME, ALL), kind: 'interactor' }], undefined],
    ['by its id where no types are told', [tracker('a', 'x'), tracker('sam2', 'x')], 'sam2'],
    ['none by name with boxes only', [tracker('sam2', NAME, ['rectangle'])], undefined],
])('the function is chosen %s', (_name, models, id) => {
    expect(chooseTracker(models)?.id).toBe(id);
});

/** A bench whose server lists these functions, with a mask to track. */
function listing(...models: Model[]): Bench {
    const bench = createBench({ frames: framesFrom(0, 5) });
    bench.add(mask(2));
    bench.core.lambda.list = async () => ({ models, count: models.length });
    return bench;
}

test('clear words where there is no function, or no list of them', async () => {
    const bench = listing(tracker('a', 'SiamMask', ['rectangle']));
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

test('objects of a type that the function does not take are left alone, with one reason', async () => {
    const bench = listing(tracker('pth-facebookresearch-sam2-tracker', 'x', ['mask']));
    const [one, other] = bench.add(box(2), box(2));
    await bench.runAll(2, 4);
    expect(bench.reports[0].lines).toContain(
        `Left alone: car ${one}, car ${other} (the deployed function takes no rectangles).`,
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
