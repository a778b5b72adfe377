// SPDX-License-Identifier: MIT
// Which object each shape of a job is of: the number that its mark says, that a run of this page has
// used, or that the drawing itself gives (docs/identity.md).

import { SerializedShape } from './cvat';
import { freeNumber, markOf, numberOfDrawing } from './identity';
import { KnownNumbers } from './known';

export function markedNumber({ score, frame }: SerializedShape): number | null {
    return markOf(score, frame)?.number ?? null;
}

/** The order of the ids; what is not saved yet has none and comes later. */
function byID(a: SerializedShape, b: SerializedShape): number {
    const [first, second] = [a.id ?? Infinity, b.id ?? Infinity];
    return first === second ? 0 : first - second;
}

export class Numbers {
    private readonly byFrame = new Map<number, SerializedShape[]>();

    private readonly there: ReadonlySet<number | undefined>;

    /** By clientID, of the frames that were asked for. */
    private readonly found = new Map<number | undefined, number>();

    /** `shapes`: all shapes of the job. */
    public constructor(
        shapes: SerializedShape[],
        private readonly known: KnownNumbers,
    ) {
        this.there = new Set(shapes.map(({ clientID }) => clientID));
        for (const shape of shapes) {
            const list = this.byFrame.get(shape.frame);
            if (list) list.push(shape);
            else this.byFrame.set(shape.frame, [shape]);
        }
    }

    public of(shape: SerializedShape): number {
        const certain = markedNumber(shape);
        if (certain !== null) return certain;
        if (!this.found.has(shape.clientID)) this.count(shape.frame);
        return this.found.get(shape.clientID) ?? this.drawn(shape);
    }

    private knownOf(shape: SerializedShape): number | null {
        return this.known.ofShape(shape, this.there);
    }

    private drawn(shape: SerializedShape): number {
        return this.knownOf(shape) ?? numberOfDrawing(shape.type, shape.frame, shape.points);
    }

    /** Number all shapes of a frame: of equal drawings the later one counts up, whether they are part
     * of the run or not. */
    private count(frame: number): void {
        const unmarked = (this.byFrame.get(frame) ?? []).filter(
            (shape) => markedNumber(shape) === null,
        );
        const taken = new Set(unmarked.flatMap((shape) => this.knownOf(shape) ?? []));
        for (const shape of unmarked.sort(byID)) {
            const number = this.knownOf(shape) ?? freeNumber(this.drawn(shape), taken);
            taken.add(number);
            this.found.set(shape.clientID, number);
        }
    }
}
