// SPDX-License-Identifier: MIT
// A page around the stand-in core: shows the clip and its annotations, runs actions as CVAT's
// dialog does, and loads the plugin's bundle.

import { BuilderArguments, CollectionAction, ObjectState, PluginWindow } from '../src/ts/cvat';
import notification from '../standin/notification';
import { createCore, createJob, shape, Transport } from '../standin/core';

const SCALE = 3;

interface ClipFile {
    width: number;
    height: number;
    frames: number;
    seeds: { type: string; points: number[] }[];
}

type Drawn = ObjectState & { color: string };

const $ = <T extends HTMLElement>(id: string): T => document.querySelector<T>(`#${id}`)!;

const transport: Transport = async (method, path, body) => {
    const response = await fetch(path, {
        method,
        headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
        body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    try {
        return { status: response.status, body: JSON.parse(text) as unknown };
    } catch {
        return { status: response.status, body: text };
    }
};

const clip = (await (await fetch('/clip/clip.json')).json()) as ClipFile;
const core = createCore(transport);
const job = createJob({
    frames: Array.from({ length: clip.frames }, (_, number) => ({
        number,
        width: clip.width,
        height: clip.height,
        deleted: false,
    })),
    labels: [
        {
            id: 1,
            name: 'object',
            attributes: [
                { id: 31, mutable: false },
                { id: 32, mutable: true },
            ],
        },
    ],
});
const { store } = job.annotations;
store.import({ shapes: clip.seeds.map(({ type, points }) => shape(type, 0, points)) });

const images = await Promise.all(
    Array.from({ length: clip.frames }, async (_, number) => {
        const image = new Image();
        image.src = `/clip/${String(number).padStart(3, '0')}.png`;
        await image.decode();
        return image;
    }),
);
let current = 0;
let hovered: Drawn | null = null;

function outlineOf({ shapeType, points }: Drawn): Path2D {
    const path = new Path2D();
    const values = points as number[];
    if (shapeType === 'mask') {
        const [left, top, right] = values.slice(-4);
        const width = right - left + 1;
        let at = 0;
        values.slice(0, -4).forEach((run, index) => {
            // a run may go over several rows
            for (let from = at; index % 2 === 1 && from < at + run;) {
                const x = from % width;
                const length = Math.min(width - x, at + run - from);
                path.rect(left + x, top + Math.floor(from / width), length, 1);
                from += length;
            }
            at += run;
        });
    } else if (shapeType === 'rectangle') {
        path.rect(values[0], values[1], values[2] - values[0], values[3] - values[1]);
    } else {
        for (let i = 0; i < values.length; i += 2) path.lineTo(values[i], values[i + 1]);
        path.closePath();
    }
    return path;
}

const canvas = $<HTMLCanvasElement>('canvas');
canvas.width = clip.width * SCALE;
canvas.height = clip.height * SCALE;
const context = canvas.getContext('2d')!;

function visible(): Drawn[] {
    return store.get(current).filter(({ outside, hidden }) => !outside && !hidden);
}

function draw(): void {
    context.setTransform(SCALE, 0, 0, SCALE, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(images[current], 0, 0);
    for (const state of visible()) {
        const path = outlineOf(state);
        context.fillStyle = state.color;
        context.strokeStyle = state.color;
        context.lineWidth = state.clientID === hovered?.clientID ? 2 : 1;
        context.globalAlpha = 0.45;
        context.fill(path);
        context.globalAlpha = 1;
        if (state.shapeType !== 'mask') context.stroke(path);
    }
    $('frame').textContent = `frame ${current} of ${job.startFrame}…${job.stopFrame}`;
    $<HTMLInputElement>('slider').value = `${current}`;
    $('objects').replaceChildren(
        ...visible().map((state) => {
            const item = document.createElement('li');
            item.style.borderColor = state.color;
            const [name, kind] = [document.createElement('span'), document.createElement('span')];
            name.textContent = `${state.label.name} ${state.clientID}`;
            kind.textContent = `${state.shapeType} ${state.objectType}, ${state.source}`;
            item.append(name, kind);
            return item;
        }),
    );
}

function show(frame: number): void {
    current = frame;
    hovered = null;
    draw();
}

// The dialog: what it remembers, it remembers for all jobs, unclamped.
const remembered: Record<string, Record<string, string>> = {};
let running = false;
let cancelled = false;

async function openDialog(target: Drawn | null, chosen?: string): Promise<void> {
    const actions = (await core.actions.list()).filter(
        (action) => target === null || action.isApplicableForObject(target),
    );
    $('hint').textContent = target
        ? 'The action is applied to the chosen object.'
        : 'The action is applied to all objects of the frame that the filters leave.';
    $<HTMLSelectElement>('action').replaceChildren(...actions.map(({ name }) => new Option(name)));
    const action: CollectionAction | undefined =
        actions.find(({ name }) => name === chosen) ?? actions[0];
    $<HTMLSelectElement>('action').value = action?.name ?? '';
    $('action').onchange = () => {
        $<HTMLDialogElement>('dialog').close();
        void openDialog(target, $<HTMLSelectElement>('action').value);
    };
    const values = action ? (remembered[action.name] ??= {}) : {};
    $('parameters').replaceChildren(
        ...Object.entries(action?.parameters ?? {}).map(([name, parameter]) => {
            const resolve = <T>(value: T | ((context: { instance: typeof job }) => T)): T =>
                typeof value === 'function'
                    ? (value as (context: object) => T)({ instance: job })
                    : value;
            const label = document.createElement('label');
            values[name] ??= resolve<string>(parameter.defaultValue);
            if (parameter.type === 'select') {
                const select = document.createElement('select');
                select.replaceChildren(
                    ...resolve<string[]>(parameter.values).map((value) => new Option(value)),
                );
                select.value = values[name];
                select.onchange = () => {
                    values[name] = select.value;
                };
                label.append(name, select);
                return label;
            }
            const input = document.createElement('input');
            if (parameter.type === 'checkbox') {
                input.type = 'checkbox';
                input.checked = values[name] === 'true';
                input.onchange = () => {
                    values[name] = `${input.checked}`;
                };
            } else {
                input.type = 'number';
                [input.min, input.max, input.step] = resolve<string[]>(parameter.values);
                input.value = values[name];
                input.oninput = () => {
                    values[name] = input.value;
                };
            }
            label.append(name, input);
            return label;
        }),
    );
    $<HTMLButtonElement>('run').disabled = !action;
    $('message').textContent = '';
    $<HTMLDialogElement>('dialog').showModal();

    $('run').onclick = async () => {
        running = true;
        cancelled = false;
        $<HTMLButtonElement>('run').disabled = true;
        $('cancel').textContent = 'Cancel';
        $('progress').hidden = false;
        const onProgress = (message: string, percent: number): void => {
            $('message').textContent = message;
            $<HTMLProgressElement>('progress').value = percent;
        };
        try {
            const isCancelled = (): boolean => cancelled;
            await (target
                ? core.actions.call(job, action, values, current, [target], onProgress, isCancelled)
                : core.actions.run(
                      job,
                      action,
                      values,
                      current,
                      () => true,
                      onProgress,
                      isCancelled,
                  ));
            if (!cancelled) draw();
            if (target) $<HTMLDialogElement>('dialog').close();
        } catch (error) {
            if (error instanceof Error) {
                notification.error({ message: error.message, description: '' });
            }
        } finally {
            running = false;
            $<HTMLButtonElement>('run').disabled = false;
            $('cancel').textContent = 'Close';
            $('progress').hidden = true;
            $('message').textContent = '';
        }
    };
}

$('cancel').onclick = () => {
    if (running) cancelled = true;
    else $<HTMLDialogElement>('dialog').close();
};
$('actions').onclick = () => {
    openDialog(null);
};
$('undo').onclick = () => {
    store.undo();
    draw();
};
$('redo').onclick = () => {
    store.redo();
    draw();
};
Object.assign($('slider'), { min: job.startFrame, max: job.stopFrame, step: 1 });
$('slider').oninput = () => show(+$<HTMLInputElement>('slider').value);
canvas.onmousemove = ({ offsetX, offsetY }) => {
    hovered =
        visible().findLast((state) => context.isPointInPath(outlineOf(state), offsetX, offsetY)) ??
        null;
    draw();
};
window.addEventListener('keydown', (event) => {
    if (event.ctrlKey && event.key === 'e' && !running) {
        event.preventDefault();
        openDialog(hovered);
    }
});

const args: BuilderArguments = {
    core,
    dispatch: (action) => (action as () => void)(),
    store: {
        getState: () => ({
            annotation: { job: { instance: job }, player: { frame: { number: current } } },
        }),
    },
    actionCreators: { changeFrameAsync: (frame) => () => show(frame) },
};
(window as PluginWindow).cvatUI = {
    registerComponent: (builder) => {
        builder(args);
    },
};
Object.assign(window, { standIn: { store, show } });

const bundle = '/dist/sam2_tracker.js';
await import(/* @vite-ignore */ bundle);
draw();
document.dispatchEvent(new CustomEvent('plugins.ready', { bubbles: true }));
document.body.dataset.ready = 'true';
