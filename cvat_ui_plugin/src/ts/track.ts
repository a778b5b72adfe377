// SPDX-License-Identifier: MIT
// The loop of calls: one per frame for all objects.

import { Frame } from './cvat';
import { Source } from './objects';
import { alignedPoints } from './rings';
import { Answer, CallError, explain, insideImage, faultOf, parseAnswers } from './server';
import { Cancelled, JobClosed, POLL_MS, within } from './waiting';

/** nginx in front of CVAT ends a call after 60 s; a call should stay well below. */
const CALL_BUDGET_MS = 25_000;
/** Waits before a call is repeated: a restarting function is back within half a minute. */
const WAITS_MS = [1000, 2000, 4000, 8000, 16_000];
/** The page sets no limit to a call of its own; CVAT's server gives up after 120 s. */
export const CALL_LIMIT_MS = 130_000;

export interface FrameResult {
    frame: number;
    /** null: not visible on this frame. */
    points: number[] | null;
    score: number | null;
    /** A person drew it on this frame: nothing is written, and the object goes on from here. */
    byHand: boolean;
    /** A person drew a shape in its place, which nobody can tell the object of: it is not written. */
    inPlace?: boolean;
}

/** What became of one object, frame by frame in the order of tracking. */
export interface Tracked {
    source: Source;
    results: FrameResult[];
    /** Why it was given up before the end of the run, and on which frame. */
    failure: { frame: number; reason: string } | null;
    /** Whether it, or what a person drew in its place, was changed in the job while it was tracked. */
    changed: boolean;
    /** Why what a person drew of it on other frames did not join. */
    notJoined: string | null;
}

export interface Run {
    objects: Tracked[];
    /** Where and why the whole run ended early; null where it reached its target. */
    stop: { frame: number; reason: string; cancelled: boolean; drawAgain: boolean } | null;
}

interface Tools {
    /** Send one request to the function; throws what cvat-core throws. */
    call(args: Record<string, unknown>): Promise<unknown>;
    functionID: string | number;
    /** The memory policy of all objects; null: as the function is set. */
    memory: string | null;
    /** Side of the window in which each object is looked for, in sizes of the object; 0: no window;
     * null: as the function is set. */
    searchRegion: number | null;
    /** The tolerance of an object's polygons; null: as the function is set. */
    toleranceOf(source: Source): number | null;
    /** Throws `Cancelled` or `JobClosed` where the run must end. */
    mayGoOn(): void;
    onProgress(message: string, percent: number): void;
    sleep(milliseconds: number): Promise<void>;
    now(): number;
}

interface Live {
    tracked: Tracked;
    /** null: it is to be started from where it was last seen. */
    state: string | null;
    /** Where a new state is started from if this one is gone. */
    lastSeen: { frame: number; points: number[] };
    /** What a person drew of it, by frame; the shape that it is tracked from is one of these. */
    keyframes: ReadonlyMap<number, number[]>;
    /** States that were started from these, by frame. */
    drawn: Map<number, string>;
}

type Request = (batch: Live[]) => Record<string, unknown>;

function giveUp({ tracked }: Live, frame: number, reason: string): void {
    tracked.failure = { frame, reason };
}

/** Calls with retries and splitting; remembers for the rest of the run how many objects fit. */
class Caller {
    public percent = 0;

    private perCall = Infinity;

    private limit = Infinity;

    public constructor(public readonly tools: Tools) {}

