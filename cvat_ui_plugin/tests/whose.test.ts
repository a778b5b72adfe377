// SPDX-License-Identifier: MIT
// Which object a shape is of: the table that the command line is tested with too (docs/identity.md).

import { expect, test } from 'vitest';
import { passDrawn } from '../src/ts/beside';
import { SerializedShape, SerializedTrack } from '../src/ts/cvat';
import { Look, recognise, replacedShapes } from '../src/ts/earlier';
import { markedScore, numberOfDrawing } from '../src/ts/identity';
import { KnownNumbers } from '../src/ts/known';
import { Numbers } from '../src/ts/numbers';
import { Source } from '../src/ts/objects';
import { takeClaimed } from '../src/ts/takeover';
import { shape } from '../standin/core';
import { drawing, track } from './bench';
import { casesOf } from './cases';

type Numbered = string | number | null;

interface Row extends Pick<SerializedShape, 'source' | 'group' | 'rotation' | 'type' | 'points'> {
    id: number;
    frame: number;
    /** First to last, in place of `frame`. */
    frames: [number, number];
    right: number;
    label: number;
    number: Numbered;
}

interface Seed {
    number: Numbered;
    replaces: number[];
    corrections: number[];
    other_label: number[];
    in_place: number[];
    refused: boolean;
}

interface Case {
    why: string;
    run: [start: number, target: number];
    shapes: Partial<Row>[];
    tracks?: { id: number; frame: number; number?: Numbered }[];
    receipts?: Record<string, Numbered>;
    asks?: number[];
    unclear?: boolean;
    seeds: Record<string, Partial<Seed>>;
    plugin?: Record<string, Partial<Seed>>;
    kept?: Record<string, Partial<Seed>>;
}

const { numbers: words, cases } = casesOf<{ numbers: Record<string, number>; cases: Case[] }>(
    'whose.json',
);
const RECTANGLE = [4, 30, 12, 38];
const at = drawing('rectangle', RECTANGLE);

/** The shapes of a row, with what is said of their number. */
function shapesOf(row: Partial<Row>): [SerializedShape, Numbered][] {
    const { id = 0, frame = 0, right = 0, label: label_id = 1, type, points, number = null } = row;
    const { source = number === null ? 'manual' : 'auto', group = 0, rotation = 0 } = row;
    const more = { label_id, source, group, rotation };
    const [first, last] = row.frames ?? [frame, frame];
    return Array.from({ length: last - first + 1 }, (_, n) => {
        const ids = row.frames ? id + first + n : id;
        const own = { ...more, id: ids, clientID: ids };
        const drawn = points
            ? shape(type ?? 'rectangle', first + n, points, own)
            : at(first + n, right, own);
        return [drawn, number];
    });
}

function sourceOf(one: Pick<Source, 'clientID' | 'type' | 'points' | 'shape' | 'track'>): Source {
    const labelID = (one.shape ?? one.track)!.label_id;
    return {
        ...{ ...one, labelID, name: `${one.clientID}`, occluded: false, zOrder: 0, mark: null },
        ...{ byHand: new Map(), drawn: new Map(), relabelled: new Set(), removed: new Set() },
        ...{ inTheWay: [], claimed: [], inHole: false },
    };
}

const ids = (found: Iterable<SerializedShape>): number[] =>
    [...found].map(({ id }) => id!).sort((a, b) => a - b);

