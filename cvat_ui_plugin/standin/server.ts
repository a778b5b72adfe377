// SPDX-License-Identifier: MIT
// Stands in for CVAT's lambda endpoint: checks a request, signs and unsigns states, adds the image
// (that is the caller's `invoke`), and maps the function's errors.
// Runs in node: in the unit tests, and behind HTTP for the test page.

import { createHmac } from 'node:crypto';

export interface FunctionRequest {
    shapes: ({ type: string; points: number[]; adopt?: unknown } | null)[];
    states: unknown[];
}

export interface HttpAnswer {
    status: number;
    body: unknown;
}

/** Call the function for a frame: body without image in, HTTP status and parsed body out. */
export type Invoke = (frame: number, request: FunctionRequest) => Promise<HttpAnswer>;

export interface LambdaOptions {
    functionID: string;
    jobID: number;
    startFrame: number;
    stopFrame: number;
    invoke: Invoke;
}

const SHAPE_TYPES = ['mask', 'polygon', 'rectangle'];
const REASONS: Record<number, string> = {
    400: 'Bad Request',
    408: 'Request Timeout',
    410: 'Gone',
    413: 'Payload Too Large',
    500: 'Internal Server Error',
    503: 'Service Unavailable',
};

export function createLambda({ functionID, jobID, startFrame, stopFrame, invoke }: LambdaOptions) {
    const secret = `stand-in ${functionID}`;
    const signatureOf = (payload: string): string =>
        createHmac('sha256', secret).update(payload).digest('base64url');
    const sign = (state: unknown): string => {
        const payload = `${JSON.stringify(state)}:1xUW0r`;
        return `${payload}:${signatureOf(payload)}`;
    };
    const unsign = (signed: unknown): unknown => {
        if (signed === null) return null;
        const cut = String(signed).lastIndexOf(':');
        const payload = String(signed).slice(0, cut);
        if (signatureOf(payload) !== String(signed).slice(cut + 1))
            throw new Error('bad signature');
        return JSON.parse(payload.slice(0, payload.lastIndexOf(':')));
    };

    return async (method: string, path: string, body?: unknown): Promise<HttpAnswer> => {
        if (method === 'GET' && path === '/api/lambda/functions') {
            return {
                status: 200,
                body: [
                    {
                        id: 'pth-foolwood-siammask',
                        name: 'SiamMask',
                        kind: 'tracker',
                        supported_shape_types: ['rectangle'],
                    },
                    {
                        id: functionID,
                        name: 'Segment Anything 2: Tracker',
                        kind: 'tracker',
                        supported_shape_types: SHAPE_TYPES,
                    },
                ],
            };
        }
        if (method !== 'POST' || path !== `/api/lambda/functions/${functionID}`) {
            return { status: 404, body: '404 Client Error: Not Found for url' };
        }
        const { job, task, frame, shapes, states } = body as Record<string, unknown>;
        const refuse = (message: string): HttpAnswer => ({ status: 400, body: message });
        if (job !== jobID || typeof task !== 'number') return refuse('`job` or `task` is wrong');
        if (!Number.isInteger(frame)) return refuse('`frame` is required');
        if ((frame as number) < startFrame || (frame as number) > stopFrame) {
            return refuse('The frame is outside the job range');
        }
        if (!Array.isArray(shapes) && !Array.isArray(states))
            return refuse('`shapes` or `states` is required');
        const wrong = ((shapes as ({ type: string } | null)[] | undefined) ?? []).find(
            (shape) => shape !== null && !SHAPE_TYPES.includes(shape.type),
        );
        if (wrong) return refuse(`This function does not support shapes of type '${wrong?.type}'`);
        let plain: unknown[];
        try {
            plain = ((states ?? []) as unknown[]).map(unsign);
        } catch {
            return refuse('Invalid or expired tracker state');
        }
        const request = {
            shapes: (shapes ?? plain.map(() => null)) as FunctionRequest['shapes'],
            states: plain,
        };
        const answer = await invoke(frame as number, request);
        if (answer.status >= 400) {
            const kind = answer.status >= 500 ? 'Server' : 'Client';
            // what the function said never reaches the client, unless CVAT itself failed
            return typeof answer.body === 'string'
                ? answer
                : {
                      status: answer.status,
                      body:
                          `${answer.status} ${kind} Error: ` +
                          `${REASONS[answer.status] ?? ''} for url: http://function/`,
                  };
        }
        const answered = answer.body as { states: unknown[] };
        return { status: 200, body: { ...answered, states: answered.states.map(sign) } };
    };
}
