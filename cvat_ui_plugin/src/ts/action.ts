// SPDX-License-Identifier: MIT
// The annotation action as CVAT runs it.

import { Chosen, Known, RunContext } from './context';
import {
    ActionInput,
    ActionOutput,
    ActionParameter,
    Collection,
    CollectionAction,
    Core,
    Job,
    ObjectState,
} from './cvat';
import { KnownNumbers } from './known';
import { onFrame, reasonAgainstKind } from './objects';
import { Page } from './page';
import { Report } from './report';
import { BACKWARDS, CONVERT, runAction, TARGET } from './run';
import { ACTION_NAME } from './server';
import { settingsFrom } from './settings';
import { Successors } from './successors';
import { AlreadyTold, Cancelled, JobClosed } from './waiting';

/** CVAT shows the error of an action for five seconds. Whoever has waited longer than this, in
 * milliseconds, may look elsewhere by then: a message of our own stays. */
const WATCHED_MS = 5000;

export function createAction(core: Core, page: Page): CollectionAction {
    // CVAT counts clientIDs from 1 whenever a job is opened, and makes a new Job of it
    const knownOf = new WeakMap<Job, Known>();
    const knownIn = (job: Job): Known => {
        const known = knownOf.get(job) ?? {
            numbers: new KnownNumbers(),
            successors: new Successors(),
        };
        knownOf.set(job, known);
        return known;
    };

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
            if (page.isReview()) {
                throw new Error(
                    'In the Review workspace all objects are locked: change to Standard, then run again.',
                );
            }
            const begun = page.now();
            try {
                const isLatest = (): boolean => this.latest === chosen;
                const known = knownIn(chosen.job);
                return await runAction(new RunContext(core, page, known, chosen, input, isLatest));
            } catch (error) {
                if (error instanceof AlreadyTold) throw error;
                if (error instanceof JobClosed) {
                    throw new Error(
                        'Tracking was stopped because the job was closed, and nothing of it is ' +
                            'left. Keep the job open until the message at the end.',
                    );
                }
                const isCancelled = error instanceof Cancelled;
                if (!isCancelled && page.now() - begun < WATCHED_MS) throw error;
                const text = error instanceof Error ? error.message : String(error);
                const report: Report = isCancelled
                    ? {
                          kind: 'info',
                          title: 'Tracking was cancelled',
                          lines: ['Nothing was tracked and nothing has changed.'],
                          jumps: [],
                      }
                    : {
                          kind: 'warning',
                          title: 'Tracking failed',
                          lines: [text, 'Nothing has changed.'],
                          jumps: [],
                      };
                page.tell(report, chosen.job);
                throw new AlreadyTold();
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
