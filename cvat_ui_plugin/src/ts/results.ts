// SPDX-License-Identifier: MIT
// What a run creates and deletes. There are no mask tracks in CVAT:
// masks only ever become shapes.

import {
    ActionOutput,
    Attribute,
    Frame,
    Label,
    SerializedKeyframe,
    SerializedShape,
    SerializedTrack,
} from './cvat';
import { resultsByNumber, Templates, templatesFor } from './earlier';
import { Route } from './frames';
import { markedScore } from './identity';
import { betweenKeyframes, rotationBetween } from './interpolation';
import { Source } from './objects';
import { isSigned, signedPoints } from './signature';
import { FrameResult, Tracked } from './tracked';

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
    source: Source,
    seed: SerializedShape,
    results: FrameResult[],
    templates: Templates,
): SerializedShape[] {
    const { mark } = source;
    const shapes: SerializedShape[] = [];
    for (const { frame, points, score, byHand, inPlace } of results) {
        if (points === null || byHand || inPlace) continue;
        const template = templates.get(frame) ?? seed;
        shapes.push({
            type: seed.type,
            frame,
            points: [...points], // cvat-core keeps the list and cuts the box off a mask's
            label_id: template.label_id,
            group: template.group,
            source: 'auto',
            occluded: seed.occluded,
            outside: false,
            z_order: seed.z_order,
            rotation: 0,
            attributes: copyAttributes(template.attributes),
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
        source: seed.source,
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

/** The index of the last keyframe up to a frame; -1 before the first. Keyframes are ascending. */
function lastUpTo(keyframes: SerializedKeyframe[], frame: number): number {
    let [low, high] = [0, keyframes.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (keyframes[middle].frame <= frame) low = middle + 1;
        else high = middle;
    }
    return low - 1;
}

/** Where the track is on a frame and how it is turned, from its keyframes in ascending order; null
 * before the first. */
function placeOn(
    keyframes: SerializedKeyframe[],
    frame: number,
): Pick<SerializedKeyframe, 'points' | 'rotation'> | null {
    const index = lastUpTo(keyframes, frame);
    const [left, right] = [keyframes[index], keyframes[index + 1]];
    if (!left || !right) return left ?? null;
    const share = (frame - left.frame) / (right.frame - left.frame);
    return {
        points: betweenKeyframes(left.type, left.points, right.points)(share),
        rotation: rotationBetween(left.rotation, right.rotation, share),
    };
}

/** What the keyframes say on a frame without one of its own: the last one up to it, or the first. */
export function holdingOn(keyframes: SerializedKeyframe[], frame: number): SerializedKeyframe {
    return keyframes[Math.max(lastUpTo(keyframes, frame), 0)];
}

/**
 * Keep a track's mutable attributes as they were on every frame, in place. They hold from the
 * keyframe that carries them to the next that does, so those of a keyframe that went are given to
 * the next one that stays; a track that now begins earlier begins with those of its former beginning.
 * `after` is in ascending order.
 */
function keepAttributes(before: Attributed[], after: SerializedKeyframe[]): void {
    const old = [...before].sort((a, b) => a.frame - b.frame);
    const stays = new Set<Attributed>(after);
    let held = new Map<number, string>();
    let next = 0;
    const merged = (keyframe: SerializedKeyframe, values: Attribute[]): SerializedKeyframe => {
        const all = new Map(held);
        for (const { spec_id, value } of values) all.set(spec_id, value);
        const attributes = [...all].map(([spec_id, value]) => ({ spec_id, value }));
        return { ...keyframe, attributes };
    };
    after.forEach((keyframe, index) => {
        for (; next < old.length && old[next].frame <= keyframe.frame; next += 1) {
            if (stays.has(old[next])) continue;
            for (const { spec_id, value } of old[next].attributes) held.set(spec_id, value);
        }
        if (held.size) after[index] = merged(keyframe, keyframe.attributes);
        held = new Map();
    });
    if (after[0].frame < old[0].frame) after[0] = merged(after[0], old[0].attributes);
}

/** What holds from a frame on. */
type Attributed = Pick<SerializedKeyframe, 'frame' | 'attributes'>;

/** The mutable attributes that a person set on results which the track replaces, where they are others
 * than hold there by then. */
function attributesSaid(
    { label_id: labelID, shapes }: SerializedTrack,
    templates: Templates,
    label: Label | undefined,
): Attributed[] {
    const mutable = new Set(label?.attributes.filter((spec) => spec.mutable).map(({ id }) => id));
    const keyframes = new Map(shapes.map((keyframe) => [keyframe.frame, keyframe]));
    const held = new Map<number, string>();
    const said: Attributed[] = [];
    const frames = new Set([...keyframes.keys(), ...templates.keys()]);
    for (const frame of [...frames].sort((a, b) => a - b)) {
        const keyframe = keyframes.get(frame);
        const template = templates.get(frame);
        const values = (keyframe ?? template)!.attributes.filter((one) => mutable.has(one.spec_id));
        if (!keyframe) {
            if (template!.label_id !== labelID) continue;
            const isOther = values.some(({ spec_id, value }) => held.get(spec_id) !== value);
            if (isOther) said.push({ frame, attributes: copyAttributes(values) });
        }
        for (const { spec_id, value } of values) held.set(spec_id, value);
    }
    return said;
}

/** A track before the results of a run are laid over it. */
export interface Before {
    track: SerializedTrack;
    /** Ascending, with that of the frame it is tracked from; CVAT passes over those on deleted
     * frames, and so they are not among these. */
    keyframes: SerializedKeyframe[];
    /** What a person drew as shapes, and is a part of the track now. */
    drawn: SerializedShape[];
    /** What a person set on the results that the track replaces; it has a keyframe there. */
    said: Attributed[];
    /** Whether it takes the place of a polygon shape. */
    isNew: boolean;
    /** An automatic keyframe. Occluded and z-order hold from one keyframe to the next. */
    keyframeAt(frame: number, points: readonly number[], outside: boolean): SerializedKeyframe;
}

/** The object as a track that this run extends; null where it is not tracked, or stays a shape. */
export function trackBefore(
    { source, results }: Tracked,
    { number: start, width, height }: Frame,
    deletedFrames: ReadonlySet<number>,
    labels: Label[],
    convertPolygons: boolean,
    templates: Templates,
): Before | null {
    // an object that a person drew on every frame of the run stays as it is
    if (!results.some(({ byHand }) => !byHand)) return null;
    const isNew = !source.track;
    if (isNew && !(convertPolygons && source.type === 'polygon')) return null;
    const drawn = isNew
        ? results
              .flatMap(({ frame }) => source.byHand.get(frame)?.shape ?? [])
              .filter((shape) => shape.label_id === source.labelID)
        : [];
    const label = labels.find(({ id }) => id === source.labelID);
    const track = source.track ?? shapeToTrack(source.shape!, drawn, label);
    const keyframes = track.shapes
        .filter(({ frame }) => !deletedFrames.has(frame))
        .sort((a, b) => a.frame - b.frame);
    const former = [...keyframes];
    const ofFrame = new Map(track.shapes.map((keyframe) => [keyframe.frame, keyframe]));
    const keyframeAt: Before['keyframeAt'] = (frame, points, outside) => {
        const old = ofFrame.get(frame);
        const holding = holdingOn(former, frame);
        const flags = {
            type: source.type,
            frame,
            occluded: old?.occluded ?? holding.occluded,
            outside,
            z_order: old?.z_order ?? holding.z_order,
        };
        const keyframe = {
            ...flags,
            points: [...points],
            rotation: 0,
            attributes: [],
            ...(old?.id === undefined ? {} : { id: old.id }),
        };
        return isSigned(keyframe)
            ? keyframe
            : { ...keyframe, points: signedPoints(flags, points, { width, height }) };
    };
    if (!ofFrame.has(start)) {
        // without it, the start would move: CVAT interpolates between keyframes
        keyframes.splice(lastUpTo(former, start) + 1, 0, keyframeAt(start, source.points, false));
    }
    return {
        track,
        keyframes,
        drawn,
        said: attributesSaid(track, templates, label),
        isNew,
        keyframeAt,
    };
}

/** Of a track without a signed keyframe the source alone tells that nobody edited it. So it must not
 * say so where only a person's keyframes are left. */
function sourceOf(track: SerializedTrack, keyframes: SerializedKeyframe[]): string {
    if (keyframes.some(isSigned)) return 'auto';
    return track.shapes.some(isSigned) ? 'semi-auto' : track.source;
}

/** The track with the results of a run laid over it; `sparse`: null for a keyframe on every frame. */
function extendTrack(
    { track, keyframes: before, said, isNew, keyframeAt }: Before,
    start: number,
    results: FrameResult[],
    { timeline, deleted: deletedFrames }: Route,
    sparse: ReadonlyMap<number, readonly number[]> | null,
): SerializedTrack {
    const keyframes = new Map(
        [...track.shapes, ...before].map((keyframe) => [keyframe.frame, keyframe]),
    );
    // where a person drew a shape in its place the track is hidden
    const tracked = results
        .map((result) => (result.inPlace ? { ...result, points: null } : result))
        .sort((a, b) => a.frame - b.frame);
    const forwards = tracked[0].frame > start;
    const earlier = before[lastUpTo(before, tracked[0].frame - 1)];
    let visible = forwards || (earlier !== undefined && !earlier.outside);
    // lost at the low end of a run backwards: the frames before the run must stay as they are
    let points = keyframes.get(start)!.points;
    if (!forwards && earlier) {
        const isNext = earlier.frame === tracked[0].frame - 1;
        points = isNext ? earlier.points : placeOn(before, tracked[0].frame)!.points;
    }
    for (const result of tracked) {
        if (result.byHand) {
            points = result.points ?? points;
        } else if (result.points !== null) {
            ({ points } = result);
            const written = sparse ? sparse.get(result.frame) : points;
            if (written) {
                const keyframe = keyframeAt(result.frame, written, false);
                keyframes.set(result.frame, keyframe);
                ({ points } = keyframe);
            } else {
                keyframes.delete(result.frame);
            }
        } else if (visible) {
            keyframes.set(result.frame, keyframeAt(result.frame, points, true));
        } else {
            keyframes.delete(result.frame);
        }
        visible = result.points !== null;
    }

    // CVAT repeats the last keyframe to the end of the job, or shows it where the track was hidden
    // after the run's frames: close what this run has opened, and open what it has closed
    const last = tracked[tracked.length - 1];
    const end = forwards ? last.frame : start;
    // a person's last keyframe stays open as they left it; a drawing that becomes one was one frame
    const open = forwards ? visible && (isNew || !last.byHand) : isNew;
    const next = timeline.find((frame) => frame > end);
    const goesOn = [...keyframes.keys()].some((frame) => frame > end && !deletedFrames.has(frame));
    if (open && next !== undefined && !keyframes.has(next)) {
        const hidden = before[lastUpTo(before, next)]?.outside;
        if (hidden || !goesOn) {
            const shown = forwards ? points : keyframes.get(start)!.points;
            keyframes.set(next, keyframeAt(next, shown, true));
        }
    }
    const lost = forwards && !visible && !last.byHand;
    if (lost && goesOn && next !== undefined && !keyframes.has(next)) {
        const held = before[lastUpTo(before, next)];
        if (held && !held.outside) {
            const { points: shown, rotation } = placeOn(before, next)!;
            const keyframe = keyframeAt(next, shown, false);
            // a turned box cannot be signed: the keyframe counts as a person's from here on
            const turned = { ...keyframe, points: [...shown], rotation };
            keyframes.set(next, rotation ? turned : keyframe);
        }
    }

    const shapes = [...keyframes.values()].sort((a, b) => a.frame - b.frame);
    keepAttributes([...track.shapes, ...said], shapes);
    return {
        ...track,
        frame: shapes[0].frame,
        source: sourceOf(track, shapes),
        shapes,
    };
}

/**
 * What CVAT has to create and delete for a run.
 *
 * An object without a single tracked frame stays as it is. An edited track is deleted and created
 * again with its id, so that saving it becomes an update; everything else is created without ids.
 * `sparse`: the points of the keyframes of tracks that do not have one on every frame; `replaced`: the
 * results of earlier runs that go; `all`: the shapes of the job.
 */
export function outcomeOf(
    objects: Tracked[],
    start: Frame,
    route: Route,
    labels: Label[],
    convertPolygons: boolean,
    sparse: ReadonlyMap<Tracked, ReadonlyMap<number, readonly number[]>>,
    replaced: SerializedShape[],
    all: SerializedShape[],
): ActionOutput {
    const { created, deleted } = nothing();
    const replacedBy = resultsByNumber(replaced);
    const resultsBy = resultsByNumber(all);
    // no spread: an argument list holds about 125,000 items
    deleted.shapes = deleted.shapes.concat(replaced);
    for (const object of objects) {
        const { source, results } = object;
        const templates = templatesFor(source, replacedBy, resultsBy);
        const before = trackBefore(
            object,
            start,
            route.deleted,
            labels,
            convertPolygons,
            templates,
        );
        if (before) {
            const keyframes = sparse.get(object) ?? null;
            const { clientID: _, ...track } = extendTrack(
                before,
                start.number,
                results,
                route,
                keyframes,
            );
            created.tracks.push(track);
            if (source.track) deleted.tracks.push(source.track);
            else deleted.shapes.push(source.shape!, ...before.drawn);
        } else if (source.shape) {
            const shapes = shapesOf(source, source.shape, results, templates);
            for (const shape of shapes) created.shapes.push(shape);
        }
    }
    return { created, deleted };
}
