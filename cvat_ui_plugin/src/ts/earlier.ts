// SPDX-License-Identifier: MIT
// Shapes that earlier runs and a person have left on the frames of this run: whose they are, which
// of them this run replaces, and which it keeps. The rules are those of docs/identity.md;
// tests/action_cases/whose.json holds both programs to them.

import { Box, boxAround, iouOf, uprightOf } from './boxes';
import { Collection, SerializedShape } from './cvat';
import { addTo } from './groups';
import { holesFor, onlyOnes } from './holes';
import { freeNumber, freeRun, markOf } from './identity';
import { isSameKind } from './kinds';
import { KnownNumbers } from './known';
import { markedNumber, Numbers } from './numbers';
import { ByHand, isVisibleOn, Source } from './objects';
import { Owners } from './owners';
import { FrameResult, Tracked } from './tracked';

/** Below this overlap of their boxes, two shapes are not taken for one object. */
export const LEAST_OVERLAP = 0.3;

/** The shapes of a job, by frame. */
class Shapes {
    /** Runs that marks of the job name. */
    public readonly runs = new Set<number>();

    /** Marked ones, by number. */
    public readonly byNumber = new Map<number, SerializedShape[]>();

    private readonly byFrame = new Map<number, SerializedShape[]>();

    /** Marked ones, by frame and number. */
    private readonly marked = new Map<string, SerializedShape[]>();

    public constructor(shapes: SerializedShape[]) {
        for (const shape of shapes) {
            addTo(this.byFrame, shape.frame, shape);
            const mark = markOf(shape.score, shape.frame);
            if (!mark) continue;
            this.runs.add(mark.run);
            addTo(this.byNumber, mark.number, shape);
            addTo(this.marked, `${shape.frame} ${mark.number}`, shape);
        }
    }

    public on(frame: number): SerializedShape[] {
        return this.byFrame.get(frame) ?? [];
    }

    public of(number: number, frame: number): SerializedShape[] {
        return this.marked.get(`${frame} ${number}`) ?? [];
    }

    /** The labels of the marked shapes of a number. */
    public labelsOf(number: number): Set<number> {
        return new Set((this.byNumber.get(number) ?? []).map(({ label_id }) => label_id));
    }
}

/** An object of the start frame, followed through shapes that do not say whose they are. */
interface Chain {
    seed: SerializedShape;
    /** Where it was last. */
    box: Box;
    /** Whether marked shapes of the job carry its number, or one that it has claimed: then no other
     * marked shape is its own. */
    decided: boolean;
    claimed: SerializedShape[];
}

