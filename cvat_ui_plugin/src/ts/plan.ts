// SPDX-License-Identifier: MIT
// What is decided before the first call of a run: which objects are tracked, over which frames, and what of
// the job is theirs.

import { RunContext } from './context';
import { Collection, Model } from './cvat';
import { recognise } from './earlier';
import { Route, routeBetween, undeleted } from './frames';
import { ALL_BY_HAND, LeftOut, SHAPE_TYPES, shapesInTheWay, Source, sourcesOf } from './objects';
import { askAboutClaimed, askAboutDrawings, findRemoved, onFrom } from './questions';
import { listed } from './report';
import { findTracker } from './server';
import { drawnKeyframes, keyframesByHand } from './signature';
import { takeClaimed } from './takeover';

/** What is tracked, over which frames, by whom. */
export interface Plan {
    tracker: Model;
    sources: Source[];
    leftOut: LeftOut[];
    route: Route;
    /** All objects of the job, when the run began. */
    before: Collection;
}

export async function planRun(context: RunContext, target: number): Promise<Plan> {
    const { job, input } = context;
    const { number } = context.start;
    if ((await context.soon(job.frames.get(number), 'open the frame')).deleted) {
        throw new Error(`Frame ${number} is deleted: start from another one.`);
    }
    input.onProgress('Looking for the function', 0);
    const tracker = await context.soon(findTracker(context.core), 'list its functions');
    const shown = 'give the annotations of the job';
    const states = await context.soon(job.annotations.get(number, false, []), shown);
    const before = await context.soon(job.annotations.export(), shown);
    const { sources: found, leftOut } = sourcesOf(
        context.known.successors.replace(input.collection, before),
        states,
        tracker.supportedShapeTypes ?? SHAPE_TYPES,
    );
    checkAny(found, leftOut, number);
    const keyframes = found.flatMap(
        ({ track: own }) => own?.shapes.map(({ frame }) => frame) ?? [],
    );
    const route = await context.soon(
        routeBetween(job, number, target, keyframes),
        'list the frames of the job',
    );
    if (!route.frames.length) {
        throw new Error(`All frames from ${number} to ${target} are deleted.`);
    }
    input.onProgress('Looking at the results of earlier runs', 0);
    await recogniseIn(context, found, before, route);
    const reasonAgainst = ({ track: own, byHand, inTheWay }: Source): string | null => {
        if (inTheWay.length) return shapesInTheWay(inTheWay);
        const isDrawn = own && route.frames.every((frame) => byHand.has(frame.number));
        return isDrawn ? ALL_BY_HAND : null;
    };
    const sources = found.filter((source) => reasonAgainst(source) === null);
    for (const source of found) {
        const reason = reasonAgainst(source);
        if (reason !== null) leftOut.push({ name: source.name, reason });
    }
    checkAny(sources, leftOut, number);
    await settleClaims(context, sources, before, route);
    await askAboutDrawings(context, sources, before.shapes, route);
    for (const source of sources) passRelabelled(context, source);
    context.mayGoOn();
    await findRemoved(context, sources, route);
    context.mayGoOn();
    return { tracker, sources, leftOut, route, before };
}

function undeletedIn(context: RunContext, drawn: Source['drawn']): Promise<Source['drawn']> {
    return context.soon(undeleted(context.job, drawn), 'list the drawn frames');
}

/** Find out what earlier runs and persons made of the sources, and write it into them. */
async function recogniseIn(
    context: RunContext,
    sources: Source[],
    before: Collection,
    route: Route,
): Promise<void> {
    const { start, hints } = context;
    const look = context.look(route);
    if (await recognise(sources, before, look)) {
        hints.push(
            `An object that has results on frame ${look.order[0]} has no shape on frame ` +
                `${start.number}. If you drew it anew, delete its results from frame ` +
                `${onFrom(look)}; if it is only hidden there, leave them.`,
        );
    }
    for (const source of sources) {
        if (source.track) {
            source.byHand = keyframesByHand(source.track, look.order, route.deleted);
            source.drawn = drawnKeyframes(source.track, start.number);
        }
        source.drawn = await undeletedIn(context, source.drawn);
    }
}

/** Ask whether what only seems to be of the sources is theirs, and let the answer hold. */
async function settleClaims(
    context: RunContext,
    sources: Source[],
    before: Collection,
    route: Route,
): Promise<void> {
    const claiming = sources.filter(({ claimed }) => claimed.length);
    if (claiming.length && (await askAboutClaimed(context, claiming, route))) {
        await takeClaimed(sources, before.shapes, context.look(route));
        for (const source of claiming) source.drawn = await undeletedIn(context, source.drawn);
    } else {
        for (const source of claiming) source.claimed = [];
    }
}

/** A track has one label: shapes to which a person gave another one are no part of it, and do not
 * stop it. A locked result counts as drawn, with any label. */
function passRelabelled(context: RunContext, source: Source): void {
    if (!context.becomesTrack(source)) return;
    const own = [...source.byHand].filter(
        ([, { shape }]) =>
            shape === null || shape.source === 'auto' || shape.label_id === source.labelID,
    );
    source.byHand = new Map(own);
}

/** Say why there is nothing to track, where that is so. */
function checkAny(sources: Source[], leftOut: LeftOut[], frame: number): void {
    if (sources.length) return;
    const why = listed(leftOut.map(({ name, reason }) => `${name}: ${reason}`));
    throw new Error(
        `There is no mask, polygon or rectangle to track on frame ${frame}${why ? ` (${why})` : ''}.`,
    );
}
