// SPDX-License-Identifier: MIT
// What the user's word "Replace them" means: the shapes that an object of the run only seems to own are
// its own from then on (docs/identity.md).

import { SerializedShape } from './cvat';
import { keepLocked, lockedOf, Look, takeOwn } from './earlier';
import { markedNumber, Numbers } from './numbers';
import { Source } from './objects';

/** The most frequent number of what a source claims; null where there is none that it may take over.
 * `taken`: numbers of the other objects of the run. */
function numberTakenOver(source: Source, taken: ReadonlySet<number>): number | null {
    const counts = new Map<number, number>();
    for (const shape of source.claimed) {
        const number = markedNumber(shape);
        if (number !== null) counts.set(number, (counts.get(number) ?? 0) + 1);
    }
    const free = [...counts].filter(([number]) => !taken.has(number));
    const [most] = free.sort((a, b) => b[1] - a[1]);
    return most?.[0] ?? null;
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
    const ofJob = new Numbers(all, look.known);
    const taken = new Set(sources.flatMap(({ mark }) => mark?.number ?? []));
    const claiming = sources.filter(({ claimed }) => claimed.length);
    for (const source of claiming) {
        const numbers = new Set(source.claimed.map(markedNumber));
        numbers.delete(null);
        const taking = numberTakenOver(source, taken);
        if (taking !== null) {
            taken.add(taking);
            source.mark = { ...source.mark!, number: taking };
        }
        const isOwn = (shape: SerializedShape): boolean =>
            numbers.has(markedNumber(shape)) || ofJob.of(shape) === taking;
        const there = all.filter(
            ({ frame, type }) =>
                frame !== look.start && type === source.type && !source.byHand.has(frame),
        );
        takeOwn(
            source,
            there.filter((shape) => shape.source !== 'auto' && isOwn(shape)),
        );
    }
    const open = claiming.flatMap(({ claimed, byHand }) =>
        claimed.filter(({ frame }) => !byHand.has(frame)),
    );
    const locked = await lockedOf(open, look);
    for (const source of claiming) keepLocked(source, source.claimed, locked);
}