/** What becomes of each seed, where the user lets it replace what is asked about, and where not. */
async function outcomeOf(one: Case, replaces = true) {
    const rows = one.shapes.flatMap(shapesOf);
    const byID = new Map(rows.map(([own]) => [own.id!, own]));
    const numberOf = (said: Numbered): number | null => {
        if (typeof said === 'string') return words[said];
        const own = said === null ? undefined : byID.get(said);
        return own ? numberOfDrawing(own.type, own.frame, own.points) : null;
    };
    for (const [own, said] of rows) {
        const number = numberOf(said);
        if (number) own.score = markedScore(0.9, { number, run: 5 }, own.frame);
    }
    const all = rows.map(([own]) => own);
    const known = new KnownNumbers();
    for (const [id, number] of Object.entries(one.receipts ?? {})) {
        known.keepShape(byID.get(+id)!, numberOf(number)!);
    }
    const sources = new Map<string, Source>();
    const tracks: SerializedTrack[] = [];
    for (const { id, frame, number } of one.tracks ?? []) {
        if (number) known.keepTrack(id, 'rectangle', numberOf(number)!);
        const own = track({ [frame]: RECTANGLE }, { clientID: id });
        tracks.push(own);
        sources.set(
            `track:${id}`,
            sourceOf({
                clientID: id,
                type: 'rectangle',
                points: RECTANGLE,
                shape: null,
                track: own,
            }),
        );
    }
    for (const own of all) {
        const { id, type, points } = own;
        sources.set(`${id}`, sourceOf({ clientID: id!, type, points, shape: own, track: null }));
    }
    const seeds = Object.keys(one.seeds).map((name) => sources.get(name)!);
    const [start, target] = one.run;
    const step = Math.sign(target - start);
    const order = Array.from(
        { length: Math.abs(target - start) },
        (_, n) => start + step * (n + 1),
    );
    const look: Look = {
        ...{ start, order, before: start - step, known },
        isLocked: async () => false,
        pause: async () => {},
        random: () => 0.5,
    };
    const unclear = await recognise(seeds, { shapes: all, tracks }, look);
    const going = seeds.filter(({ inTheWay }) => !inTheWay.length);
    const asks = going.filter(({ claimed }) => claimed.length).map(({ clientID }) => clientID);
    if (replaces) await takeClaimed(going, all, look);
    else for (const source of going) source.claimed = [];
    const objects = going.map((source) => {
        const results = order.map((frame) => {
            const byHand = source.byHand.has(frame);
            return { frame, points: source.points, score: 0.9, byHand };
        });
        return { source, results, failure: null, changed: false, notJoined: null };
    });
    const ofShapes = objects.filter(({ source }) => source.shape);
    passDrawn(ofShapes, all, start, new Numbers(all, known));
    const found = seeds.map((source): [string, Seed] => {
        const object = objects.find((other) => other.source === source);
        const corrections = order.flatMap((frame) => source.byHand.get(frame)?.shape ?? []);
        const relabelled = corrections.filter(({ frame }) => source.relabelled.has(frame));
        const results: { frame: number; inPlace?: boolean }[] = object?.results ?? [];
        const name = source.track ? `track:${source.clientID}` : source.name;
        return [
            name,
            {
                number: source.mark?.number ?? null,
                replaces: object ? ids(replacedShapes([object], all)) : [],
                corrections: ids(corrections),
                other_label: ids(relabelled),
                in_place: results.filter(({ inPlace }) => inPlace).map(({ frame }) => frame),
                refused: !object,
            },
        ];
    });
    return { seeds: Object.fromEntries(found), asks, unclear, numberOf };
}

/** With the words for numbers replaced by these. */
function expectedOf(seeds: Case['seeds'], numberOf: (said: Numbered) => number | null) {
    const nothing = {
        replaces: [],
        corrections: [],
        other_label: [],
        in_place: [],
        refused: false,
    };
    const full = Object.entries(seeds).map(([name, seed]) => [
        name,
        { ...nothing, ...seed, number: numberOf(seed.number!) },
    ]);
    return Object.fromEntries(full);
}

test.each(cases)('whose a shape is: $why', async (one) => {
    const { seeds, asks, unclear, numberOf } = await outcomeOf(one);
    expect(seeds).toEqual(expectedOf({ ...one.seeds, ...one.plugin }, numberOf));
    expect(asks).toEqual(one.asks ?? []);
    expect(unclear).toBe(one.unclear ?? false);
});

test.each(cases.filter(({ kept }) => kept))('where it is kept: $why', async (one) => {
    const { seeds, numberOf } = await outcomeOf(one, false);
    expect(seeds).toEqual(expectedOf(one.kept!, numberOf));
});
