// SPDX-License-Identifier: MIT
// Shapes that earlier runs and a person have left on the frames of this run: whose they are, which
// of them this run replaces, and which it keeps. The rules are those of docs/identity.md.

import { Box, boxOf, iouOf, uprightOf } from './boxes';
import { Collection, SerializedShape, SerializedTrack } from './cvat';
import { freeNumber, freeRun, markOf, numbersOf } from './identity';
import { ByHand, Source } from './objects';
import { endsOf } from './removed';
import { Tracked } from './track';

/** Below this overlap of their boxes, two shapes are not taken for one object. */
export const LEAST_OVERLAP = 0.3;

function kindOf({
    type,
    label_id,
    group,
}: Pick<SerializedShape, 'type' | 'label_id' | 'group'>): string {
    return `${type} ${label_id} ${group}`;
}

function markedNumber({ score, frame }: SerializedShape): number | null {
    return markOf(score, frame)?.number ?? null;
}

/** The number of a shape of the start frame, as an object of its own. */
type NumberOf = (shape: SerializedShape) => number;

/** The shapes of a job, by frame. */
class Shapes {
    /** Runs and object numbers that marks of the job name. */
    public readonly runs = new Set<number>();

    public readonly numbers = new Set<number>();

    private readonly byFrame = new Map<number, SerializedShape[]>();

    /** Marked ones, by frame and number. */
    private readonly marked = new Map<string, SerializedShape[]>();

    public constructor(shapes: SerializedShape[]) {
        const add = <T>(to: Map<T, SerializedShape[]>, key: T, shape: SerializedShape): void => {
            const list = to.get(key);
            if (list) list.push(shape);
            else to.set(key, [shape]);
        };
        for (const shape of shapes) {
            add(this.byFrame, shape.frame, shape);
            const mark = markOf(shape.score, shape.frame);
            if (!mark) continue;
            this.runs.add(mark.run);
            this.numbers.add(mark.number);
            add(this.marked, `${shape.frame} ${mark.number}`, shape);
        }
    }

    public on(frame: number): SerializedShape[] {
        return this.byFrame.get(frame) ?? [];
    }

    public of(number: number, frame: number): SerializedShape[] {
        return this.marked.get(`${frame} ${number}`) ?? [];
    }
}

/** An object of the start frame, followed through shapes that do not say whose they are. */
interface Chain {
    seed: SerializedShape;
    /** Where it was last. */
    box: Box;
    /** Whether marked shapes of the job carry its number: then no other marked shape is its own. */
    decided: boolean;
    claimed: SerializedShape[];
}

/** Pairs of chains and shapes of one frame whose boxes overlap enough, one to one, best first. */
function linked(chains: Chain[], shapes: SerializedShape[]): [Chain, SerializedShape][] {
    const pairs = chains
        .flatMap((chain) =>
            shapes
                .filter((shape) => kindOf(shape) === kindOf(chain.seed))
                .map((shape) => ({
                    chain,
                    shape,
                    overlap: iouOf(chain.box, boxOf(shape.type, shape.points)),
                })),
        )
        .filter(({ chain, shape, overlap }) => {
            const mayBeOwn = markedNumber(shape) === null || !chain.decided;
            return mayBeOwn && overlap >= LEAST_OVERLAP;
        })
        .sort((a, b) => b.overlap - a.overlap);
    const used = new Set<Chain | SerializedShape>();
    const links: [Chain, SerializedShape][] = [];
    for (const { chain, shape } of pairs) {
        if (used.has(chain) || used.has(shape)) continue;
        used.add(chain).add(shape);
        links.push([chain, shape]);
    }
    return links;
}

/**
 * Automatic shapes that seem to belong to the seeds although no mark says so, by their seed: results
 * of an older version, and of a seed that was edited since (its number was another one). They are
 * followed from frame to frame by overlap. A shape with a mark counts on the frame next to the seeds'
 * only, and its mark tells the rest: later on it is another object that passes there.
 */
