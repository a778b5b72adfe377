// SPDX-License-Identifier: MIT
// What the steps of one run share: what the user has chosen, what is known, and the ways to wait.

import { ActionInput, Core, Frame, Job, SerializedShape } from './cvat';
import { Look } from './earlier';
import { Route } from './frames';
import { KnownNumbers } from './known';
import { Numbers } from './numbers';
import { Source } from './objects';
import { Page } from './page';
import { Settings } from './settings';
import { Successors } from './successors';
import { Cancelled, JobClosed, within } from './waiting';

/** How long CVAT's page may take to answer what it mostly knows, in milliseconds. */
const ANSWER_LIMIT_MS = 130_000;
/** Frames that are looked at before the page may draw and Cancel is asked for. */
const LOOKED_AT_ONCE = 64;

/** What the user has chosen for a run. */
export interface Chosen {
    job: Job;
    target: unknown;
    convert: boolean;
    backwards: boolean;
    settings: Settings;
    /** What is left to do when CVAT has committed the run. */
    afterwards: (() => Promise<void>) | null;
}

/** What the runs of an open job know of earlier ones. */
export interface Known {
    numbers: KnownNumbers;
    successors: Successors;
}

export class RunContext {
    public readonly job: Job;

    public readonly start: Frame;

    /** What the message at the end says besides. */
    public readonly hints: string[] = [];

    public readonly warnings: string[] = [];

    public constructor(
        public readonly core: Core,
        public readonly page: Page,
        public readonly known: Known,
        public readonly chosen: Chosen,
        public readonly input: ActionInput,
        private readonly isLatest: () => boolean,
    ) {
        this.job = chosen.job;
        this.start = { ...input.frameData, deleted: false };
    }

    public checkOpen(): void {
        if (!this.isLatest() || !this.page.isOpen(this.job)) throw new JobClosed();
    }

    public readonly mayGoOn = (): void => {
        this.checkOpen();
        if (this.input.cancelled()) throw new Cancelled();
    };

    /** What the page answers soon; where it does not, Cancel works, and the wait ends. */
    public soon<T>(promise: Promise<T>, what: string): Promise<T> {
        const late = (): Error => new Error(`CVAT did not ${what}. Try again in a minute.`);
        return within(promise, ANSWER_LIMIT_MS, this.mayGoOn, late);
    }

    /** What has to be known to tell whose a shape is. */
    public look({ frames, timeline }: Route): Look {
        const { job, page } = this;
        const start = this.start.number;
        const order = frames.map(({ number }) => number);
        const place = timeline.indexOf(start);
        const beside = [timeline[place - 1], timeline[place + 1]];
        let looked = 0;
        const pause = async (): Promise<void> => {
            looked += 1;
            if (looked % LOOKED_AT_ONCE) return;
            await page.breathe();
            this.mayGoOn();
        };
        return {
            start,
            order,
            pause,
            random: page.random,
            before: beside.find((frame) => frame !== order[0]),
            isLocked: isLockedIn(job),
            known: this.known.numbers,
        };
    }

    /** Whose the shapes are; `shapes`: all of the job. */
    public numbersOf(shapes: SerializedShape[]): Numbers {
        return new Numbers(shapes, this.known.numbers, this.start.number);
    }

    public becomesTrack({ type, track: own }: Source): boolean {
        return own !== null || (this.chosen.convert && type === 'polygon');
    }
}

/** Looks up locks, which the page alone knows, one frame at a time. */
function isLockedIn(job: Job): (shape: SerializedShape) => Promise<boolean> {
    let known: { frame: number; locked: Set<number | null> } | null = null;
    return async ({ frame, clientID }) => {
        if (known?.frame !== frame) {
            const states = await job.annotations.get(frame, false, []);
            const locked = states.filter(({ lock }) => lock).map((state) => state.clientID);
            known = { frame, locked: new Set(locked) };
        }
        return known.locked.has(clientID ?? null);
    };
}
