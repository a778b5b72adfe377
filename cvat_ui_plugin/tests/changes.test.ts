// SPDX-License-Identifier: MIT
// A property of every run, on random jobs, while someone else changes the job and calls fail:
// nothing that is not ours changes, what a person made stays, also where it was made during the run,
// nothing is doubled, one undo step takes a run back, and running again changes nothing.

import { expect, test } from 'vitest';
import { SerializedShape, SerializedTrack } from '../src/ts/cvat';
import { markOf } from '../src/ts/identity';
import { isSigned } from '../src/ts/signature';
import { shape } from '../standin/core';
import { HttpAnswer } from '../standin/server';
import { Bench, Call, createBench, framesFrom, moving, shifted, track } from './bench';

const LAST = 11;
/** Random jobs; `make faults` tries more. */
const JOBS = Number(process.env.PLUGIN_JOBS ?? 200);
const FIRST_SEED = Number(process.env.PLUGIN_SEED ?? 1);
const TIMEOUT_MS = 1000 * JOBS;
const SIZE = { width: 400, height: 300 };

/** A number from 0 up to 1, from a fixed seed (mulberry32). */
function randomFrom(seed: number): () => number {
    let state = seed;
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let value = Math.imul(state ^ (state >>> 15), 1 | state);
        value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
        return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
    };
}

/** Lets vitest's worker report that it lives, which it must within a minute. */
function breathe(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve));
}

class Dice {
    public constructor(private readonly random: () => number) {}

    public upTo(most: number): number {
        return Math.floor(this.random() * (most + 1));
    }

    public oneOf<T>(items: readonly T[]): T {
        return items[this.upTo(items.length - 1)];
    }

    public chance(share: number): boolean {
        return this.random() < share;
    }
}

/** Objects lie in columns of their own, far from each other. */
function pointsFor(type: string, column: number): number[] {
    const left = 10 + 60 * column;
    if (type === 'rectangle') return [left, 20, left + 20, 40];
    if (type === 'polygon') return [left, 20, left + 20, 20, left + 20, 40, left, 40];
    return [0, 100, left, 20, left + 9, 29];
}

function columnOf({ type, points }: { type: string; points: number[] }): number {
    const left = type === 'mask' ? points[points.length - 4] : Math.min(points[0], points[2]);
    return Math.floor(left / 60);
}

interface Column {
    type: string;
    isTrack: boolean;
}

function columnsOf(dice: Dice): Column[] {
    return Array.from({ length: 1 + dice.upTo(3) }, () => {
        const type = dice.oneOf(['mask', 'polygon', 'rectangle']);
        return { type, isTrack: type !== 'mask' && dice.chance(0.5) };
    });
}

type Intercept = (call: Call, next: () => Promise<HttpAnswer>) => Promise<HttpAnswer>;

/** What happens on the way: failing calls, forgotten states, and what `meddle` does. */
function faults(dice: Dice, meddle: () => void): Intercept {
    return async (call, next) => {
        if (dice.chance(0.05)) meddle();
        if (call.type === 'track' && dice.chance(0.04)) {
            return dice.oneOf([
                { status: 503, body: '503 Server Error: for url: http://function/' },
                { status: 400, body: 'Invalid or expired tracker state' },
                { status: 504, body: '<html>504</html>' },
            ]);
        }
        return next();
    };
}

function build(dice: Dice, columns: Column[], meddle: () => void): Bench {
    const deleted = Array.from({ length: LAST + 1 }, (_, frame) => frame).filter(
        (frame) => frame > 0 && dice.chance(0.08),
    );
    const bench = createBench({
        frames: framesFrom(0, LAST, SIZE, deleted),
        invoke: moving(() =>
            dice.chance(0.05) ? { shape: null } : { score: dice.upTo(99) / 100 },
        ),
        intercept: faults(dice, meddle),
    });
    columns.forEach(({ type, isTrack }, column) => {
        const points = pointsFor(type, column);
        if (!isTrack) {
            bench.add(shape(type, 0, points));
            return;
        }
        const frames = [0, ...[5, LAST].filter(() => dice.chance(0.4))];
        const keyframes = frames.map((frame) => ({
            ...{ type, points: shifted(type, points, frame) },
            ...{ occluded: dice.chance(0.2), z_order: dice.upTo(2) },
            attributes: dice.chance(0.3) ? [{ spec_id: 32, value: `${frame}` }] : [],
        }));
        bench.addTracks(track(Object.fromEntries(frames.map((f, index) => [f, keyframes[index]]))));
    });
    // what another program and another person left: of another label
    for (let number = 0; number < 4; number += 1) {
        const frame = dice.upTo(LAST);
        const place = pointsFor('rectangle', dice.upTo(columns.length));
        const more = { label_id: 2, source: dice.oneOf(['auto', 'manual', 'semi-auto']) };
        bench.add(shape('rectangle', frame, place, more));
    }
    return bench;
}