async function claimsOf(
    seeds: SerializedShape[],
    start: number,
    order: number[],
    shapes: Shapes,
    numberOf: NumberOf,
    known: Set<number>,
    pause: () => Promise<void>,
): Promise<Map<SerializedShape, SerializedShape[]>> {
    const kinds = new Set(seeds.map(kindOf));
    const [next] = order;
    const chains: Chain[] = shapes
        .on(start)
        .filter((seed) => kinds.has(kindOf(seed)))
        .map((seed) => ({
            seed,
            box: boxOf(seed.type, seed.points),
            decided: markedNumber(seed) !== null || shapes.numbers.has(numberOf(seed)),
            claimed: [],
        }));
    for (const frame of order) {
        const candidates = shapes.on(frame).filter((shape) => {
            const number = markedNumber(shape);
            return (
                shape.source === 'auto' &&
                kinds.has(kindOf(shape)) &&
                (number === null || (frame === next && !known.has(number)))
            );
        });
        if (!candidates.length) continue;
        await pause();
        for (const [chain, shape] of linked(chains, candidates)) {
            const number = markedNumber(shape);
            if (number === null) {
                chain.box = boxOf(shape.type, shape.points);
                chain.claimed.push(shape);
            } else if (!known.has(number)) {
                known.add(number);
                for (const one of order) {
                    const results = shapes.of(number, one);
                    chain.claimed.push(...results.filter(({ source }) => source === 'auto'));
                }
            }
        }
    }
    return new Map(chains.map(({ seed, claimed }) => [seed, claimed]));
}

/**
 * Find out whose the shapes of the job are, and write it into the sources: the mark that their
 * results will carry, what a person drew of them on the frames of the run, and which shapes seem to
 * be their earlier results although nothing proves it.
 *
 * `all`: all shapes of the job; `order`: the frames of the run, in the order of tracking;
 * `isLocked`: whether a shape is locked in the page, which counts as a person's word for it;
 * `known`: numbers of objects by clientID that runs of this page have used, which is added to: so an
 * object keeps its number when its seed is edited.
 */
export async function recognise(
    sources: Source[],
    all: SerializedShape[],
    start: number,
    order: number[],
    isLocked: (shape: SerializedShape) => Promise<boolean>,
    known: Map<number, number>,
    pause: () => Promise<void>,
    random: () => number,
): Promise<void> {
    const drawn = sources.filter(({ shape }) => shape !== null);
    if (!drawn.length) return;
    const shapes = new Shapes(all);
    const run = freeRun(shapes.runs, random);
    const byID = new Map(shapes.on(start).map((shape) => [shape.clientID, shape]));
    const seedOf = (source: Source): SerializedShape => byID.get(source.clientID) ?? source.shape!;
    const numbers = numbersOf(
        all.filter(({ source, frame }) => source !== 'auto' || frame === start),
        known,
    );
    const numberOf: NumberOf = (shape) =>
        numbers.get(shape) ?? numbersOf([shape], known).get(shape)!;
    // what a person drew or corrected, by the number of the object and by frame
    const drawings = new Map<number, Map<number, SerializedShape>>();
    // what belongs to an object of the start frame needs no other owner
    const owned = new Set<number>();
    for (const [shape, number] of numbers) {
        if (shape.frame === start) owned.add(number);
        if (shape.source === 'auto') continue;
        const frames = drawings.get(number) ?? new Map<number, SerializedShape>();
        drawings.set(number, frames.set(shape.frame, shape));
    }
    const claims = await claimsOf(drawn.map(seedOf), start, order, shapes, numberOf, owned, pause);
    const taken = new Set<number>();
    const byHand = new Map<Source, Map<number, ByHand>>();
    for (const source of drawn) {
        const seed = seedOf(source);
        const number = freeNumber(numberOf(seed), taken);
        taken.add(number);
        known.set(source.clientID, number);
        source.mark = { number, run };
        source.claimed = claims.get(seed) ?? [];
        const own = [...(drawings.get(number)?.values() ?? [])].filter(
            ({ type, frame }) => type === source.type && frame !== start,
        );
        source.drawn = new Map(own.map((shape) => [shape.frame, uprightOf(shape)]));
        byHand.set(source, new Map(own.map((shape) => [shape.frame, byHandOf(shape)])));
        source.byHand = byHand.get(source)!;
    }
    // frame by frame: the page is asked for the locks of one frame at a time
    for (const frame of order) {
        await pause();
        for (const [source, kept] of byHand) {
            for (const own of shapes.of(source.mark!.number, frame)) {
                const isAutomatic = own.source === 'auto' && own.type === source.type;
                if (isAutomatic && !kept.has(frame) && (await isLocked(own))) {
                    kept.set(frame, byHandOf(own));
                }
            }
        }
    }
}