/** Pairs of chains and shapes of one frame whose boxes overlap enough, one to one, best first. */
function linked(chains: Chain[], shapes: SerializedShape[]): [Chain, SerializedShape][] {
    const candidates = shapes.map((shape) => {
        return { shape, box: boxAround(shape), isMarked: markedNumber(shape) !== null };
    });
    const pairs = chains
        .flatMap((chain) =>
            candidates
                .filter(({ isMarked }) => !(isMarked && chain.decided))
                .filter(({ shape }) => isSameKind(shape, chain.seed))
                .map(({ shape, box }) => ({ chain, shape, overlap: iouOf(chain.box, box) })),
        )
        .filter(({ overlap }) => overlap >= LEAST_OVERLAP)
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

/** The numbers of the objects with a shape on a frame. One of the frame before the run's, without a shape
 * on the start frame, may have been drawn anew there. */
export function numbersOn(
    frame: number | undefined,
    shapes: SerializedShape[],
    numbers: Numbers,
): Set<number> {
    const there = shapes.filter((shape) => shape.frame === frame);
    return new Set(there.map((shape) => numbers.of(shape)));
}

/** Whether all results with the number of a drawing have another label, and nothing else says that they
 * are its own: an equal drawing may have had the number, or the label of this one was changed. */
function hasOthersNumber(seed: SerializedShape, shapes: Shapes, numbers: Numbers): boolean {
    if (numbers.certain(seed) !== null) return false;
    const labels = shapes.labelsOf(numbers.of(seed));
    return labels.size > 0 && !labels.has(seed.label_id);
}

/** What `recognise` has to know of the job and the page. */
export interface Look {
    start: number;
    /** The frames of the run, in the order of tracking. */
    order: number[];
    /** The run goes to one of the two frames beside the start frame. This is the other one, if there is one. */
    before: number | undefined;
    /** Whether a shape is locked in the page, which counts as a person's word for it. */
    isLocked: (shape: SerializedShape) => Promise<boolean>;
    /** It is added to. */
    known: KnownNumbers;
    pause: () => Promise<void>;
    random: () => number;
}

interface Claims {
    /** By the seed. */
    shapes: Map<SerializedShape, SerializedShape[]>;
    /** The seeds that claim the results of an object without a shape on the start frame. */
    inHoles: ReadonlySet<SerializedShape>;
    /** Whether a seed may stand for such an object, and it cannot be told for which. */
    unclear: boolean;
}

/**
 * Automatic shapes that seem to belong to the seeds although no mark says so, by their seed: results
 * of an older version, and of a seed that was edited or drawn anew since (its number was another one).
 * They are followed from frame to frame by overlap. Of the shapes with one number, also corrected ones,
 * those of the first frame that has any are compared, and the mark tells the rest. Where this is not the
 * frame next to the seeds', an object that has an owner passes there, unless it has a shape on the frame
 * before the seeds'. `owned`: numbers of objects that have a shape on the start frame.
 */
async function claimsOf(
    seeds: SerializedShape[],
    { start, order, before, pause }: Look,
    shapes: Shapes,
    numbers: Numbers,
    owned: Set<number>,
    owners: Owners,
): Promise<Claims> {
    const kindOf = ({ type, label_id }: SerializedShape): string => `${type} ${label_id}`;
    const kinds = new Set(seeds.map(kindOf));
    const [next] = order;
    const chains: Chain[] = shapes
        .on(start)
        .filter((seed) => kinds.has(kindOf(seed)))
        .map((seed) => ({
            seed,
            box: boxAround(seed),
            decided:
                shapes.byNumber.has(numbers.of(seed)) && !hasOthersNumber(seed, shapes, numbers),
            claimed: [],
        }));
    const undecided = chains.filter(({ seed, decided }) => !decided && seed.source !== 'auto');
    const claim = (chain: Chain, number: number): void => {
        owned.add(number);
        chain.decided = true;
        for (const frame of order) {
            const results = shapes.of(number, frame);
            chain.claimed.push(...results.filter(({ source }) => source === 'auto'));
        }
    };
    const near = numbersOn(before, shapes.on(before ?? NaN), numbers);
    const passed = new Set<string>();
    /** Whether this is the first frame with shapes of a number, and a chain may claim them. */
    const mayClaim = (shape: SerializedShape, number: number): boolean =>
        !owned.has(number) &&
        !passed.has(`${kindOf(shape)} ${number}`) &&
        (shape.frame === next || near.has(number) || !owners.has(number));
    for (const frame of order) {
        const there = shapes.on(frame).filter((shape) => kinds.has(kindOf(shape)));
        const candidates = there.filter((shape) => {
            const number = markedNumber(shape);
            return number === null ? shape.source === 'auto' : mayClaim(shape, number);
        });
        for (const shape of there) passed.add(`${kindOf(shape)} ${markedNumber(shape)}`);
        if (!candidates.length) continue;
        await pause();
        for (const [chain, shape] of linked(chains, candidates)) {
            const number = markedNumber(shape);
            chain.box = boxAround(shape);
            if (number === null) {
                chain.claimed.push(shape);
            } else if (!owned.has(number)) {
                claim(chain, number);
            }
        }
    }
    for (const chain of chains) {
        const { seed, claimed, decided } = chain;
        if (decided || claimed.length || !hasOthersNumber(seed, shapes, numbers)) continue;
        claim(chain, numbers.of(seed));
    }
    const lone = undecided.filter(({ claimed, decided }) => !claimed.length && !decided);
    const mayBe = holesFor(
        lone.map(({ seed }) => seed),
        shapes.on(before ?? NaN),
        shapes.on(order[0]).filter(({ source }) => source === 'auto'),
        owned,
        numbers,
    );
    const inHoles = onlyOnes(mayBe);
    for (const chain of lone) {
        const number = inHoles.get(chain.seed);
        if (number !== undefined) claim(chain, number);
    }
    return {
        shapes: new Map(chains.map(({ seed, claimed }) => [seed, claimed])),
        inHoles: new Set(inHoles.keys()),
        unclear: seeds.some((seed) => mayBe.has(seed) && !inHoles.has(seed)),
    };
}

/** Take over what a person drew or corrected of an object: it stays, and the run goes on from it. A
 * shape with another label is only left as it is. */
export function takeOwn(source: Source, own: SerializedShape[]): void {
    const byHand = new Map(source.byHand);
    const drawn = new Map(source.drawn);
    const relabelled = new Set(source.relabelled);
    for (const shape of own) {
        byHand.set(shape.frame, byHandOf(shape));
        if (shape.label_id === source.labelID) drawn.set(shape.frame, uprightOf(shape));
        else relabelled.add(shape.frame);
    }
    Object.assign(source, { byHand, drawn, relabelled });
}

/** The shapes that a person drew or corrected, by the number of their object, and the numbers that have
 * a shape on the start frame: what belongs to these needs no other owner. */
function drawingsOf(all: SerializedShape[], start: number, numbers: Numbers) {
    const drawings = new Map<number, SerializedShape[]>();
    const owned = new Set<number>();
    for (const shape of all) {
        if (shape.source === 'auto' && shape.frame !== start) continue;
        const number = numbers.of(shape);
        if (shape.frame === start) owned.add(number);
        else addTo(drawings, number, shape);
    }
    return { drawings, owned };
}

/** What a person drew or corrected of an object. A drawing with its number is its own only where a result
 * has the label of the drawing, or a run of this page knows it; and where the number is that of the seed's
 * drawing, too, the two are equal only by chance. `drawings`: with this number, of any frame but that of the seed. */
function ownOf(
    seed: SerializedShape,
    drawings: SerializedShape[],
    labels: ReadonlySet<number>,
    numbers: Numbers,
): SerializedShape[] {
    return drawings.filter((drawing) => {
        if (drawing.type !== seed.type) return false;
        if (!numbers.isOfDrawing(drawing)) return true;
        const isKnown = labels.has(drawing.label_id) || numbers.certain(drawing) !== null;
        return isKnown && !numbers.isOfDrawing(seed);
    });
}

/** Those of these shapes that are locked. The page is asked for the locks of one frame at a time. */
export async function lockedOf(
    shapes: SerializedShape[],
    { pause, isLocked }: Look,
): Promise<ReadonlySet<SerializedShape>> {
    const locked = new Set<SerializedShape>();
    for (const shape of [...shapes].sort((a, b) => a.frame - b.frame)) {
        await pause();
        if (await isLocked(shape)) locked.add(shape);
    }
    return locked;
}

/** The automatic shapes of an object on the frames of the run. */
function resultsOf({ mark, type }: Source, shapes: Shapes, order: number[]): SerializedShape[] {
    return order
        .flatMap((frame) => shapes.of(mark!.number, frame))
        .filter((shape) => shape.source === 'auto' && shape.type === type);
}

/** Keep what is locked of an object's results, where no person drew it. */
export function keepLocked(
    source: Source,
    results: SerializedShape[],
    locked: ReadonlySet<SerializedShape>,
): void {
    const byHand = new Map(source.byHand);
    for (const shape of results) {
        if (locked.has(shape) && !byHand.has(shape.frame)) byHand.set(shape.frame, byHandOf(shape));
    }
    source.byHand = byHand;
}

/** The frames of the run with shapes of a track's object that a person drew, corrected or locked.
 * `drawn`: what a person drew or corrected of the object; with another label it is in no track's way. */
function framesInTheWay(
    { labelID }: Source,
    drawn: SerializedShape[],
    locked: SerializedShape[],
    order: number[],
): number[] {
    const own = drawn.filter((shape) => shape.label_id === labelID);
    const frames = new Set([...own, ...locked].map(({ frame }) => frame));
    return order.filter((frame) => frames.has(frame));
}

/**
 * Find out whose the shapes of the job are, and write it into the sources: the mark that their
 * results will carry, what a person drew of them on the frames of the run, and which shapes seem to
 * be their earlier results although nothing proves it. A track has a number where a run of this page
 * has made it of a shape.
 *
 * Answers whether a source may stand for an object without a shape on the start frame, and it cannot be
 * told for which.
 */
export async function recognise(
    sources: Source[],
    { shapes: all, tracks: allTracks }: Pick<Collection, 'shapes' | 'tracks'>,
    look: Look,
): Promise<boolean> {
    const { start, known } = look;
    const ofShapes = sources.filter(({ shape }) => shape !== null);
    const ofTracks = sources.filter((source) => source.track && known.ofTrack(source.track));
    // the drawings of a large job are looked at only where something may depend on them
    if (!ofShapes.length && !ofTracks.length) return false;
    const shapes = new Shapes(all);
    const numbers = new Numbers(all, known, start);
    const run = freeRun(shapes.runs, look.random);
    const byID = new Map(shapes.on(start).map((shape) => [shape.clientID, shape]));
    const seedOf = (source: Source): SerializedShape => byID.get(source.clientID) ?? source.shape!;
    const { drawings, owned } = drawingsOf(all, start, numbers);
    // also of a track that is not part of the run
    for (const track of allTracks) {
        const number = known.ofTrack(track);
        if (number !== null && isVisibleOn(track, start)) owned.add(number);
    }
    const owners = new Owners(all, numbers);
    const claims = await claimsOf(ofShapes.map(seedOf), look, shapes, numbers, owned, owners);
    const taken = new Set<number>();
    for (const source of ofShapes) {
        const seed = seedOf(source);
        const isOthers = hasOthersNumber(seed, shapes, numbers);
        const passed = isOthers ? new Set([...taken, ...shapes.byNumber.keys()]) : taken;
        const number = freeNumber(numbers.of(seed), passed);
        taken.add(number);
        // with the number of others the user is asked first
        if (!isOthers) known.keepShape(seed, number);
        source.mark = { number, run };
        source.claimed = claims.shapes.get(seed) ?? [];
        source.inHole = claims.inHoles.has(seed);
        const labels = shapes.labelsOf(number);
        takeOwn(source, ownOf(seed, drawings.get(number) ?? [], labels, numbers));
    }
    const tracks = ofTracks.filter((source) => {
        const number = known.ofTrack(source.track!)!;
        if (taken.has(number)) return false;
        taken.add(number);
        source.mark = { number, run };
        return true;
    });
    const results = new Map(
        [...ofShapes, ...tracks].map((source) => [source, resultsOf(source, shapes, look.order)]),
    );
    const locked = await lockedOf([...results.values()].flat(), look);
    for (const source of ofShapes) keepLocked(source, results.get(source)!, locked);
    for (const source of tracks) {
        const drawn = drawings.get(source.mark!.number) ?? [];
        const own = results.get(source)!.filter((shape) => locked.has(shape));
        source.inTheWay = framesInTheWay(source, drawn, own, look.order);
    }
    return claims.unclear;
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
        const isAnswered = ({ byHand, inPlace }: FrameResult): boolean =>
            // a track is hidden where a shape of its object changed meanwhile
            !byHand && !(inPlace && source.track);
        const answered = new Set(results.filter(isAnswered).map(({ frame }) => frame));
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

/** Results by the number of their mark. */
type Results = ReadonlyMap<number, SerializedShape[]>;

export function resultsByNumber(shapes: SerializedShape[]): Results {
    const byNumber = new Map<number, SerializedShape[]>();
    for (const shape of shapes) {
        const number = markedNumber(shape);
        if (number !== null && shape.source === 'auto') addTo(byNumber, number, shape);
    }
    return byNumber;
}

/** By frame, the replaced result from which the new one of the object takes over label, group and
 * attributes. */
export type Templates = ReadonlyMap<number, SerializedShape>;

/** The templates of an object: its `replaced` results, where those in the job (`all`) differ among each
 * other. */
export function templatesFor(
    { mark, claimed, clientID }: Source,
    replaced: Results,
    all: Results,
): Templates {
    const number = mark?.number ?? 0;
    const others = claimed.filter((shape) => markedNumber(shape) !== number);
    const results = [...(all.get(number) ?? []), ...others];
    const sets = results.filter((shape) => shape.clientID !== clientID).map(setOf);
    const own = [...(replaced.get(number) ?? []), ...others];
    return new Map(new Set(sets).size > 1 ? own.map((shape) => [shape.frame, shape]) : []);
}

/** The shapes of an object that stay on other frames than `frames`, where it is converted to a track on
 * these. `shapes`: all shapes of the job, by their numbers. */
export function leftAsShapes(
    { mark, clientID, labelID }: Source,
    frames: ReadonlySet<number>,
    shapes: ReadonlyMap<number, SerializedShape[]>,
): SerializedShape[] {
    return (shapes.get(mark?.number ?? 0) ?? []).filter(
        (shape) =>
            shape.label_id === labelID && shape.clientID !== clientID && !frames.has(shape.frame),
    );
}
