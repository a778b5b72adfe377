// SPDX-License-Identifier: MIT
// How objects get a state, which stands on all that a person drew of them.

import { Caller, giveUp, Live, Request, Tools } from './caller';
import { CallError } from './server';

function startRequest(
    pointsOf: (object: Live) => number[],
    { memory, searchRegion, toleranceOf }: Pick<Tools, 'memory' | 'searchRegion' | 'toleranceOf'>,
): Request {
    return (batch) => ({
        type: 'init_tracking',
        shapes: batch.map((object) => {
            const { source } = object.tracked;
            const tolerance = source.type === 'polygon' ? toleranceOf(source) : null;
            return {
                type: source.type,
                points: pointsOf(object),
                ...(memory === null ? {} : { memory }),
                ...(searchRegion === null ? {} : { search_region: searchRegion }),
                ...(tolerance === null ? {} : { tolerance }),
            };
        }),
    });
}

/** Give every object a state, from where it was last seen. With `steps`, what else a person drew of
 * it joins. */
export async function seed(caller: Caller, objects: Live[], steps: Steps | null): Promise<void> {
    const frames = new Set(objects.map(({ lastSeen }) => lastSeen.frame));
    for (const frame of frames) {
        const here = objects.filter(({ lastSeen }) => lastSeen.frame === frame);
        for (const object of here) object.state = object.drawn.get(frame) ?? null;
        await caller.ask(
            here.filter(({ state }) => state === null),
            frame,
            startRequest(({ lastSeen }) => lastSeen.points, caller.tools),
            (object, { state, error }) => {
                object.state = state;
                if (state === null || error) {
                    giveUp(object, frame, error?.message ?? 'the function did not take it');
                } else if (object.keyframes.get(frame) === object.lastSeen.points) {
                    object.drawn.set(frame, state);
                }
            },
        );
        if (steps === null) continue;
        await join(
            caller,
            here.filter(({ state, tracked }) => state !== null && !tracked.failure),
            frame,
            steps,
        );
    }
}

/** How many frames `to` lies after `from`, in the direction of tracking; negative: before. */
export type Steps = (from: number, to: number) => number;

/** The function remembers 8 drawn shapes of an object; this many besides the one it starts from. */
const MOST_JOINED = 7;
/** The function takes at most 100 objects in a request, and each joined shape counts as one. */
const ENTRIES_PER_CALL = 50;

/** Let objects that start on `frame` stand on what a person drew of them on other frames, too: the
 * nearest of these. Where that fails, the object goes on without, and its reason is kept. */
async function join(caller: Caller, objects: Live[], frame: number, steps: Steps): Promise<void> {
    const nearest = new Map<Live, number[]>();
    for (const object of objects) {
        const others = [...object.keyframes.keys()].filter((one) => one !== frame);
        others.sort((a, b) => Math.abs(steps(frame, a)) - Math.abs(steps(frame, b)));
        if (others.length) nearest.set(object, others.slice(0, MOST_JOINED));
    }
    if (!nearest.size) return;
    const alone = ({ tracked }: Live, reason: string): void => {
        tracked.notJoined = reason;
    };
    try {
        for (const other of new Set([...nearest.values()].flat())) {
            await caller.ask(
                [...nearest.keys()].filter(
                    (object) => nearest.get(object)!.includes(other) && !object.drawn.has(other),
                ),
                other,
                startRequest(({ keyframes }) => keyframes.get(other)!, caller.tools),
                (object, { state, error }) => {
                    if (state !== null && !error) object.drawn.set(other, state);
                    else alone(object, error?.message ?? 'the function did not take it');
                },
                alone,
            );
        }
        let rest = [...nearest.keys()];
        while (rest.length) {
            let entries = 0;
            const batch = rest.filter((object) => {
                entries += 1 + nearest.get(object)!.length;
                return entries <= ENTRIES_PER_CALL;
            });
            rest = rest.slice(batch.length);
            await caller.ask(
                batch,
                frame,
                (some) => joinRequest(some, frame, nearest, steps),
                (object, { state, error }) => {
                    if (state !== null && !error) object.state = state;
                    else alone(object, error?.message ?? 'the function did not join it');
                },
                alone,
            );
        }
    } catch (error) {
        if (!(error instanceof CallError)) throw error;
        for (const object of nearest.keys()) alone(object, error.message);
    }
}

/** The states of the objects and, after them, those of what joins each. */
function joinRequest(
    objects: Live[],
    frame: number,
    nearest: Map<Live, number[]>,
    steps: Steps,
): Record<string, unknown> {
    const lent: string[] = [];
    const shapes = objects.map((object) => {
        const adopt = [];
        for (const other of nearest.get(object)!) {
            const state = object.drawn.get(other);
            if (state === undefined) continue;
            adopt.push({ index: objects.length + lent.length, distance: steps(frame, other) });
            lent.push(state);
        }
        const { type } = object.tracked.source;
        return adopt.length ? { type, points: object.lastSeen.points, adopt } : null;
    });
    return {
        type: 'track',
        shapes: [...shapes, ...lent.map(() => null)],
        states: [...objects.map(({ state }) => state), ...lent],
    };
}
