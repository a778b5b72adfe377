// SPDX-License-Identifier: MIT
// The loop of calls: one per frame for all objects.

import { Frame } from './cvat';
import { Source } from './objects';
import {
    Answer, CallError, explain, faultOf, parseAnswers,
} from './server';

/** nginx in front of CVAT ends a call after 60 s; a call should stay well below. */
export const CALL_BUDGET_MS = 25_000;
/** Waits before a call is repeated: a restarting function is back within half a minute. */
const WAITS_MS = [1000, 2000, 4000, 8000, 16_000];
const POLL_MS = 200;

export interface FrameResult {
    frame: number;
    /** null: not visible on this frame. */
    points: number[] | null;
    score: number | null;
}

/** What became of one object, frame by frame in the order of tracking. */
export interface Tracked {
    source: Source;
    results: FrameResult[];
    /** Why it was given up before the end of the run, and on which frame. */
    failure: { frame: number; reason: string } | null;
}

export interface Run {
    objects: Tracked[];
    /** Where and why the whole run ended early; null where it reached its target. */
    stop: { frame: number; reason: string; cancelled: boolean } | null;
}

export interface Tools {
    /** Send one request to the function; throws what cvat-core throws. */
    call(args: Record<string, unknown>): Promise<unknown>;
    functionID: string | number;
    cancelled(): boolean;
    onProgress(message: string, percent: number): void;
    sleep(milliseconds: number): Promise<void>;
    now(): number;
}

class Cancelled extends Error {}

interface Live {
    tracked: Tracked;
    state: string | null;
    /** Where a new state is started from if this one is gone. */
    lastSeen: { frame: number; points: number[] };
}

type Request = (batch: Live[]) => Record<string, unknown>;

/** Calls with retries and splitting; remembers for the rest of the run how many objects fit. */
class Caller {
    private limit = Infinity;

    public constructor(private readonly tools: Tools) {}

    /** Ask about all objects, in as few calls as fit; `take` gets each answer as soon as it is
     * there, so that a later failure does not lose it. */
    public async ask(
        objects: Live[], request: Request, take: (object: Live, answer: Answer) => void,
    ): Promise<void> {
        let rest = objects;
        while (rest.length) {
            const batch = rest.slice(0, this.limit);
            const started = this.tools.now();
            let answers: Answer[];
            try {
                answers = await this.repeat(request(batch), batch.length);
            } catch (error) {
                if (!(error instanceof CallError) || error.remedy !== 'split' || batch.length === 1) throw error;
                this.limit = Math.ceil(batch.length / 2);
                continue;
            }
            if (this.tools.now() - started > CALL_BUDGET_MS && batch.length > 1) {
                this.limit = Math.ceil(batch.length / 2);
            }
            batch.forEach((object, index) => take(object, answers[index]));
            rest = rest.slice(batch.length);
        }
    }

    private async repeat(args: Record<string, unknown>, count: number): Promise<Answer[]> {
        for (let attempt = 0; ; attempt += 1) {
            if (this.tools.cancelled()) throw new Cancelled();
            try {
                return parseAnswers(await this.tools.call(args), count, args.type === 'track');
            } catch (raised) {
                const error = explain(raised, this.tools.functionID);
                if (error.remedy !== 'wait' || attempt === WAITS_MS.length) throw error;
                await this.wait(WAITS_MS[attempt], error.message);
            }
        }
    }

    private async wait(milliseconds: number, reason: string): Promise<void> {
        this.tools.onProgress(`${reason} Trying again in ${milliseconds / 1000} s`, this.percent);
        for (let left = milliseconds; left > 0; left -= POLL_MS) {
            if (this.tools.cancelled()) throw new Cancelled();
            await this.tools.sleep(Math.min(left, POLL_MS));
        }
    }

    public percent = 0;
}

/** Give every object a state, from where it was last seen. An object the function does not take
 * is given up. */
async function seed(caller: Caller, objects: Live[], failedOn: number): Promise<void> {
    const frames = new Set(objects.map(({ lastSeen }) => lastSeen.frame));
    for (const frame of frames) {
        await caller.ask(
            objects.filter(({ lastSeen }) => lastSeen.frame === frame),
            (batch) => ({
                type: 'init_tracking',
                frame,
                shapes: batch.map(({ tracked, lastSeen }) => (
                    { type: tracked.source.type, points: lastSeen.points }
                )),
            }),
            (object, { state, error }) => {
                object.state = state;
                if (state === null || error) {
                    const reason = error?.message ?? 'the function did not take it';
                    object.tracked.failure = { frame: failedOn, reason };
                }
            },
        );
    }
}

