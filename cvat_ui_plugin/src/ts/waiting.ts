// SPDX-License-Identifier: MIT
// Waiting that always ends: with the answer, with Cancel, when the job is closed, or after a limit.

/** The user pressed Cancel. */
export class Cancelled extends Error {}

/** The job is no longer open in the page: what is tracked can no longer be written. */
export class JobClosed extends Error {}

/** A run ended without a change, and our message has said so. It is no `Error`: CVAT shows errors in a message
 * of its own. It closes the dialog of a single object only where nothing is thrown. */
export class AlreadyTold {}

/** How often a wait looks whether it should end, in milliseconds. */
export const POLL_MS = 200;

/**
 * The result of `promise`; rejects with what `mayGoOn` throws, or after `limit` milliseconds with
 * what `late` returns. The promise itself is left to its own end: a request of cvat-core cannot be
 * taken back.
 */
export function within<T>(
    promise: Promise<T>,
    limit: number,
    mayGoOn: () => void,
    late: () => Error,
): Promise<T> {
    return new Promise((resolve, reject) => {
        // by the clock: a browser slows the timers of a hidden tab
        const end = Date.now() + limit;
        const timer = setInterval(() => {
            try {
                mayGoOn();
                if (Date.now() >= end) throw late();
            } catch (error) {
                clearInterval(timer);
                reject(error as Error);
            }
        }, POLL_MS);
        promise.then(resolve, reject).finally(() => clearInterval(timer));
    });
}
