// SPDX-License-Identifier: MIT
// The annotation action as CVAT runs it.

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
import { earlierShapes } from './earlier';
import { clampTarget, routeBetween } from './frames';
import { onFrame, reasonAgainst, SHAPE_TYPES, sourcesOf } from './objects';
import { Report, reportOf } from './report';
import { nothing, outcomeOf } from './results';
import { ACTION_NAME, findTracker } from './server';
import { track } from './track';

const TARGET = 'Target frame';
const CONVERT = 'Convert polygon shapes to tracks';

export interface Page {
    /** Show a message that outlives the dialog. */
    tell(report: Report): void;
    /** Draw the annotations of a frame again; CVAT does not after a cancelled run. */
    refresh(job: Job, frame: number): void;
    sleep(milliseconds: number): Promise<void>;
    now(): number;
}

export function createAction(core: Core, page: Page): CollectionAction {
    class Segment2Tracker extends core.classes.BaseCollectionAction implements CollectionAction {
        private job: Job | null = null;

        private target: unknown = null;

        private convert = false;

        private afterwards: (() => void) | null = null;

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
                },
                [CONVERT]: {
                    type: 'checkbox',
                    values: ['true', 'false'],
                    defaultValue: 'false',
                },
            };
        }

        public async init(instance: Job, parameters: Record<string, unknown>): Promise<void> {
            this.job = instance;
            this.target = parameters[TARGET];
            this.convert = String(parameters[CONVERT]) === 'true';
            this.afterwards = null;
        }

        public isApplicableForObject(state: ObjectState): boolean {
            return reasonAgainst(state) === null;
        }

        public applyFilter({
            collection,
            frameData,
        }: Pick<ActionInput, 'collection' | 'frameData'>): Collection {
            return onFrame(collection, frameData.number);
        }

        public async run({
            collection,
            frameData,
            onProgress,
            cancelled,
        }: ActionInput): Promise<ActionOutput> {
            const { job, convert } = this;
            if (
                job === null ||
                !Number.isInteger(job.startFrame) ||
                !Number.isInteger(job.stopFrame)
            ) {
                throw new Error('This action works in a job: open one.');
            }
            const start = { ...frameData, deleted: false };
            const target = clampTarget(this.target, job);
            const hint =
                Number(this.target) === target
                    ? null
                    : `Frame ${String(this.target)} is not in this job: ${target} was used.`;
            if (target === start.number) {
                page.tell({
                    kind: 'info',
                    title: 'Nothing to track',
                    lines: [hint ?? 'The target frame is the current frame.'],
                });
                return nothing();
            }
            if ((await job.frames.get(start.number)).deleted) {
                throw new Error(`Frame ${start.number} is deleted: start from another one.`);
            }
            onProgress('Looking for the function', 0);
            const tracker = await findTracker(core);
            const states = await job.annotations.get(start.number, false, []);
            const { sources, leftOut } = sourcesOf(
                collection,
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
            const route = await routeBetween(job, start.number, target, keyframes);
            if (!route.frames.length) {
                throw new Error(`All frames from ${start.number} to ${target} are deleted.`);
            }

            const run = await track(sources, start, route.frames, {
                call: (args) => core.lambda.call(job.taskId, tracker, { ...args, job: job.id }),
                functionID: tracker.id,
                cancelled,
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
            const outcome = outcomeOf(run.objects, start.number, route, job.labels, convert);
            const replaced = await earlierShapes(job, run.objects, start.number, () =>
                page.sleep(0),
            );
            outcome.deleted.shapes.push(...replaced);
            // CVAT commits after this returns and calls destroy() last: report then
            this.afterwards = () => {
                page.tell(reportOf(run, start.number, leftOut, replaced.length, hint));
                if (run.stop?.cancelled) page.refresh(job, start.number);
            };
            return outcome;
        }

        public async destroy(): Promise<void> {
            const { afterwards } = this;
            this.afterwards = null;
            this.job = null;
            afterwards?.();
        }
    }
    return new Segment2Tracker();
}