/** Track `objects` over one frame. What the function has forgotten is started again from where
 * it was last seen, once. */
async function step(caller: Caller, objects: Live[], { number, width, height }: Frame): Promise<void> {
    const take = (again: Live[] | null) => (object: Live, { shape, state, score, error }: Answer): void => {
        const { tracked } = object;
        const giveUp = (reason: string): void => {
            tracked.failure = { frame: number, reason };
        };
        object.state = state;
        if (error || (shape === null && state === null)) {
            if (again === null || error?.code === 'size_changed') {
                giveUp(error?.message ?? 'the function lost its state');
            } else {
                object.state = null;
                again.push(object);
            }
            return;
        }
        if (shape === null) {
            tracked.results.push({ frame: number, points: null, score });
            return;
        }
        const fault = shape.type === tracked.source.type ?
            faultOf(shape, width, height) : `a ${shape.type} instead of a ${tracked.source.type}`;
        if (fault) {
            giveUp(`the function answered ${fault}`);
            return;
        }
        tracked.results.push({ frame: number, points: [...shape.points], score });
        object.lastSeen = { frame: number, points: shape.points };
    };
    const request: Request = (batch) => (
        { type: 'track', frame: number, states: batch.map(({ state }) => state) }
    );

    const forgotten = objects.filter(({ state }) => state === null);
    if (forgotten.length) await seed(caller, forgotten, number);
    let rest = objects.filter(({ tracked }) => tracked.failure === null);
    const again: Live[] = [];
    try {
        await caller.ask(rest, request, take(again));
    } catch (error) {
        if (!(error instanceof CallError) || error.remedy !== 'reseed') throw error;
        // the server refuses a whole call for one expired state: start all that were in it anew
        rest = rest.filter((object) => (
            object.tracked.failure === null && !again.includes(object) &&
            object.tracked.results.at(-1)?.frame !== number
        ));
        again.push(...rest);
    }
    if (again.length) {
        await seed(caller, again, number);
        await caller.ask(again.filter(({ tracked }) => tracked.failure === null), request, take(null));
    }
}

function progressText(done: number, frames: Frame[], live: number, elapsed: number): string {
    const objects = live === 1 ? '1 object' : `${live} objects`;
    const text = `Frame ${frames[done].number} (${done + 1} of ${frames.length}), ${objects}`;
    if (done === 0) return text;
    const left = Math.round((elapsed / done) * (frames.length - done) / 1000);
    return `${text}, about ${left < 90 ? `${left} s` : `${Math.round(left / 60)} min`} left`;
}

/**
 * Track all sources over `frames`, in that order, starting from `start`.
 *
 * Nothing is thrown once the objects have been started: cancelling and errors end the run with
 * what is done until then. Before that a `CallError` says why nothing could be started.
 */
export async function track(
    sources: Source[], start: Frame, frames: Frame[], tools: Tools,
): Promise<Run> {
    const run: Run = {
        objects: sources.map((source) => ({ source, results: [], failure: null })),
        stop: null,
    };
    const objects: Live[] = run.objects.map((tracked) => ({
        tracked, state: null, lastSeen: { frame: start.number, points: tracked.source.points },
    }));
    const caller = new Caller(tools);
    const stopped = (frame: number, error: unknown): Run => {
        const cancelled = error instanceof Cancelled;
        run.stop = {
            frame, cancelled, reason: cancelled ? 'cancelled' : explain(error, tools.functionID).message,
        };
        return run;
    };

    tools.onProgress(`Starting ${objects.length === 1 ? '1 object' : `${objects.length} objects`}`, 0);
    try {
        await seed(caller, objects, start.number);
    } catch (error) {
        if (error instanceof Cancelled) return stopped(start.number, error);
        throw error;
    }

    const begun = tools.now();
    for (const [done, frame] of frames.entries()) {
        const live = objects.filter(({ tracked }) => tracked.failure === null);
        if (!live.length) break;
        if (tools.cancelled()) return stopped(frame.number, new Cancelled());
        if (frame.width !== start.width || frame.height !== start.height) {
            return stopped(frame.number, new CallError(
                `The image is ${frame.width}x${frame.height} here and ${start.width}x${start.height} before.`,
                'stop',
            ));
        }
        caller.percent = Math.floor((100 * done) / frames.length);
        tools.onProgress(
            progressText(done, frames, live.length, tools.now() - begun), caller.percent,
        );
        try {
            await step(caller, live, frame);
        } catch (error) {
            return stopped(frame.number, error);
        }
    }
    return run;
}
