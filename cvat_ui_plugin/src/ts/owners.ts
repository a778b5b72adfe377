// SPDX-License-Identifier: MIT
// Which objects of a job still have the drawing, or the first result, that their number comes from
// (docs/identity.md).

import { SerializedShape } from './cvat';
import { addTo } from './groups';
import { numberOfDrawing } from './identity';
import { markedNumber, Numbers } from './numbers';

interface Shapes {
    /** The numbers of what a person drew. */
    drawn: ReadonlySet<number>;
    /** Those with a mark, by its number. */
    marked: ReadonlyMap<number, SerializedShape[]>;
}

export class Owners {
    private shapes: Shapes | null = null;

    private readonly known = new Map<number, boolean>();

    /** `all`: all shapes of the job. They are looked at only when it is asked for an owner. */
    public constructor(
        private readonly all: SerializedShape[],
        private readonly numbers: Numbers,
    ) {}

    /**
     * Whether a shape of the job gives this number: a drawing, or the first result of what was clicked on
     * or found by a detector. Where none does, the drawing was edited, drawn anew or deleted.
     */
    public has(number: number): boolean {
        const known = this.known.get(number) ?? this.find(number);
        this.known.set(number, known);
        return known;
    }

    private find(number: number): boolean {
        this.shapes ??= this.look();
        const { drawn, marked } = this.shapes;
        const gives = ({ type, frame, points }: SerializedShape): boolean =>
            numberOfDrawing(type, frame, points) === number;
        return drawn.has(number) || (marked.get(number) ?? []).some(gives);
    }

    private look(): Shapes {
        const drawn = new Set<number>();
        const marked = new Map<number, SerializedShape[]>();
        for (const shape of this.all) {
            const number = markedNumber(shape);
            if (number !== null) addTo(marked, number, shape);
            else if (shape.source !== 'auto') drawn.add(this.numbers.of(shape));
        }
        return { drawn, marked };
    }
}
