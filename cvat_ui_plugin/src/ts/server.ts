// SPDX-License-Identifier: MIT
// One call of the function through CVAT's server: which function, what its answer says, and what
// a failed call means.

import { Core, Model } from './cvat';
import { SHAPE_TYPES } from './objects';

export const ACTION_NAME = 'Segment Anything 2: Tracker';

export interface Shape {
    type: string;
    points: number[];
}

/** What the function says of one object on one frame. */
export interface Answer {
    shape: Shape | null;
    /** Signed by the server; null where the function keeps nothing of this object. */
    state: string | null;
    score: number | null;
    error: { code: string; message: string } | null;
}

/** What to do about a failed call: repeat it later; send fewer objects, now or for the rest of the
 * run; start the objects again; let a person draw the objects again; nothing. */
type Remedy = 'wait' | 'fewer' | 'fewer for good' | 'reseed' | 'draw again' | 'stop';

export class CallError extends Error {
    /** `slow`: the call took a minute or more before it failed, and so would each repetition. */
    public constructor(
        message: string,
        public readonly remedy: Remedy,
        public readonly slow = false,
    ) {
        super(message);
    }
}

/** The tracker to use: ours by name or id (also where an old page does not tell its types), else
 * any that takes masks or polygons. */
export function chooseTracker(models: Model[]): Model | null {
    const trackers = models.filter(({ kind }) => kind === 'tracker');
    const fits = ({ supportedShapeTypes: types }: Model): boolean =>
        types !== undefined && (types.includes('mask') || types.includes('polygon'));
    const mayFit = (model: Model): boolean =>
        model.supportedShapeTypes === undefined || fits(model);
    return (
        trackers.find((model) => model.name === ACTION_NAME && mayFit(model)) ??
        trackers.find(
            (model) =>
                /sam-?2|segment.anything.?2/i.test(`${model.id} ${model.name}`) && mayFit(model),
        ) ??
        trackers.find(fits) ??
        null
    );
}

export async function findTracker(core: Core): Promise<Model> {
    let models: Model[];
    try {
        ({ models } = await core.lambda.list());
    } catch (error) {
        if (statusOf(error) === 401) throw new Error(LOGGED_OUT);
        throw new Error(
            `CVAT did not list its functions (${messageOf(error)}). Try again in a minute. ` +
                'If it stays so, ask your administrator whether serverless functions are running.',
        );
    }
    if (!models.length) {
        // the page makes an empty list of the answer 503, too
        throw new Error(
            'CVAT lists no functions at the moment. Try again in a minute; the page need not be ' +
                `reloaded. If it stays so, ask your administrator whether "${ACTION_NAME}" is running.`,
        );
    }
    const tracker = chooseTracker(models);
    if (tracker === null) {
        throw new Error(
            'This CVAT server has no tracker for masks or polygons. ' +
                `Ask your administrator to deploy "${ACTION_NAME}".`,
        );
    }
    return tracker;
}

const LOGGED_OUT =
    'You are logged out (401). Log in again in another tab of this browser and come back to this ' +
    'one: do not reload it, or what is not saved is lost.';

function messageOf(error: unknown): string {
    const text = (error instanceof Error ? error.message : String(error)).trim();
    const plain = text
        .replace(/<style[\s\S]*?<\/style>|<[^>]*>/gi, ' ')
        .replace(/\s+/g, ' ')
        .trim();
    return plain.length > 200 ? `${plain.slice(0, 200)}…` : plain || 'no message';
}

/** The HTTP status that cvat-core's `ServerError` has as `code`; 0 without an answer. */
function statusOf(error: unknown): number {
    return Number((error as { code?: unknown } | null)?.code);
}

/** Translate what cvat-core throws (a `ServerError` with the status as `code`) into what to do. */
export function explain(error: unknown, functionID: string | number): CallError {
    if (error instanceof CallError) return error;
    const text = error instanceof Error ? error.message : String(error);
    const status = statusOf(error);
    const said = messageOf(error);
    const log = `Your administrator finds the cause in the log of the function ${functionID}.`;
    if (!(error instanceof Error) || Number.isNaN(status)) {
        return new CallError(`The call failed: ${said}`, 'stop');
    }
    switch (status) {
        case 0:
            return new CallError(
                `CVAT's server did not answer (${said.replace(/\.+$/, '')}).`,
                'wait',
            );
        case 429:
        case 502:
        case 503:
            return new CallError(
                `The function is busy, restarting or cannot be reached (${status}). ${log}`,
                'wait',
            );
        case 500:
            // CVAT's own failure is an HTML page (often a chunk that was not ready in time); the
            // function's arrives as one line of text
            return new CallError(
                /<html|<!doctype|<h1|Server Error \(500\)/i.test(text)
                    ? "CVAT's server failed (500)."
                    : `The function failed (500). ${log}`,
                'wait',
            );
        case 408:
        case 504:
            return new CallError(
                `One call took too long (${status}), even for one object. ${log}`,
                'fewer',
                true,
            );
        case 410:
            return new CallError('The function no longer knows these objects (410).', 'reseed');
        case 400:
        case 413:
            if (/expired tracker state/i.test(text)) {
                return new CallError('The tracker states have expired (400).', 'reseed');
            }
            if (status === 413 || / for url: /i.test(text)) {
                return new CallError(
                    `the function refused it (${status}): a shape or an image it cannot use, ` +
                        `or more than its limits allow. ${log}`,
                    'fewer for good',
                );
            }
            return new CallError(`CVAT refused the request (400): ${said}`, 'stop');
        case 401:
            return new CallError(LOGGED_OUT, 'stop');
        case 403:
            return new CallError(`You may not call this function (403): ${said}`, 'stop');
        case 404:
            return new CallError(
                `The function ${functionID} is not deployed any more (404).`,
                'stop',
            );
        default:
            return new CallError(`The call failed (${status}): ${said}`, 'stop');
    }
}