    /** Ask about all objects, in as few calls as fit. What is refused even alone is given up, or
     * handed to `refuse`. */
    public async ask(
        objects: Live[],
        frame: number,
        request: Request,
        take: (object: Live, answer: Answer) => void,
        refuse: ((object: Live, reason: string) => void) | null = null,
    ): Promise<void> {
        if (!objects.length) return;
        const refused: [Live, CallError][] = [];
        let isStart = refuse !== null;
        let rest = objects;
        let repeats = 0;
        let tooSlow = false;
        while (rest.length) {
            this.tools.mayGoOn();
            const batch = rest.slice(0, this.perCall);
            const args: Record<string, unknown> = { ...request(batch), frame };
            isStart ||= args.type === 'init_tracking';
            const started = this.tools.now();
            let answers: Answer[];
            try {
                const answered = await within(
                    this.tools.call(args),
                    CALL_LIMIT_MS,
                    this.tools.mayGoOn,
                    () =>
                        new CallError(
                            `CVAT's server did not answer within ${CALL_LIMIT_MS / 1000} s.`,
                            'wait',
                            true,
                        ),
                );
                const entries = (args.states ?? args.shapes) as unknown[];
                answers = parseAnswers(answered, entries.length, 'states' in args);
            } catch (raised) {
                if (raised instanceof Cancelled || raised instanceof JobClosed) throw raised;
                const error = explain(raised, this.tools.functionID);
                const tooMany = error.remedy === 'fewer' || error.remedy === 'fewer for good';
                if (tooMany && batch.length > 1) {
                    this.perCall = Math.floor(batch.length / 2);
                    if (error.remedy === 'fewer for good') this.limit = this.perCall;
                } else if (error.remedy === 'fewer for good') {
                    refused.push([batch[0], error]);
                    rest = rest.slice(1);
                } else if (
                    (tooMany || error.remedy === 'wait') &&
                    repeats < WAITS_MS.length &&
                    !(error.slow && tooSlow)
                ) {
                    tooSlow ||= error.slow; // it is made once more
                    await this.wait(WAITS_MS[repeats], error.message);
                    repeats += 1;
                } else {
                    throw error;
                }
                continue;
            }
            repeats = 0;
            tooSlow = false;
            this.adapt(batch.length, this.tools.now() - started);
            batch.forEach((object, index) => take(object, answers[index]));
            rest = rest.slice(batch.length);
        }
        // one object may be at fault; where each of several is refused alone, the picture is
        const isPicture = refused.length === objects.length && (objects.length > 1 || !isStart);
        if (isPicture && refuse === null) {
            throw new CallError(
                `The function cannot use the picture of frame ${frame}: ${refused[0][1].message}`,
                'stop',
            );
        }
        for (const [object, error] of refused) {
            if (refuse) refuse(object, error.message);
            else giveUp(object, frame, error.message);
        }
    }

    /** Halving brings a call to half its time at best: growing below a quarter cannot flap. */
    private adapt(count: number, elapsed: number): void {
        if (elapsed > 0.8 * CALL_BUDGET_MS && count > 1) {
            this.perCall = Math.floor(count / 2);
        } else if (elapsed < 0.25 * CALL_BUDGET_MS && count >= this.perCall) {
            this.perCall = Math.min(2 * this.perCall, this.limit);
        }
    }

    private async wait(milliseconds: number, reason: string): Promise<void> {
        this.tools.onProgress(`${reason} Trying again in ${milliseconds / 1000} s.`, this.percent);
        // by the clock: a browser slows the timers of a hidden tab, down to one a minute
        const end = this.tools.now() + milliseconds;
        for (let left = milliseconds; left > 0; left = end - this.tools.now()) {
            this.tools.mayGoOn();
            await this.tools.sleep(Math.min(left, POLL_MS));
        }
    }
}

function startRequest(
    pointsOf: (object: Live) => number[],
    { memory, searchRegion, toleranceOf }: Pick<Tools, 'memory' | 'searchRegion' | 'toleranceOf'>,
): Request {
    return (batch) => ({
        type: 'init_tracking',
        shapes: batch.map((object) => {
            const { source } = object.tracked;
            const tolerance = source.type === 'polygon' ? toleranceOf(source) : null;
            return {
                type: source.type,
                points: pointsOf(object),
                ...(memory === null ? {} : { memory }),
                ...(searchRegion === null ? {} : { search_region: searchRegion }),
                ...(tolerance === null ? {} : { tolerance }),
            };
        }),
    });
}

/** Give every object a state, from where it was last seen. With `steps`, what else a person drew of
 * it joins. */
async function seed(caller: Caller, objects: Live[], steps: Steps | null): Promise<void> {
    const frames = new Set(objects.map(({ lastSeen }) => lastSeen.frame));
    for (const frame of frames) {
        const here = objects.filter(({ lastSeen }) => lastSeen.frame === frame);
        for (const object of here) object.state = object.drawn.get(frame) ?? null;
        await caller.ask(
            here.filter(({ state }) => state === null),
            frame,
            startRequest(({ lastSeen }) => lastSeen.points, caller.tools),
            (object, { state, error }) => {
                object.state = state;
                if (state === null || error) {
                    giveUp(object, frame, error?.message ?? 'the function did not take it');
                } else if (object.keyframes.get(frame) === object.lastSeen.points) {
                    object.drawn.set(frame, state);
                }
            },
        );
        if (steps === null) continue;
        await join(
            caller,
            here.filter(({ state, tracked }) => state !== null && !tracked.failure),
            frame,
            steps,
        );
    }
}

/** How many frames `to` lies after `from`, in the direction of tracking; negative: before. */
type Steps = (from: number, to: number) => number;

