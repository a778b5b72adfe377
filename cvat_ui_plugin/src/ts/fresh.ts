// SPDX-License-Identifier: MIT
// What changed in the job while it was tracked. The dialog covers the page, but autosave gives ids,
// and undo or another tool may change objects: what changed is a person's and stays.

import { Collection, SerializedKeyframe, SerializedShape } from './cvat';
import { byHandOf } from './earlier';
import { addTo } from './groups';
import { markOf } from './identity';
import { Source } from './objects';
import { Run, Tracked } from './tracked';

type Shape = SerializedShape | SerializedKeyframe;

/** All but the points that makes a shape or keyframe what it is, without the ids that saving gives. */
function contentOf(shape: Shape): string {
    const { type, frame, occluded, outside, z_order, rotation, attributes } = shape;
    const { label_id, group, source } = shape as Partial<SerializedShape>;
    return JSON.stringify([
        [type, frame, occluded, outside, z_order, rotation, attributes],
        [label_id, group, source],
    ]);
}

function differ(before: Shape | undefined, now: Shape | undefined): boolean {
    if (!before || !now) return before !== now;
    const isMoved =
        before.points.length !== now.points.length ||
        before.points.some((value, index) => value !== now.points[index]);
    return isMoved || contentOf(before) !== contentOf(now);
}

function byFrame(keyframes: SerializedKeyframe[]): Map<number, SerializedKeyframe> {
    return new Map(keyframes.map((keyframe) => [keyframe.frame, keyframe]));
}

/** Nothing is written or replaced on these frames of the object. */
function keep(object: Tracked, frames: ReadonlySet<number>): void {
    object.changed ||= frames.size > 0;
    for (const result of object.results) {
        if (frames.has(result.frame)) result.byHand = true;
    }
}

/** The track of the object is hidden on these frames: a shape of the same object lies there. */
function hide(object: Tracked, frames: ReadonlySet<number>): void {
    object.changed ||= frames.size > 0;
    for (const result of object.results) {
        if (frames.has(result.frame) && !result.byHand) result.inPlace = true;
    }
}

/** Take over what became of the shapes that a person drew of an object, and of those that are its
 * results, and find the frames on which something changed. `changed`: shapes with its mark. */
function withChangedShapes(
    source: Source,
    known: Map<number | undefined, SerializedShape>,
    now: Map<number | undefined, SerializedShape>,
    changed: SerializedShape[],
): Set<number> {
    const byHand = new Map(source.byHand);
    for (const [frame, { shape }] of source.byHand) {
        const fresh = now.get(shape?.clientID);
        if (fresh) byHand.set(frame, byHandOf(fresh));
        else byHand.delete(frame);
    }
    const claimed = source.claimed.flatMap(({ clientID }) => now.get(clientID) ?? []);
    const all = [
        ...changed,
        ...claimed.filter((shape) => differ(known.get(shape.clientID), shape)),
    ];
    for (const shape of all) {
        if (shape.source !== 'auto' && shape.type === source.type) {
            byHand.set(shape.frame, byHandOf(shape));
        }
    }
    source.byHand = byHand;
    return new Set(all.map(({ frame }) => frame));
}

/** Bring the objects of a run up to what the job holds now; `before`: what it held at the start. */
export function withChanges({ objects }: Run, before: Collection, now: Collection): void {
    const shapes = new Map(now.shapes.map((shape) => [shape.clientID, shape]));
    const tracks = new Map(now.tracks.map((track) => [track.clientID, track]));
    const changed = new Map<number, SerializedShape[]>();
    const known = new Map(before.shapes.map((shape) => [shape.clientID, shape]));
    for (const shape of now.shapes) {
        const mark = markOf(shape.score, shape.frame);
        if (!mark || !differ(known.get(shape.clientID), shape)) continue;
        addTo(changed, mark.number, shape);
    }
    for (const object of objects) {
        const { source, results } = object;
        const own = changed.get(source.mark?.number ?? 0) ?? [];
        const shape = shapes.get(source.clientID);
        const track = tracks.get(source.clientID);
        if (source.track && track) {
            const [old, fresh] = [byFrame(source.track.shapes), byFrame(track.shapes)];
            const edited = [...old.keys(), ...fresh.keys()].filter((frame) =>
                differ(old.get(frame), fresh.get(frame)),
            );
            source.track = track;
            keep(object, new Set(edited));
            hide(object, new Set(own.map(({ frame }) => frame)));
        } else if (source.shape && shape) {
            source.shape = shape;
            keep(object, withChangedShapes(source, known, shapes, own));
        } else {
            object.failure = {
                frame: results.at(-1)?.frame ?? 0,
                reason: 'it was deleted during the run',
            };
            object.results = [];
            object.oneEnd = null;
        }
    }
}
