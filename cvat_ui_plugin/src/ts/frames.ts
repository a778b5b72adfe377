// SPDX-License-Identifier: MIT
// Which frames a run visits.

import { Frame, Job } from './cvat';

/** Frames are named up to this many; the command line names as many. */
const FRAMES_NAMED = 10;

/** The first ones of a list of frames, for a message. */
export function firstFrames(frames: number[]): string {
    const more = frames.length > FRAMES_NAMED ? ' …' : '';
    return frames.slice(0, FRAMES_NAMED).join(', ') + more;
}

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
    /** Every frame that is not deleted from one before the lowest of the run to one past its
     * highest, ascending: where tracks are closed and where keyframes lie beside the run. */
    timeline: number[];
    /** How many frames of the job the second frame lies after the first, in the direction of the
     * run; negative: before. Deleted frames of the run do not count. */
    steps(from: number, to: number): number;
    /** Those of `keyframes` and of the run's frames that are deleted. */
    deleted: ReadonlySet<number>;
}

/** Those of the frames that are in the job, as keyframes need not be, and not deleted. */
export async function undeleted<T>(job: Job, frames: ReadonlyMap<number, T>) {
    const ofJob = new Set(await job.frames.frameNumbers());
    const there = new Map<number, T>();
    for (const [frame, value] of frames) {
        if (ofJob.has(frame) && !(await job.frames.get(frame)).deleted) there.set(frame, value);
    }
    return there;
}

/** The frames of the job from `low` to `high` that are not deleted, ascending. */
export async function framesWithin(job: Job, low: number, high: number): Promise<number[]> {
    const numbers = (await job.frames.frameNumbers()).filter((one) => one >= low && one <= high);
    const there = await undeleted(job, new Map(numbers.map((number) => [number, null])));
    return [...there.keys()].sort((a, b) => a - b);
}

/** The way from `start` to `target`, in either direction. `keyframes`: frames outside of it that
 * matter too. */
export async function routeBetween(
    job: Job,
    start: number,
    target: number,
    keyframes: number[],
): Promise<Route> {
    const numbers = [...(await job.frames.frameNumbers())].sort((a, b) => a - b);
    const known = new Set(numbers);
    const [low, high] = [Math.min(start, target), Math.max(start, target)];
    const deleted = new Set<number>();
    const look = async (number: number): Promise<Frame | null> => {
        const { width, height, deleted: isDeleted } = await job.frames.get(number);
        if (isDeleted) deleted.add(number);
        return isDeleted ? null : { number, width, height, deleted: false };
    };
    const frames: Frame[] = [];
    for (const number of numbers.filter((one) => one >= low && one <= high)) {
        const frame = await look(number);
        if (frame) frames.push(frame);
    }
    const nearest = async (candidates: number[]): Promise<number[]> => {
        for (const number of candidates) if (await look(number)) return [number];
        return [];
    };
    const timeline = [
        ...(await nearest(numbers.filter((one) => one < low).reverse())),
        ...frames.map(({ number }) => number),
        ...(await nearest(numbers.filter((one) => one > high))),
    ];
    for (const number of new Set(keyframes)) {
        if (known.has(number)) await look(number);
    }
    const ahead = frames.filter(({ number }) => number !== start);
    const counted = numbers.filter((number) => !deleted.has(number));
    const place = new Map(counted.map((number, index) => [number, index]));
    const sign = target < start ? -1 : 1;
    return {
        frames: target < start ? ahead.reverse() : ahead,
        timeline,
        steps: (from, to) => sign * ((place.get(to) ?? 0) - (place.get(from) ?? 0)),
        deleted,
    };
}
