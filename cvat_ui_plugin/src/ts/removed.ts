// SPDX-License-Identifier: MIT
// Which keyframes a person deleted from a track with one on every frame. docs/tracks.md explains it,
// and removed_keyframes in cvat_action/selection.py is the same rule; tests/action_cases/tracks.json
// holds both to it.

import { SerializedKeyframe } from './cvat';
import { isSigned } from './signature';

type Keyframes = ReadonlyMap<number, SerializedKeyframe>;

/** The frames of deleted keyframes that are found where those of `removed` are known. */
function foundIn(keyframes: Keyframes, frames: number[], removed: ReadonlySet<number>): number[] {
    const isThere = (frame: number): boolean => keyframes.has(frame) || removed.has(frame);
    const stretches: number[][] = [];
    frames.forEach((frame, index) => {
        const isNew = index === 0 || isThere(frame) !== isThere(frames[index - 1]);
        if (isNew) stretches.push([]);
        stretches[stretches.length - 1].push(frame);
    });
    const weightOf = (stretch: number[]): number =>
        stretch.reduce((sum, frame) => sum + (removed.has(frame) ? -2 : 1), 0);
    const isDeleted = (gap: number[], index: number): boolean => {
        const [before, after] = [stretches[index], stretches[index + 2]];
        const left = keyframes.get(before[before.length - 1]);
        const right = keyframes.get(after[0]);
        if (isThere(gap[0]) || !left || !right || left.outside || !isSigned(right)) return false;
        const isShorter = gap.length < weightOf(after) || right.outside;
        return gap.length <= weightOf(before) && isShorter;
    };
    return stretches.slice(1, -1).filter(isDeleted).flat();
}

/**
 * The frames whose keyframe a person deleted.
 *
 * CVAT does not say which keyframes were deleted. A gap of n frames counts as deleted keyframes if
 * - the keyframe right after it is signed, and the one right before it is not `outside`;
 * - the stretch of keyframes before it has at least n frames;
 * - the stretch after it has more than n, or begins with an `outside` keyframe (the track's end).
 * A stretch goes on across gaps that were found already, and each of their frames counts -2 instead
 * of 1. Longer gaps were never tracked, or belong to sparse keyframes. `frames`: of the job,
 * ascending, without those that are deleted in CVAT.
 */
export function removedKeyframes(shapes: SerializedKeyframe[], frames: number[]): Set<number> {
    const keyframes: Keyframes = new Map(shapes.map((keyframe) => [keyframe.frame, keyframe]));
    const [first, last] = endsOf(shapes);
    const own = frames.filter((frame) => frame >= first && frame <= last);
    const removed = new Set<number>();
    for (let found = foundIn(keyframes, own, removed); found.length;) {
        for (const frame of found) removed.add(frame);
        found = foundIn(keyframes, own, removed);
    }
    return removed;
}

/** The first and the last frame of keyframes or shapes. */
export function endsOf(shapes: { frame: number }[]): [first: number, last: number] {
    const frames = shapes.map(({ frame }) => frame);
    return [
        frames.reduce((a, b) => Math.min(a, b), Infinity),
        frames.reduce((a, b) => Math.max(a, b), -Infinity),
    ];
}
