// SPDX-License-Identifier: MIT
// Whose a shape is: the mark in the digits of its score (docs/identity.md). The command line has
// the same rules in cvat_action/identity.py; tests/action_cases/identity.json holds both to them.

/** What the score of one of our shapes says besides the confidence. */
export interface Mark {
    /** The object, 1 to 9999999. */
    number: number;
    /** The run that wrote the shape, 0 to 99. */
    run: number;
}

const NUMBERS = 1e7;
const RUNS = 100;
const CHECKS = 100;
const MARKS = NUMBERS * RUNS * CHECKS;
/** A double holds every number of 15 decimal digits. */
const SCALE = 1e15;
const MOST_CONFIDENT = SCALE / MARKS - 1;

/** FNV-1a with 32 bits over ASCII text. */
export function fnv1a32(text: string): number {
    let value = 2166136261;
    for (let i = 0; i < text.length; i += 1) {
        value = Math.imul(value ^ text.charCodeAt(i), 16777619) >>> 0;
    }
    return value;
}

/** Ties a mark to its frame: a copy of the shape on another frame is not ours. */
function checkOf({ number, run }: Mark, frame: number): number {
    return fnv1a32(`${number}:${run}:${frame}`) % CHECKS;
}

/** The score to write: confidence (0 to 1; null: unknown, counts as 1) and mark. */
export function markedScore(confidence: number | null, mark: Mark, frame: number): number {
    const share = Math.min(Math.max(confidence ?? 1, 0), 1);
    const first = Math.min(Math.floor(share * (MOST_CONFIDENT + 1)), MOST_CONFIDENT);
    const digits = (mark.number * RUNS + mark.run) * CHECKS + checkOf(mark, frame);
    return (first * MARKS + digits) / SCALE;
}

/** The mark in a score; null if the score has no mark of this frame. */
export function markOf(score: unknown, frame: number): Mark | null {
    if (typeof score !== 'number' || !(score >= 0 && score < 1)) return null;
    const value = Math.round(score * SCALE);
    if (value >= SCALE || value / SCALE !== score) return null;
    const digits = value % MARKS;
    const rest = Math.floor(digits / CHECKS);
    const mark = { number: Math.floor(rest / RUNS), run: rest % RUNS };
    return mark.number && digits % CHECKS === checkOf(mark, frame) ? mark : null;
}

/** The number of an object that a person drew, from the drawing itself. */
export function numberOfDrawing(type: string, frame: number, points: number[]): number {
    const numbers = points.map((value) => Math.floor(64 * value + 0.5)).join(',');
    return 1 + (fnv1a32(`${type}:${frame}:${numbers}`) % (NUMBERS - 1));
}

/** `number`, or the next one that is not taken. */
export function freeNumber(number: number, taken: ReadonlySet<number>): number {
    let free = number;
    while (taken.has(free)) free = (free % (NUMBERS - 1)) + 1;
    return free;
}

/** What a shape's number is worked out from. `id`: the server's, missing until it is saved. */
interface Numbered {
    type: string;
    frame: number;
    points: number[];
    score?: number;
    id?: number;
    clientID?: number;
}

/**
 * Numbers of the objects of shapes: what the mark says, or `knownOf`, or the drawing itself.
 * But equal outlines on one frame, of two labels say, are two objects: of those that are only drawn the
 * one with the higher id counts up.
 */
export function numbersOf<Shape extends Numbered>(
    shapes: readonly Shape[],
    knownOf: (shape: Shape) => number | null,
): Map<Shape, number> {
    const numbers = new Map<Shape, number>();
    const taken = new Map<number, Set<number>>();
    const give = (shape: Shape, number: number): void => {
        numbers.set(shape, number);
        taken.set(shape.frame, (taken.get(shape.frame) ?? new Set()).add(number));
    };
    const drawn: Shape[] = [];
    for (const shape of shapes) {
        const number = markOf(shape.score, shape.frame)?.number ?? knownOf(shape);
        if (number === null) drawn.push(shape);
        else give(shape, number);
    }
    const order = ({ id = Infinity }: Shape): number => id;
    drawn.sort((a, b) =>
        order(a) === order(b) ? (a.clientID ?? 0) - (b.clientID ?? 0) : order(a) - order(b),
    );
    for (const shape of drawn) {
        const { type, frame, points } = shape;
        const own = numberOfDrawing(type, frame, points);
        give(shape, freeNumber(own, taken.get(frame) ?? new Set()));
    }
    return numbers;
}

/** A run that no shape carries, drawn at random; any of the hundred where all are used. */
export function freeRun(used: ReadonlySet<number>, random: () => number): number {
    const runs = Array.from({ length: RUNS }, (_, run) => run);
    const free = runs.filter((run) => !used.has(run));
    const choice = free.length ? free : runs;
    return choice[Math.floor(random() * choice.length)];
}
