// SPDX-License-Identifier: MIT
// Answers of the real function, recorded object by object (objects never see each other, so any
// grouping of them can be replayed). Its random tokens become s0, s1, …

import { FunctionRequest, HttpAnswer, Invoke } from '../standin/server';

export interface Recorded {
    /** type and points of a seed, or the state, and the frame. */
    ask: { frame: number; shape: unknown; state: unknown };
    answer: { shape: unknown; state: unknown; score: unknown; error: unknown };
}

function keyOf({ frame, shape, state }: Recorded['ask']): string {
    return JSON.stringify([frame, state === null ? shape : null, state]);
}

type Body = Record<'shapes' | 'states' | 'scores' | 'errors', unknown[]>;

function answerOf(
    known: Map<string, Recorded['answer']>,
    frame: number,
    request: FunctionRequest,
): HttpAnswer | null {
    const said = request.states.map((state, index) =>
        known.get(keyOf({ frame, shape: request.shapes[index] ?? null, state: state ?? null })),
    );
    const seeds = request.shapes
        .slice(said.length)
        .map((shape) => known.get(keyOf({ frame, shape, state: null })));
    const answers = [...said, ...seeds];
    if (answers.some((answer) => !answer)) return null;
    const all = (of: 'shape' | 'state' | 'score' | 'error') => answers.map((each) => each![of]);
    const body = { shapes: all('shape'), states: all('state') };
    return { status: 200, body: { ...body, scores: all('score'), errors: all('error') } };
}

/** Ask the real function what was not asked before, and keep what it says in `into`. */
export function recording(invoke: Invoke, into: Recorded[]): Invoke {
    const tokens: unknown[] = [];
    const known = new Map<string, Recorded['answer']>();
    return async (frame, request) => {
        const before = answerOf(known, frame, request);
        if (before) return before;
        const { shapes, states } = request;
        const answer = await invoke(frame, {
            shapes,
            states: states.map((state) =>
                state === null ? null : tokens[Number(String(state).slice(1))],
            ),
        });
        if (answer.status !== 200) return answer;
        const body = answer.body as Body;
        body.states.forEach((state, index) => {
            const ask = { frame, shape: shapes[index] ?? null, state: states[index] ?? null };
            if (known.has(keyOf(ask))) return;
            const one = {
                shape: body.shapes[index],
                state: state === null ? null : `s${tokens.push(state) - 1}`,
                score: body.scores[index],
                error: body.errors[index],
            };
            known.set(keyOf(ask), one);
            into.push({ ask, answer: one });
        });
        return answerOf(known, frame, request) as HttpAnswer;
    };
}

export function replaying(recorded: Recorded[]): Invoke {
    const known = new Map(recorded.map(({ ask, answer }) => [keyOf(ask), answer]));
    return async (frame, request) => {
        const answer = answerOf(known, frame, request);
        if (!answer) throw new Error(`not recorded (npm run record): frame ${frame}`);
        return answer;
    };
}
