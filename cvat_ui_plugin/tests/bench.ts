// SPDX-License-Identifier: MIT
// A job, the stand-in core and server, and the action, wired together for the tests.

import { createAction } from '../src/ts/action';
import {
    ActionOutput,
    CollectionAction,
    Frame,
    Label,
    ObjectState,
    SerializedKeyframe,
    SerializedShape,
    SerializedTrack,
} from '../src/ts/cvat';
import { Page } from '../src/ts/page';
import { Report } from '../src/ts/report';
import { ACTION_NAME } from '../src/ts/server';
import { createSettingsAction, SETTINGS_NAME } from '../src/ts/settings';
import { Annotations, createCore, createJob, shape, StandInCore } from '../standin/core';
import { StandInJob, Transport } from '../standin/core';
import { createLambda, FunctionRequest, HttpAnswer, Invoke } from '../standin/server';

const ATTRIBUTES = [
    { id: 31, mutable: false },
    { id: 32, mutable: true },
];
export const LABELS: Label[] = [
    { id: 1, name: 'car', attributes: ATTRIBUTES },
    { id: 2, name: 'dog', attributes: [] },
];

// Objects on a frame, so many pixels to the right of where they are without that.
export const MASK = [0, 16, 10, 10, 13, 13];
export const SQUARE = [10, 10, 20, 10, 20, 20, 10, 20];
export const BOX = [10, 10, 30, 30];
type Draw = (frame: number, by?: number, more?: Partial<SerializedShape>) => SerializedShape;
export const drawing =
    (type: string, points: number[]): Draw =>
    (frame, by = 0, more = {}) =>
        shape(type, frame, shifted(type, points, by), more);
export const mask = drawing('mask', MASK);
export const polygon = drawing('polygon', SQUARE);
export const box = drawing('rectangle', BOX);

type Keyframe = number[] | null | Partial<SerializedKeyframe>;

/** A track of a person by its keyframes: points, null where it is switched off, or more. */
export function track(
    keyframes: Record<number, Keyframe>,
    more: Partial<SerializedTrack> = {},
): SerializedTrack {
    let points: number[] = [];
    const shapes = Object.entries(keyframes).map(([frame, given], index) => {
        const own = Array.isArray(given) ? { points: given } : (given ?? { outside: true });
        points = own.points ?? points;
        const { type = points.length === 4 ? 'rectangle' : 'polygon' } = own as { type?: string };
        const place = { type, frame: +frame, points, outside: false, occluded: false };
        const id = more.id === undefined ? {} : { id: more.id + 1 + index };
        return { ...place, z_order: 0, rotation: 0, attributes: [], ...id, ...own };
    });
    const fixed = { label_id: 1, group: 0, source: 'manual', attributes: [], elements: [] };
    return { ...fixed, frame: shapes[0].frame, shapes, ...more };
}

/** The keyframes of a track, with a dash where it is switched off. */
export function timelineOf({ shapes }: SerializedTrack): string {
    return [...shapes]
        .sort((a, b) => a.frame - b.frame)
        .map(({ frame, outside }) => `${frame}${outside ? '-' : ''}`)
        .join(' ');
}

/** Signed coordinates are moved by up to 0.15 px. */
export function whole(points: number[]): number[] {
    return points.map((value) => Math.round(value));
}

export interface Call {
    type: string;
    frame: number;
    shapes?: { type: string; points: number[] }[];
    states?: string[];
    [key: string]: unknown;
}

export interface Bench {
    core: StandInCore;
    job: StandInJob;
    store: Annotations;
    action: CollectionAction;
    /** Requests that reached the server, in order. */
    calls: Call[];
    reports: Report[];
    refreshed: number[];
    /** Questions that were asked, and what the user answers. */
    asked: string[];
    answer: boolean;
    /** Whether the job is open in the page. */
    open: boolean;
    slept: number[];
    /** How often the page could draw. */
    breaths: number;
    /** The settings that the browser keeps. */
    kept: string | null;
    progress: { message: string; percent: number }[];
    /** What the last run handed to CVAT. */
    outcome: ActionOutput;
    clock: { now: number };
    /** Draw shapes by hand, or load tracks; answers their clientIDs. */
    add(...shapes: SerializedShape[]): number[];
    addTracks(...tracks: SerializedTrack[]): number[];
    /** The shapes of the job in the order of their frames; those of a frame; the last track. */
    shapes(): SerializedShape[];
    on(frame: number): SerializedShape[];
    frames(): number[];
    track(): SerializedTrack;
    /** Everything in the job but clientIDs and ids, as text. */
    contents(): string[];
    /** The last message. */
    said(): string;
    /** Ctrl+E with nothing active. */
    runAll(...way: Way): Promise<void>;
    /** The action on chosen objects. */
    runOn(clientIDs: number[], ...way: Way): Promise<void>;
    /** The action for the settings; what is not named is as the function is set. */
    choose(parameters: Record<string, string>): Promise<void>;
    /** Whether CVAT closed the dialog of the last run, if it was one for a single object. */
    closed: boolean;
    /** The action in a dialog that was opened for these objects. */
    runHeld(states: ObjectState[], ...way: Way): Promise<void>;
}