/** The points as they are written: those of polygons and rectangles moved into the image. */
export function insideImage({ type, points }: Shape, width: number, height: number): number[] {
    return type === 'mask'
        ? [...points]
        : points.map((value, index) => Math.min(Math.max(value, 0), index % 2 ? height : width));
}

/** Image sides that a point may lie off; what is farther away is no shape of this image. */
const MOST_OUTSIDE = 10;

/** Width and height of what is left of a polygon or rectangle inside the image. */
function sizeInside(shape: Shape, width: number, height: number): [number, number] {
    const points = insideImage(shape, width, height);
    const extent = (parity: number): number => {
        const values = points.filter((_, index) => index % 2 === parity);
        return values.reduce((a, b) => Math.max(a, b)) - values.reduce((a, b) => Math.min(a, b));
    };
    return [extent(0), extent(1)];
}

/** Why `points` are no usable shape of this type in an image of this size; null where they are.
 * One bad object would make CVAT refuse the whole result. */
export function faultOf(
    { type, points }: { type: unknown; points: unknown },
    width: number,
    height: number,
): string | null {
    if (typeof type !== 'string' || !SHAPE_TYPES.includes(type))
        return `unknown type ${String(type)}`;
    if (!Array.isArray(points) || !points.every((value) => Number.isFinite(value))) {
        return 'points that are not all numbers';
    }
    const numbers = points as number[];
    if (type === 'mask') {
        if (
            numbers.length < 6 ||
            !numbers.every((value) => Number.isInteger(value) && value >= 0)
        ) {
            return 'a malformed mask';
        }
        const [left, top, right, bottom] = numbers.slice(-4);
        if (left > right || top > bottom || right >= width || bottom >= height) {
            return 'a mask that does not fit the image';
        }
        const total = numbers.slice(0, -4).reduce((sum, run) => sum + run, 0);
        return total === (right - left + 1) * (bottom - top + 1)
            ? null
            : 'a mask whose runs do not fit its box';
    }
    const most = MOST_OUTSIDE * Math.max(width, height);
    if (numbers.some((value) => Math.abs(value) > most)) return 'points far outside the image';
    if (type === 'rectangle') {
        if (numbers.length !== 4) return 'a malformed rectangle';
        const [left, top, right, bottom] = insideImage({ type, points: numbers }, width, height);
        return right - left >= 1 && bottom - top >= 1 ? null : 'a rectangle smaller than a pixel';
    }
    if (numbers.length < 6 || numbers.length % 2) return 'a polygon of less than three points';
    return Math.max(...sizeInside({ type, points: numbers }, width, height)) >= 1
        ? null
        : 'a polygon smaller than a pixel';
}

/** Take a tracker's answer apart. `shapes` may be missing in the answer to `init_tracking`. */
export function parseAnswers(body: unknown, count: number, tracking: boolean): Answer[] {
    const { shapes, states, scores, errors } = (body ?? {}) as Record<string, unknown>;
    if (
        !Array.isArray(states) ||
        states.length !== count ||
        (tracking && (!Array.isArray(shapes) || shapes.length !== count))
    ) {
        throw new CallError('The answer is not the one of a tracker for these objects.', 'stop');
    }
    return states.map((state, index) => {
        const shape = tracking
            ? ((shapes as unknown[])[index] as Record<string, unknown> | null)
            : null;
        const error = Array.isArray(errors)
            ? (errors[index] as Record<string, unknown> | null)
            : null;
        const score = Array.isArray(scores) ? scores[index] : null;
        return {
            // a rectangle that is lost answers its last box, marked
            shape:
                shape && shape.outside !== true
                    ? { type: shape.type as string, points: shape.points as number[] }
                    : null,
            // the server signs null too
            state: typeof state === 'string' && !state.startsWith('null:') ? state : null,
            score: typeof score === 'number' && Number.isFinite(score) ? score : null,
            error: error ? { code: String(error.code), message: String(error.message) } : null,
        };
    });
}