/** After the user's word that what the sources claim is theirs: what a person corrected or locked of
 * it is theirs, too, and stays. `all`: all shapes of the job. */
export async function takeClaimed(
    sources: Source[],
    all: SerializedShape[],
    start: number,
    isLocked: (shape: SerializedShape) => Promise<boolean>,
): Promise<void> {
    for (const source of sources) {
        const numbers = new Set(source.claimed.map(markedNumber));
        numbers.delete(null);
        const claimed = new Set(source.claimed);
        const byHand = new Map(source.byHand);
        const drawn = new Map(source.drawn);
        for (const shape of all) {
            const { frame, type } = shape;
            if (frame === start || type !== source.type || byHand.has(frame)) continue;
            if (shape.source !== 'auto' && numbers.has(markedNumber(shape))) {
                drawn.set(frame, uprightOf(shape));
            } else if (!claimed.has(shape) || !(await isLocked(shape))) continue;
            byHand.set(frame, byHandOf(shape));
        }
        source.byHand = byHand;
        source.drawn = drawn;
    }
}

export function byHandOf(shape: SerializedShape): ByHand {
    return { points: uprightOf(shape), shape };
}

/** The results of earlier runs that those of this one replace: of the same object, on frames for
 * which this run has an answer. `shapes`: all shapes of the job. */
export function replacedShapes(objects: Tracked[], shapes: SerializedShape[]): SerializedShape[] {
    const byNumber = new Map<number, ReadonlySet<number>>();
    const claimed = new Set<number | undefined>();
    for (const { source, results } of objects) {
        const answered = new Set(results.filter(({ byHand }) => !byHand).map(({ frame }) => frame));
        if (source.mark) byNumber.set(source.mark.number, answered);
        for (const { clientID, frame } of source.claimed) {
            if (answered.has(frame)) claimed.add(clientID);
        }
    }
    return shapes.filter(
        (shape) =>
            shape.source === 'auto' &&
            (claimed.has(shape.clientID) ||
                byNumber.get(markedNumber(shape) ?? 0)?.has(shape.frame)),
    );
}

/** The label, group and attributes of a shape, which a person can set without touching it: CVAT's
 * page leaves the source as it is then. */
function setOf({ label_id, group, attributes }: SerializedShape): string {
    const values = attributes.map(({ spec_id, value }) => `${spec_id}:${value}`).sort();
    return JSON.stringify([label_id, group, values]);
}

/** Shapes from which new ones of the object take over label, group and attributes, by frame: those
 * that are replaced, where they differ among each other. */
export function takenOver(
    { mark, claimed }: Source,
    replaced: SerializedShape[],
): Map<number, SerializedShape> {
    const ids = new Set(claimed.map(({ clientID }) => clientID));
    const own = replaced.filter(
        (shape) => markedNumber(shape) === mark?.number || ids.has(shape.clientID),
    );
    const differ = new Set(own.map(setOf)).size > 1;
    return new Map(differ ? own.map((shape) => [shape.frame, shape]) : []);
}

/** The shapes of an object that stay on other frames than `frames`, where it is converted to a track on
 * these. `shapes`: all shapes of the job; `known`: numbers of objects by clientID. */
export function leftAsShapes(
    { mark, clientID }: Source,
    frames: ReadonlySet<number>,
    shapes: SerializedShape[],
    known: ReadonlyMap<number, number>,
): SerializedShape[] {
    const numbers = numbersOf(shapes, known);
    return shapes.filter(
        (shape) =>
            numbers.get(shape) === mark?.number &&
            shape.clientID !== clientID &&
            !frames.has(shape.frame),
    );
}

/** From this overlap of their boxes on, what a person drew and what was tracked are one object. */
const SAME_PLACE = 0.5;