/** The function remembers 8 drawn shapes of an object; this many besides the one it starts from. */
const MOST_JOINED = 7;
/** The function takes at most 100 objects in a request, and each joined shape counts as one. */
const ENTRIES_PER_CALL = 50;

/** Let objects that start on `frame` stand on what a person drew of them on other frames, too: the
 * nearest of these. Where that fails, the object goes on without, and its reason is kept. */
async function join(caller: Caller, objects: Live[], frame: number, steps: Steps): Promise<void> {
    const nearest = new Map<Live, number[]>();
    for (const object of objects) {
        const others = [...object.keyframes.keys()].filter((one) => one !== frame);
        others.sort((a, b) => Math.abs(steps(frame, a)) - Math.abs(steps(frame, b)));
        if (others.length) nearest.set(object, others.slice(0, MOST_JOINED));
    }
    if (!nearest.size) return;
    const alone = ({ tracked }: Live, reason: string): void => {
        tracked.notJoined = reason;
    };
    try {
        for (const other of new Set([...nearest.values()].flat())) {
            await caller.ask(
                [...nearest.keys()].filter(
                    (object) => nearest.get(object)!.includes(other) && !object.drawn.has(other),
                ),
                other,
                startRequest(({ keyframes }) => keyframes.get(other)!, caller.tools),
                (object, { state, error }) => {
                    if (state !== null && !error) object.drawn.set(other, state);
                    else alone(object, error?.message ?? 'the function did not take it');
                },
                alone,
            );
        }
        let rest = [...nearest.keys()];
        while (rest.length) {
            let entries = 0;
            const batch = rest.filter((object) => {
                entries += 1 + nearest.get(object)!.length;
                return entries <= ENTRIES_PER_CALL;
            });
            rest = rest.slice(batch.length);
            await caller.ask(
                batch,
                frame,
                (some) => joinRequest(some, frame, nearest, steps),
                (object, { state, error }) => {
                    if (state !== null && !error) object.state = state;
                    else alone(object, error?.message ?? 'the function did not join it');
                },
                alone,
            );
        }
    } catch (error) {
        if (!(error instanceof CallError)) throw error;
        for (const object of nearest.keys()) alone(object, error.message);
    }
}

/** The states of the objects and, after them, those of what joins each. */
function joinRequest(
    objects: Live[],
    frame: number,
    nearest: Map<Live, number[]>,
    steps: Steps,
): Record<string, unknown> {
    const lent: string[] = [];
    const shapes = objects.map((object) => {
        const adopt = [];
        for (const other of nearest.get(object)!) {
            const state = object.drawn.get(other);
            if (state === undefined) continue;
            adopt.push({ index: objects.length + lent.length, distance: steps(frame, other) });
            lent.push(state);
        }
        const { type } = object.tracked.source;
        return adopt.length ? { type, points: object.lastSeen.points, adopt } : null;
    });
    return {
        type: 'track',
        shapes: [...shapes, ...lent.map(() => null)],
        states: [...objects.map(({ state }) => state), ...lent],
    };
}

/** Pass a frame on which a person drew these objects, or hid them: that stays as it is. An object
 * that was drawn is started again from there when it is tracked on. */
function pass(objects: Live[], frame: number): void {
    for (const object of objects) {
        const points = object.tracked.source.byHand.get(frame)?.points ?? null;
        if (points) {
            object.lastSeen = { frame, points };
            object.state = null;
        }
        object.tracked.results.push({ frame, points, score: null, byHand: true });
    }
}

/** Track `objects` over one frame. What the function has forgotten is started again from where
 * it was last seen, once. */
async function step(
    caller: Caller,
    objects: Live[],
    { number, width, height }: Frame,
): Promise<void> {
    const forgotten: Live[] = [];
    let again = false;
    const take = (object: Live, { shape, state, score, error }: Answer): void => {
        const { tracked } = object;
        if (error || (shape === null && state === null)) {
            if (again || error?.code === 'size_changed') {
                giveUp(object, number, error?.message ?? 'the function lost its state');
            } else {
                forgotten.push(object);
            }
            return;
        }
        const fault =
            shape &&
            (shape.type === tracked.source.type
                ? faultOf(shape, width, height)
                : `a ${shape.type} instead of a ${tracked.source.type}`);
        if (fault) {
            giveUp(object, number, `the function answered ${fault}`);
            return;
        }
        const inside = shape && insideImage(shape, width, height);
        // a track can lose keyframes only where its polygons begin and run alike
        const points =
            inside && tracked.source.type === 'polygon'
                ? alignedPoints(inside, object.lastSeen.points)
                : inside;
        tracked.results.push({ frame: number, points, score, byHand: false });
        object.state = state;
        if (points) object.lastSeen = { frame: number, points };
        if (state === null) giveUp(object, number, 'the function does not track it any further');
    };
    const request: Request = (batch) => ({
        type: 'track',
        states: batch.map(({ state }) => state),
    });
    const open = (): Live[] =>
        objects.filter(
            ({ tracked }) => tracked.failure === null && tracked.results.at(-1)?.frame !== number,
        );

    try {
        await caller.ask(objects, number, request, take);
    } catch (error) {
        // one expired state makes the server refuse the whole call: start all of them again
        if (!(error instanceof CallError) || error.remedy !== 'reseed') throw error;
        forgotten.splice(0, Infinity, ...open());
    }
    if (forgotten.length) {
        again = true;
        // what is forgotten of an object, is forgotten of its drawings
        for (const object of forgotten) object.drawn.clear();
        await seed(caller, forgotten, null);
        await caller.ask(open(), number, request, take);
    }
}

