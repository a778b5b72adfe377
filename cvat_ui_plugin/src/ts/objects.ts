// SPDX-License-Identifier: MIT
// Which objects of the current frame can be tracked, and why the others cannot.

import { Collection, ObjectState, SerializedShape, SerializedTrack } from './cvat';
import { firstFrames } from './frames';
import { Mark } from './identity';

export const SHAPE_TYPES: readonly string[] = ['mask', 'polygon', 'rectangle'];

/** What a person made of an object on one frame. */
export interface ByHand {
    /** null: it is not visible there. */
    points: number[] | null;
    /** Where it is a shape of its own; null for a keyframe of the object's track. */
    shape: SerializedShape | null;
}

/** An object to track: as it stands on the current frame, and as CVAT exported it. */
export interface Source {
    clientID: number;
    name: string;
    labelID: number;
    type: string;
    points: number[];
    shape: SerializedShape | null;
    track: SerializedTrack | null;
    /** What its results carry in their scores; null for a track that no run of this page has made of a
     * shape. */
    mark: Mark | null;
    /** What a person made of it on frames of the run: it stays, and the run goes on from it. */
    byHand: ReadonlyMap<number, ByHand>;
    /** What a person drew of it on any frame but the one it is tracked from, visible. */
    drawn: ReadonlyMap<number, number[]>;
    /** Frames with a shape of it to which a person gave another label: it stays as it is. */
    relabelled: ReadonlySet<number>;
    /** Of a track: frames of the run with shapes of the same object that a person made. */
    inTheWay: number[];
    /** Of a track: frames of the run whose keyframe a person deleted. Nothing is written there. */
    removed: ReadonlySet<number>;
    /** Automatic shapes that seem to be its earlier results, without proof; none where the user keeps
     * them. */
    claimed: SerializedShape[];
    /** Whether these are of the one object that has no shape on the frame it is tracked from: nothing
     * overlaps. */
    inHole: boolean;
}

/** Why a track is left alone that has nothing to track. */
export const ALL_BY_HAND =
    'a person, or an older version, made or hid it on every frame of the run; delete the keyframes ' +
    'that are to be tracked again';

/** Why a track is left alone that would double what a person made of it as shapes. */
export function shapesInTheWay(frames: number[]): string {
    return (
        `a person made or locked shapes of the same object, on frame${frames.length > 1 ? 's' : ''} ` +
        `${firstFrames(frames)}; unlock or delete these, or undo the conversion and convert from ` +
        'the first frame to the last'
    );
}

export interface LeftOut {
    name: string;
    reason: string;
}

export function nameOf(state: ObjectState): string {
    return `${state.label.name} ${state.clientID}`;
}

/** Why an object of this kind can never be tracked; null where it can. The dialog lists the action
 * for these objects, so that a run can say what else keeps one of them from being tracked. */
export function reasonAgainstKind(state: ObjectState): string | null {
    const type = state.shapeType ?? state.objectType;
    if (state.objectType !== 'shape' && state.objectType !== 'track') {
        return `a ${state.objectType} cannot be tracked`;
    }
    if (!SHAPE_TYPES.includes(type)) {
        return `it is of the type ${type}; only masks, polygons and rectangles can be tracked`;
    }
    if (type === 'mask' && state.objectType === 'track') return 'CVAT has no mask tracks';
    if (state.parentID !== null && state.parentID !== undefined) return 'it is part of a skeleton';
    return state.isGroundTruth ? 'it belongs to the ground truth' : null;
}

/** Why this object stays as it is; null where it can be tracked. */
export function reasonAgainst(state: ObjectState): string | null {
    const reason = reasonAgainstKind(state);
    if (reason !== null) return reason;
    if (state.rotation) return 'it is rotated';
    if (state.outside) return 'it is not visible on this frame';
    if (state.lock) return 'it is locked';
    if (state.hidden) return 'it is hidden';
    return null;
}

/** The objects of an exported collection that may lie on `frame` (CVAT asks this before a run). Also
 * those that cannot be tracked: the message says why. */
export function onFrame(collection: Collection, frame: number): Collection {
    return {
        shapes: collection.shapes.filter((shape) => shape.frame === frame),
        tags: [],
        tracks: collection.tracks.filter(({ shapes }) =>
            shapes.some((keyframe) => keyframe.frame <= frame),
        ),
    };
}

/** Whether a track is visible on a frame. */
export function isVisibleOn({ shapes }: SerializedTrack, frame: number): boolean {
    const before = shapes.filter((keyframe) => keyframe.frame <= frame);
    return before.length > 0 && !before.reduce((a, b) => (a.frame > b.frame ? a : b)).outside;
}

/** Join what CVAT exported with how it stands on the frame (which is where positions of tracks,
 * locks and visibility are known). */
export function sourcesOf(
    collection: Collection,
    states: ObjectState[],
    supported: readonly string[],
): { sources: Source[]; leftOut: LeftOut[] } {
    const byID = new Map(states.map((state) => [state.clientID, state]));
    const sources: Source[] = [];
    const leftOut: LeftOut[] = [];
    const take = (shape: SerializedShape | null, track: SerializedTrack | null): void => {
        const state = byID.get((shape ?? track)?.clientID ?? null);
        if (!state || state.clientID === null) return; // outside on this frame
        const reason = reasonAgainst(state);
        const type = state.shapeType as string;
        if (reason !== null) {
            leftOut.push({ name: nameOf(state), reason });
        } else if (!supported.includes(type)) {
            leftOut.push({
                name: nameOf(state),
                reason: `the deployed function takes no ${type}s`,
            });
        } else {
            sources.push({
                clientID: state.clientID,
                name: nameOf(state),
                labelID: (shape ?? track)!.label_id,
                type,
                points: [...(shape?.points ?? state.points ?? [])],
                shape,
                track,
                mark: null,
                byHand: new Map(),
                drawn: new Map(),
                relabelled: new Set(),
                inTheWay: [],
                removed: new Set(),
                claimed: [],
                inHole: false,
            });
        }
    };
    collection.shapes.forEach((shape) => take(shape, null));
    collection.tracks.forEach((track) => take(null, track));
    return { sources, leftOut };
}