type Way = [frame: number, target: number | string, options?: RunOptions];

export interface RunOptions {
    convert?: boolean;
    /** By default as the target needs it. */
    backwards?: boolean;
    cancelled?: () => boolean;
    filter?: (clientID: number) => boolean;
}

export function framesFrom(
    first: number,
    last: number,
    size: { width: number; height: number } = { width: 100, height: 80 },
    deleted: number[] = [],
): Frame[] {
    return Array.from({ length: last - first + 1 }, (_, index) => ({
        number: first + index,
        ...size,
        deleted: deleted.includes(first + index),
    }));
}

export interface Surroundings {
    frames?: Frame[];
    /** The function; by default each object moves by a pixel a frame. */
    invoke?: Invoke;
    /** Stand between the page and the server: answer instead of it, or call `next`. */
    intercept?: (call: Call, next: () => Promise<HttpAnswer>) => Promise<HttpAnswer> | HttpAnswer;
    /** How much later than asked a sleep ends, in milliseconds. */
    lateness?: number;
}

/** What CVAT's dialog does when an action ends: it shows what is thrown, where that is an error, and is closed
 * where nothing is thrown and the action was for a single object. Answers whether it is closed then. */
export async function endInDialog(running: Promise<void>): Promise<boolean> {
    try {
        await running;
        return true;
    } catch (thrown) {
        if (thrown instanceof Error) throw thrown;
        return false;
    }
}

/** A job in which one shape was drawn and tracked. */
export async function tracked(
    drawn: SerializedShape,
    target: number,
    surroundings: Surroundings & RunOptions = {},
): Promise<{ bench: Bench; seed: number }> {
    const bench = createBench(surroundings);
    const [seed] = bench.add(drawn);
    await bench.runAll(drawn.frame, target, surroundings);
    return { bench, seed };
}

