// SPDX-License-Identifier: MIT
// The loop over the frames: one call each for all objects.

import { takeBetter } from './bothWays';
import { Caller, giveUp, Live, Request, Tools } from './caller';
import { Frame } from './cvat';
import { Source } from './objects';
import { alignedPoints } from './rings';
import { Answer, CallError, explain, faultOf, insideImage } from './server';
import { seed, Steps } from './starting';
import { Run, Tracked } from './tracked';
import { Cancelled, JobClosed } from './waiting';

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

function timeLeft(milliseconds: number): string {
    const seconds = Math.round(milliseconds / 1000);
    return `, about ${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} left`;
}

/** Why a way through the frames ended early, and on which frame. */
interface End {
    frame: number;
    error: unknown;
}

/** One way through `frames`, in that order. All of them must have the size of `start`. `liveOn`: the objects
 * to track over a frame. `tell` is called before each frame. */
async function follow(
    caller: Caller,
    start: Frame,
    frames: Frame[],
    steps: Steps,
    liveOn: (frame: number) => Live[],
    tell: (done: number, live: number) => void,
): Promise<End | null> {
    for (const [done, frame] of frames.entries()) {
        const live = liveOn(frame.number);
        if (!live.length) continue;
        try {
            caller.tools.mayGoOn();
            checkSize(frame, start);
            tell(done, live.length);
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
            if (error instanceof JobClosed) throw error;
            // a frame counts as done when every object has been answered: the next run starts there
            for (const { tracked } of live) {
                if (tracked.results.at(-1)?.frame === frame.number) tracked.results.pop();
            }
            return { frame: frame.number, error };
        }
    }
    return null;
}

function checkSize(frame: Frame, start: Frame): void {
    if (frame.width === start.width && frame.height === start.height) return;
    throw new CallError(
        `The picture is ${frame.width}x${frame.height} here, ` +
            `and ${start.width}x${start.height} before.`,
        'draw again',
    );
}

function alive(objects: Live[]): Live[] {
    return objects.filter(({ tracked }) => tracked.failure === null);
}

function newTracked(source: Source): Tracked {
    return {
        source,
        results: [],
        failure: null,
        changed: false,
        notJoined: null,
        oneEnd: null,
    };
}

/** The frames of a run before the last one on which any of the objects is drawn, that one first. */
function framesBack(sources: Source[], frames: Frame[]): Frame[] {
    const isDrawn = ({ number }: Frame): boolean =>
        sources.some(({ byHand }) => byHand.get(number)?.points);
    const last = frames.map(isDrawn).lastIndexOf(true);
    return frames.slice(0, Math.max(last, 0)).reverse();
}

/** An object and the same on its way back from the last frame on which a person drew it. */
interface Return {
    object: Live;
    back: Live;
    last: number;
}

/** None where a person drew the object on no frame that was tracked. */
function returnsOf(object: Live): Return[] {
    const { source, results } = object.tracked;
    const drawn = results.flatMap(({ frame, points, byHand }) =>
        byHand && points ? [{ frame, points }] : [],
    );
    const lastSeen = drawn.at(-1);
    if (!lastSeen) return [];
    const back = { ...object, tracked: newTracked(source), state: null, lastSeen };
    return [{ object, back, last: lastSeen.frame }];
}

/** The way back over `frames`, on which each object begins behind the frame where it was drawn last. */
function followBack(
    caller: Caller,
    start: Frame,
    returns: Return[],
    frames: Frame[],
    steps: Steps,
    tell: (done: number, live: number) => void,
): Promise<End | null> {
    const place = new Map(frames.map(({ number }, index) => [number, index]));
    const liveOn = (frame: number): Live[] => {
        // `frames` ends before the last drawn frame of all objects
        const begun = returns.filter(({ last }) => place.get(frame)! > (place.get(last) ?? -1));
        return alive(begun.map(({ back }) => back));
    };
    caller.picturesAreGood = true;
    return follow(caller, start, frames, (from, to) => steps(to, from), liveOn, tell);
}

/** Give an object the results of its way back where they are better. `reason`: why that way ended early;
 * null where it did not. */
function takeBack({ object, back, last }: Return, reason: string | null): void {
    const { tracked } = object;
    tracked.notJoined ??= back.tracked.notJoined;
    takeBetter(tracked, back.tracked.results);
    const why = back.tracked.failure?.reason ?? reason;
    const found = new Set(back.tracked.results.map(({ frame }) => frame));
    const before = tracked.results.slice(
        0,
        tracked.results.findIndex(({ frame }) => frame === last),
    );
    const lacking = before.filter(({ frame, byHand }) => !byHand && !found.has(frame));
    if (why === null || !lacking.length) return;
    tracked.oneEnd = { first: lacking[0].frame, last: lacking.at(-1)!.frame, reason: why };
}

/**
 * Track all sources over `frames`, in that order, starting from `start`. `steps` counts the frames
 * between two. With `tools.bothWays` the frames between drawn ones are tracked from behind, too, and
 * each gets the better result.
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
    const run: Run = { objects: sources.map(newTracked), stop: null, cancelled: false };
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
    const reasonOf = (error: unknown): string =>
        error instanceof Cancelled ? 'cancelled' : explain(error, tools.functionID).message;
    const stopped = ({ frame, error }: End): void => {
        run.cancelled = error instanceof Cancelled;
        const drawAgain = error instanceof CallError && error.remedy === 'draw again';
        run.stop = { frame, reason: reasonOf(error), drawAgain };
    };

    tools.onProgress(
        `Starting ${objects.length === 1 ? '1 object' : `${objects.length} objects`}`,
        0,
    );
    try {
        await seed(caller, objects, steps);
    } catch (error) {
        if (!(error instanceof Cancelled)) throw error;
        stopped({ frame: start.number, error });
        return run;
    }

    const back = tools.bothWays ? framesBack(sources, frames) : [];
    const total = frames.length + back.length;
    const begun = tools.now();
    const tellOf = (some: Frame[], before: number, way: string) => {
        return (index: number, live: number): void => {
            const done = before + index;
            const left = done ? ((tools.now() - begun) / done) * (total - done) : null;
            caller.percent = Math.floor((100 * done) / total);
            tools.onProgress(
                `Frame ${some[index].number} (${index + 1} of ${some.length}${way}), ` +
                    (live === 1 ? '1 object' : `${live} objects`) +
                    (left === null ? '' : timeLeft(left)),
                caller.percent,
            );
        };
    };
    const way = frames[0].number < start.number ? ' backwards' : '';
    const tell = tellOf(frames, 0, back.length ? `${way}, then from the other end` : way);
    const end = await follow(caller, start, frames, steps, () => alive(objects), tell);
    if (end) stopped(end);
    if (!back.length) return run;

    const returns = objects.flatMap(returnsOf);
    let reason = end && (run.cancelled ? 'cancelled' : 'the run stopped before');
    if (!end) {
        const tellBack = tellOf(back, frames.length, ', from the other end');
        const endBack = await followBack(caller, start, returns, back, steps, tellBack);
        run.cancelled = endBack?.error instanceof Cancelled;
        reason = endBack && reasonOf(endBack.error);
    }
    for (const one of returns) takeBack(one, reason);
    return run;
}
