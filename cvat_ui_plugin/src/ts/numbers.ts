// SPDX-License-Identifier: MIT
// Which object each shape of a job is of: the number that its mark says, that a run of this page has
// used, or that the drawing itself gives (docs/identity.md).

import { SerializedShape } from './cvat';
import { addTo } from './groups';
import { markOf, numberOfDrawing, numbersOf } from './identity';
import { KnownNumbers } from './known';

export function markedNumber({ score, frame }: SerializedShape): number | null {
    return markOf(score, frame)?.number ?? null;
}

export class Numbers {
    private readonly byFrame = new Map<number, SerializedShape[]>();

    private readonly there: ReadonlySet<number | undefined>;

    /** By frame, of those that were asked for; within a frame by clientID. */
    private readonly found = new Map<number, Map<number | undefined, number>>();

    /** `shapes`: all shapes of the job. `start`: the frame of the run's seeds; on others an automatic shape
     * takes no number from a drawing. */
    public constructor(
        shapes: SerializedShape[],
        private readonly known: KnownNumbers,
        start: number,
    ) {
        this.there = new Set(shapes.map(({ clientID }) => clientID));
        for (const shape of shapes) {
            const counts = shape.frame === start || shape.source !== 'auto';
            if (counts) addTo(this.byFrame, shape.frame, shape);
        }
    }

    public of(shape: SerializedShape): number {
        const certain = markedNumber(shape);
        if (certain !== null) return certain;
        let found = this.found.get(shape.frame);
        if (!found) {
            const all = numbersOf(this.byFrame.get(shape.frame) ?? [], this.knownOf);
            found = new Map([...all].map(([{ clientID }, number]) => [clientID, number]));
            this.found.set(shape.frame, found);
        }
        return found.get(shape.clientID) ?? numbersOf([shape], this.knownOf).get(shape)!;
    }

    /** The number that a mark, or a run of this page, says. */
    public certain(shape: SerializedShape): number | null {
        return markedNumber(shape) ?? this.knownOf(shape);
    }

    /** Whether a number is that of a drawing alone. The frame is a part of it: two drawings of two frames
     * have the same one only by chance. */
    public isOfDrawing(shape: SerializedShape): boolean {
        if (this.certain(shape) === null) return true;
        const { type, frame, points } = shape;
        const isMarked = markedNumber(shape) !== null;
        return !isMarked && this.of(shape) === numberOfDrawing(type, frame, points);
    }

    private readonly knownOf = (shape: SerializedShape): number | null =>
        this.known.ofShape(shape, this.there);
}
