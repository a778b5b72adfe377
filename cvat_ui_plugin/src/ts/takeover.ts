// SPDX-License-Identifier: MIT
// What the user's word "Replace them" means: the shapes that an object of the run only seems to own are
// its own from then on (docs/identity.md).

import { SerializedShape } from './cvat';
import { keepLocked, lockedOf, Look, takeOwn } from './earlier';
import { markedNumber, Numbers } from './numbers';
import { Source } from './objects';

/** The number of what a source claims; null where nothing of it has one. All of it that has one has the
 * same: a source claims marked results through one shape of the next frame. */
function numberTakenOver({ claimed }: Source): number | null {
    return claimed.map(markedNumber).find((number) => number !== null) ?? null;
}

/**
 * After the user's word that what these sources claim is theirs: what a person corrected or locked of
 * it is theirs, too, and stays. And they take over its number, so that the next run knows it without a
 * question, once CVAT has the results. `sources`: all objects of the run; `all`: all shapes of the job.
 */
export async function takeClaimed(
    sources: Source[],
    all: SerializedShape[],
    look: Look,
): Promise<void> {
    const ofJob = new Numbers(all, look.known, look.start);
    const claiming = sources.filter(({ claimed }) => claimed.length);
    for (const source of claiming) {
        const number = numberTakenOver(source);
        if (number === null) continue;
        source.mark = { ...source.mark!, number };
        const isDrawn = (shape: SerializedShape): boolean =>
            shape.source !== 'auto' &&
            shape.type === source.type &&
            shape.clientID !== source.clientID &&
            !source.byHand.has(shape.frame) &&
            ofJob.of(shape) === number &&
            (shape.label_id === source.labelID || !ofJob.isOfDrawing(shape));
        takeOwn(source, all.filter(isDrawn));
    }
    const open = claiming.flatMap(({ claimed, byHand }) =>
        claimed.filter(({ frame }) => !byHand.has(frame)),
    );
    const locked = await lockedOf(open, look);
    for (const source of claiming) keepLocked(source, source.claimed, locked);
}