/** A person corrects something: a result or a keyframe, on any frame. `mayLock`: only the page itself
 * knows of locks, and during a run its dialog is open. */
function correct(bench: Bench, dice: Dice, columns: Column[], mayLock = true): void {
    const { shapes, tracks } = bench.store.export();
    const own = shapes.filter(({ label_id, source }) => label_id === 1 && source === 'auto');
    for (const one of own) {
        if (dice.chance(0.1)) {
            bench.store.draw(one.clientID!, one.frame, shifted(one.type, one.points, 2));
        } else if (mayLock && dice.chance(0.03)) {
            bench.store.set(one.clientID!, { lock: true });
        } else if (dice.chance(0.03)) {
            bench.store.remove(one.clientID!);
        }
    }
    for (const track of tracks) {
        if (!dice.chance(0.6)) continue;
        const column = track.shapes.map(columnOf)[0];
        const frame = 1 + dice.upTo(LAST - 1);
        const visible = bench.store.get(frame).find(({ clientID }) => clientID === track.clientID);
        if (!visible || visible.outside) continue;
        const { type } = columns[column];
        if (dice.chance(0.2)) bench.store.hide(track.clientID!, frame);
        else bench.store.draw(track.clientID!, frame, shifted(type, visible.points!, 1));
    }
}

function bare(one: SerializedShape | SerializedTrack): string {
    const { clientID: _, id: __, ...rest } = one;
    return JSON.stringify(rest);
}

const randomSettings = (dice: Dice) => ({
    sparse: dice.chance(0.4) ? 0.97 : null,
    bothWays: dice.chance(0.5),
});

/** What no run may change: other labels, what a person drew, corrected or locked. */
function kept(bench: Bench): string[] {
    const locked = new Set<number | null>();
    for (let frame = 0; frame <= LAST; frame += 1) {
        for (const { lock, clientID } of bench.store.get(frame)) {
            if (lock) locked.add(clientID);
        }
    }
    const { shapes, tracks } = bench.store.export();
    const byHand = shapes.filter(
        (one) => one.label_id === 2 || one.source !== 'auto' || locked.has(one.clientID!),
    );
    const keyframes = tracks.flatMap((own) =>
        own.shapes
            .filter((keyframe) => !isSigned(keyframe))
            .map(({ frame, points, outside, occluded, z_order }) => {
                const column = columnOf(own.shapes[0]);
                return JSON.stringify([column, frame, points, outside, occluded, z_order]);
            }),
    );
    return [...byHand.map(bare), ...keyframes].sort();
}

/** Objects that the sidebar's filter leaves out of the runs. */
function foreign(bench: Bench): Set<number> {
    const { shapes } = bench.store.export();
    return new Set(shapes.filter((one) => one.label_id === 2).map(({ clientID }) => clientID!));
}

/** Everything, without the digits that differ from run to run. */
function contents(bench: Bench): string[] {
    const { shapes, tracks } = bench.store.export();
    const scored = shapes.map((one) => {
        const mark = markOf(one.score, one.frame);
        return { ...one, score: mark ? mark.number : one.score };
    });
    return [...scored, ...tracks].map(bare).sort();
}

function checkNothingDoubled(bench: Bench, what: string): void {
    for (let frame = 0; frame <= LAST; frame += 1) {
        const own = bench.store
            .get(frame)
            .filter(({ label, outside }) => label.id === 1 && !outside)
            .map(({ shapeType, points }) => columnOf({ type: shapeType!, points: points! }));
        expect(new Set(own).size, `${what}, frame ${frame}`).toBe(own.length);
    }
    for (const track of bench.store.export().tracks) {
        const frames = track.shapes.map(({ frame }) => frame);
        expect(new Set(frames).size, what).toBe(frames.length);
    }
}

