// SPDX-License-Identifier: MIT
// What the user is told at the end of a run.

import { Beside } from './beside';
import { Coinciding } from './coinciding';
import { firstFrames } from './frames';
import { addTo } from './groups';
import { LeftOut, Source } from './objects';
import { FrameResult, Run, Tracked } from './tracked';

export interface Report {
    kind: 'success' | 'warning' | 'info';
    title: string;
    lines: string[];
    /** Frames to look at, worst first: the page offers to open them, above the lines. */
    jumps: Jump[];
}

interface Jump {
    frame: number;
    text: string;
}

export interface Told {
    run: Run;
    start: number;
    /** Whether it has created or deleted anything. */
    hasChanged: boolean;
    leftOut: LeftOut[];
    /** How many shapes of an earlier run were replaced. */
    replaced: number;
    /** What lies beside the results, and whose nobody can tell. */
    beside: Beside[];
    /** Sparse keyframes: how many, of how many points, stand for how many frames. */
    thinned: { frames: number; keyframes: number; points: number };
    /** Said before the results. */
    hints: string[];
    /** What went wrong besides; said before anything else. */
    warnings: string[];
    /** What the page calls the object that is on this frame now. */
    nameOn(object: Tracked, frame: number): Promise<string>;
    /** Objects that cover the same thing. */
    coinciding: Coinciding[];
}

const LISTED = 5;
/** Frames to look at have less confidence than this; where none has, the least certain is named. */
const CERTAIN = 0.8;
/** Neighbouring frames are wrong together: one of them is enough to look at. */
const APART = 5;

