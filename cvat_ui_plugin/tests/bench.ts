// SPDX-License-Identifier: MIT
// A job, the stand-in core and server, and the action, wired together for the tests.

import { createAction } from '../src/ts/action';
import { ActionOutput, CollectionAction, Frame, Label, ObjectState } from '../src/ts/cvat';
import { Page } from '../src/ts/page';
import { Report } from '../src/ts/report';
import { ACTION_NAME } from '../src/ts/server';
import { createSettingsAction, SETTINGS_NAME } from '../src/ts/settings';
import {
    Annotations,
    createCore,
    createJob,
    StandInCore,
    StandInJob,
    Transport,
} from '../standin/core';
import { createLambda, FunctionRequest, HttpAnswer, Invoke } from '../standin/server';

export const LABELS: Label[] = [
    {
        id: 1,
        name: 'car',
        attributes: [
            { id: 31, mutable: false },
            { id: 32, mutable: true },
        ],
    },
    { id: 2, name: 'dog', attributes: [] },
];

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
    /** Ctrl+E with nothing active. */
    runAll(frame: number, target: number | string, options?: RunOptions): Promise<void>;
    /** The action on chosen objects. */
    runOn(
        clientIDs: number[],
        frame: number,
        target: number | string,
        options?: RunOptions,
    ): Promise<void>;
    /** The action for the settings; what is not named is as the function is set. */
    choose(parameters: Record<string, string>): Promise<void>;
    /** The action in a dialog that was opened for these objects. */
    runHeld(
        states: ObjectState[],
        frame: number,
        target: number | string,
        options?: RunOptions,
    ): Promise<void>;
}

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

export function createBench({
    frames = framesFrom(0, 20),
    invoke,
    intercept = (_call, next) => next(),
    labels = LABELS,
    lateness = 0,
}: {
    frames?: Frame[];
    invoke: Invoke;
    labels?: Label[];
    /** Stand between the page and the server: answer instead of it, or call `next`. */
    intercept?: (call: Call, next: () => Promise<HttpAnswer>) => Promise<HttpAnswer> | HttpAnswer;
    /** How much later than asked a sleep ends, in milliseconds. */
    lateness?: number;
}): Bench {
    const job = createJob({ frames, labels });
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
    const commit = store.commit.bind(store);
    store.commit = (created, deleted) => {
        bench.outcome = { created, deleted };
        commit(created, deleted);
    };
    const parametersOf = (
        frame: number,
        target: number | string,
        { convert = false, backwards = Number(target) < frame }: RunOptions,
    ): Record<string, string> => ({
        'Target frame': `${target}`,
        'Convert polygon shapes to tracks': `${convert}`,
        'Track backwards': `${backwards}`,
    });
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
        const shown = Object.entries(action.parameters!).map(([name, { values }]) => [
            name,
            (values as string[])[0],
        ]);
        const chosen = { ...(Object.fromEntries(shown) as Record<string, string>), ...parameters };
        const never = (): boolean => false;
        await core.actions.run(job, action, chosen, job.startFrame, never, onProgress, never);
    };
    bench.runAll = async (
        frame,
        target,
        { cancelled = () => false, filter = () => true, ...options } = {},
    ) =>
        core.actions.run(
            job,
            await find(),
            parametersOf(frame, target, options),
            frame,
            filter,
            onProgress,
            cancelled,
        );
    bench.runOn = async (
        clientIDs,
        frame,
        target,
        { cancelled = () => false, ...options } = {},
    ) => {
        const states = (await job.annotations.get(frame, false, [])).filter(({ clientID }) =>
            clientIDs.includes(clientID!),
        );
        return bench.runHeld(states, frame, target, { cancelled, ...options });
    };
    bench.runHeld = async (states, frame, target, { cancelled = () => false, ...options } = {}) =>
        core.actions.call(
            job,
            await find(),
            parametersOf(frame, target, options),
            frame,
            states,
            onProgress,
            cancelled,
        );
    return bench;
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
    per: (
        frame: number,
        memory: Memory,
    ) => Partial<{
        shape: unknown;
        state: unknown;
        score: number;
        error: { code: string; message: string };
    }> | null = () => null,
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
