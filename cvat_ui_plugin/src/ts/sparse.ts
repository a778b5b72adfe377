// SPDX-License-Identifier: MIT
// Which results of a track become keyframes when they are to be sparse (keyframes.ts).
// cvat_action/sparse.py is the same rule.

import { Frame, Label, SerializedKeyframe, SerializedShape } from './cvat';
import { replacedShapes, resultsByNumber, templatesFor } from './earlier';
import { Route } from './frames';
import { Pause, Position, sparseKeyframes } from './keyframes';
import { Before, holdingOn, trackBefore } from './results';
import { FrameResult, Tracked } from './tracked';

/** The points of the keyframes that a run writes for a track, by frame. */
export type Sparse = ReadonlyMap<number, readonly number[]>;

/** The frames from which on a mutable attribute has another value. */
function attributeChanges(keyframes: SerializedKeyframe[]): Set<number> {
    const changes = new Set<number>();
    const values = new Map<number, string>();
    keyframes.forEach(({ frame, attributes }, index) => {
        for (const { spec_id, value } of attributes) {
            if (index > 0 && values.get(spec_id) !== value) changes.add(frame);
            values.set(spec_id, value);
        }
    });
    return changes;
}

/** Whether the object is visible there, and no person drew a shape in its place. */
function isWritten({ points, inPlace }: FrameResult): boolean {
    return points !== null && !inPlace;
}

/** The frames, ascending, in stretches without a gap. */
function runsOf(frames: number[], timeline: number[]): number[][] {
    const place = new Map(timeline.map((frame, index) => [frame, index]));
    const runs: number[][] = [];
    frames.forEach((frame, index) => {
        const isNext = index > 0 && place.get(frame) === place.get(frames[index - 1])! + 1;
        if (!isNext) runs.push([]);
        runs[runs.length - 1].push(frame);
    });
    return runs;
}

/** Choose the keyframes of all tracks of a run: of tracks that exist, and of polygons that become
 * some. `iou`: the least of polygons (keyframes.ts); `shapes`: all of the job. */
export async function sparseTracks(
    iou: number,
    objects: Tracked[],
    start: Frame,
    route: Route,
    labels: Label[],
    convertPolygons: boolean,
    pause: Pause,
    shapes: SerializedShape[],
): Promise<Map<Tracked, Sparse>> {
    const sparse = new Map<Tracked, Sparse>();
    const replacedBy = resultsByNumber(replacedShapes(objects, shapes));
    const resultsBy = resultsByNumber(shapes);
    for (const object of objects) {
        const templates = templatesFor(object.source, replacedBy, resultsBy);
        const before = trackBefore(
            object,
            start,
            route.deleted,
            labels,
            convertPolygons,
            templates,
        );
        if (!before) continue;
        sparse.set(object, await thinned(iou, object, before, start, route, pause));
    }
    return sparse;
}

async function thinned(
    iou: number,
    { source, results }: Tracked,
    { keyframes, said }: Before,
    size: { width: number; height: number },
    { timeline }: Route,
    pause: Pause,
): Promise<Sparse> {
    const before = new Map(keyframes.map((keyframe) => [keyframe.frame, keyframe]));
    const own = new Map(
        results.filter(({ byHand }) => !byHand).map((result) => [result.frame, result]),
    );
    // what a person made stays, and so does the keyframe just before and after the results:
    // interpolation starts there
    const still = new Set(results.filter(({ byHand }) => byHand).map(({ frame }) => frame));
    const tracked = [...own.keys()].sort((a, b) => a - b);
    const beside = [
        timeline.filter((frame) => frame < tracked[0]).at(-1),
        timeline.find((frame) => frame > tracked[tracked.length - 1]),
    ];
    for (const frame of beside) if (frame !== undefined && before.has(frame)) still.add(frame);
    // CVAT turns a box step by step up to a keyframe that is turned, so each has one beside it
    const turned = timeline.flatMap((frame, index) =>
        still.has(frame) && before.get(frame)?.rotation
            ? [timeline[index - 1], timeline[index + 1]]
            : [],
    );

    const frames = [...new Set([...tracked, ...still])].sort((a, b) => a - b);
    const isVisible = (frame: number): boolean =>
        still.has(frame) ? before.get(frame)?.outside === false : isWritten(own.get(frame)!);
    const changes = [...attributeChanges(keyframes), ...said.map(({ frame }) => frame)];
    const forced = new Set([...changes, ...turned]);
    const points = new Map<number, readonly number[]>();
    for (const run of runsOf(frames.filter(isVisible), timeline)) {
        if (run.every((frame) => still.has(frame))) continue;
        const positions = new Map<number, Position>(
            run.map((frame) => {
                const { occluded, z_order: zOrder } = holdingOn(keyframes, frame);
                const fixed = still.has(frame);
                const here = fixed ? before.get(frame)!.points : own.get(frame)!.points!;
                return [frame, { points: here, fixed, occluded, zOrder }];
            }),
        );
        const chosen = await sparseKeyframes(source.type, positions, iou, size, forced, pause);
        for (const [frame, written] of chosen) if (!still.has(frame)) points.set(frame, written);
    }
    return points;
}

/** How many keyframes, of how many points, stand for how many frames. */
export function countedSparse(sparse: ReadonlyMap<Tracked, Sparse>) {
    const thinned = { frames: 0, keyframes: 0, points: 0 };
    for (const [{ results }, keyframes] of sparse) {
        thinned.frames += results.filter((one) => isWritten(one) && !one.byHand).length;
        thinned.keyframes += keyframes.size;
        for (const points of keyframes.values()) thinned.points += points.length / 2;
    }
    return thinned;
}
