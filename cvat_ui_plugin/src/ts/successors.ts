// SPDX-License-Identifier: MIT
// What became of objects in the page. A run that changes a track, or converts a shape, puts a new
// object with a new clientID in its place; an open dialog goes on holding the old one.

import { boxOf, iouOf } from './boxes';
import { ActionOutput, Collection, Job, ObjectState } from './cvat';
import { nameOf } from './objects';
import { Run, Tracked } from './tracked';

/** The same object by its place: results may be moved by a fraction of a pixel when written. */
const SAME = 0.9;

/** The state of this kind, label and type that lies where these points are. */
function stateAt(
    states: ObjectState[],
    { source }: Tracked,
    kind: string,
    points: number[],
): ObjectState | null {
    const box = boxOf(source.type, points);
    let best: ObjectState | null = null;
    let most = SAME;
    for (const state of states) {
        if (
            state.objectType === kind &&
            state.shapeType === source.type &&
            state.label.id === source.labelID &&
            !state.outside
        ) {
            const overlap = iouOf(box, boxOf(source.type, state.points ?? []));
            if (overlap >= most) [best, most] = [state, overlap];
        }
    }
    return best;
}

export class Successors {
    private readonly next = new Map<number, number>();

    /** What stands in the place of an object now; the object itself where nothing does. */
    public latest(clientID: number): number {
        let id = clientID;
        for (let next = this.next.get(id); next !== undefined; next = this.next.get(id)) id = next;
        return id;
    }

    /** The collection with what stands in the place of objects that are gone. `job`: all objects. */
    public replace(collection: Collection, job: Collection): Collection {
        const there = new Set<number | undefined>(
            [...job.shapes, ...job.tracks].map(({ clientID }) => clientID),
        );
        const gone = ({ clientID }: { clientID?: number }): boolean =>
            !there.has(clientID) && this.next.has(clientID ?? -1);
        const ids = new Set<number | undefined>(
            [...collection.shapes, ...collection.tracks]
                .filter(gone)
                .map(({ clientID }) => this.latest(clientID!)),
        );
        const isNext = ({ clientID }: { clientID?: number }): boolean => ids.has(clientID);
        return {
            shapes: [
                ...collection.shapes.filter((one) => !gone(one)),
                ...job.shapes.filter(isNext),
            ],
            tags: [],
            tracks: [
                ...collection.tracks.filter((one) => !gone(one)),
                ...job.tracks.filter(isNext),
            ],
        };
    }

    /**
     * Look at what CVAT made of a run: afterwards `replace` knows what stands in the place of its
     * objects. `former`: the clientIDs of all objects of the job before. Answers how the page names
     * an object on a frame; null where nothing was committed.
     */
    public async learn(
        job: Job,
        start: number,
        { objects }: Run,
        { created, deleted }: ActionOutput,
        former: ReadonlySet<number | null>,
    ): Promise<((object: Tracked, frame: number) => Promise<string>) | null> {
        const known = new Map<number, ObjectState[]>();
        const on = async (frame: number): Promise<ObjectState[]> => {
            const states = known.get(frame) ?? (await job.annotations.get(frame, false, []));
            known.set(frame, states);
            return states;
        };
        const onStart = await on(start);
        const ids = new Set(onStart.map(({ clientID }) => clientID));
        const removed = new Set(
            [...deleted.shapes, ...deleted.tracks].map(({ clientID }) => clientID),
        );
        const first = created.tracks.length ? start : created.shapes[0]?.frame;
        if (first !== undefined) {
            // not by points: CVAT cuts masks at the picture, and their box off the list it is given
            const isNew = ({ clientID }: ObjectState): boolean => !former.has(clientID);
            if (!(await on(first)).some(isNew)) return null;
            const newTracks = onStart.filter(isNew);
            for (const object of objects) {
                const { clientID, points } = object.source;
                // it was there when the run began: what is known is of before "Remove annotations"
                this.next.delete(clientID);
                if (!removed.has(clientID) || ids.has(clientID)) continue;
                const state = stateAt(newTracks, object, 'track', points);
                if (state?.clientID) this.next.set(clientID, state.clientID);
            }
        }
        const nameOn = async (object: Tracked, frame: number): Promise<string> => {
            const { source, results } = object;
            const states = await on(frame);
            const id = this.latest(source.clientID);
            const points = results.find((result) => result.frame === frame)?.points;
            const state =
                states.find(({ clientID }) => clientID === id) ??
                (points && frame !== start ? stateAt(states, object, 'shape', points) : null);
            if (state) return nameOf(state);
            return frame === start ? source.name : nameOn(object, start);
        };
        return nameOn;
    }
}
