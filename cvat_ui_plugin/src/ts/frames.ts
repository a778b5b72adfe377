// SPDX-License-Identifier: MIT
// Which frames a run visits.

import { Frame, Job } from './cvat';

/** CVAT remembers parameters across jobs: a target frame may come from another one, or be no
 * number at all. */
export function clampTarget(target: unknown, job: Job): number {
    const number = Math.round(Number(target));
    if (target === null || target === '' || !Number.isFinite(number)) return job.stopFrame;
    return Math.min(Math.max(number, job.startFrame), job.stopFrame);
}

export interface Route {
    /** The frames to track, in order, without the start frame and deleted ones. */
    frames: Frame[];
    /** Every frame that is not deleted from the lowest of the run to one past its highest,
     * ascending: where tracks are closed. */
    timeline: number[];
}

/** The way from `start` to `target`, in either direction. */
export async function routeBetween(job: Job, start: number, target: number): Promise<Route> {
    const numbers = [...await job.frames.frameNumbers()].sort((a, b) => a - b);
    const [low, high] = [Math.min(start, target), Math.max(start, target)];
    const frames: Frame[] = [];
    for (const number of numbers.filter((n) => n >= low && n <= high)) {
        const { width, height, deleted } = await job.frames.get(number);
        if (!deleted) {
            frames.push({
                number, width, height, deleted,
            });
        }
    }
    const timeline = frames.map(({ number }) => number);
    for (const number of numbers.filter((n) => n > high)) {
        if (!(await job.frames.get(number)).deleted) {
            timeline.push(number);
            break;
        }
    }
    const ahead = frames.filter(({ number }) => number !== start);
    return { frames: target < start ? ahead.reverse() : ahead, timeline };
}
