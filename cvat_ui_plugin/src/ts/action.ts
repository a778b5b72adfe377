// SPDX-License-Identifier: MIT
// The annotation action as CVAT runs it.

import {
    ActionInput,
    ActionOutput,
    ActionParameter,
    Collection,
    CollectionAction,
    Core,
    Frame,
    Job,
    ObjectState,
    SerializedShape,
} from './cvat';
import { leftAsShapes, recognise, replacedShapes, unmarkedBeside } from './earlier';
import { clampTarget, Route, routeBetween, undeleted } from './frames';
import { withChanges } from './fresh';
import { onFrame, reasonAgainstKind, SHAPE_TYPES, Source, sourcesOf } from './objects';
import { Report, reportOf } from './report';
import { nothing, outcomeOf } from './results';
import { ACTION_NAME, findTracker } from './server';
import { Settings, settingsFrom } from './settings';
import { drawnKeyframes, keyframesByHand } from './signature';
import { Sparse, sparseTracks } from './sparse';
import { Successors } from './successors';
import { Run, track, Tracked } from './track';
import { Cancelled, JobClosed, within } from './waiting';

export const TARGET = 'Target frame';
export const CONVERT = 'Convert polygon shapes to tracks';
export const BACKWARDS = 'Track backwards';

/** How long CVAT's page may take to answer what it mostly knows, in milliseconds. */
const ANSWER_LIMIT_MS = 130_000;
/** CVAT draws progress at most every 100 ms; what follows may block the page for seconds. */
const DRAWN_MS = 150;

/** Frames that are looked at before the page may draw and Cancel is asked for. */
const LOOKED_AT_ONCE = 64;

export interface Page {
    /** Show a message that outlives the dialog. */
    tell(report: Report, job: Job): void;
    /** Ask a question that has two answers. */
    ask(question: { title: string; text: string; yes: string; no: string }): Promise<boolean>;
    /** Draw the annotations of a frame again; CVAT does not after a cancelled run. */
    refresh(job: Job, frame: number): void;
    /** Whether this job is the one that is open in the page. */
    isOpen(job: Job): boolean;
    sleep(milliseconds: number): Promise<void>;
    now(): number;
    /** The text that `keep` was given last, in this browser; null where there is none. */
    kept(): string | null;
    keep(text: string): void;
    /** A number from 0 up to 1. */
    random(): number;
}

/** What the user has chosen for a run. */
interface Chosen {
    job: Job;
    target: unknown;
    convert: boolean;
    backwards: boolean;
    settings: Settings;
    /** What is left to do when CVAT has committed the run. */
    afterwards: (() => Promise<void>) | null;
}