function kindOfResults({ source }: Tracked): string {
    const { group } = source.shape ?? source.track!;
    return kindOf({ type: source.type, label_id: source.labelID, group });
}

/** A shape that a person drew, and that no mark ties to an object. */
function isDrawn(shape: SerializedShape): boolean {
    return shape.source !== 'auto' && markedNumber(shape) === null;
}

/** Mark the results of these objects in whose place a person drew a shape of the same label, type and
 * group. `shapes`: all shapes of the job. */
export function passDrawn(objects: Tracked[], shapes: SerializedShape[]): void {
    const drawn = new Map<string, SerializedShape[]>();
    for (const shape of shapes.filter(isDrawn)) {
        const key = `${shape.frame} ${kindOf(shape)}`;
        drawn.set(key, [...(drawn.get(key) ?? []), shape]);
    }
    for (const object of objects) {
        const kind = kindOfResults(object);
        for (const result of object.results) {
            const { frame, points, byHand } = result;
            const there = drawn.get(`${frame} ${kind}`);
            if (!there || !points || byHand) continue;
            const box = boxOf(object.source.type, points);
            result.inPlace = there.some(
                (shape) => iouOf(box, boxOf(shape.type, shape.points)) >= SAME_PLACE,
            );
        }
    }
}

/** What lies where this run has written a result of the same label, type and group. */
export interface Beside {
    kind: 'automatic shape' | 'drawn shape' | 'track';
    /** The first one. */
    frame: number;
}

/** What lies where this run has written results of the same label, type and group, and is not known
 * to be of another object of the start frame: nobody can tell whether it is of the same object, so
 * it stays. `start`: the frame; `known`: numbers of objects by clientID. */
export function besideResults(
    objects: Tracked[],
    { shapes, tracks }: Pick<Collection, 'shapes' | 'tracks'>,
    start: number,
    known: ReadonlyMap<number, number>,
): Beside[] {
    const written = new Map<string, { box: Box; byHand: boolean }[]>();
    for (const object of objects) {
        const kind = kindOfResults(object);
        for (const { frame, points, byHand, inPlace } of object.results) {
            if (!points || inPlace) continue;
            const key = `${frame} ${kind}`;
            const one = { box: boxOf(object.source.type, points), byHand };
            written.set(key, [...(written.get(key) ?? []), one]);
        }
    }
    const onStart = shapes.filter(({ frame }) => frame === start);
    const others = new Set(numbersOf(onStart, known).values());
    for (const { source } of objects) if (source.mark) others.add(source.mark.number);
    const found: Beside[] = [];
    for (const shape of shapes) {
        const there = written.get(`${shape.frame} ${kindOf(shape)}`);
        const drawn = isDrawn(shape);
        if (!there || (!drawn && shape.source !== 'auto')) continue;
        if (others.has(markedNumber(shape) ?? 0)) continue;
        const box = boxOf(shape.type, shape.points);
        const least = drawn ? SAME_PLACE : LEAST_OVERLAP;
        if (there.some((one) => !(drawn && one.byHand) && iouOf(one.box, box) >= least)) {
            found.push({ kind: drawn ? 'drawn shape' : 'automatic shape', frame: shape.frame });
        }
    }
    const own = new Set(objects.map(({ source }) => source.clientID));
    for (const track of tracks) {
        if (own.has(track.clientID!) || isVisibleOn(track, start)) continue;
        const { label_id, group } = track;
        const doubled = track.shapes.filter(({ type, frame, points, outside }) => {
            const there = written.get(`${frame} ${kindOf({ type, label_id, group })}`);
            if (!there || outside) return false;
            const box = boxOf(type, points);
            return there.some((one) => iouOf(one.box, box) >= SAME_PLACE);
        });
        if (doubled.length) found.push({ kind: 'track', frame: endsOf(doubled)[0] });
    }
    return found;
}

/** Whether a track is visible on a frame. */
function isVisibleOn({ shapes }: SerializedTrack, frame: number): boolean {
    const before = shapes.filter((keyframe) => keyframe.frame <= frame);
    return before.length > 0 && !before.reduce((a, b) => (a.frame > b.frame ? a : b)).outside;
}
