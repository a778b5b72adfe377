// SPDX-License-Identifier: MIT
// What a run creates and deletes (contract sections 9.2 and 10). There are no mask tracks in CVAT:
// masks only ever become shapes.

import {
    ActionOutput,
    Attribute,
    Label,
    SerializedKeyframe,
    SerializedShape,
    SerializedTrack,
} from './cvat';
import { Route } from './frames';
import { markedScore } from './identity';
import { between } from './interpolation';
import { Source } from './objects';
import { FrameResult, Tracked } from './track';

export function nothing(): ActionOutput {
    return {
        created: { shapes: [], tags: [], tracks: [] },
        deleted: { shapes: [], tags: [], tracks: [] },
    };
}

function copyAttributes(attributes: Attribute[]): Attribute[] {
    return attributes.map(({ spec_id, value }) => ({ spec_id, value }));
}

/** One shape per frame where the object is visible and no person drew it; a new shape has neither
 * id nor clientID. */
function shapesOf(
    { mark }: Source,
    seed: SerializedShape,
    results: FrameResult[],
): SerializedShape[] {
    const shapes: SerializedShape[] = [];
    for (const { frame, points, score, byHand } of results) {
        if (points === null || byHand) continue;
        shapes.push({
            type: seed.type,
            frame,
            points: [...points], // cvat-core keeps the list and cuts the box off a mask's
            label_id: seed.label_id,
            group: seed.group,
            source: 'auto',
            occluded: seed.occluded,
            outside: false,
            z_order: seed.z_order,
            rotation: 0,
            attributes: copyAttributes(seed.attributes),
            elements: [],
            ...(mark ? { score: markedScore(score, mark, frame) } : {}),
        });
    }
    return shapes;
}

/** A polygon shape, and what a person drew of it on other frames, as a track; mutable attributes
 * belong to the keyframes. */
function shapeToTrack(
    seed: SerializedShape,
    drawn: SerializedShape[],
    label: Label | undefined,
): SerializedTrack {
    const mutable = new Set(label?.attributes.filter((spec) => spec.mutable).map(({ id }) => id));
    const shapes = [seed, ...drawn].sort((a, b) => a.frame - b.frame);
    return {
        label_id: seed.label_id,
        frame: shapes[0].frame,
        group: seed.group,
        source: 'auto',
        attributes: copyAttributes(seed.attributes.filter(({ spec_id }) => !mutable.has(spec_id))),
        elements: [],
        shapes: shapes.map(({ type, frame, points, occluded, z_order, attributes }) => ({
            type,
            frame,
            points: [...points],
            occluded,
            outside: false,
            z_order,
            rotation: 0,
            attributes: copyAttributes(attributes.filter(({ spec_id }) => mutable.has(spec_id))),
        })),
    };
}

/** Where the track is on a frame, from its keyframes in ascending order; null before the first. */
function positionOn(keyframes: SerializedKeyframe[], frame: number): number[] | null {
    const left = keyframes.filter((keyframe) => keyframe.frame <= frame).at(-1);
    const right = keyframes.find((keyframe) => keyframe.frame > frame);
    if (!left || !right) return left?.points ?? null;
    const share = (frame - left.frame) / (right.frame - left.frame);
    return between(left.type, left.points, right.points, share);
}