function progressText(
    done: number,
    start: Frame,
    frames: Frame[],
    live: number,
    elapsed: number,
): string {
    const objects = live === 1 ? '1 object' : `${live} objects`;
    const way = frames[0].number < start.number ? ' backwards' : '';
    const text = `Frame ${frames[done].number} (${done + 1} of ${frames.length}${way}), ${objects}`;
    if (done === 0) return text;
    const left = Math.round(((elapsed / done) * (frames.length - done)) / 1000);
    return `${text}, about ${left < 90 ? `${left} s` : `${Math.round(left / 60)} min`} left`;
}

/**
 * Track all sources over `frames`, in that order, starting from `start`. `steps` counts the frames
 * between two.
 *
 * Nothing is thrown once the objects have been started: cancelling and errors end the run with
 * what is done until then. Before that a `CallError` says why nothing could be started.
 */
export async function track(
    sources: Source[],
    start: Frame,
    frames: Frame[],
    steps: Steps,
    tools: Tools,
): Promise<Run> {
    const run: Run = {
        objects: sources.map((source) => ({
            source,
            results: [],
            failure: null,
            changed: false,
            notJoined: null,
        })),
        stop: null,
    };
    const objects: Live[] = run.objects.map((tracked) => ({
        tracked,
        state: null,
        lastSeen: { frame: start.number, points: tracked.source.points },
        keyframes: new Map([
            ...tracked.source.drawn,
            [start.number, tracked.source.points] as const,
        ]),
        drawn: new Map(),
    }));
    const caller = new Caller(tools);
    const stopped = (frame: number, error: unknown): Run => {
        if (error instanceof JobClosed) throw error;
        const cancelled = error instanceof Cancelled;
        // a frame counts as done when every object has been answered: the next run starts there
        for (const { results } of run.objects) {
            if (results.at(-1)?.frame === frame) results.pop();
        }
        run.stop = {
            frame,
            cancelled,
            drawAgain: error instanceof CallError && error.remedy === 'draw again',
            reason: cancelled ? '' : explain(error, tools.functionID).message,
        };
        return run;
    };

    tools.onProgress(
        `Starting ${objects.length === 1 ? '1 object' : `${objects.length} objects`}`,
        0,
    );
    try {
        await seed(caller, objects, steps);
    } catch (error) {
        if (error instanceof Cancelled) return stopped(start.number, error);
        throw error;
    }

    const begun = tools.now();
    for (const [done, frame] of frames.entries()) {
        const live = objects.filter(({ tracked }) => tracked.failure === null);
        if (!live.length) break;
        try {
            tools.mayGoOn();
        } catch (error) {
            return stopped(frame.number, error);
        }
        if (frame.width !== start.width || frame.height !== start.height) {
            return stopped(
                frame.number,
                new CallError(
                    `The picture is ${frame.width}x${frame.height} here, ` +
                        `and ${start.width}x${start.height} before.`,
                    'draw again',
                ),
            );
        }
        caller.percent = Math.floor((100 * done) / frames.length);
        tools.onProgress(
            progressText(done, start, frames, live.length, tools.now() - begun),
            caller.percent,
        );
        try {
            const byHand = live.filter(({ tracked }) => tracked.source.byHand.has(frame.number));
            const others = live.filter((object) => !byHand.includes(object));
            await seed(
                caller,
                others.filter(({ state }) => state === null),
                steps,
            );
            const ready = others.filter(({ tracked }) => tracked.failure === null);
            if (ready.length) await step(caller, ready, frame);
            pass(byHand, frame.number);
        } catch (error) {
            return stopped(frame.number, error);
        }
    }
    return run;
}
