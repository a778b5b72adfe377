// SPDX-License-Identifier: MIT
// Calls of the function: in as few as fit, repeated, split, and given up.

import { Source } from './objects';
import { Answer, CallError, explain, parseAnswers } from './server';
import { Tracked } from './tracked';
import { Cancelled, JobClosed, POLL_MS, within } from './waiting';

/** nginx in front of CVAT ends a call after 60 s; a call should stay well below. */
const CALL_BUDGET_MS = 25_000;
/** Waits before a call is repeated: a restarting function is back within half a minute. */
const WAITS_MS = [1000, 2000, 4000, 8000, 16_000];
/** The page sets no limit to a call of its own; CVAT's server gives up after 120 s. */
export const CALL_LIMIT_MS = 130_000;

export interface Tools {
    /** Send one request to the function; throws what cvat-core throws. */
    call(args: Record<string, unknown>): Promise<unknown>;
    functionID: string | number;
    /** The memory policy of all objects; null: as the function is set. */
    memory: string | null;
    /** Side of the window in which each object is looked for, in sizes of the object; 0: no window;
     * null: as the function is set. */
    searchRegion: number | null;
    /** Whether frames between drawn ones are tracked from both ends. */
    bothWays: boolean;
    /** The tolerance of an object's polygons; null: as the function is set. */
    toleranceOf(source: Source): number | null;
    /** Throws `Cancelled` or `JobClosed` where the run must end. */
    mayGoOn(): void;
    onProgress(message: string, percent: number): void;
    sleep(milliseconds: number): Promise<void>;
    now(): number;
}

export interface Live {
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

export type Request = (batch: Live[]) => Record<string, unknown>;

export function giveUp({ tracked }: Live, frame: number, reason: string): void {
    tracked.failure = { frame, reason };
}

/** Calls with retries and splitting; remembers for the rest of the run how many objects fit. */
export class Caller {
    public percent = 0;

    /** Whether the function has used all the pictures before. Then a picture is not why it refuses. */
    public picturesAreGood = false;

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
        const isPicture =
            !this.picturesAreGood &&
            refused.length === objects.length &&
            (objects.length > 1 || !isStart);
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