function counted(count: number, noun: string): string {
    return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** The first five of a list, and how many more there are. */
export function listed(items: string[], between = '; '): string {
    const more = items.length - LISTED;
    return items.slice(0, LISTED).join(between) + (more > 0 ? `${between}and ${more} more` : '');
}

/** A line of the message around a list; none where the list is empty. */
function lineOf(items: string[], text: (list: string) => string): string[] {
    return items.length ? [text(listed(items))] : [];
}

/** A reason as a part of a sentence. */
function plain(reason: string): string {
    return reason.replace(/\.$/, '');
}

interface Doubt {
    object: Tracked;
    frame: number;
    score: number;
}

/** The least certain frames of a run, worst first, at most five and not next to each other. */
function doubtsOf(objects: Tracked[]): Doubt[] {
    const doubts: Doubt[] = [];
    for (const object of objects) {
        for (const { frame, points, score, byHand, inPlace } of object.results) {
            if (points && score !== null && !byHand && !inPlace)
                doubts.push({ object, frame, score });
        }
    }
    doubts.sort((a, b) => a.score - b.score || a.frame - b.frame);
    const chosen = doubts.slice(0, 1);
    for (const doubt of doubts) {
        if (doubt.score >= CERTAIN || chosen.length === LISTED) break;
        if (chosen.every(({ frame }) => Math.abs(frame - doubt.frame) >= APART)) chosen.push(doubt);
    }
    return chosen;
}

/** Frames to look at, at most five, each once, those first where two objects cover the same thing: on such
 * a frame nobody can tell the two by their outlines, so they have the names of the start frame. */
async function jumpsOf(
    coinciding: Coinciding[],
    tracked: Tracked[],
    names: Map<Tracked, string>,
    nameOn: Told['nameOn'],
): Promise<Jump[]> {
    const jumps: Jump[] = [];
    const isOpen = (frame: number): boolean =>
        jumps.length < LISTED && jumps.every((jump) => jump.frame !== frame);
    for (const { one, other, first: frame } of coinciding) {
        if (!isOpen(frame)) continue;
        const both = `${names.get(one)} and ${names.get(other)}`;
        jumps.push({ frame, text: `Frame ${frame}: ${both} cover the same thing` });
    }
    for (const { object, frame, score } of doubtsOf(tracked)) {
        if (!isOpen(frame)) continue;
        const name = await nameOn(object, frame);
        jumps.push({ frame, text: `Frame ${frame}: ${name}, confidence ${score.toFixed(2)}` });
    }
    return jumps;
}

/** Objects of which one may have gone over to the other. */
function goneOver(coinciding: Coinciding[], names: Map<Tracked, string>): string[] {
    const pairs = coinciding.map(
        ({ one, other, first, count }) =>
            `${names.get(one)} and ${names.get(other)} on ${counted(count, 'frame')}, ` +
            `first on ${first}`,
    );
    return lineOf(
        pairs,
        (list) => `Covering the same thing, as if one went over to the other: ${list}.`,
    );
}

/** What is left of a run that the user ended. */
function leftOfCancelled({ objects }: Run, hasChanged: boolean): string {
    if (hasChanged) return 'What is done is kept. Undo takes it back in one step.';
    const isTracked = objects.some(({ results }) => results.length);
    return isTracked ? 'Nothing has changed.' : 'Nothing was tracked and nothing has changed.';
}

/** What to do about a run that stopped early. `nameOf`: what the page calls an object. */
export function adviceOf(
    { objects, stop }: Run,
    start: number,
    nameOf: (object: Tracked) => string,
): string[] {
    if (!stop) return [];
    const stopped = `Stopped at frame ${stop.frame}: ${stop.reason}`;
    if (stop.drawAgain) {
        return [
            stopped,
            `To go on, open frame ${stop.frame}, draw the objects there and run the action from it.`,
        ];
    }
    // an object can be tracked on only from a frame on which it is visible
    const from = new Map<number, string[]>();
    for (const object of objects.filter(({ failure }) => !failure)) {
        const visible = object.results.filter(({ points, inPlace }) => points && !inPlace);
        const last = visible.at(-1)?.frame ?? start;
        addTo(from, last, nameOf(object));
    }
    const each = [...from].map(([frame, names]) => `from frame ${frame} for ${listed(names)}`);
    return [
        stopped,
        each.length > 1
            ? `To go on, run the action again ${each.join(', ')}.`
            : `To go on, open frame ${[...from.keys()][0] ?? start} and run the action again.`,
    ];
}

function handmade(tracked: Tracked[], names: Map<Tracked, string>): string[] {
    const where = (
        isHere: (result: FrameResult, source: Source) => boolean | undefined,
    ): string[] =>
        tracked.flatMap((object) => {
            const here = object.results.filter((result) => isHere(result, object.source));
            const frames = here.map(({ frame }) => frame);
            return frames.length ? [`${names.get(object)} on ${firstFrames(frames)}`] : [];
        });
    return [
        ...lineOf(
            where(
                ({ byHand, points, frame }, { relabelled }) =>
                    byHand && points !== null && !relabelled.has(frame),
            ),
            (list) => `Kept as a person made it, and tracked on from there: ${list}.`,
        ),
        ...lineOf(
            where(({ byHand, points }) => byHand && points === null),
            (list) => `Left hidden, as a person wants it: ${list}.`,
        ),
        ...lineOf(
            where(({ frame }, { relabelled }) => relabelled.has(frame)),
            (list) => `Kept with its label, which is not that of the object: ${list}.`,
        ),
        ...lineOf(
            where(({ inPlace }) => inPlace),
            (list) =>
                `Not written, because a person drew a shape in its place: ${list}. ` +
                'To track on from that shape, run the action on it.',
        ),
    ];
}

/** Where keyframes that a person deleted were left so. */
function removed(objects: Tracked[], names: Map<Tracked, string>): string[] {
    const left = objects.flatMap((object) => {
        const frames = [...object.source.removed].sort((a, b) => a - b);
        if (!frames.length) return [];
        return [`${names.get(object)} on ${firstFrames(frames)}`];
    });
    return lineOf(
        left,
        (list) => `Without keyframes, as before this run; CVAT interpolates there: ${list}.`,
    );
}

/** How many objects were tracked over which frames, and where some were not visible. */
function tracking(tracked: Tracked[], names: Map<Tracked, string>, start: number): string[] {
    const frames = framesOf(tracked);
    if (!frames.length) return [];
    const [low, high] = [frames[0], frames[frames.length - 1]];
    const way = high < start ? `backwards, ${high} to ${low}` : `${low} to ${high}`;
    const lost = tracked.flatMap((object) => {
        const away = object.results.filter(({ points, byHand }) => points === null && !byHand);
        const count = counted(away.length, 'frame');
        return away.length ? [`${names.get(object)} on ${count}, first on ${away[0].frame}`] : [];
    });
    const never = tracked.filter(
        ({ results }) => results.length && results.every(({ points }) => points === null),
    );
    return [
        `${counted(tracked.length, 'object')} tracked over ${counted(frames.length, 'frame')} (${way}).`,
        lost.length ? `Not visible: ${listed(lost)}.` : 'No object was lost.',
        ...lineOf(
            never.map((object) => names.get(object)!),
            (list) =>
                `Seen on no frame: ${list}. For small objects choose a search region in the settings.`,
        ),
    ];
}

/** What became of objects that could not be tracked as they should. */
function troubles(objects: Tracked[], names: Map<Tracked, string>, start: number): string[] {
    const failed = objects.flatMap((object) => {
        const { failure } = object;
        return failure
            ? [`${names.get(object)} at frame ${failure.frame}: ${plain(failure.reason)}`]
            : [];
    });
    const alone = objects.flatMap((object) =>
        object.notJoined === null ? [] : [`${names.get(object)}: ${plain(object.notJoined)}`],
    );
    const oneEnded = new Map<string, string[]>();
    for (const object of objects) {
        if (!object.oneEnd) continue;
        const { first, last, reason } = object.oneEnd;
        const where = first === last ? `${first}` : `${first} to ${last}`;
        addTo(oneEnded, plain(reason), `${names.get(object)} on ${where}`);
    }
    return [
        ...lineOf(failed, (list) => `Given up: ${list}.`),
        ...lineOf(
            alone,
            (list) => `Tracked without what was drawn by hand on other frames: ${list}.`,
        ),
        ...lineOf(
            [...oneEnded].map(([reason, where]) => `${listed(where)} (${reason})`),
            (list) =>
                `Tracked from one end only, although drawn on both sides: ${list}. For both ends ` +
                `run again from frame ${start}.`,
        ),
    ];
}

/** What was replaced, kept and left alone around the results. */
function around({ thinned, replaced, beside, leftOut }: Told): string[] {
    const lines: string[] = [];
    if (thinned.frames) {
        lines.push(
            `Sparse: ${counted(thinned.keyframes, 'keyframe')} of ` +
                `${counted(thinned.points, 'point')} in all stand for ` +
                `${counted(thinned.frames, 'frame')}.`,
        );
    }
    if (replaced) lines.push(`Replaced ${counted(replaced, 'shape')} of an earlier run.`);
    for (const kind of ['automatic shape', 'drawn shape', 'track'] as const) {
        const frames = beside.filter((one) => one.kind === kind).map(({ frame }) => frame);
        if (!frames.length) continue;
        lines.push(
            `Kept ${counted(frames.length, kind)} that may be of the same objects, first on frame ` +
                `${frames.reduce((a, b) => Math.min(a, b))}. Delete what is doubled.`,
        );
    }
    const alike = new Map<string, string[]>();
    for (const { name, reason } of leftOut) addTo(alike, reason, name);
    const reasons = [...alike].map(([reason, names]) => `${listed(names, ', ')} (${reason})`);
    return [...lines, ...lineOf(reasons, (list) => `Left alone: ${list}.`)];
}

/** The frames with an answer, ascending. */
function framesOf(objects: Tracked[]): number[] {
    const frames = new Set(objects.flatMap(({ results }) => results.map(({ frame }) => frame)));
    return [...frames].sort((a, b) => a - b);
}

/** What is told where CVAT has not added the results; CVAT itself tells why. */
export function notAdded(): Report {
    return {
        kind: 'warning',
        title: 'The results were not added',
        lines: ['CVAT tells the reason in a message of its own. Run the action again.'],
        jumps: [],
    };
}

export async function reportOf(told: Told): Promise<Report> {
    const { run, start, hasChanged, beside, hints, warnings, nameOn, coinciding } = told;
    const { objects, stop, cancelled } = run;
    const tracked = objects.filter(({ results }) => results.length);
    const names = new Map<Tracked, string>();
    for (const object of objects) names.set(object, await nameOn(object, start));
    const [summary, ...lost] = tracking(tracked, names, start);
    const lines = [
        ...warnings,
        ...hints,
        ...(summary ? [summary] : []),
        ...(cancelled
            ? [leftOfCancelled(run, hasChanged)]
            : adviceOf(run, start, (object) => names.get(object)!)),
        ...lost,
        ...troubles(objects, names, start),
        ...goneOver(coinciding, names),
        ...handmade(tracked, names),
        ...removed(objects, names),
        ...around(told),
    ];
    const jumps = await jumpsOf(coinciding, tracked, names, nameOn);

    const warns =
        stop !== null ||
        beside.length > 0 ||
        coinciding.length > 0 ||
        warnings.length > 0 ||
        objects.some(
            ({ failure, notJoined, oneEnd, results }) =>
                failure || notJoined !== null || oneEnd || results.some(({ inPlace }) => inPlace),
        );
    const title =
        (cancelled && 'Tracking was cancelled') ||
        (stop && 'Tracking stopped early') ||
        (warns && 'Tracking ended with warnings') ||
        'Tracking is done';
    const kind = (cancelled && !tracked.length && 'info') || (warns ? 'warning' : 'success');
    return { kind, title, lines, jumps };
}
