// SPDX-License-Identifier: MIT
// What lies in the place of the results of a run: drawings, in whose place nothing is written, and what
// may be of the same objects and is told. The rules are those of docs/identity.md.

import { Box, boxAround, boxOf, iouOf } from './boxes';
import { Collection, SerializedShape, SerializedTrack } from './cvat';
import { LEAST_OVERLAP, Look, numbersOn } from './earlier';
import { addTo } from './groups';
import { MayBe } from './holes';
import { isSameKind, Kind } from './kinds';
import { markedNumber, Numbers } from './numbers';
import { isVisibleOn } from './objects';
import { Owners } from './owners';
import { endsOf } from './removed';
import { Tracked } from './tracked';

/** From this overlap of their boxes on, what a person drew and what was tracked are one object. */
const SAME_PLACE = 0.5;

function kindOfResults({ source: { type, labelID, shape, track } }: Tracked): Kind {
    const { group, source } = shape ?? track!;
    return { type, label_id: labelID, group, source };
}

/** A shape that a person drew, and that no mark ties to an object. */
function isDrawn(shape: SerializedShape): boolean {
    return shape.source !== 'auto' && markedNumber(shape) === null;
}

/** A shape that a person drew or corrected, with the box around it. */
interface ByHand {
    shape: SerializedShape;
    box: Box;
}

/** What a person drew or corrected of the types of these objects, by frame. */
function byHandByFrame(objects: Tracked[], shapes: SerializedShape[]): Map<number, ByHand[]> {
    const types = new Set(objects.map(({ source }) => source.type));
    const byFrame = new Map<number, ByHand[]>();
    for (const shape of shapes) {
        if (!types.has(shape.type) || shape.source === 'auto') continue;
        addTo(byFrame, shape.frame, { shape, box: boxAround(shape) });
    }
    return byFrame;
}

/** The numbers of the objects that have a shape on the start frame, and of those of the run. */
function numbersThere(
    objects: Tracked[],
    shapes: SerializedShape[],
    start: number,
    numbers: Numbers,
): Set<number> {
    return new Set([
        ...shapes.filter(({ frame }) => frame === start).map((shape) => numbers.of(shape)),
        ...objects.flatMap(({ source }) => source.mark?.number ?? []),
    ]);
}

/** Mark the results of these objects in whose place a person drew a shape of the same kind, or corrected
 * one of which nobody can tell whose it is. `shapes`: all shapes of the job; `start`: the frame; `before`:
 * the one beside it where the run does not go; `numbers`: of the shapes. Answers the objects of which that
 * is not what it was. */
export function passDrawn(
    objects: Tracked[],
    shapes: SerializedShape[],
    { start, before }: Pick<Look, 'start' | 'before'>,
    numbers: Numbers,
): Tracked[] {
    const byHandOn = byHandByFrame(objects, shapes);
    const others = numbersThere(objects, shapes, start, numbers);
    const owners = new Owners(shapes, numbers);
    const near = numbersOn(before, shapes, numbers);
    const isOfAnother = (shape: SerializedShape): boolean => {
        const number = markedNumber(shape);
        if (number === null) return false;
        return others.has(number) || (owners.has(number) && !near.has(number));
    };
    return objects.filter((object) => {
        const kind = kindOfResults(object);
        let differs = false;
        for (const result of object.results) {
            const { frame, points, byHand, inPlace = false } = result;
            const there = byHand ? [] : (byHandOn.get(frame) ?? []);
            const own = points && there.length ? boxOf(object.source.type, points) : null;
            // what changed on the way of a track while it was tracked stays marked
            result.inPlace =
                (inPlace && object.source.track !== null) ||
                (own !== null &&
                    there.some(
                        ({ shape, box }) =>
                            isSameKind(shape, kind) &&
                            iouOf(own, box) >= SAME_PLACE &&
                            !isOfAnother(shape),
                    ));
            differs ||= result.inPlace !== inPlace;
        }
        return differs;
    });
}

/** What lies where this run has written a result of the same kind. */
export interface Beside {
    kind: 'automatic shape' | 'drawn shape' | 'track';
    /** The first one. */
    frame: number;
}

/** Where a run has a result of an object. */
interface Place {
    kind: Kind;
    box: Box;
    byHand: boolean;
}