export function createAction(core: Core, page: Page): CollectionAction {
    /** Numbers of objects (docs/identity.md) that runs of this page have used, by clientID. */
    const knownNumbers = new Map<number, number>();
    const successors = new Successors();

    class Segment2Tracker extends core.classes.BaseCollectionAction implements CollectionAction {
        /** The latest run; one that is still going on in a job that was left ends when it sees
         * another one here. */
        private latest: Chosen | null = null;

        public get name(): string {
            return ACTION_NAME;
        }

        public get parameters(): Record<string, ActionParameter> {
            return {
                [TARGET]: {
                    type: 'number',
                    values: ({ instance }) => [
                        `${instance.startFrame}`,
                        `${instance.stopFrame}`,
                        '1',
                    ],
                    defaultValue: ({ instance }) => `${instance.stopFrame}`,
                    tooltip: {
                        type: 'text',
                        content:
                            'The last frame to track. CVAT remembers it: look at it before each run.',
                    },
                },
                [CONVERT]: {
                    type: 'checkbox',
                    values: ['true', 'false'],
                    defaultValue: 'false',
                },
                [BACKWARDS]: {
                    type: 'checkbox',
                    values: ['true', 'false'],
                    defaultValue: 'false',
                    tooltip: {
                        type: 'text',
                        content: 'For a target frame before the current one.',
                    },
                },
            };
        }

        public async init(instance: Job, parameters: Record<string, unknown>): Promise<void> {
            this.latest = {
                job: instance,
                target: parameters[TARGET],
                convert: String(parameters[CONVERT]) === 'true',
                backwards: String(parameters[BACKWARDS]) === 'true',
                settings: settingsFrom(page.kept()),
                afterwards: null,
            };
        }

        public isApplicableForObject(state: ObjectState): boolean {
            return reasonAgainstKind(state) === null;
        }

        public applyFilter({
            collection,
            frameData,
        }: Pick<ActionInput, 'collection' | 'frameData'>): Collection {
            return onFrame(collection, frameData.number);
        }

        public async run(input: ActionInput): Promise<ActionOutput> {
            const chosen = this.latest;
            if (
                chosen === null ||
                !Number.isInteger(chosen.job.startFrame) ||
                !Number.isInteger(chosen.job.stopFrame)
            ) {
                throw new Error('This action works in a job: open one.');
            }
            try {
                return await this.runAs(chosen, input);
            } catch (error) {
                if (error instanceof JobClosed) {
                    throw new Error(
                        'Tracking was stopped because the job was closed, and nothing of it is ' +
                            'left. Keep the job open until the message at the end.',
                    );
                }
                if (!(error instanceof Cancelled)) throw error;
                page.tell(
                    {
                        kind: 'info',
                        title: 'Tracking was cancelled',
                        lines: ['Nothing was tracked and nothing has changed.'],
                        jumps: [],
                    },
                    chosen.job,
                );
                return nothing();
            }
        }

        private async runAs(
            chosen: Chosen,
            { collection, frameData, onProgress, cancelled }: ActionInput,
        ): Promise<ActionOutput> {
            const { job, settings } = chosen;
            const checkOpen = (): void => {
                if (this.latest !== chosen || !page.isOpen(job)) throw new JobClosed();
            };
            const mayGoOn = (): void => {
                checkOpen();
                if (cancelled()) throw new Cancelled();
            };
            /** What the page answers soon; where it does not, Cancel works, and the wait ends. */
            const soon = <T>(promise: Promise<T>, what: string): Promise<T> =>
                within(
                    promise,
                    ANSWER_LIMIT_MS,
                    mayGoOn,
                    () => new Error(`CVAT did not ${what}. Try again in a minute.`),
                );
            const start: Frame = { ...frameData, deleted: false };
            const target = clampTarget(chosen.target, job);
            const hints =
                Number(chosen.target) === target
                    ? []
                    : [`Frame ${String(chosen.target)} is not in this job: ${target} was used.`];
            if (target === start.number) {
                page.tell(
                    {
                        kind: 'info',
                        title: 'Nothing to track',
                        lines: [...hints, 'The target frame is the current frame.'],
                        jumps: [],
                    },
                    job,
                );
                return nothing();
            }
            checkDirection(start.number, target, chosen.backwards);
            if ((await soon(job.frames.get(start.number), 'open the frame')).deleted) {
                throw new Error(`Frame ${start.number} is deleted: start from another one.`);
            }
            onProgress('Looking for the function', 0);
            const tracker = await soon(findTracker(core), 'list its functions');
            const shown = 'give the annotations of the job';
            const states = await soon(job.annotations.get(start.number, false, []), shown);
            const before = await soon(job.annotations.export(), shown);
            const { sources, leftOut } = sourcesOf(
                successors.replace(collection, states, before),
                states,
                tracker.supportedShapeTypes ?? SHAPE_TYPES,
            );
            if (!sources.length) {
                const why = leftOut.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
                throw new Error(
                    `There is no mask, polygon or rectangle to track on frame ${start.number}` +
                        `${why ? ` (${why})` : ''}.`,
                );
            }
            const keyframes = sources.flatMap(
                ({ track: own }) => own?.shapes.map(({ frame }) => frame) ?? [],
            );
            const route = await soon(
                routeBetween(job, start.number, target, keyframes),
                'list the frames of the job',
            );
            if (!route.frames.length) {
                throw new Error(`All frames from ${start.number} to ${target} are deleted.`);
            }
            onProgress('Looking at the results of earlier runs', 0);
            let looked = 0;
            await recognise(
                sources,
                before.shapes,
                start.number,
                route.frames.map(({ number }) => number),
                isLockedIn(job),
                knownNumbers,
                async () => {
                    looked += 1;
                    if (looked % LOOKED_AT_ONCE) return;
                    await page.sleep(0);
                    mayGoOn();
                },
                page.random,
            );
            for (const source of sources) {
                if (source.track) {
                    const frames = route.frames.map(({ number }) => number);
                    source.byHand = keyframesByHand(source.track, frames, route.deleted);
                    source.drawn = drawnKeyframes(source.track, start.number);
                }
                source.drawn = await soon(undeleted(job, source.drawn), 'list the drawn frames');
            }
            const replaceClaimed = await this.askAbout(sources);
            mayGoOn();

            const becomesTrack = ({ type, track: own }: Source): boolean =>
                own !== null || (chosen.convert && type === 'polygon');
            const run = await track(sources, start, route.frames, route.steps, {
                call: (args) => core.lambda.call(job.taskId, tracker, { ...args, job: job.id }),
                functionID: tracker.id,
                memory: settings.memory,
                // sparse keyframes are made of exact outlines
                toleranceOf: (source) =>
                    settings.sparse !== null && becomesTrack(source) ? 0 : settings.tolerance,
                mayGoOn,
                onProgress,
                sleep: page.sleep,
                now: page.now,
            });
            if (run.objects.every(({ results }) => !results.length) && !run.stop?.cancelled) {
                const failure = run.objects.find((object) => object.failure);
                throw new Error(
                    `Nothing was tracked. ${
                        run.stop?.reason ?? `${failure?.source.name}: ${failure?.failure?.reason}`
                    }`,
                );
            }
            const sparse = await this.choose(chosen, run, start, route, onProgress, () => {
                checkOpen();
                // Cancel has ended the tracking already: what was tracked is still to be written
                if (!run.stop?.cancelled) mayGoOn();
            });
            if (settings.sparse !== null && sparse === null) {
                hints.push(
                    'Cancelled while keyframes were chosen: tracks have one on every frame.',
                );
            }
            onProgress('Every frame is tracked. Adding the results to the page', 99);
            await page.sleep(DRAWN_MS);
            checkOpen();

            let replaced: SerializedShape[] = [];
            let beside: SerializedShape[] = [];
            try {
                const now = await job.annotations.export();
                withChanges(run, before, now);
                replaced = replacedShapes(run.objects, now.shapes, replaceClaimed);
                const gone = new Set(replaced.map(({ clientID }) => clientID));
                const rest = now.shapes.filter((shape) => !gone.has(shape.clientID));
                beside = unmarkedBeside(run.objects, rest);
                for (const { source, results } of chosen.convert ? run.objects : []) {
                    if (source.type !== 'polygon' || !source.shape) continue;
                    const frames = new Set(results.map(({ frame }) => frame));
                    const count = leftAsShapes(source, frames, now.shapes);
                    if (!count) continue;
                    hints.push(
                        `${source.name} is a track now on the frames of this run, and stays a ` +
                            `polygon shape on ${count} other frames. Convert it from its first ` +
                            'frame to its last to have one track.',
                    );
                }
            } catch (error) {
                // what was tracked must not be lost with it
                replaced = [];
                hints.push(
                    `Results of earlier runs could not be looked at (${String(error)}): they ` +
                        'were kept. Undo takes this run back.',
                );
            }
            // what a person changed meanwhile is not what the keyframes were chosen for
            for (const object of run.objects) if (object.changed) sparse?.delete(object);
            const outcome = outcomeOf(
                run.objects,
                start,
                route,
                job.labels,
                chosen.convert,
                sparse ?? new Map(),
                replaced,
            );

            // CVAT commits after this returns and calls destroy() last: look at the result then
            chosen.afterwards = async () => {
                const after = await successors.learn(job, start.number, run, outcome, states);
                if (after === null) return; // CVAT could not commit, and has said so
                const report = await reportOf({
                    run,
                    start: start.number,
                    leftOut,
                    replaced: replaced.length,
                    beside,
                    thinned: countedSparse(sparse ?? new Map()),
                    hints,
                    nameOn: after,
                });
                page.tell(report, job);
                if (run.stop?.cancelled) page.refresh(job, start.number);
            };
            return outcome;
        }

        /** Whether shapes that only seem to be earlier results of these objects are replaced. */
        private async askAbout(sources: Source[]): Promise<boolean> {
            const claimed = sources.filter((source) => source.claimed.length);
            if (!claimed.length) return false;
            const list = claimed.map(({ name, claimed: shapes }) => `${name}: ${shapes.length}`);
            return page.ask({
                title: 'Replace the results of an earlier run?',
                text:
                    'Automatic shapes on the frames of this run seem to belong to these objects, ' +
                    `but do not say so (${list.slice(0, 5).join(', ')}` +
                    `${list.length > 5 ? ', …' : ''}). Kept, they lie beside the new results.`,
                yes: 'Replace them',
                no: 'Keep them',
            });
        }

        /** The keyframes of tracks where they are to be sparse; null: one on every frame. */
        private async choose(
            { settings, convert, job }: Chosen,
            run: Run,
            start: Frame,
            route: Route,
            onProgress: ActionInput['onProgress'],
            mayGoOn: () => void,
        ): Promise<Map<Tracked, Sparse> | null> {
            if (settings.sparse === null) return null;
            let drawn = page.now();
            onProgress('Every frame is tracked. Choosing keyframes', 99);
            try {
                return await sparseTracks(
                    settings.sparse,
                    run.objects,
                    start,
                    route,
                    job.labels,
                    convert,
                    async () => {
                        mayGoOn();
                        if (page.now() - drawn < DRAWN_MS) return;
                        await page.sleep(0);
                        drawn = page.now();
                    },
                );
            } catch (error) {
                if (error instanceof Cancelled) return null;
                throw error;
            }
        }

        public async destroy(): Promise<void> {
            const afterwards = this.latest?.afterwards;
            if (this.latest) this.latest.afterwards = null;
            await afterwards?.();
        }
    }
    return new Segment2Tracker();
}

/** CVAT remembers the target frame: a run in the wrong direction would replace good results. */
function checkDirection(start: number, target: number, backwards: boolean): void {
    if (target < start && !backwards) {
        throw new Error(
            `The target frame ${target} is before the current frame ${start}. Choose a later ` +
                `target, or switch on "${BACKWARDS}".`,
        );
    }
    if (target > start && backwards) {
        throw new Error(
            `"${BACKWARDS}" is on, but the target frame ${target} is after the current frame ` +
                `${start}. Switch it off, or choose an earlier target.`,
        );
    }
}

/** How many keyframes, of how many points, stand for how many frames. */
function countedSparse(sparse: ReadonlyMap<Tracked, Sparse>) {
    const thinned = { frames: 0, keyframes: 0, points: 0 };
    for (const [{ results }, keyframes] of sparse) {
        thinned.frames += results.filter(({ points, byHand }) => points && !byHand).length;
        thinned.keyframes += keyframes.size;
        for (const points of keyframes.values()) thinned.points += points.length / 2;
    }
    return thinned;
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
