// SPDX-License-Identifier: MIT
// The numbers of objects (docs/identity.md) that the runs of one open job have used, by clientID. So an
// object keeps its number when its drawing is edited, and when it becomes a track. Also which numbers a drawing
// does not have: the user said that it is another object.

import { SerializedShape, SerializedTrack } from './cvat';

type Shape = Pick<SerializedShape, 'type' | 'frame' | 'clientID'>;
type ClientIDs = ReadonlySet<number | null | undefined>;

interface Entry {
    number: number;
    /** CVAT gives a clientID again after "Remove annotations": then it is of something else. */
    place: string;
    /** The shapes whose number was taken over: where one is there again, that was undone. */
    replaced: ClientIDs;
}

function placeOf({ type, frame }: Shape): string {
    return `${type} on ${frame}`;
}

function otherOf(drawing: Shape, number: number): string {
    return `${drawing.clientID}, a ${placeOf(drawing)}, is not ${number}`;
}

function placeOfTrack(type: string): string {
    return `${type} track`;
}

export class KnownNumbers {
    private readonly byID = new Map<number, Entry>();

    private readonly others = new Set<string>();

    /** `there`: the clientIDs of all shapes of the job. null where nothing is known. */
    public ofShape(shape: Shape, there: ClientIDs): number | null {
        const known = this.byID.get(shape.clientID ?? -1);
        if (known?.place !== placeOf(shape)) return null;
        return [...known.replaced].some((id) => there.has(id)) ? null : known.number;
    }

    public ofTrack({ clientID, shapes }: Pick<SerializedTrack, 'clientID' | 'shapes'>) {
        const known = this.byID.get(clientID ?? -1);
        return known?.place === placeOfTrack(shapes[0].type) ? known.number : null;
    }

    public keepShape(shape: Shape, number: number, replaced: ClientIDs = new Set()): void {
        const known = this.byID.get(shape.clientID!);
        const place = placeOf(shape);
        if (known?.place === place && known.number === number) return;
        this.byID.set(shape.clientID!, { number, place, replaced });
    }

    /** The user said that this drawing is not the object with this number. */
    public keepOther(drawing: Shape, number: number): void {
        this.others.add(otherOf(drawing, number));
    }

    public isOther(drawing: Shape, number: number): boolean {
        return this.others.has(otherOf(drawing, number));
    }

    public keepTrack(clientID: number, type: string, number: number): void {
        this.byID.set(clientID, { number, place: placeOfTrack(type), replaced: new Set() });
    }
}
