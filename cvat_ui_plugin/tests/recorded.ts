// SPDX-License-Identifier: MIT
// Answers of the real function, recorded object by object (objects never see each other, so any
// grouping of them can be replayed). Its random tokens become s0, s1, …

import { Invoke } from '../standin/server';

export interface Recorded {
    /** type and points of a seed, or the state, and the frame. */
    ask: { frame: number; shape: unknown; state: unknown };
    answer: { shape: unknown; state: unknown; score: unknown; error: unknown };
}

function keyOf({ frame, shape, state }: Recorded['ask']): string {
    return JSON.stringify([frame, state === null ? shape : null, state]);
}

interface Body {
    shapes: unknown[];
    states: unknown[];
    scores: unknown[];
    errors: unknown[];
}

/** Pass through to the real function and keep what it says in `into`. */
export function recording(invoke: Invoke, into: Recorded[]): Invoke {
    const tokens: unknown[] = [];
    const known = new Map<string, number>();
    const seen = new Set<string>();
    const short = (token: unknown): string | null => {
        if (token === null) return null;
        const text = JSON.stringify(token);
        if (!known.has(text)) known.set(text, tokens.push(token) - 1);
        return `s${known.get(text)}`;
    };
    return async (frame, { shapes, states }) => {
        const answer = await invoke(frame, {
            shapes, states: states.map((state) => (state === null ? null : tokens[Number(String(state).slice(1))])),
        });
        if (answer.status !== 200) return answer;
        const body = answer.body as Body;
        const answers = body.states.map((state, index) => ({
            shape: body.shapes[index], state: short(state), score: body.scores[index], error: body.errors[index],
        }));
        answers.forEach((one, index) => {
            const ask = { frame, shape: shapes[index] ?? null, state: states[index] ?? null };
            if (!seen.has(keyOf(ask))) into.push({ ask, answer: one });
            seen.add(keyOf(ask));
        });
        return { status: 200, body: { ...body, states: answers.map(({ state }) => state) } };
    };
}

export function replaying(recorded: Recorded[]): Invoke {
    const answers = new Map(recorded.map(({ ask, answer }) => [keyOf(ask), answer]));
    return async (frame, { shapes, states }) => {
        const said = shapes.map((shape, index) => {
            const ask = { frame, shape: shape ?? null, state: states[index] ?? null };
            const answer = answers.get(keyOf(ask));
            if (!answer) throw new Error(`not recorded (npm run record): ${keyOf(ask).slice(0, 120)}`);
            return answer;
        });
        return {
            status: 200,
            body: {
                shapes: said.map(({ shape }) => shape),
                states: said.map(({ state }) => state),
                scores: said.map(({ score }) => score),
                errors: said.map(({ error }) => error),
            },
        };
    };
}
