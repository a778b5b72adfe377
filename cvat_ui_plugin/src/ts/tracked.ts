// SPDX-License-Identifier: MIT
// What became of the objects of a run.

import { Source } from './objects';

export interface FrameResult {
    frame: number;
    /** null: not visible on this frame. */
    points: number[] | null;
    score: number | null;
    /** A person drew it on this frame: nothing is written, and the object goes on from here. */
    byHand: boolean;
    /** A person drew a shape in its place, which nobody can tell the object of: it is not written. */
    inPlace?: boolean;
}

/** What became of one object, frame by frame in the order of tracking. */
export interface Tracked {
    source: Source;
    results: FrameResult[];
    /** Why it was given up before the end of the run, and on which frame. */
    failure: { frame: number; reason: string } | null;
    /** Whether it, or what a person drew in its place, was changed in the job while it was tracked. */
    changed: boolean;
    /** Why what a person drew of it on other frames did not join. */
    notJoined: string | null;
    /** The first and the last frame that were tracked from one end only, though the object is drawn behind
     * them, and why. */
    oneEnd: { first: number; last: number; reason: string } | null;
}

export interface Run {
    objects: Tracked[];
    /** Where and why the whole run ended early; null where it reached its target. */
    stop: { frame: number; reason: string; drawAgain: boolean } | null;
    /** Whether the user ended the tracking. */
    cancelled: boolean;
}
