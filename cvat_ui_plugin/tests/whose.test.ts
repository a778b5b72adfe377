// SPDX-License-Identifier: MIT
// Which object a shape is of: the table that the command line is tested with too (docs/identity.md).

import { expect, test } from 'vitest';
import { passDrawn } from '../src/ts/beside';
import { SerializedShape } from '../src/ts/cvat';
import { Look, recognise, replacedShapes } from '../src/ts/earlier';
import { markedScore, numberOfDrawing } from '../src/ts/identity';
import { KnownNumbers } from '../src/ts/known';
import { Numbers } from '../src/ts/numbers';
import { Source } from '../src/ts/objects';
import { takeClaimed } from '../src/ts/takeover';
import { Tracked } from '../src/ts/tracked';
import { shape } from '../standin/core';
import { shifted, track } from './bench';
import { casesOf, sourceOf } from './cases';

/** A number of an object: a word for it, or the id of the drawing that gives it. */
type Said = string | number | null;

interface Row extends Partial<SerializedShape> {
    frames?: [first: number, last: number];
    right?: number;
    label?: number;
    number?: Said;
    locked?: boolean;
}

interface Seed {
    number: Said;
    replaces: number[];
    corrections: number[];
    other_label: number[];
    in_place: number[];
    refused: boolean;
}

type Seeds = Record<string, Partial<Seed>>;

interface Case {
    why: string;
    run: [start: number, target: number];
    shapes: Row[];
    tracks?: { id: number; frame: number; number?: Said }[];
    receipts?: Record<string, Said>;
    asks?: number[];
    unclear?: boolean;
    seeds: Seeds;
    plugin?: Seeds;
    kept?: Seeds;
}

const table = casesOf<{ numbers: Record<string, number>; cases: Case[] }>('whose.json');
const RECTANGLE = [4, 30, 12, 38];

function shapesOf(row: Row): SerializedShape[] {
    const { id = 0, frame = 0, frames = [frame, frame], right = 0, number, type } = row;
    const { source = number === undefined ? 'manual' : 'auto', group = 0, rotation = 0 } = row;
    const points = row.points ?? shifted('rectangle', RECTANGLE, right);
    return Array.from({ length: frames[1] - frames[0] + 1 }, (_, n) => {
        const own = row.frames ? id + frames[0] + n : id;
        const more = { label_id: row.label ?? 1, source, group, rotation, id: own, clientID: own };
        return shape(type ?? 'rectangle', frames[0] + n, points, more);
    });
}

/** What a case says of the job, and of the seeds by their names. */
function jobOf(one: Case) {
    const rows = one.shapes.flatMap((row) => shapesOf(row).map((own) => ({ own, row })));
    const shapes = rows.map(({ own }) => own);
    const byID = new Map(shapes.map((own) => [`${own.id}`, own]));
    const numberOf = (said: Said = null): number | null => {
        if (typeof said === 'string') return table.numbers[said];
        const own = byID.get(`${said}`);
        return own ? numberOfDrawing(own.type, own.frame, own.points) : null;
    };
    for (const { own, row } of rows) {
        const number = numberOf(row.number);
        if (number) own.score = markedScore(0.9, { number, run: 5 }, own.frame);
    }
    const known = new KnownNumbers();
    for (const [id, said] of Object.entries(one.receipts ?? {})) {
        known.keepShape(byID.get(id)!, numberOf(said)!);
    }
    const tracks = (one.tracks ?? []).map(({ id, frame, number }) => {
        if (number) known.keepTrack(id, 'rectangle', numberOf(number)!);
        return track({ [frame]: RECTANGLE }, { clientID: id });
    });
    const objects = new Map(tracks.map((own) => [`track:${own.clientID}`, sourceOf(own)]));
    for (const own of shapes) objects.set(`${own.id}`, sourceOf(own));
    const seeds = new Map(Object.keys(one.seeds).map((name) => [name, objects.get(name)!]));
    const locked = new Set(rows.filter(({ row }) => row.locked).map(({ own }) => own));
    return { shapes, tracks, known, seeds, locked, numberOf };
}

const sorted = (found: SerializedShape[]): number[] =>
    found.map(({ id }) => id!).sort((a, b) => a - b);

/** A seed that the tracker finds on every frame where it is. */
function found(source: Source, order: number[]): Tracked {
    const results = order.map((frame) => {
        return { frame, points: source.points, score: 0.9, byHand: source.byHand.has(frame) };
    });
    return { source, results, failure: null, changed: false, notJoined: null, oneEnd: null };
}

function becomes(object: Tracked, shapes: SerializedShape[]): Seed {
    const { byHand, relabelled, mark, inTheWay } = object.source;
    const refused = inTheWay.length > 0;
    const corrections = object.results.flatMap(({ frame }) => byHand.get(frame)?.shape ?? []);
    return {
        number: mark?.number ?? null,
        replaces: refused ? [] : sorted(replacedShapes([object], shapes)),
        corrections: sorted(corrections),
        other_label: sorted(corrections.filter(({ frame }) => relabelled.has(frame))),
        in_place: object.results.filter(({ inPlace }) => inPlace).map(({ frame }) => frame),
        refused,
    };
}

/** What becomes of the seeds. `replaces`: the user's answer to what is asked about. */
async function outcomeOf(one: Case, expected: Seeds, replaces: boolean) {
    const { shapes, tracks, known, seeds, locked, numberOf } = jobOf(one);
    const [start, target] = one.run;
    const step = Math.sign(target - start);
    const order = Array.from({ length: step * (target - start) }, (_, n) => start + step * (n + 1));
    const look: Look = {
        ...{ start, order, before: start - step, known },
        isLocked: async (own) => locked.has(own),
        pause: async () => {},
        random: () => 0.5,
    };
    const unclear = await recognise([...seeds.values()], { shapes, tracks }, look);
    const going = [...seeds.values()].filter(({ inTheWay }) => !inTheWay.length);
    const asks = going.filter(({ claimed }) => claimed.length).map(({ clientID }) => clientID);
    if (replaces) await takeClaimed(going, shapes, look);
    else for (const source of going) source.claimed = [];
    const objects = new Map([...seeds].map(([name, source]) => [name, found(source, order)]));
    const ofShapes = [...objects.values()].filter(({ source }) => source.shape);
    passDrawn(ofShapes, shapes, look, new Numbers(shapes, known, start));
    for (const [name, object] of objects) {
        const nothing = { replaces: [], corrections: [], other_label: [], in_place: [] };
        const { number, ...rest } = expected[name];
        const full = { ...nothing, refused: false, ...rest, number: numberOf(number) };
        expect(becomes(object, shapes), name).toEqual(full);
    }
    return { asks, unclear };
}

test.each(table.cases)('whose a shape is: $why', async (one) => {
    const { asks, unclear } = await outcomeOf(one, { ...one.seeds, ...one.plugin }, true);
    expect(asks).toEqual(one.asks ?? []);
    expect(unclear).toBe(one.unclear ?? false);
});

test.each(table.cases.filter(({ kept }) => kept))('where it is kept: $why', async (one) => {
    await outcomeOf(one, one.kept!, false);
});