/** The track with a keyframe on every tracked frame. */
function extendTrack(
    track: SerializedTrack,
    source: Source,
    start: number,
    results: FrameResult[],
    timeline: number[],
    deletedFrames: ReadonlySet<number>,
    isNew: boolean,
): SerializedTrack {
    const keyframes = new Map(track.shapes.map((keyframe) => [keyframe.frame, keyframe]));
    // CVAT passes over keyframes on deleted frames
    const before = track.shapes
        .filter(({ frame }) => !deletedFrames.has(frame))
        .sort((a, b) => a.frame - b.frame);
    // occluded and z-order hold from one keyframe to the next
    const keyframeAt = (frame: number, points: number[], outside: boolean): SerializedKeyframe => {
        const old = keyframes.get(frame);
        const holding = before.filter((keyframe) => keyframe.frame <= frame).at(-1) ?? before[0];
        return {
            type: source.type,
            frame,
            points: [...points],
            occluded: old?.occluded ?? holding.occluded,
            outside,
            z_order: old?.z_order ?? holding.z_order,
            rotation: 0,
            attributes: old ? copyAttributes(old.attributes) : [],
            ...(old?.id === undefined ? {} : { id: old.id }),
        };
    };
    if (!keyframes.has(start)) {
        // without it, the start would move: CVAT interpolates between keyframes
        keyframes.set(start, keyframeAt(start, source.points, false));
    }

    const tracked = [...results].sort((a, b) => a.frame - b.frame);
    const forwards = tracked[0].frame > start;
    const earlier = before.filter(({ frame }) => frame < tracked[0].frame).at(-1);
    let visible = forwards || (earlier !== undefined && !earlier.outside);
    // lost at the low end of a run backwards: the frames before the run must stay as they are
    let points =
        (forwards ? null : positionOn(before, tracked[0].frame)) ??
        (forwards ? source.points : (tracked.find((one) => one.points)?.points ?? source.points));
    for (const result of tracked) {
        if (result.byHand) {
            points = result.points ?? points;
        } else if (result.points !== null) {
            ({ points } = result);
            keyframes.set(result.frame, keyframeAt(result.frame, points, false));
        } else if (visible || keyframes.has(result.frame)) {
            keyframes.set(result.frame, keyframeAt(result.frame, points, true));
        }
        visible = result.points !== null;
    }

    // CVAT repeats the last keyframe to the end of the job: close what this run has opened
    const end = forwards ? tracked[tracked.length - 1].frame : start;
    const open = forwards ? visible : isNew;
    const next = timeline.find((frame) => frame > end);
    const goesOn = [...keyframes.keys()].some((frame) => frame > end && !deletedFrames.has(frame));
    if (open && next !== undefined && !goesOn) {
        keyframes.set(next, keyframeAt(next, forwards ? points : source.points, true));
    }

    const shapes = [...keyframes.values()].sort((a, b) => a.frame - b.frame);
    const first = track.shapes.find(({ frame }) => frame === track.frame) ?? before[0];
    if (shapes[0].frame < first.frame) {
        // values of mutable attributes hold from the first keyframe on
        shapes[0] = { ...shapes[0], attributes: copyAttributes(first.attributes) };
    }
    return {
        ...track,
        frame: shapes[0].frame,
        source: 'auto',
        shapes,
    };
}

/**
 * What CVAT has to create and delete for a run.
 *
 * An object without a single tracked frame stays as it is. An edited track is deleted and created
 * again with its id, so that saving it becomes an update; everything else is created without ids.
 */
export function outcomeOf(
    objects: Tracked[],
    start: number,
    { timeline, deleted: deletedFrames }: Route,
    labels: Label[],
    convertPolygons: boolean,
): ActionOutput {
    const { created, deleted } = nothing();
    for (const { source, results } of objects) {
        // an object that a person drew on every frame of the run stays as it is, too
        if (!results.some(({ byHand }) => !byHand)) continue;
        if (source.track) {
            const { clientID: _, ...track } = source.track;
            created.tracks.push(
                extendTrack(track, source, start, results, timeline, deletedFrames, false),
            );
            deleted.tracks.push(source.track);
        } else if (source.shape && convertPolygons && source.type === 'polygon') {
            const label = labels.find(({ id }) => id === source.labelID);
            const drawn = results.flatMap(({ frame }) => source.byHand.get(frame)?.shape ?? []);
            const track = shapeToTrack(source.shape, drawn, label);
            created.tracks.push(
                extendTrack(track, source, start, results, timeline, deletedFrames, true),
            );
            deleted.shapes.push(source.shape, ...drawn);
        } else if (source.shape) {
            // no spread: an argument list holds about 125,000 items
            for (const shape of shapesOf(source, source.shape, results)) created.shapes.push(shape);
        }
    }
    return { created, deleted };
}