test(
    `on ${JOBS} random jobs, nothing that is not ours changes and nothing is doubled`,
    async () => {
        for (let seed = FIRST_SEED; seed < FIRST_SEED + JOBS; seed += 1) {
            await breathe();
            const dice = new Dice(randomFrom(seed));
            const columns = columnsOf(dice);
            let before: string[] = [];
            let everything: string[] = [];
            let mayHaveGaps = false;
            const look = (): void => {
                before = kept(bench);
                everything = contents(bench);
            };
            const bench: Bench = build(dice, columns, () => {
                correct(bench, dice, columns, false);
                if (dice.chance(0.5)) bench.store.save();
                look();
            });
            for (let run = 0; run < 4; run += 1) {
                const what = `seed ${seed}, run ${run}`;
                const start = run === 0 ? 0 : dice.oneOf([0, 0, dice.upTo(LAST)]);
                const target = run === 0 ? LAST : dice.upTo(LAST);
                // of an object that is converted later, shapes on other frames stay shapes
                const convert = run === 0 && dice.chance(0.3);
                const settings = randomSettings(dice);
                bench.kept = JSON.stringify(settings);
                mayHaveGaps ||= settings.sparse !== null || start > 0;
                const last = dice.chance(0.15) ? bench.calls.length + dice.upTo(LAST) : Infinity;
                const steps = bench.store.undoSteps;
                look();
                try {
                    await bench.runAll(start, target, {
                        convert,
                        filter: (id) => !foreign(bench).has(id),
                        cancelled: () => bench.calls.length > last,
                    });
                } catch (error) {
                    // nothing to track there: then nothing changes
                    expect((error as Error).message, what).toMatch(
                        /There is no mask|is deleted|are deleted|Nothing was tracked/,
                    );
                    expect(contents(bench), what).toEqual(everything);
                    continue;
                }
                if (!convert) {
                    const after = new Set(kept(bench));
                    expect(
                        before.filter((one) => !after.has(one)),
                        what,
                    ).toEqual([]);
                }
                // a short gap between sparse keyframes may look like deleted ones: then the page asks
                const gap = 'Keyframes of these tracks are missing';
                const other = bench.asked.filter((text) => !text.startsWith(gap));
                expect(other, what).toEqual([]);
                checkNothingDoubled(bench, what);
                if (bench.store.undoSteps > steps) {
                    const now = contents(bench);
                    bench.store.undo();
                    expect(contents(bench), what).toEqual(everything);
                    bench.store.redo();
                    expect(contents(bench), what).toEqual(now);
                }
                bench.store.save();
                correct(bench, dice, columns);
            }
            if (!mayHaveGaps) expect(bench.asked, `seed ${seed}`).toEqual([]);
        }
    },
    TIMEOUT_MS,
);

test(
    `running again changes nothing, on ${JOBS / 4} random jobs with corrections`,
    async () => {
        for (let seed = FIRST_SEED; seed < FIRST_SEED + JOBS / 4; seed += 1) {
            await breathe();
            const dice = new Dice(randomFrom(seed));
            // tracks come of conversion here
            const columns = columnsOf(dice).map(({ type, isTrack }) => {
                return { type: isTrack ? 'polygon' : type, isTrack };
            });
            const hidden = new Set(Array.from({ length: 2 }, () => dice.upTo(LAST)));
            const bench = createBench({
                frames: framesFrom(0, LAST, SIZE),
                invoke: moving((frame) => (hidden.has(frame) ? { shape: null } : null)),
            });
            bench.kept = JSON.stringify(randomSettings(dice));
            bench.add(...columns.map(({ type }, n) => shape(type, 0, pointsFor(type, n))));
            const convert = dice.chance(0.5);
            await bench.runAll(0, LAST, { convert });
            correct(bench, dice, columns);
            await bench.runAll(0, LAST, { convert });
            const second = contents(bench);
            await bench.runAll(0, LAST, { convert });
            expect(contents(bench), `seed ${seed}`).toEqual(second);
        }
    },
    TIMEOUT_MS,
);
