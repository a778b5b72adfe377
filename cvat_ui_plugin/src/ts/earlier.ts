// SPDX-License-Identifier: MIT
// Shapes that an earlier run has left on the frames of this one. They carry no mark: an earlier
// result has the source "auto" and the label, type and group of its seed. Where several objects
// share these, the shapes are linked from frame to frame by overlap, so that a re-run of one
// object leaves its neighbours alone.

import { Job, ObjectState, SerializedShape } from './cvat';
import { Source } from './objects';
import { Tracked } from './track';

type Box = readonly [left: number, top: number, right: number, bottom: number];

interface Chain {
    kind: string;
    /** Where its earlier shape was on the last frame that had one; the seed before that. */
    box: Box;
    /** null: an object that is not part of this run. */
    tracked: Tracked | null;
    /** Whether an earlier shape of it has been found. */
    linked: boolean;
}

interface Candidate {
    state: ObjectState;
    box: Box;
}

export function boxOf(type: string, points: number[]): Box {
    if (type === 'mask') {
        const [left, top, right, bottom] = points.slice(-4);
        return [left, top, right + 1, bottom + 1];
    }
    let box: [number, number, number, number] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i + 1 < points.length; i += 2) {
        const [x, y] = [points[i], points[i + 1]];
        box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)];
    }
    return box;
}

function areaOf([left, top, right, bottom]: Box): number {
    return Math.max(right - left, 0) * Math.max(bottom - top, 0);
}

function overlap(a: Box, b: Box): number {
    const shared = areaOf([
        Math.max(a[0], b[0]),
        Math.max(a[1], b[1]),
        Math.min(a[2], b[2]),
        Math.min(a[3], b[3]),
    ]);
    return shared === 0 ? 0 : shared / (areaOf(a) + areaOf(b) - shared);
}

/** How near two boxes are that do not overlap: 1 at the same centre, 0 where their centres are
 * further apart than their diagonals together. */
function nearness(a: Box, b: Box): number {
    const apart = Math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2;
    const reach = Math.hypot(a[2] - a[0], a[3] - a[1]) + Math.hypot(b[2] - b[0], b[3] - b[1]);
    return reach === 0 ? 0 : Math.max(0, 1 - apart / reach);
}

function kindOf(type: string | null, labelID: number, group: number): string {
    return `${type} ${labelID} ${group}`;
}

function kindOfState(state: ObjectState): string {
    return kindOf(state.shapeType, state.label.id, state.group?.id ?? 0);
}

/** Below this, a result and a shape are not the same object by their place alone. */
const SAME_PLACE = 0.5;

/** Pair chains and candidates of a frame one to one, the best overlap first, then what is near. */
function pair(
    chains: Chain[],
    candidates: Candidate[],
    frame: number,
    first: boolean,
): [Chain, Candidate][] {
    const pairs: [Chain, Candidate][] = [];
    const free = (chain: Chain, candidate: Candidate): boolean =>
        kindOfState(candidate.state) === chain.kind &&
        !pairs.some(([one, other]) => one === chain || other === candidate);
    // An object whose seed is not followed by an earlier shape was not tracked from here before:
    // further on, only a shape in the very place of its result is taken for its own.
    const byResult = ({ tracked }: Chain, { box }: Candidate): number => {
        const points = tracked?.results.find((result) => result.frame === frame)?.points;
        const share = tracked && points ? overlap(boxOf(tracked.source.type, points), box) : 0;
        return share >= SAME_PLACE ? share : 0;
    };
    const follows = ({ linked, tracked }: Chain): boolean => linked || first || tracked === null;
    const passes: ((chain: Chain, candidate: Candidate) => number)[] = [
        (chain, candidate) =>
            follows(chain) ? overlap(chain.box, candidate.box) : byResult(chain, candidate),
        (chain, candidate) => (follows(chain) ? nearness(chain.box, candidate.box) : 0),
    ];
    for (const likeness of passes) {
        const scored = chains
            .flatMap((chain) =>
                candidates
                    .filter((candidate) => free(chain, candidate))
                    .map((candidate) => ({ chain, candidate, score: likeness(chain, candidate) })),
            )
            .filter(({ score }) => score > 0)
            .sort((a, b) => b.score - a.score);
        for (const { chain, candidate } of scored) {
            if (free(chain, candidate)) pairs.push([chain, candidate]);
        }
    }
    if (first) {
        // A result that was corrected by hand (no longer "auto", but not "manual" either) can be
        // far from where the earlier run went on. What is left is its own if nobody else can be
        // meant.
        const corrected = ({ tracked }: Chain): boolean =>
            tracked !== null && tracked.source.shape?.source !== 'manual';
        for (const kind of new Set(chains.map((chain) => chain.kind))) {
            const lone = chains.filter(
                (chain) => chain.kind === kind && !pairs.some(([one]) => one === chain),
            );
            const rest = candidates.filter(
                (candidate) =>
                    kindOfState(candidate.state) === kind &&
                    !pairs.some(([, other]) => other === candidate),
            );
            if (rest.length <= lone.length && lone.every(corrected)) {
                rest.forEach((candidate, index) => pairs.push([lone[index], candidate]));
            }
        }
    }
    return pairs;
}

function stateToShape(state: ObjectState, frame: number): SerializedShape {
    return {
        type: state.shapeType as string,
        frame,
        points: [...(state.points ?? [])],
        label_id: state.label.id,
        group: state.group?.id ?? 0,
        source: state.source ?? 'auto',
        occluded: state.occluded,
        outside: false,
        z_order: state.zOrder,
        rotation: 0,
        attributes: [],
        elements: [],
        clientID: state.clientID as number,
    };
}

/** The shapes of an earlier run that this run's results replace. Locked ones stay. `pause` lets the
 * page draw: reading a frame's annotations never waits for anything else. */
export async function earlierShapes(
    job: Job,
    objects: Tracked[],
    start: number,
    pause: () => Promise<void>,
): Promise<SerializedShape[]> {
    const sourceKind = ({ type, labelID, shape }: Source): string =>
        kindOf(type, labelID, shape?.group ?? 0);
    const shapes = objects.filter(({ source, results }) => source.shape && results.length);
    const kinds = new Set(shapes.map(({ source }) => sourceKind(source)));
    if (!kinds.size) return [];

    const onFrame = async (frame: number): Promise<Candidate[]> =>
        (await job.annotations.get(frame, false, []))
            .filter(
                (state) =>
                    state.objectType === 'shape' &&
                    !state.isGroundTruth &&
                    state.clientID !== null &&
                    kinds.has(kindOfState(state)),
            )
            .map((state) => ({ state, box: boxOf(state.shapeType as string, state.points ?? []) }));
    const chains: Chain[] = (await onFrame(start)).map(({ state, box }) => ({
        kind: kindOfState(state),
        box,
        tracked: shapes.find(({ source }) => source.clientID === state.clientID) ?? null,
        linked: false,
    }));

    const frames = new Set(shapes.flatMap(({ results }) => results.map(({ frame }) => frame)));
    const order = [...frames].sort((a, b) => Math.abs(a - start) - Math.abs(b - start));
    const replaced: SerializedShape[] = [];
    for (const [index, frame] of order.entries()) {
        await pause();
        const candidates = (await onFrame(frame)).filter(({ state }) => state.source === 'auto');
        for (const [chain, { state, box }] of pair(chains, candidates, frame, index === 0)) {
            chain.box = box;
            chain.linked = true;
            const inRun = chain.tracked?.results.some((result) => result.frame === frame);
            if (inRun && !state.lock) replaced.push(stateToShape(state, frame));
        }
    }
    return replaced;
}