function placesOf(objects: Tracked[]): Map<number, Place[]> {
    const places = new Map<number, Place[]>();
    for (const object of objects) {
        const kind = kindOfResults(object);
        for (const { frame, points, byHand, inPlace } of object.results) {
            if (!points || inPlace) continue;
            const place = { kind, box: boxOf(object.source.type, points), byHand };
            addTo(places, frame, place);
        }
    }
    return places;
}

/** The numbers of objects that a person drew where this run has results of their kind, but none in their
 * place: they are others. */
function drawnElsewhere(
    places: ReadonlyMap<number, Place[]>,
    shapes: SerializedShape[],
    numbers: Numbers,
): number[] {
    const elsewhere = new Set<number>();
    const here = new Set<number>();
    for (const shape of shapes) {
        if (shape.source === 'auto') continue;
        const there = (places.get(shape.frame) ?? []).filter(({ kind }) => isSameKind(shape, kind));
        if (!there.length) continue;
        const box = boxAround(shape);
        const isHere = there.some((place) => iouOf(place.box, box) >= SAME_PLACE);
        (isHere ? here : elsewhere).add(numbers.of(shape));
    }
    return [...elsewhere].filter((number) => !here.has(number));
}

/** Those of these drawings beside which the run has a result of an object that they may show. */
function drawnBeside(objects: Tracked[], mayBe: MayBe): ReadonlySet<SerializedShape> {
    const written = new Map<number, Set<number>>();
    for (const { source, results } of objects) {
        const shown = results.filter(
            ({ points, byHand, inPlace }) => points && !byHand && !inPlace,
        );
        written.set(source.mark?.number ?? 0, new Set(shown.map(({ frame }) => frame)));
    }
    const isWritten = ([shape, numbers]: [SerializedShape, readonly number[]]): boolean =>
        numbers.some((number) => written.get(number)?.has(shape.frame));
    return new Set([...mayBe].filter(isWritten).map(([shape]) => shape));
}

/** What lies where this run has written results of the same kind, and is not known to be of another
 * object: nobody can tell whether it is of the same one, so it stays. `start`: the frame; `numbers`: of
 * the shapes; `mayBe`: the objects that drawings may stand for, wherever they lie. */
export function besideResults(
    objects: Tracked[],
    { shapes, tracks }: Pick<Collection, 'shapes' | 'tracks'>,
    start: number,
    numbers: Numbers,
    mayBe: MayBe = new Map(),
): Beside[] {
    const places = placesOf(objects);
    const others = numbersThere(objects, shapes, start, numbers);
    for (const number of drawnElsewhere(places, shapes, numbers)) others.add(number);
    const again = drawnBeside(objects, mayBe);
    const found: Beside[] = [];
    for (const shape of shapes) {
        const there = (places.get(shape.frame) ?? []).filter(({ kind }) => isSameKind(shape, kind));
        const drawn = isDrawn(shape);
        if (!there.length || (!drawn && shape.source !== 'auto')) continue;
        if (others.has(markedNumber(shape) ?? 0)) continue;
        const box = boxAround(shape);
        const least = drawn ? SAME_PLACE : LEAST_OVERLAP;
        const isNear = there.some((one) => !(drawn && one.byHand) && iouOf(one.box, box) >= least);
        if (isNear || again.has(shape)) {
            found.push({ kind: drawn ? 'drawn shape' : 'automatic shape', frame: shape.frame });
        }
    }
    return [...found, ...tracksBeside(objects, places, tracks, start)];
}

/** Tracks that begin after the start frame in the place of results. */
function tracksBeside(
    objects: Tracked[],
    places: ReadonlyMap<number, Place[]>,
    tracks: SerializedTrack[],
    start: number,
): Beside[] {
    const own = new Set(objects.map(({ source }) => source.clientID));
    return tracks.flatMap((track) => {
        if (own.has(track.clientID!) || isVisibleOn(track, start)) return [];
        const { label_id, group, source } = track;
        const doubled = track.shapes.filter((keyframe) => {
            if (keyframe.outside) return false;
            const kind = { type: keyframe.type, label_id, group, source };
            const box = boxAround(keyframe);
            return (places.get(keyframe.frame) ?? []).some(
                (one) => isSameKind(one.kind, kind) && iouOf(one.box, box) >= SAME_PLACE,
            );
        });
        return doubled.length ? [{ kind: 'track', frame: endsOf(doubled)[0] }] : [];
    });
}