export function createBench({
    frames = framesFrom(0, 20),
    invoke = moving(),
    intercept = (_call, next) => next(),
    lateness = 0,
}: Surroundings = {}): Bench {
    const job = createJob({ frames, labels: LABELS });
    const lambda = createLambda({
        functionID: 'pth-facebookresearch-sam2-tracker',
        jobID: job.id,
        startFrame: job.startFrame,
        stopFrame: job.stopFrame,
        invoke,
    });
    const calls: Call[] = [];
    const transport: Transport = async (method, path, body) => {
        const sent = body === undefined ? undefined : (JSON.parse(JSON.stringify(body)) as Call);
        if (method === 'GET') return lambda(method, path, sent);
        calls.push(sent as Call);
        return intercept(sent as Call, () => lambda(method, path, sent));
    };
    const core = createCore(transport);
    const bench = {
        core,
        job,
        store: job.annotations.store,
        calls,
        reports: [],
        refreshed: [],
        asked: [],
        answer: false,
        open: true,
        closed: false,
        slept: [],
        breaths: 0,
        kept: null,
        progress: [],
        clock: { now: 0 },
    } as unknown as Bench;
    const page: Page = {
        tell: (report) => bench.reports.push(report),
        ask: async ({ text }) => {
            bench.asked.push(text);
            return bench.answer;
        },
        isOpen: () => bench.open,
        isReview: () => false,
        random: () => 0.42,
        refresh: (_job, frame) => bench.refreshed.push(frame),
        sleep: async (milliseconds) => {
            bench.slept.push(milliseconds);
            bench.clock.now += milliseconds + lateness;
        },
        breathe: async () => {
            bench.breaths += 1;
        },
        now: () => bench.clock.now,
        kept: () => bench.kept,
        keep: (text) => {
            bench.kept = text;
        },
    };
    bench.action = createAction(core, page);
    const settings = createSettingsAction(core, page);
    const { store } = bench;
    bench.add = (...shapes) => store.import({ shapes });
    bench.addTracks = (...tracks) => store.import({ tracks });
    bench.shapes = () => store.export().shapes.sort((a, b) => a.frame - b.frame);
    bench.on = (wanted) => store.export().shapes.filter(({ frame }) => frame === wanted);
    bench.frames = () => bench.shapes().map(({ frame }) => frame);
    bench.track = () => store.export().tracks.at(-1)!;
    bench.contents = () => {
        const { shapes, tracks } = store.export();
        return [...shapes, ...tracks]
            .map(({ clientID: _c, id: _i, ...rest }) => JSON.stringify(rest))
            .sort();
    };
    bench.said = () => bench.reports.at(-1)!.lines.join('\n');
    const commit = store.commit.bind(store);
    store.commit = (created, deleted) => {
        bench.outcome = { created, deleted };
        commit(created, deleted);
    };
    const parametersOf = (...[frame, target, options = {}]: Way): Record<string, string> => ({
        'Target frame': `${target}`,
        'Convert polygon shapes to tracks': `${options.convert ?? false}`,
        'Track backwards': `${options.backwards ?? Number(target) < frame}`,
    });
    const never = (): boolean => false;
    const onProgress = (message: string, percent: number): void => {
        bench.progress.push({ message, percent });
    };
    const registered = Promise.all([bench.action, settings].map(core.actions.register));
    const find = async (wanted = ACTION_NAME): Promise<CollectionAction> => {
        await registered;
        return (await core.actions.list()).find(({ name }) => name === wanted)!;
    };
    bench.choose = async (parameters) => {
        const action = await find(SETTINGS_NAME);
        const chosen: Record<string, string> = {};
        for (const [name, { values }] of Object.entries(action.parameters!)) {
            chosen[name] = parameters[name] ?? (values as string[])[0];
        }
        await core.actions.run(job, action, chosen, job.startFrame, never, onProgress, never);
    };
    bench.runAll = async (...way) => {
        const [frame, , { cancelled = never, filter = () => true } = {}] = way;
        const [action, chosen] = [await find(), parametersOf(...way)];
        const running = core.actions.run(job, action, chosen, frame, filter, onProgress, cancelled);
        bench.closed = await endInDialog(running);
    };
    bench.runOn = async (clientIDs, ...way) => {
        const states = await job.annotations.get(way[0], false, []);
        const own = states.filter(({ clientID }) => clientIDs.includes(clientID!));
        await bench.runHeld(own, ...way);
    };
    bench.runHeld = async (states, ...way) => {
        const [frame, , { cancelled = never } = {}] = way;
        const [action, chosen] = [await find(), parametersOf(...way)];
        const running = core.actions.call(
            job,
            action,
            chosen,
            frame,
            states,
            onProgress,
            cancelled,
        );
        bench.closed = await endInDialog(running);
    };
    return bench;
}

interface Answer {
    shape: unknown;
    state: unknown;
    score: number;
    error: { code: string; message: string };
}

export interface Memory {
    type: string;
    points: number[];
    at: number;
}

/** Move a shape by whole pixels to the right. */
export function shifted(type: string, points: number[], by: number): number[] {
    return points.map((value, index) => {
        const isX =
            type === 'mask'
                ? [points.length - 4, points.length - 2].includes(index)
                : index % 2 === 0;
        return isX ? value + by : value;
    });
}

/** A function whose objects move one pixel to the right per frame. `per` may replace what it says
 * of one object on one frame. */
export function moving(
    per: (frame: number, memory: Memory) => Partial<Answer> | null = () => null,
): Invoke {
    return async (frame: number, { shapes, states }: FunctionRequest) => {
        const said = shapes.map((given, index) => {
            const memory = (states[index] ?? (given && { ...given, at: frame })) as Memory | null;
            if (!memory) return { shape: null, state: null, score: null, error: null };
            const points = shifted(memory.type, memory.points, frame - memory.at);
            return {
                shape: { type: memory.type, points },
                state: memory,
                score: 0.9,
                error: null,
                ...per(frame, memory),
            };
        });
        return {
            status: 200,
            body: {
                shapes: said.map(({ shape }) => shape),
                states: said.map(({ state }) => state),
                scores: said.map(({ score }) => score),
                errors: said.map(({ error }) => error),
            },
        };
    };
}
